/* SPDX-License-Identifier: MIT */
#include "json/json_body.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ the scan before jansson */

/*
 * Walks the body once, copies it with raw control characters inside strings escaped, and keeps
 * count of where it is.  A second walk with STOP_AT turns a place in the copy, which is what
 * jansson reports, back into a line and column of what the client sent.
 */
struct scan {
	struct buf *copy; /* NULL: only count */
	size_t copied, stop_at;
	size_t line, column;
	int depth;
	bool in_string, escaped;
};

static enum ota_code fail_at(const struct scan *s, struct ota_err *err, const char *what)
{
	return ota_fail(err, OTA_EINVAL, "the body is not valid JSON: %s, line %zu, column %zu",
			what, s->line, s->column);
}

static void put(struct scan *s, char c)
{
	static const char hex[] = "0123456789abcdef";

	/* After a backslash a raw newline is left as it stands, for jansson to refuse. */
	if (s->in_string && !s->escaped && (unsigned char)c < 0x20) {
		const char u[6] = {'\\', 'u', '0', '0', hex[(c >> 4) & 15], hex[c & 15]};
		if (s->copy)
			buf_add(s->copy, u, sizeof u);
		s->copied += sizeof u;
		return;
	}
	if (s->copy)
		buf_addc(s->copy, c);
	s->copied++;
}

static void step(struct scan *s, char c)
{
	if (s->in_string) {
		if (s->escaped)
			s->escaped = false;
		else if (c == '\\')
			s->escaped = true;
		else if (c == '"')
			s->in_string = false;
	} else if (c == '"') {
		s->in_string = true;
	} else if (c == '{' || c == '[') {
		s->depth++;
	} else if (c == '}' || c == ']') {
		s->depth--;
	}
	if (c == '\n') {
		s->line++;
		s->column = 1;
	} else {
		s->column++;
	}
}

static enum ota_code scan(struct scan *s, const char *data, size_t len, struct ota_err *err)
{
	for (size_t i = 0; i < len; i++) {
		char c = data[i];
		if (c == '\0')
			return fail_at(s, err, "it has a NUL byte");
		if (!s->in_string && (c == '{' || c == '[') && s->depth >= JSON_BODY_MAX_DEPTH)
			return fail_at(s, err, "it is nested deeper than 32 levels");
		put(s, c);
		if (s->copied >= s->stop_at)
			break;
		step(s, c);
	}
	return OTA_OK;
}
_Static_assert(JSON_BODY_MAX_DEPTH == 32, "the sentence above says 32");

/* ------------------------------------------------------------------ parsing */

/*
 * Without memory for a token jansson says that the text is wrong, or leaves characters out of a
 * string and calls that a success.  So its allocations are watched: a client is never blamed for
 * what this machine lacks, and what it said is taken whole or not at all.
 */
static _Thread_local bool out_of_memory;

static void *watched_malloc(size_t size)
{
	void *p = malloc(size);

	if (!p)
		out_of_memory = true;
	return p;
}

static void watch_allocations(void)
{
	json_set_alloc_funcs(watched_malloc, free);
}

/* jansson's own text where it adds something ("'}' expected near ..."), ours where it does not. */
static const char *what_failed(const json_error_t *e)
{
	switch (json_error_code(e)) {
	case json_error_premature_end_of_input: return "it ends too early";
	case json_error_end_of_input_expected: return "something follows its end";
	case json_error_duplicate_key: return "a key is given twice";
	case json_error_numeric_overflow: return "a number is too large";
	case json_error_invalid_utf8: return "it is not UTF-8";
	case json_error_null_character:
	case json_error_null_byte_in_key: return "it has a NUL character (\\u0000)";
	default: return e->text;
	}
}

/* jansson quotes the token it stumbled over, line breaks and all, and ends inside a character. */
static void flatten(char *sentence)
{
	for (char *p = sentence; *p;) {
		unsigned char c = (unsigned char)*p;
		size_t n = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
		if (c < 0x20) {
			*p = ' ';
		} else if (strnlen(p, n) < n || !utf8_valid(p, n)) {
			*p = '?';
			n = 1;
		}
		p += n;
	}
}

