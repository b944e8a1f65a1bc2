/* SPDX-License-Identifier: MIT */
/*
 * The life of a request: admitted or refused at its first line, fed with its body, handled,
 * suspended and resumed, answered.  Runs on libmicrohttpd's workers, and never waits there.
 */
#include "http/request.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "core/names.h"
#include "http/auth.h"
#include "http/counts.h"
#include "http/sockets.h"
#include "http/workers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a body that is refused, so much is read before the answer: a client that still sends reads
 * nothing. */
#define DISCARD_MAX              (16 * 1024 * 1024)
#define UPLOAD_LEAST_BYTES_PER_S 1024

/* --- what the end of the service waits for --- */

/* Counts, then looks: http_stop() sets `closing`, then waits for the count to be 0. */
static bool begin_work(struct request *r)
{
	r->counted_work = true;
	atomic_fetch_add(&r->server->working, 1);
	return !atomic_load(&r->server->closing);
}

static void end_work(struct request *r)
{
	if (r->counted_work)
		atomic_fetch_sub(&r->server->working, 1);
	r->counted_work = false;
}

/* --- the answer --- */

static bool add_headers(struct request *r, struct MHD_Response *m)
{
	char number[16];
	bool ok = MHD_add_response_header(m, "X-Request-Id", r->id) == MHD_YES;

	if (r->content_type)
		ok = ok && MHD_add_response_header(m, "Content-Type", r->content_type) == MHD_YES;
	if (r->status == 401)
		ok = ok && MHD_add_response_header(m, "WWW-Authenticate",
						   "ApiKey header=\"X-API-Key\"") == MHD_YES;
	if (r->allow[0])
		ok = ok && MHD_add_response_header(m, "Allow", r->allow) == MHD_YES;
	if (r->retry_after_s > 0) {
		snprintf(number, sizeof number, "%d", r->retry_after_s);
		ok = ok && MHD_add_response_header(m, "Retry-After", number) == MHD_YES;
	}
	if (atomic_load(&r->server->draining))
		ok = ok && MHD_add_response_header(m, "Connection", "close") == MHD_YES;
	return ok;
}

static const char *subject_of(const struct request *r, char *out, size_t size)
{
	snprintf(out, size, "request/%s", r->id);
	return out;
}

static void log_request(struct request *r)
{
	char subject[64];
	bool failed = r->status >= 500;
	bool changes = r->route && r->route->admin && strcmp(r->route->method, "GET") != 0;
	enum log_level level = failed ? LOG_WARNING : changes ? LOG_INFO : LOG_DEBUG;

	if (!log_enabled(level))
		return;
	bool tell = r->status >= 400 && r->out.data;
	log_event(level, subject_of(r, subject, sizeof subject), "answered", "%s %.200s %d%s%.300s",
		  r->method ? r->method : "?", r->target, r->status, tell ? " " : "",
		  tell ? r->out.data : "");
}

static enum MHD_Result answer(struct request *r)
{
	struct MHD_Response *m = r->response;
	unsigned status = (unsigned)r->status;

	r->response = NULL;
	r->answered = true;
	end_work(r);
	log_request(r);
	if (!m) {
		static char no_memory[] = "{\"detail\":\"out of memory\"}";
		size_t len;
		char *body = buf_take(&r->out, &len);
		if (!body) {
			r->status = (int)(status = 503);
			r->content_type = "application/json";
			r->retry_after_s = 5;
		}
		m = body ? MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE)
			 : MHD_create_response_from_buffer(sizeof no_memory - 1, no_memory,
							   MHD_RESPMEM_PERSISTENT);
		if (!m) {
			free(body);
			return MHD_NO;
		}
	}
	if (r->status >= 500 || r->status == 429)
		atomic_fetch_add(&r->server->server_errors_total, 1);
	if (r->tracked)
		connection_deadline(r->tracked, r->counted_download
							? r->server->cfg->download_timeout_s
							: r->server->cfg->request_timeout_s);
	if (r->tracked && r->counted_download)
		connection_image_begin(r->server->connections, r->tracked);
	enum MHD_Result rc =
		add_headers(r, m) ? MHD_queue_response(r->connection, status, m) : MHD_NO;
	MHD_destroy_response(m);
	return rc;
}

