/* SPDX-License-Identifier: MIT */
/* What handlers ask of a request: headers, bodies, pages, names, and the address it was sent to. */
#include "http/request.h"

#include "core/names.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

const char *request_header(struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

bool request_json(struct request *r)
{
	struct ota_err err;

	if (json_body_parse(r->body.data ? r->body.data : "", r->body.len, &r->json, &err) ==
	    OTA_OK)
		return true;
	if (err.code == OTA_EINVAL) {
		field_errors_add(&r->errors, "body", NULL, FIELD_TYPE_JSON, "%s", err.msg);
		respond_fields(r);
	} else {
		respond_err(r, &err);
	}
	return false;
}

bool request_json_if_any(struct request *r)
{
	if (r->body.len > 0)
		return request_json(r);
	r->json = json_object();
	if (!r->json)
		respond_error(r, OTA_ENOMEM, "out of memory");
	return r->json != NULL;
}

bool request_rollout_id(struct request *r, int64_t *id)
{
	char *end;

	errno = 0;
	*id = strtoll(r->args[0], &end, 10);
	if (errno == 0 && *id > 0 && *end == '\0' && r->args[0][0] >= '0' && r->args[0][0] <= '9')
		return true;
	field_errors_add(&r->errors, "path", "rollout_id", FIELD_TYPE_INTEGER,
			 "must be the whole number that rollout/create answered");
	respond_fields(r);
	return false;
}

bool request_device_id(struct request *r, const char *id)
{
	const char *wrong = name_device_id_error(id);

	if (!wrong)
		return true;
	field_errors_add(&r->errors, "path", "device_id", FIELD_TYPE_VALUE, "%s", wrong);
	respond_fields(r);
	return false;
}

struct list_query *request_list(struct request *r)
{
	const char *cursor = query_get(&r->query, "cursor");
	struct list_query *q = calloc(1, sizeof *q);
	int64_t limit = 100;

	if (!q) {
		respond_error(r, OTA_ENOMEM, "out of memory");
		return NULL;
	}
	r->memory = q;
	q->active = -1;
	field_query_int(&r->errors, &r->query, "limit", false, 1, 1000, &limit);
	q->limit = (int)limit;
	if (cursor && cursor[0]) {
		char *end;
		errno = 0;
		q->before_id = strtoll(cursor, &end, 10);
		if (errno != 0 || *end || q->before_id <= 0 || cursor[0] == ' ' || cursor[0] == '+')
			field_errors_add(&r->errors, "query", "cursor", FIELD_TYPE_VALUE,
					 "take it from next_cursor of the page before, as it is");
	}
	if (!field_errors_any(&r->errors))
		return q;
	respond_fields(r);
	return NULL;
}

enum next request_list_done(struct request *r)
{
	return r->job_code == OTA_OK ? NEXT_ANSWER : respond_err(r, &r->job_err);
}

const char *request_filter(struct request *r, const char *name)
{
	const char *v = query_get(&r->query, name);

	return v && v[0] ? v : NULL;
}

bool request_reason(struct request *r)
{
	const char *why = request_filter(r, "reason");

	if (why && field_text_length(why) > REASON_MAX)
		field_errors_add(&r->errors, "query", "reason", FIELD_TYPE_VALUE,
				 "has more than %d characters", REASON_MAX);
	r->command.why = why;
	return !field_errors_any(&r->errors);
}

const char *request_name_filter(struct request *r, const char *name)
{
	const struct query_param *p = query_find(&r->query, name);

	if (p && p->plus_seen)
		field_errors_add(&r->errors, "query", name, FIELD_TYPE_VALUE,
				 "contains a '+', which must be written %%2B in a query (and a "
				 "space %%20)");
	return request_filter(r, name);
}

static bool is_host_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '-' || c == '_' || c == ':' || c == '[' || c == ']';
}

static bool host_is_sane(const char *host)
{
	size_t n = 0;

	while (n <= 100 && is_host_char(host[n]))
		n++;
	return n > 0 && n <= 100 && host[n] == '\0';
}

void request_base_url(struct request *r, char *out, size_t size)
{
	const char *url = r->server->cfg->public_url, *host = request_header(r, "Host");
	struct sockaddr_storage own;
	socklen_t len = sizeof own;
	char name[64];

	if (url[0]) {
		size_t n = strlen(url);
		while (n > 0 && url[n - 1] == '/')
			n--;
		snprintf(out, size, "%.*s", (int)n, url);
		return;
	}
	const char *proto = request_forwarded(r, "X-Forwarded-Proto"),
		   *asked = request_forwarded(r, "X-Forwarded-Host");
	if (asked && host_is_sane(asked))
		host = asked;
	if (host && host_is_sane(host)) {
		snprintf(out, size, "%s://%s",
			 proto && strcmp(proto, "https") == 0 ? "https" : "http", host);
		return;
	}
	/* HTTP/1.0 without Host: the address that the device reached. */
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	if (info && getsockname(info->connect_fd, (struct sockaddr *)&own, &len) == 0 &&
	    getnameinfo((struct sockaddr *)&own, len, name, sizeof name, NULL, 0, NI_NUMERICHOST) ==
		    0) {
		const char *v4 = strncmp(name, "::ffff:", 7) == 0 ? name + 7 : name;
		snprintf(out, size, strchr(v4, ':') ? "http://[%s]:%d" : "http://%s:%d", v4,
			 r->server->port);
		return;
	}
	snprintf(out, size, "http://127.0.0.1:%d", r->server->port);
}