static enum ota_code fail_parse(const json_error_t *e, const char *data, size_t len,
				struct ota_err *err)
{
	/*
	 * The position counts the bytes read, so it names the last byte of the offending token; a
	 * byte that is not UTF-8 has not been read yet.
	 */
	size_t at = e->position > 0 ? (size_t)e->position : 0;
	at += json_error_code(e) == json_error_invalid_utf8;
	struct scan s = {.line = 1, .column = 1, .stop_at = at ? at : 1};

	/* Where an allocation failed jansson often leaves no text at all, or one that misleads. */
	if (out_of_memory || json_error_code(e) == json_error_out_of_memory || e->text[0] == '\0')
		return ota_fail_nomem(err);
	enum ota_code code = scan(&s, data, len, err);
	if (!code)
		code = fail_at(&s, err, what_failed(e));
	if (err)
		flatten(err->msg);
	return code;
}

static const char *type_word(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "an array";
	case JSON_STRING: return "a string";
	case JSON_INTEGER: return "a number";
	case JSON_REAL: return "a number with a decimal point or exponent";
	case JSON_TRUE:
	case JSON_FALSE: return "a boolean";
	case JSON_NULL: return "null";
	}
	return "something else";
}

/* ------------------------------------------------------------------ what devices send */

/*
 * One object of strings without escapes and small whole numbers, which is what devices send,
 * becomes the tree without jansson's lexer: that takes four times as long as all the rest.  NULL
 * where the text is anything else, or wrong, or memory is short: jansson reads it then, and finds
 * the words for what is wrong.
 */
struct plain {
	const char *p, *end;
};

static void skip_space(struct plain *t)
{
	while (t->p < t->end && (*t->p == ' ' || *t->p == '\n' || *t->p == '\t' || *t->p == '\r'))
		t->p++;
}

static bool skip_char(struct plain *t, char c)
{
	skip_space(t);
	if (t->p == t->end || *t->p != c)
		return false;
	t->p++;
	return true;
}

static bool skip_word(struct plain *t, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(t->end - t->p) < n || memcmp(t->p, word, n) != 0)
		return false;
	t->p += n;
	return true;
}

static bool plain_string(struct plain *t, const char **at, size_t *len)
{
	if (!skip_char(t, '"'))
		return false;
	const char *begin = t->p;
	bool ascii = true;
	while (t->p < t->end && *t->p != '"') {
		unsigned char c = (unsigned char)*t->p++;
		if (c < 0x20 || c == '\\')
			return false;
		ascii &= c < 0x80;
	}
	if (t->p == t->end)
		return false;
	*at = begin;
	*len = (size_t)(t->p++ - begin);
	return ascii || utf8_valid(begin, *len);
}

static json_t *plain_number(struct plain *t)
{
	const char *begin = t->p;
	json_int_t n = 0;

	while (t->p < t->end && *t->p >= '0' && *t->p <= '9' && t->p - begin < 18)
		n = n * 10 + (*t->p++ - '0');
	/* Neither "007", nor a longer one, nor one that goes on as "1.5" and "1e3" do. */
	if (t->p == begin || (*begin == '0' && t->p - begin > 1) || t->p == t->end ||
	    !strchr(" \n\t\r,}", *t->p))
		return NULL;
	return json_integer(n);
}

static json_t *plain_value(struct plain *t)
{
	const char *text;
	size_t len;

	skip_space(t);
	if (t->p < t->end && *t->p == '"')
		return plain_string(t, &text, &len) ? json_stringn_nocheck(text, len) : NULL;
	if (skip_word(t, "true"))
		return json_true();
	if (skip_word(t, "false"))
		return json_false();
	if (skip_word(t, "null"))
		return json_null();
	return plain_number(t);
}

/* One member, put into OBJECT. */
static bool plain_member(struct plain *t, json_t *object)
{
	const char *key;
	size_t len;
	json_t *value;

	if (!plain_string(t, &key, &len) || json_object_getn(object, key, len) ||
	    !skip_char(t, ':'))
		return false;
	value = plain_value(t);
	return value && json_object_setn_new_nocheck(object, key, len, value) == 0;
}