/* --- suspending --- */

static enum next answer_job_err(struct request *r)
{
	return respond_err(r, &r->job_err);
}

static void command_done(struct command *cmd)
{
	struct request *r = cmd->owner;

	worker_resume(r->worker, r->connection);
}

static void suspend(struct request *r, handler_fn *resume)
{
	r->resume = resume;
	if (r->tracked)
		connection_deadline(r->tracked, 0);
	MHD_suspend_connection(r->connection);
}

enum next request_wait(struct request *r, handler_fn *resume)
{
	suspend(r, resume);
	return NEXT_SUSPENDED;
}

void request_resume(struct request *r)
{
	struct http_server *s = r->server;

	/* R may be gone before this returns, and the workers must not be. */
	atomic_fetch_add(&s->resuming, 1);
	worker_resume(r->worker, r->connection);
	atomic_fetch_sub(&s->resuming, 1);
}

/* What the requests of this worker's turn have for the committer. */
static _Thread_local struct command_list of_turn;

static void submit(struct committer *c, struct command_list *list)
{
	struct ota_err err;
	struct command *cmd;

	if (!list->first || committer_submit_list(c, list, &err) == OTA_OK)
		return;
	while ((cmd = list_pop(list)) != NULL) {
		struct request *r = cmd->owner;
		r->job_err = err;
		r->resume = answer_job_err;
		worker_resume(r->worker, r->connection);
	}
}

void request_turn(void *server)
{
	submit(((struct http_server *)server)->committer, &of_turn);
}

static struct command *make_command(struct request *r)
{
	r->command.by = r->route->admin ? ADMIN_NAME : NULL;
	r->command.owner = r;
	r->command.done = command_done;
	return &r->command;
}

enum next request_submit(struct request *r, handler_fn *resume)
{
	suspend(r, resume);
	if (!of_turn.first)
		list_init(&of_turn);
	list_push(&of_turn, make_command(r));
	return NEXT_SUSPENDED;
}

/* From a job's thread. */
static void submit_now(struct request *r)
{
	struct command_list one;

	list_init(&one);
	list_push(&one, make_command(r));
	submit(r->server->committer, &one);
}

static void run_job(struct job *job)
{
	struct request *r = (struct request *)(void *)((char *)job - offsetof(struct request, job));

	r->job_fn(r);
	if (r->job_submits)
		submit_now(r);
	else
		worker_resume(r->worker, r->connection);
}

static enum next run_on(struct request *r, struct jobs *jobs, void (*fn)(struct request *r),
			handler_fn *resume)
{
	suspend(r, resume);
	r->job_fn = fn;
	r->job_submits = false;
	r->job.fn = run_job;
	jobs_submit(jobs, &r->job);
	return NEXT_SUSPENDED;
}

enum next request_job(struct request *r, void (*fn)(struct request *r), handler_fn *resume)
{
	return run_on(r, r->server->jobs, fn, resume);
}

enum next request_inspection(struct request *r, void (*fn)(struct request *r), handler_fn *resume)
{
	return run_on(r, r->server->inspections, fn, resume);
}

void request_job_submit(struct request *r)
{
	r->job_submits = true;
}

/* --- the beginning of a request --- */

static void make_id(struct request *r)
{
	const char *given = request_header(r, "X-Request-Id");
	size_t n = given ? strlen(given) : 0;

	if (n > 0 && n < sizeof r->id && !name_version_error(given)) {
		memcpy(r->id, given, n + 1);
		return;
	}
	hex_encode((const uint8_t *)&r->chance, sizeof r->chance, r->id);
}

/* A proxy may add a line of its own instead of going on in the client's: all of them are one list.
 */
