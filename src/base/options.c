/* SPDX-License-Identifier: MIT */
#include "base/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h> /* environ */

#define SECRET_MAX 4096

static const char *value_of(const struct option *o, const char **named)
{
	const char *v = getenv(o->name);

	*named = o->name;
	if ((!v || !v[0]) && o->alias) {
		v = getenv(o->alias);
		*named = o->alias;
	}
	if (v && v[0])
		return v;
	*named = o->name;
	return o->fallback;
}

/* A whole decimal number with, for bytes, one of K M G behind it (powers of 1024). */
static bool parse_number(const char *text, bool bytes, int64_t *out)
{
	char *end;

	errno = 0;
	long long v = strtoll(text, &end, 10);
	if (errno != 0 || end == text || text[0] == ' ' || text[0] == '+')
		return false;
	int64_t unit = 1;
	if (bytes && *end) {
		const char *at = strchr("KMG", *end & ~32);
		if (!at || (end[1] != '\0' && strcmp(end + 1, "iB") != 0))
			return false;
		unit = INT64_C(1) << (10 * (at - "KMG" + 1));
		end = (char *)(uintptr_t) "";
	}
	return *end == '\0' && !__builtin_mul_overflow((int64_t)v, unit, out);
}

static enum ota_code load_number(const struct option *o, const char *named, const char *text,
				 int64_t *field, struct ota_err *err)
{
	int64_t v;

	if (!parse_number(text, o->type == OPTION_BYTES, &v) || v < o->min || v > o->max)
		return ota_fail(err, OTA_EINVAL,
				"%s is '%s', but must be a whole number from %" PRId64
				" to %" PRId64 "%s%s%s",
				named, text, o->min, o->max, o->unit ? " " : "",
				o->unit ? o->unit : "",
				o->type == OPTION_BYTES ? ", or one with K, M or G behind it" : "");
	*field = v;
	return OTA_OK;
}

static enum ota_code load_word(const struct option *o, const char *named, const char *text,
			       int *field, struct ota_err *err)
{
	char allowed[200] = "";

	for (int i = 0; o->words[i]; i++) {
		if (strcmp(o->words[i], text) == 0) {
			*field = i;
			return OTA_OK;
		}
		size_t used = strlen(allowed);
		snprintf(allowed + used, sizeof allowed - used, "%s%s", i ? ", " : "", o->words[i]);
	}
	return ota_fail(err, OTA_EINVAL, "%s is '%s', but must be one of: %s", named, text,
			allowed);
}

/* A file is what containers and systemd hand secrets over in; an environment is easily seen. */
static enum ota_code read_secret(const char *variable, const char *path, char **out,
				 struct ota_err *err)
{
	char line[SECRET_MAX + 2];
	FILE *f = fopen(path, "re");
	size_t n = 0;

	if (!f) {
		ota_fail_errno(err, errno, "%s names %s, which cannot be read", variable, path);
		return err->code = OTA_EINVAL;
	}
	errno = 0;
	if (fgets(line, sizeof line, f))
		n = strcspn(line, "\r\n");
	if (ferror(f)) { /* a folder can be opened */
		ota_fail_errno(err, errno, "%s names %s, which cannot be read", variable, path);
		fclose(f);
		return err->code = OTA_EINVAL;
	}
	fclose(f);
	if (n == 0 || n > SECRET_MAX)
		return ota_fail(err, OTA_EINVAL,
				"%s names %s, whose first line is empty or longer than %d bytes",
				variable, path, SECRET_MAX);
	*out = strndup(line, n);
	return *out ? OTA_OK : ota_fail_nomem(err);
}

static enum ota_code load_secret(const struct option *o, const char *named, const char *text,
				 char **field, struct ota_err *err)
{
	char variable[80];

	snprintf(variable, sizeof variable, "%s_FILE", o->name);
	const char *path = getenv(variable);
	if (!path || !path[0]) {
		*field = strdup(text ? text : "");
		return *field ? OTA_OK : ota_fail_nomem(err);
	}
	if (text)
		return ota_fail(err, OTA_EINVAL, "both %s and %s are set: one is enough", named,
				variable);
	return read_secret(variable, path, field, err);
}