static json_t *parse_plain(const char *data, size_t len)
{
	struct plain t = {data, data + len};

	if (!skip_char(&t, '{'))
		return NULL;
	json_t *object = json_object();
	bool good = object != NULL;
	do
		good = good && plain_member(&t, object);
	while (good && skip_char(&t, ','));
	good = good && skip_char(&t, '}');
	skip_space(&t);
	if (good && t.p == t.end)
		return object;
	json_decref(object);
	return NULL;
}

/* ------------------------------------------------------------------ any body */

enum ota_code json_body_parse(const char *data, size_t len, json_t **out, struct ota_err *err)
{
	static pthread_once_t watching = PTHREAD_ONCE_INIT;
	struct buf copy = BUF_INIT;
	struct scan s = {.copy = &copy, .stop_at = SIZE_MAX, .line = 1, .column = 1};
	json_error_t jerr = {0}; /* without memory for its lexer jansson does not fill it */
	json_t *root;

	*out = NULL;
	if (len >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0) {
		data += 3;
		len -= 3;
	}
	*out = parse_plain(data, len);
	if (*out)
		return OTA_OK;
	enum ota_code code = scan(&s, data, len, err);
	if (code)
		goto out;
	if (!buf_ok(&copy)) {
		code = ota_fail_nomem(err);
		goto out;
	}
	if (len == 0) {
		code = ota_fail(err, OTA_EINVAL, "the body is empty: a JSON object is expected");
		goto out;
	}
	pthread_once(&watching, watch_allocations);
	out_of_memory = false;
	root = json_loadb(copy.data, copy.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &jerr);
	if (!root || out_of_memory) {
		json_decref(root);
		code = fail_parse(&jerr, data, len, err);
		goto out;
	}
	if (!json_is_object(root)) {
		code = ota_fail(err, OTA_EINVAL, "the body must be a JSON object, not %s",
				type_word(root));
		json_decref(root);
		goto out;
	}
	*out = root;
out:
	buf_fini(&copy);
	return code;
}

/* ------------------------------------------------------------------ fields */

static struct field_loc loc_of(const struct json_fields *f, const char *name)
{
	return (struct field_loc){
		.where = "body", .under = f->under, .name = name, .index = -1, .item = f->item};
}

/* The value, or NULL after saying, where it is required, that it is missing. */
static const json_t *value_of(const struct json_fields *f, const char *name, bool required)
{
	const json_t *v = json_object_get(f->object, name);
	const struct field_loc loc = loc_of(f, name);

	if (!v && required)
		field_errors_add_at(f->errors, &loc, FIELD_TYPE_MISSING, "field required");
	else if (json_is_null(v) && required)
		field_errors_add_at(f->errors, &loc, FIELD_TYPE_NONE, "must not be null");
	return json_is_null(v) ? NULL : v;
}

static bool wrong_type(const struct json_fields *f, const char *name, const char *type,
		       const char *wanted, const json_t *v)
{
	const struct field_loc loc = loc_of(f, name);

	field_errors_add_at(f->errors, &loc, type, "must be %s, not %s", wanted, type_word(v));
	return false;
}

bool json_field_string(const struct json_fields *f, const char *name, bool required, size_t min,
		       size_t max, const char **out)
{
	const json_t *v = value_of(f, name, required);
	const struct field_loc loc = loc_of(f, name);

	if (!v)
		return false;
	if (!json_is_string(v))
		return wrong_type(f, name, FIELD_TYPE_STRING, "a string", v);
	if (!field_check_length(f->errors, &loc, json_string_value(v), min, max))
		return false;
	*out = json_string_value(v);
	return true;
}

bool json_field_int(const struct json_fields *f, const char *name, bool required, int64_t min,
		    int64_t max, int64_t *out)
{
	const json_t *v = value_of(f, name, required);
	const struct field_loc loc = loc_of(f, name);

	if (!v)
		return false;
	if (!json_is_integer(v))
		return wrong_type(f, name, FIELD_TYPE_INTEGER, "a whole number", v);
	json_int_t n = json_integer_value(v);
	if (n < min || n > max) {
		field_errors_add_at(f->errors, &loc, FIELD_TYPE_RANGE,
				    "must be between %lld and %lld (it is %lld)", (long long)min,
				    (long long)max, (long long)n);
		return false;
	}
	*out = n;
	return true;
}