static enum MHD_Result join_forwarded(void *cls, enum MHD_ValueKind kind, const char *name,
				      const char *value)
{
	struct buf *list = cls;

	(void)kind;
	if (value && strcasecmp(name, "X-Forwarded-For") == 0) {
		buf_addc(list, ',');
		buf_adds(list, value);
	}
	return MHD_YES;
}

/* The last address of the list that is no trusted proxy becomes r->client, which is one now. */
static void believe_proxies(struct request *r, const char *forwarded)
{
	bool trusted = true;

	for (size_t end = strlen(forwarded); trusted;) {
		while (end > 0 && (forwarded[end - 1] == ' ' || forwarded[end - 1] == ','))
			end--;
		size_t begin = end;
		while (begin > 0 && forwarded[begin - 1] != ',' && forwarded[begin - 1] != ' ')
			begin--;
		if (begin == end || end - begin >= sizeof r->client)
			return;
		memcpy(r->client, forwarded + begin, end - begin);
		r->client[end - begin] = '\0';
		end = begin;
		trusted = connections_trust(r->server->connections, r->client);
	}
}

const char *request_forwarded(struct request *r, const char *header)
{
	char peer[64];
	const char *said = request_header(r, header);

	return said && socket_peer(r->connection, r->server->connections, peer, sizeof peer) ? said
											     : NULL;
}

/* The address of the peer, or what a trusted proxy tells. */
static void find_client(struct request *r)
{
	struct buf forwarded = BUF_INIT;

	if (!socket_peer(r->connection, r->server->connections, r->client, sizeof r->client))
		return;
	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, join_forwarded, &forwarded);
	if (forwarded.data && buf_ok(&forwarded))
		believe_proxies(r, forwarded.data);
	buf_fini(&forwarded);
}

struct key_count {
	const char *key;
	int count;
};

static enum MHD_Result count_key(void *cls, enum MHD_ValueKind kind, const char *name,
				 const char *value)
{
	struct key_count *k = cls;

	(void)kind;
	if (strcasecmp(name, "X-API-Key") == 0) {
		k->key = value;
		k->count++;
	}
	return MHD_YES;
}

static enum ota_code authorize(struct request *r, struct ota_err *err)
{
	struct key_count k = {NULL, 0};

	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, count_key, &k);
	if (k.count != 1 || !k.key)
		return ota_fail(err, OTA_EAUTH, "Invalid API key");
	return auth_check(r->server->auth, k.key, err);
}

static void respond_shutting_down(struct request *r)
{
	respond_status(r, 503, "the service is shutting down; come again");
}

/* The target cannot be read. */
static void respond_malformed(struct request *r, const struct ota_err *err)
{
	const struct query_wrong *w = &r->query.wrong;

	if (err->code != OTA_EINVAL) {
		respond_err(r, err);
	} else if (w->where) {
		field_errors_add(&r->errors, w->where, w->name[0] ? w->name : NULL,
				 FIELD_TYPE_VALUE, "%s", err->msg);
		respond_fields(r);
	} else {
		respond_status(r, 422, "%s", err->msg);
	}
}

/* Finds out what is asked and whether it may be; false: the answer is made. */
static bool admit(struct request *r)
{
	struct http_server *s = r->server;
	struct ota_err err;

	if (atomic_load(&s->draining)) {
		respond_shutting_down(r);
		return false;
	}
	/* What is in memory may be out of date; only how this instance is can be told. */
	if (!lease_holds(s->lease) && strcmp(r->target, "/health") != 0) {
		respond_status(r, 503, "this instance does not lead at the moment; come again");
		return false;
	}
	if (s->cfg->max_connections_per_address > 0) {
		find_client(r);
		r->counted_address = connections_enter(s->connections, r->client);
		if (!r->counted_address) {
			respond_status(r, 503, "too many requests at a time from %s", r->client);
			return false;
		}
	}
	if (query_parse(&r->query, r->target, &err) != OTA_OK) {
		respond_malformed(r, &err);
		return false;
	}
	r->route = route_find(r, r->allow, sizeof r->allow);
	if (!r->route && r->allow[0]) {
		respond_status(r, 405, "%s is not possible here; use %s", r->method, r->allow);
		return false;
	}
	if (!r->route) {
		respond_status(r, 404, "there is nothing at this path");
		return false;
	}
	r->allow[0] = '\0';
	if (r->route->admin && authorize(r, &err) != OTA_OK) {
		respond_err(r, &err);
		return false;
	}
	return true;
}

