/* SPDX-License-Identifier: MIT */
#include "http/server.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "core/names.h"
#include "http/auth.h"
#include "http/request.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What a connection may hold of request line and headers. */
#define HEADER_MEMORY (20 * 1024)
/* Of a body that is refused, so much is read before the answer: a client that still sends reads
 * nothing. */
#define DISCARD_MAX              (16 * 1024 * 1024)
#define SHORT_DRAIN_S            5
#define UPLOAD_LEAST_BYTES_PER_S 1024
#define JOB_THREADS              3

/* --- the answer --- */

static bool add_headers(struct request *r, struct MHD_Response *m)
{
	char number[16];
	bool ok = MHD_add_response_header(m, "X-Request-Id", r->id) == MHD_YES;

	if (r->content_type)
		ok = ok && MHD_add_response_header(m, "Content-Type", r->content_type) == MHD_YES;
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
	log_request(r);
	if (!m) {
		size_t len;
		if (!buf_ok(&r->out))
			r->status = (int)(status = 503);
		char *body = buf_take(&r->out, &len);
		m = body ? MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE)
			 : MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
		if (!m) {
			free(body);
			return MHD_NO;
		}
	}
	if (r->status >= 500 || r->status == 429)
		atomic_fetch_add(&r->server->rejected_total, 1);
	if (r->tracked)
		connection_deadline(r->tracked, r->counted_download
							? r->server->cfg->download_timeout_s
							: r->server->cfg->request_timeout_s);
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

	MHD_resume_connection(r->connection);
}

static void suspend(struct request *r, handler_fn *resume)
{
	r->resume = resume;
	if (r->tracked)
		connection_deadline(r->tracked, 0);
	MHD_suspend_connection(r->connection);
}

static void submit_suspended(struct request *r)
{
	r->command.owner = r;
	r->command.done = command_done;
	if (committer_submit(r->server->committer, &r->command, &r->job_err) != OTA_OK) {
		r->resume = answer_job_err;
		MHD_resume_connection(r->connection);
	}
}

enum next request_submit(struct request *r, handler_fn *resume)
{
	suspend(r, resume);
	submit_suspended(r);
	return NEXT_SUSPENDED;
}

static void run_job(struct job *job)
{
	struct request *r = (struct request *)(void *)((char *)job - offsetof(struct request, job));

	r->job_fn(r);
	if (r->job_submits)
		submit_suspended(r);
	else
		MHD_resume_connection(r->connection);
}

enum next request_job(struct request *r, void (*fn)(struct request *r), handler_fn *resume)
{
	suspend(r, resume);
	r->job_fn = fn;
	r->job_submits = false;
	r->job.fn = run_job;
	jobs_submit(r->server->jobs, &r->job);
	return NEXT_SUSPENDED;
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
	uint64_t number = atomic_fetch_add(&r->server->request_number, 1);
	snprintf(r->id, sizeof r->id, "%016llx",
		 (unsigned long long)hash64_mix(r->server->id_prefix + number));
}

/* The last address in X-Forwarded-For that is no trusted proxy; the peer's when it is not trusted.
 */
static void find_client(struct request *r)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const char *forwarded = request_header(r, "X-Forwarded-For");
	socklen_t len;

	strcpy(r->client, "?");
	if (!info || !info->client_addr)
		return;
	len = info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
						       : sizeof(struct sockaddr_in);
	if (getnameinfo(info->client_addr, len, r->client, sizeof r->client, NULL, 0,
			NI_NUMERICHOST) != 0)
		strcpy(r->client, "?");
	if (strncmp(r->client, "::ffff:", 7) == 0)
		memmove(r->client, r->client + 7, strlen(r->client + 7) + 1);
	if (!forwarded)
		return;
	for (size_t end = strlen(forwarded);
	     connections_trust(r->server->connections, r->client);) {
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
	}
}

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *connection)
{
	struct http_server *s = cls;
	struct request *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	r->server = s;
	r->connection = connection;
	r->target = strdup(uri);
	if (!r->target) {
		free(r);
		return NULL;
	}
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	r->tracked = info ? info->socket_context : NULL;
	if (r->tracked)
		connection_deadline(r->tracked, s->cfg->request_timeout_s);
	atomic_fetch_add(&s->active_requests, 1);
	atomic_fetch_add_explicit(&s->requests_total, 1, memory_order_relaxed);
	return r;
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

static bool authorized(struct request *r)
{
	struct key_count k = {NULL, 0};

	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, count_key, &k);
	return k.count == 1 && k.key && auth_accepts(r->server->auth, k.key);
}

