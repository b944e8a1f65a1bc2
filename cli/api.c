/* SPDX-License-Identifier: MIT */
/* See api.h. */
#include "cli/api.h"
#include "cli/term.h"
#include "cli/text.h"
#include "base/clock.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX 1000

void cli_hint(struct cli *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->hint, sizeof(c->hint), fmt, ap);
	va_end(ap);
}

int64_t cli_now_us(const struct cli *c)
{
	if (!c->service_us)
		return clock_wall_us();
	return c->service_us + (clock_mono_ms() - c->service_mono_ms) * 1000;
}

void api_url(const struct cli *c, struct buf *url, const char *path)
{
	buf_reset(url);
	buf_adds(url, c->server);
	buf_adds(url, path);
}

const char *api_str(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

int64_t api_int(const json_t *object, const char *key, int64_t fallback)
{
	const json_t *v = json_object_get(object, key);

	return json_is_integer(v) ? (int64_t)json_integer_value(v) : fallback;
}

bool api_true(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

void api_mistake(const json_t *item, struct buf *out)
{
	const json_t *loc = json_object_get(item, "loc"), *step;
	const char *msg = api_str(item, "msg"), *sep = "";
	size_t i;

	/* The first step says where in the request it stood; our user has not written the request.
	 */
	json_array_foreach(loc, i, step)
	{
		if (json_is_integer(step))
			buf_printf(out, "%s%" JSON_INTEGER_FORMAT, sep, json_integer_value(step));
		else if (i > 0 && json_is_string(step))
			buf_printf(out, "%s%s", sep, json_string_value(step));
		else
			continue;
		sep = " ";
	}
	buf_printf(out, "%s%s", *sep ? ": " : "", msg ? msg : "not accepted");
}

static enum ota_code code_of(long status)
{
	switch (status) {
	case 401:
	case 403: return OTA_EAUTH;
	case 404: return OTA_ENOTFOUND;
	case 409: return OTA_ECONFLICT;
	case 410: return OTA_EGONE;
	case 413: return OTA_ETOOLARGE;
	default: return status >= 500 ? OTA_EUNAVAIL : OTA_EUNPROCESSABLE;
	}
}

static enum ota_code refused_key(struct cli *c, const char *sentence, struct ota_err *err)
{
	cli_hint(c, "paku-ota login %s    (or set OTA_API_KEY)", c->server);
	if (!c->key)
		return ota_fail(err, OTA_EAUTH, "no key for %s: the service says \"%s\"", c->server,
				sentence);
	return ota_fail(err, OTA_EAUTH, "the service refuses the key: %s", sentence);
}

/* An answer other than 2xx. */
static enum ota_code refusal(struct cli *c, const struct http_reply *r, json_t *json,
			     struct ota_err *err)
{
	const json_t *detail = json_object_get(json, "detail");
	struct buf words = BUF_INIT;
	enum ota_code code = code_of(r->status);

	if (json_is_string(detail))
		buf_adds(&words, json_string_value(detail));
	else if (json_array_size(detail)) /* the rest is printed below the sentence */
		api_mistake(json_array_get(detail, 0), &words);
	else if (api_str(json, "reason"))
		buf_adds(&words, api_str(json, "reason"));
	if (!words.len) {
		buf_fini(&words);
		cli_hint(c, "paku-ota --server URL names another");
		if (r->location[0])
			return ota_fail(err, OTA_EIO,
					"%s answers %ld and points to %s; give that as --server",
					c->server, r->status, r->location);
		return ota_fail(err, OTA_EIO,
				"%s answers %ld without a reason; is it a Paku OTA "
				"service?",
				c->server, r->status);
	}
	if (code == OTA_EAUTH)
		refused_key(c, words.data, err);
	else
		ota_fail(err, code, "%s", words.data);
	buf_fini(&words);
	return code;
}

static enum ota_code take_answer(struct cli *c, const struct http_reply *r, json_t **out,
				 struct ota_err *err)
{
	json_t *json = NULL;

	if (r->body.len)
		json = json_loadb(r->body.data, r->body.len, JSON_ALLOW_NUL | JSON_DECODE_ANY,
				  NULL);
	if (r->status < 200 || r->status > 299) {
		refusal(c, r, json, err);
		json_decref(c->refusal);
		c->refusal = json;
		return err->code;
	}
	if (!json_is_object(json)) {
		json_decref(json);
		cli_hint(c, "paku-ota --server URL names another");
		return ota_fail(
			err, OTA_EIO,
			"%s answers with something else than JSON; is it a Paku OTA service?",
			c->server);
	}
	if (out)
		*out = json;
	else
		json_decref(json);
	return OTA_OK;
}

enum ota_code api_send(struct cli *c, struct buf *url, struct http_request *q, json_t **out,
		       struct ota_err *err)
{
	struct http_reply reply;
	enum ota_code code;

	if (out)
		*out = NULL;
	if (!buf_ok(url))
		return ota_fail_nomem(err);
	q->url = url->data;
	q->key = c->key;
	code = http_send(c->http, q, &reply, err);
	if (code == OTA_OK) {
		if (reply.date_us) {
			c->service_us = reply.date_us;
			c->service_mono_ms = clock_mono_ms();
		}
		if (!q->save || reply.status < 200 || reply.status > 299)
			code = take_answer(c, &reply, out, err);
		buf_fini(&reply.body);
	} else if (code == OTA_EIO) {
		cli_hint(c, "is it running? --server URL or OTA_SERVICE_URL names another");
		ota_wrap(err, "cannot reach %s", c->server);
	}
	buf_fini(url);
	return code;
}

enum ota_code api_get_text(struct cli *c, struct buf *url, struct buf *out, struct ota_err *err)
{
	struct http_request q = {.method = "GET", .accept = "*/*", .key = c->key, .url = url->data};
	struct http_reply reply;
	enum ota_code code = buf_ok(url) ? OTA_OK : ota_fail_nomem(err);

	if (code == OTA_OK)
		code = http_send(c->http, &q, &reply, err);
	buf_fini(url);
	if (code == OTA_EIO) {
		cli_hint(c, "is it running? --server URL or OTA_SERVICE_URL names another");
		ota_wrap(err, "cannot reach %s", c->server);
	}
	if (code != OTA_OK)
		return code;
	if (reply.status < 200 || reply.status > 299)
		code = take_answer(c, &reply, NULL, err);
	if (code == OTA_OK)
		*out = reply.body;
	else
		buf_fini(&reply.body);
	return code;
}

enum ota_code api_get(struct cli *c, struct buf *url, json_t **out, struct ota_err *err)
{
	struct http_request q = {.method = "GET"};

	return api_send(c, url, &q, out, err);
}

enum ota_code api_call(struct cli *c, const char *method, struct buf *url, json_t *body,
		       json_t **out, struct ota_err *err)
{
	struct http_request q = {.method = method};
	enum ota_code code;
	char *text = NULL;

	if (body) {
		text = json_dumps(body, JSON_COMPACT);
		json_decref(body);
		if (!text) {
			buf_fini(url);
			return ota_fail_nomem(err);
		}
		q.body = text;
		q.body_len = strlen(text);
		q.content_type = "application/json";
	} else if (strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0) {
		q.body = "";
	}
	code = api_send(c, url, &q, out, err);
	free(text);
	return code;
}

/* One page; appends its rows to ROWS and sets *CURSOR (NULL at the end, else free()). */
static enum ota_code read_page(struct cli *c, const struct buf *base, const char *list,
			       int64_t limit, json_t *rows, char **cursor, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *page = NULL, *more;
	char *sent = *cursor;
	const char *next;
	enum ota_code code;

	buf_add(&url, base->data, base->len);
	url_query_int(&url, "limit", limit);
	url_query(&url, "cursor", sent);
	*cursor = NULL;
	code = api_get(c, &url, &page, err);
	if (code != OTA_OK)
		goto out;
	more = json_object_get(page, list);
	next = api_str(page, "next_cursor");
	if (!json_is_array(more))
		code = ota_fail(err, OTA_EIO, "the answer of %s has no list \"%s\"", c->server,
				list);
	else if (next && sent && strcmp(sent, next) == 0)
		code = ota_fail(err, OTA_EIO, "%s sends pages without end", c->server);
	else if (json_array_extend(rows, more) != 0 || (next && !(*cursor = strdup(next))))
		code = ota_fail_nomem(err);
	json_decref(page);
out:
	free(sent);
	return code;
}

enum ota_code api_list(struct cli *c, struct buf *url, const char *list, int64_t max, json_t **out,
		       struct ota_err *err)
{
	json_t *rows = json_array(), *merged = NULL;
	char *cursor = NULL;
	enum ota_code code = OTA_OK;

	*out = NULL;
	if (!rows || !buf_ok(url))
		code = ota_fail_nomem(err);
	while (code == OTA_OK) {
		int64_t have = (int64_t)json_array_size(rows), left = max ? max - have : PAGE_MAX;

		code = read_page(c, url, list, left < PAGE_MAX ? left : PAGE_MAX, rows, &cursor,
				 err);
		if (code != OTA_OK || !cursor || (max && (int64_t)json_array_size(rows) >= max))
			break;
	}
	if (code == OTA_OK) {
		merged = json_pack("{s:O,s:s?}", list, rows, "next_cursor", cursor);
		if (!merged)
			code = ota_fail_nomem(err);
	}
	*out = merged;
	free(cursor);
	json_decref(rows);
	buf_fini(url);
	return code;
}

static bool is_number(const char *s)
{
	size_t n = strlen(s);

	return n > 0 && n < 18 && strspn(s, "0123456789") == n;
}

enum ota_code api_rollout_id(struct cli *c, const char *word, int64_t *id, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer, *row;
	enum ota_code code;
	size_t i;

	if (is_number(word)) {
		*id = strtoll(word, NULL, 10);
		return OTA_OK;
	}
	api_url(c, &url, "/api/admin/rollouts");
	code = api_list(c, &url, "rollouts", 0, &answer, err);
	if (code != OTA_OK)
		return code;
	code = OTA_ENOTFOUND;
	json_array_foreach(json_object_get(answer, "rollouts"), i, row)
	{
		const char *name = api_str(row, "name");

		if (name && strcmp(name, word) == 0) {
			*id = api_int(row, "id", -1);
			code = OTA_OK;
			break;
		}
	}
	json_decref(answer);
	if (code != OTA_OK) {
		cli_hint(c, "paku-ota rollout list    shows them all");
		return ota_fail(err, OTA_ENOTFOUND, "no rollout is named '%s'", word);
	}
	return OTA_OK;
}

enum ota_code api_print_json(const json_t *json, struct ota_err *err)
{
	size_t layout = term_is_tty(stdout) ? JSON_INDENT(2) : JSON_COMPACT;
	char *text = json_dumps(json, layout | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
	struct buf out = BUF_INIT;
	enum ota_code code = OTA_OK;

	if (text)
		text_clean_json(&out, text, strlen(text));
	buf_addc(&out, '\n');
	if (!text || !buf_ok(&out))
		code = ota_fail_nomem(err);
	else
		fwrite(out.data, 1, out.len, stdout);
	free(text);
	buf_fini(&out);
	return code;
}