/* Content-Length as said; -1: chunked or none. */
static int64_t declared_length(struct request *r)
{
	const char *text = request_header(r, "Content-Length");

	return text ? strtoll(text, NULL, 10) : -1;
}

static int64_t body_max(const struct request *r)
{
	if (!r->route)
		return BODY_MAX;
	switch (r->route->body) {
	case BODY_UPLOAD: return r->server->cfg->max_firmware_bytes + BODY_MAX;
	case BODY_JSON:
	case BODY_TEXT: return BODY_MAX;
	case BODY_NONE: break;
	}
	return BODY_MAX; /* read and thrown away: some clients send one with every POST */
}

static void respond_too_large(struct request *r)
{
	bool image = r->route && r->route->body == BODY_UPLOAD;
	long long max = image ? (long long)r->server->cfg->max_firmware_bytes : (long long)BODY_MAX;

	respond_status(r, 413,
		       image ? IMAGE_TOO_LARGE
			     : "the body is too large: at most %lld bytes are taken",
		       max);
}

/*
 * First call, before any byte of the body: what can be refused now is.  A short body is read first,
 * so that its sender is listening when the answer comes.
 */
static enum MHD_Result begin(struct request *r)
{
	int64_t length = declared_length(r);
	struct ota_err err;

	r->begun = true;
	make_id(r);
	if (!admit(r)) {
		r->discard = true;
	} else if (length > body_max(r)) {
		respond_too_large(r);
		r->discard = true;
	} else if (r->route->body == BODY_UPLOAD) {
		if (upload_begin(r, &err) != OTA_OK) {
			respond_err(r, &err);
			r->discard = true;
		}
	}
	if (r->discard && length > BODY_MAX)
		return answer(r);
	return MHD_YES;
}

/* An upload takes its time, but never stands still, nor crawls. */
static void extend_upload(struct request *r)
{
	int64_t grace_ms = r->server->cfg->request_timeout_s * 1000;
	int64_t spent_ms = clock_coarse_ms() - r->begun_ms;
	int64_t earned_ms = (int64_t)r->body_seen * 1000 / UPLOAD_LEAST_BYTES_PER_S;
	int64_t left_ms = grace_ms + earned_ms - spent_ms;

	if (r->tracked)
		connection_arriving(r->tracked, left_ms < grace_ms ? left_ms : grace_ms);
}

static enum MHD_Result feed(struct request *r, const char *data, size_t *size)
{
	struct ota_err err;
	size_t n = *size;

	*size = 0;
	r->body_seen += n;
	if (r->discard) {
		r->body_discarded += n;
		/* Nobody listens, or somebody means harm. */
		return r->body_discarded > DISCARD_MAX ? MHD_NO : MHD_YES;
	}
	if (r->route->body == BODY_UPLOAD) {
		extend_upload(r);
		if (upload_feed(r, data, n, &err) != OTA_OK) {
			respond_err(r, &err);
			r->discard = true;
		}
		return MHD_YES;
	}
	if (r->body_seen > BODY_MAX) {
		respond_too_large(r);
		r->discard = true;
	} else if (r->route->body != BODY_NONE) {
		buf_add(&r->body, data, n);
	}
	return MHD_YES;
}

static enum MHD_Result proceed(struct request *r, handler_fn *fn)
{
	return fn(r) == NEXT_ANSWER ? answer(r) : MHD_YES;
}