/* Finds out what is asked and whether it may be; false: the answer is made. */
static bool admit(struct request *r)
{
	struct http_server *s = r->server;
	struct ota_err err;

	if (atomic_load(&s->draining)) {
		respond_status(r, 503, "the service is shutting down; come again");
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
		respond_err(r, &err);
		if (err.code == OTA_EINVAL)
			r->status = 422;
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
	if (r->route->admin && !authorized(r)) {
		respond_status(r, 401, "Invalid API key");
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
		       image ? "the image is too large: at most %lld bytes are taken "
			       "(OTA_MAX_FIRMWARE_BYTES)"
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
		} else if (r->tracked) {
			int64_t s = r->server->cfg->request_timeout_s;
			if (length > 0)
				s += length / UPLOAD_LEAST_BYTES_PER_S;
			else
				s += r->server->cfg->max_firmware_bytes / UPLOAD_LEAST_BYTES_PER_S;
			connection_deadline(r->tracked, s);
		}
	}
	if (r->discard && length > BODY_MAX)
		return answer(r);
	return MHD_YES;
}

static enum MHD_Result feed(struct request *r, const char *data, size_t *size)
{
	struct ota_err err;
	size_t n = *size;

	*size = 0;
	if (r->discard) {
		r->body_seen += n;
		/* Nobody listens, or somebody means harm. */
		return r->body_seen > DISCARD_MAX ? MHD_NO : MHD_YES;
	}
	if (r->route->body == BODY_UPLOAD) {
		if (upload_feed(r, data, n, &err) != OTA_OK) {
			if (err.code == OTA_ETOOLARGE)
				respond_too_large(r);
			else
				respond_err(r, &err);
			r->discard = true;
		}
		return MHD_YES;
	}
	r->body_seen += n;
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

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
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
		return proceed(r, r->route->handler);
	}
	return r->resume ? proceed(r, r->resume) : MHD_NO;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
			 enum MHD_RequestTerminationCode toe)
{
	struct request *r = *con_cls;

	(void)cls;
	(void)connection;
	(void)toe;
	*con_cls = NULL;
	if (!r)
		return;
	if (r->counted_download)
		atomic_fetch_sub(&r->server->active_downloads, 1);
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

static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
			  enum MHD_ConnectionNotificationCode toe)
{
	struct http_server *s = cls;

	if (toe == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info =
			MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		*socket_context = info ? connection_add(s->connections, info->connect_fd) : NULL;
	} else if (*socket_context) {
		connection_remove(s->connections, *socket_context);
		*socket_context = NULL;
	}
}

static void on_log(void *cls, const char *fmt, va_list ap)
{
	char text[512];

	(void)cls;
	if (!log_enabled(LOG_DEBUG))
		return;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	vsnprintf(text, sizeof text, fmt, ap);
#pragma GCC diagnostic pop
	text[strcspn(text, "\r\n")] = '\0';
	log_event(LOG_DEBUG, "http", "library", "%s", text);
}

/* --- reading requests --- */

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
		q->before_id = strtoll(cursor, &end, 10);
		if (*end || q->before_id <= 0 || cursor[0] == ' ' || cursor[0] == '+')
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

