/* SPDX-License-Identifier: MIT */
#include "core/version.h"

#include <stddef.h>
#include <string.h>

struct span {
	const char *p;
	size_t n;
};

struct semver {
	struct span number[3];
	struct span pre; /* n == 0: a release */
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static const char *skip_v(const char *s)
{
	return s[0] == 'v' && s[1] ? s + 1 : s;
}

static bool is_ident_char(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
}

static bool all_digits(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is_digit(s.p[i]))
			return false;
	return s.n > 0;
}

/* Takes the next dot-separated identifier off REST; false at the end. */
static bool next_ident(struct span *rest, struct span *out)
{
	if (!rest->p)
		return false;
	const char *dot = memchr(rest->p, '.', rest->n);
	out->p = rest->p;
	out->n = dot ? (size_t)(dot - rest->p) : rest->n;
	rest->n = dot ? rest->n - out->n - 1 : 0;
	rest->p = dot ? dot + 1 : NULL;
	return true;
}

/* Dot-separated identifiers, none empty; NUMBERS_STRICT: numeric ones have no leading zero. */
static bool idents_valid(struct span s, bool numbers_strict)
{
	struct span id;

	while (next_ident(&s, &id)) {
		if (id.n == 0)
			return false;
		for (size_t i = 0; i < id.n; i++)
			if (!is_ident_char(id.p[i]))
				return false;
		if (numbers_strict && id.n > 1 && id.p[0] == '0' && all_digits(id))
			return false;
	}
	return true;
}

static bool semver_parse(const char *s, struct semver *v)
{
	memset(v, 0, sizeof *v);
	for (int i = 0; i < 3; i++) {
		v->number[i].p = s;
		while (is_digit(*s))
			s++;
		v->number[i].n = (size_t)(s - v->number[i].p);
		if (v->number[i].n == 0 || (v->number[i].n > 1 && v->number[i].p[0] == '0'))
			return false;
		if (i < 2 && *s++ != '.')
			return false;
	}
	if (*s == '-') {
		v->pre.p = ++s;
		v->pre.n = strcspn(s, "+");
		if (!idents_valid(v->pre, true))
			return false;
		s += v->pre.n;
	}
	if (*s == '+') {
		struct span build = {s + 1, strlen(s + 1)};
		return idents_valid(build, false);
	}
	return *s == '\0';
}

static int sign(int x)
{
	return (x > 0) - (x < 0);
}

/* Decimal numbers without leading zeros, of any length. */
static int compare_numbers(struct span a, struct span b)
{
	if (a.n != b.n)
		return a.n < b.n ? -1 : 1;
	return sign(memcmp(a.p, b.p, a.n));
}

static int compare_idents(struct span a, struct span b)
{
	bool an = all_digits(a), bn = all_digits(b);

	if (an && bn)
		return compare_numbers(a, b);
	if (an != bn)
		return an ? -1 : 1;
	size_t n = a.n < b.n ? a.n : b.n;
	int c = memcmp(a.p, b.p, n);
	if (c != 0)
		return sign(c);
	return (a.n > b.n) - (a.n < b.n);
}

static int compare_pre(struct span a, struct span b)
{
	struct span x = {"", 0}, y = {"", 0};

	if (a.n == 0 || b.n == 0)
		return (a.n == 0) - (b.n == 0); /* a release comes after its pre-releases */
	for (;;) {
		bool more_a = next_ident(&a, &x), more_b = next_ident(&b, &y);
		if (!more_a || !more_b)
			return more_a - more_b;
		int c = compare_idents(x, y);
		if (c != 0)
			return c;
	}
}

/* {hash7}-{YYYYMMDD-HHMMSS}: returns the 15 characters of the time stamp, or NULL. */
static const char *commit_stamp(const char *s)
{
	if (strlen(s) != 7 + 1 + 15 || s[7] != '-' || s[16] != '-')
		return NULL;
	for (int i = 0; i < 7; i++)
		if (!is_digit(s[i]) && !(s[i] >= 'a' && s[i] <= 'f'))
			return NULL;
	for (int i = 8; i < 23; i++)
		if (i != 16 && !is_digit(s[i]))
			return NULL;
	return s + 8;
}

enum version_order version_compare(const char *a, const char *b)
{
	struct semver x, y;

	a = skip_v(a);
	b = skip_v(b);
	if (semver_parse(a, &x) && semver_parse(b, &y)) {
		int c = 0;
		for (int i = 0; i < 3 && c == 0; i++)
			c = compare_numbers(x.number[i], y.number[i]);
		return (enum version_order)(c != 0 ? c : compare_pre(x.pre, y.pre));
	}
	const char *ta = commit_stamp(a), *tb = commit_stamp(b);
	if (ta && tb)
		return (enum version_order)sign(memcmp(ta, tb, 15));
	return VERSION_INCOMPARABLE;
}

bool version_equal(const char *a, const char *b)
{
	return strcmp(skip_v(a), skip_v(b)) == 0;
}
