/* SPDX-License-Identifier: MIT */
#include "http/parse/accept.h"
#include "http/parse/mime.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

/* What the header says so far about one type we can answer with. */
struct offer {
	const char *type, *any_subtype;
	int specificity; /* 0: not named, 1: any type, 2: any subtype, 3: itself */
	int q;           /* thousandths */
};

/* qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] ); anything else counts as 0. */
static int parse_q(const char *s)
{
	int q, place = 100;

	if ((*s != '0' && *s != '1') || (s[1] != '.' && s[1] != '\0'))
		return 0;
	q = (*s - '0') * 1000;
	if (s[1] == '.')
		for (s += 2; *s >= '0' && *s <= '9' && place > 0; s++, place /= 10)
			q += (*s - '0') * place;
	else
		s++;
	return *s == '\0' && q <= 1000 ? q : 0;
}

static void consider(struct offer *o, const char *range, int q)
{
	int specificity = mime_type_is(range, o->type)          ? 3
			  : mime_type_is(range, o->any_subtype) ? 2
			  : mime_type_is(range, "*/*")          ? 1
								: 0;

	if (specificity == 0 || specificity < o->specificity)
		return;
	/* The same range with other parameters (two versions of one format): the better one. */
	if (specificity > o->specificity || q > o->q)
		o->q = q;
	o->specificity = specificity;
}

/* Copies the next element of the list, commas in quotes left alone; what is too long is skipped. */
static bool next_range(const char **s, char *out, size_t size)
{
	while (**s) {
		size_t n = 0;
		bool quoted = false;
		const char *from = *s;
		for (; from[n] && (quoted || from[n] != ','); n++) {
			if (quoted && from[n] == '\\' && from[n + 1])
				n++;
			else if (from[n] == '"')
				quoted = !quoted;
		}
		*s += n + (from[n] == ',');
		if (n >= size)
			continue;
		memcpy(out, from, n);
		out[n] = '\0';
		return true;
	}
	return false;
}

bool accept_prefers_text(const char *accept)
{
	struct offer json = {.type = "application/json", .any_subtype = "application/*"};
	struct offer open = {.type = "application/openmetrics-text",
			     .any_subtype = "application/*"};
	struct offer text = {.type = "text/plain", .any_subtype = "text/*"};
	char range[256], q_text[16];

	while (accept && next_range(&accept, range, sizeof range)) {
		int q = 1000;
		switch (mime_param(range, "q", q_text, sizeof q_text)) {
		case MIME_FOUND: q = parse_q(q_text); break;
		case MIME_TOO_LONG: q = 0; break;
		case MIME_ABSENT: break;
		}
		consider(&json, range, q);
		consider(&open, range, q);
		consider(&text, range, q);
	}
	return text.q > json.q || open.q > json.q;
}