static bool host_is_sane(const char *host)
{
	size_t n = strlen(host);

	return n > 0 && n <= 100 &&
	       strspn(host,
		      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") == n;
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
	if (host && host_is_sane(host)) {
		snprintf(out, size, "http://%s", host);
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

/* --- start and stop --- */

static enum ota_code parse_address(const struct config *cfg, struct sockaddr_storage *out,
				   struct ota_err *err)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
				 .ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	char port[8];

	snprintf(port, sizeof port, "%d", (int)cfg->port);
	int rc = getaddrinfo(cfg->host, port, &hints, &found);
	if (rc != 0)
		return ota_fail(err, OTA_EINVAL, "HOST is '%s', which is no address: %s", cfg->host,
				gai_strerror(rc));
	memset(out, 0, sizeof *out);
	memcpy(out, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return OTA_OK;
}

static struct MHD_Daemon *start_daemon(struct http_server *s, const struct sockaddr_storage *at)
{
	unsigned flags =
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned threads = s->cfg->http_threads ? (unsigned)s->cfg->http_threads
						: (unsigned)(cpus > 2 ? cpus : 2);

	if (at->ss_family == AF_INET6)
		flags |= MHD_USE_DUAL_STACK;
	return MHD_start_daemon(
		flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
		MHD_OPTION_SOCK_ADDR, at, MHD_OPTION_THREAD_POOL_SIZE, threads,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->cfg->max_connections,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_MEMORY,
		MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_LISTEN_BACKLOG_SIZE, 4096u,
		MHD_OPTION_URI_LOG_CALLBACK, on_uri, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
		s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_END);
}

static int bound_port(struct MHD_Daemon *d)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT);

	return info ? info->port : 0;
}

static void server_free(struct http_server *s)
{
	connections_stop(&s->connections);
	jobs_stop(&s->jobs);
	free(s);
}

enum ota_code http_start(const struct http_parts *parts, struct http_server **out,
			 struct ota_err *err)
{
	struct http_server *s = calloc(1, sizeof *s);
	struct connections_config cc = {
		.max = parts->cfg->max_connections,
		.per_address = parts->cfg->max_connections_per_address,
		.idle_timeout_s = parts->cfg->idle_timeout_s,
		.trusted_proxies = parts->cfg->trusted_proxies,
	};
	struct sockaddr_storage at;

	if (!s)
		return ota_fail_nomem(err);
	s->cfg = parts->cfg;
	s->fleet = parts->fleet;
	s->store = parts->store;
	s->committer = parts->committer;
	s->blobs = parts->blobs;
	s->cache = parts->cache;
	s->auth = parts->auth;
	s->started_mono_ms = clock_mono_ms();
	if (!random_bytes(&s->id_prefix, sizeof s->id_prefix))
		s->id_prefix = (uint64_t)clock_wall_us();
	if (parse_address(s->cfg, &at, err) != OTA_OK ||
	    connections_start(&cc, &s->connections, err) != OTA_OK ||
	    jobs_start(JOB_THREADS, &s->jobs, err) != OTA_OK) {
		server_free(s);
		return err->code;
	}
	s->daemon = start_daemon(s, &at);
	if (!s->daemon) {
		ota_fail(err, OTA_EIO,
			 "port %d of %s cannot be listened on: it is taken by another program, or "
			 "not "
			 "allowed; set PORT to another one",
			 (int)s->cfg->port, s->cfg->host);
		server_free(s);
		return err->code;
	}
	s->port = bound_port(s->daemon);
	*out = s;
	return OTA_OK;
}

int http_port(const struct http_server *s)
{
	return s->port;
}

static void wait_a_moment(void)
{
	struct timespec moment = {0, 20 * 1000000};

	nanosleep(&moment, NULL);
}

static void drain(struct http_server *s, int64_t drain_s, const volatile int *hurry)
{
	int64_t begun = clock_mono_ms();

	for (;;) {
		int64_t downloads = atomic_load(&s->active_downloads);
		int64_t others = atomic_load(&s->active_requests) - downloads;
		int64_t waited_ms = clock_mono_ms() - begun;
		bool short_done = others <= 0 || waited_ms >= SHORT_DRAIN_S * 1000;
		bool long_done = downloads <= 0 || waited_ms >= drain_s * 1000 || *hurry;
		if (short_done && long_done)
			return;
		connections_close_idle(s->connections);
		wait_a_moment();
	}
}

void http_stop(struct http_server **sp, int64_t drain_s, const volatile int *hurry)
{
	struct http_server *s = *sp;

	if (!s)
		return;
	int listener = MHD_quiesce_daemon(s->daemon);
	if (listener >= 0)
		close(listener);
	atomic_store(&s->draining, true);
	drain(s, drain_s, hurry);
	/* Jobs and commands under way resume their connections: both end before the library stops.
	 */
	jobs_stop(&s->jobs);
	committer_barrier(s->committer);
	MHD_stop_daemon(s->daemon);
	server_free(s);
	*sp = NULL;
}