static enum ota_code load_one(const struct option *o, void *into, struct ota_err *err)
{
	void *field = (char *)into + o->offset;
	const char *named, *text = value_of(o, &named);

	switch (o->type) {
	case OPTION_TEXT:
		*(char **)field = strdup(text ? text : "");
		return *(char **)field ? OTA_OK : ota_fail_nomem(err);
	case OPTION_SECRET: return load_secret(o, named, text, field, err);
	case OPTION_INT:
	case OPTION_BYTES: return load_number(o, named, text, field, err);
	case OPTION_WORD: return load_word(o, named, text, field, err);
	}
	return OTA_OK;
}

enum ota_code options_load(const struct option *table, size_t count, void *into,
			   struct ota_err *err)
{
	for (size_t i = 0; i < count; i++) {
		enum ota_code rc = load_one(&table[i], into, err);
		if (rc != OTA_OK) {
			options_free(table, count, into);
			return rc;
		}
	}
	return OTA_OK;
}

static bool is_known(const struct option *table, size_t count, const char *variable)
{
	size_t len = strcspn(variable, "=");

	for (size_t i = 0; i < count; i++)
		for (int k = 0; k < 2; k++) {
			const char *name = k ? table[i].alias : table[i].name;
			if (name && strncmp(name, variable, len) == 0 && name[len] == '\0')
				return true;
			/* With NAME_FILE: NAME_FILE begins with NAME. */
			size_t n = name ? strlen(name) : 0;
			if (n && table[i].type == OPTION_SECRET && !k && len == n + 5 &&
			    strncmp(name, variable, n) == 0 &&
			    strncmp(variable + n, "_FILE", 5) == 0)
				return true;
		}
	return false;
}

const char *options_unknown(const struct option *table, size_t count, const char *prefix,
			    size_t *at)
{
	for (const char *v; (v = environ[*at]) != NULL; (*at)++)
		if (strncmp(v, prefix, strlen(prefix)) == 0 && !is_known(table, count, v)) {
			(*at)++;
			return v;
		}
	return NULL;
}

void options_free(const struct option *table, size_t count, void *from)
{
	for (size_t i = 0; i < count; i++)
		if (table[i].type == OPTION_TEXT || table[i].type == OPTION_SECRET) {
			char **field = (char **)(void *)((char *)from + table[i].offset);
			free(*field);
			*field = NULL;
		}
}

/* Text in lines of up to 72 characters behind an indent of 6. */
static void print_wrapped(const char *text, FILE *out)
{
	size_t column = 0;

	while (*text) {
		size_t word = strcspn(text, " ");
		if (column == 0 || column + 1 + word > 72) {
			fprintf(out, "%s      ", column ? "\n" : "");
			column = 0;
		} else {
			fputc(' ', out);
			column++;
		}
		fwrite(text, 1, word, out);
		column += word;
		text += word;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

void options_print(const struct option *table, size_t count, FILE *out)
{
	for (size_t i = 0; i < count; i++) {
		const struct option *o = &table[i];
		fprintf(out, "  %s", o->name);
		if (o->alias)
			fprintf(out, " (also %s)", o->alias);
		if (o->type == OPTION_SECRET)
			fprintf(out, " (or %s_FILE)", o->name);
		for (int w = 0; o->words && o->words[w]; w++)
			fprintf(out, "%s%s", w ? "|" : "=", o->words[w]);
		if (o->fallback)
			fprintf(out, "  [%s%s%s]", o->fallback, o->unit ? " " : "",
				o->unit ? o->unit : "");
		fputc('\n', out);
		print_wrapped(o->doc, out);
	}
}