void *request_begin(void *cls, const char *uri, struct MHD_Connection *connection)
{
	struct http_server *s = cls;
	struct request *r = malloc(sizeof *r);

	if (!r)
		return NULL;
	memset(r, 0, REQUEST_CLEARED);
	query_clear(&r->query);
	r->server = s;
	r->worker = worker_current();
	r->connection = connection;
	r->target = strdup(uri);
	if (!r->target) {
		free(r);
		return NULL;
	}
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	r->tracked = info ? info->socket_context : NULL;
	r->chance = hash64_mix(s->id_prefix + (uint64_t)atomic_fetch_add_explicit(
						      &s->requests_total, 1, memory_order_relaxed));
	r->begun_ms = clock_coarse_ms();
	if (r->tracked) {
		connection_arriving(r->tracked, s->cfg->request_timeout_s * 1000);
		connection_unpace(r->tracked);
	}
	atomic_fetch_add(&s->active_requests, 1);
	return r;
}

enum MHD_Result request_proceed(void *cls, struct MHD_Connection *connection, const char *url,
				const char *method, const char *version, const char *upload_data,
				size_t *upload_size, void **con_cls)
{
	struct request *r = *con_cls;

	(void)cls;
	(void)connection;
	(void)url;
	(void)version;
	if (!r)
		return MHD_NO; /* no memory for it */
	if (!r->begun) {
		r->method = method;
		return begin(r);
	}
	if (*upload_size > 0)
		return feed(r, upload_data, upload_size);
	if (r->answered)
		return MHD_YES;
	if (!r->body_done) {
		r->body_done = true;
		if (r->discard)
			return answer(r);
		if (!buf_ok(&r->body)) {
			respond_error(r, OTA_ENOMEM, "out of memory");
			return answer(r);
		}
		if (!begin_work(r)) {
			respond_shutting_down(r);
			return answer(r);
		}
		return proceed(r, r->route->handler);
	}
	return r->resume ? proceed(r, r->resume) : MHD_NO;
}

static void free_command(struct command *cmd)
{
	free(cmd);
}

/* The device has the whole image.  Where that is lost (no memory, the service ends), what the
 * device says next tells it too. */
static void tell_sent(struct request *r)
{
	struct command *cmd = calloc(1, sizeof *cmd + sizeof r->sent_token);
	struct ota_err err;

	if (!cmd)
		return;
	cmd->kind = COMMAND_SENT;
	cmd->sent.token = memcpy(cmd + 1, r->sent_token, sizeof r->sent_token);
	cmd->done = free_command;
	if (committer_submit(r->server->committer, cmd, &err) != OTA_OK)
		free(cmd);
}

void request_end(void *cls, struct MHD_Connection *connection, void **con_cls,
		 enum MHD_RequestTerminationCode toe)
{
	struct request *r = *con_cls;

	(void)cls;
	(void)connection;
	*con_cls = NULL;
	if (!r)
		return;
	if (r->answered)
		counts_add(r->server->counts, r->route, r->status, clock_coarse_ms() - r->begun_ms);
	if (r->sent_token[0] && toe == MHD_REQUEST_TERMINATED_COMPLETED_OK)
		tell_sent(r);
	end_work(r);
	if (r->counted_download)
		atomic_fetch_sub(&r->server->active_downloads, 1);
	if (r->counted_download && r->tracked)
		connection_image_end(r->server->connections, r->tracked);
	if (r->counted_address)
		connections_leave(r->server->connections, r->client);
	if (r->tracked)
		connection_idle(r->server->connections, r->tracked);
	atomic_fetch_sub(&r->server->active_requests, 1);
	upload_free(&r->upload);
	json_decref(r->json);
	buf_fini(&r->body);
	buf_fini(&r->out);
	field_errors_fini(&r->errors);
	query_fini(&r->query);
	if (r->response)
		MHD_destroy_response(r->response);
	if (r->release)
		r->release(r);
	free(r->memory);
	free(r->target);
	free(r);
}