bool json_field_number(const struct json_fields *f, const char *name, bool required, double *out)
{
	const json_t *v = value_of(f, name, required);

	if (!v)
		return false;
	if (!json_is_number(v))
		return wrong_type(f, name, FIELD_TYPE_NUMBER, "a number", v);
	*out = json_number_value(v);
	return true;
}

bool json_field_bool(const struct json_fields *f, const char *name, bool required, bool *out)
{
	const json_t *v = value_of(f, name, required);

	if (!v)
		return false;
	if (!json_is_boolean(v))
		return wrong_type(f, name, FIELD_TYPE_BOOL, "true or false", v);
	*out = json_is_true(v);
	return true;
}

static void add_word_error(const struct json_fields *f, const char *name, const char *const *words,
			   size_t word_count)
{
	const struct field_loc loc = loc_of(f, name);
	struct buf list = BUF_INIT;

	for (size_t i = 0; i < word_count; i++)
		buf_printf(&list, "%s%s", i ? ", " : "", words[i]);
	buf_addc(&list, '\0');
	field_errors_add_at(f->errors, &loc, FIELD_TYPE_WORD, "must be one of: %s",
			    buf_ok(&list) ? list.data : "(out of memory)");
	buf_fini(&list);
}

bool json_field_word(const struct json_fields *f, const char *name, bool required,
		     const char *const *words, size_t word_count, size_t *out)
{
	const json_t *v = value_of(f, name, required);

	if (!v)
		return false;
	for (size_t i = 0; json_is_string(v) && i < word_count; i++)
		if (strcmp(json_string_value(v), words[i]) == 0) {
			*out = i;
			return true;
		}
	add_word_error(f, name, words, word_count);
	return false;
}

bool json_field_strings(const struct json_fields *f, const char *name, bool required,
			size_t max_items, size_t min, size_t max, const json_t **out)
{
	const json_t *v = value_of(f, name, required);
	struct field_loc loc = loc_of(f, name);
	bool good = true;

	if (!v)
		return false;
	if (!json_is_array(v))
		return wrong_type(f, name, FIELD_TYPE_LIST, "a list of strings", v);
	if (json_array_size(v) > max_items) {
		field_errors_add_at(f->errors, &loc, FIELD_TYPE_ITEMS,
				    "must have at most %zu items", max_items);
		return false;
	}
	for (size_t i = 0; i < json_array_size(v); i++) {
		const json_t *item = json_array_get(v, i);
		loc.index = (int64_t)i;
		if (json_is_string(item)) {
			good &= field_check_length(f->errors, &loc, json_string_value(item), min,
						   max);
			continue;
		}
		field_errors_add_at(f->errors, &loc, FIELD_TYPE_STRING, "must be a string, not %s",
				    type_word(item));
		good = false;
	}
	if (good)
		*out = v;
	return good;
}

bool json_field_objects(const struct json_fields *f, const char *name, bool required,
			size_t max_items, const json_t **out)
{
	const json_t *v = value_of(f, name, required);
	struct field_loc loc = loc_of(f, name);
	bool good = true;

	if (!v)
		return false;
	if (!json_is_array(v))
		return wrong_type(f, name, FIELD_TYPE_LIST, "a list of objects", v);
	if (json_array_size(v) > max_items) {
		field_errors_add_at(f->errors, &loc, FIELD_TYPE_ITEMS,
				    "must have at most %zu items (it has %zu)", max_items,
				    json_array_size(v));
		return false;
	}
	for (size_t i = 0; i < json_array_size(v); i++) {
		const json_t *item = json_array_get(v, i);
		loc.index = (int64_t)i;
		if (json_is_object(item))
			continue;
		field_errors_add_at(f->errors, &loc, FIELD_TYPE_OBJECT, "must be an object, not %s",
				    type_word(item));
		good = false;
	}
	if (good)
		*out = v;
	return good;
}

bool json_field_object(const struct json_fields *f, const char *name, bool required,
		       const json_t **out)
{
	const json_t *v = value_of(f, name, required);

	if (!v)
		return false;
	if (!json_is_object(v))
		return wrong_type(f, name, FIELD_TYPE_OBJECT, "an object", v);
	*out = v;
	return true;
}
