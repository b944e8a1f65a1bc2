/* SPDX-License-Identifier: MIT */
#include "http/relay.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "core/names.h"
#include "http/connections.h"
#include "http/errand.h"
#include "http/parse/accept.h"
#include "http/relay_headers.h"
#include "http/relay_images.h"
#include "http/relay_status.h"
#include "http/request.h"
#include "http/sockets.h"
#include "http/workers.h"

#include <microhttpd.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LAST_ANSWERS_MS 300
#define BLOCK           (32 * 1024) /* of an answer that is passed on as it comes */
#define DISCARD_MAX     (16 * 1024 * 1024)
#define AGAIN_S         "2"
#define DOWNLOADS       "/api/firmware/download/"

struct relay {
	const struct config *cfg;
	struct lease *lease;
	struct connections *connections;
	struct errands *errands;
	struct workers *workers;
	struct relay_images *images; /* NULL: the leader sends all */
	int listen_fd;
	int64_t started_mono_ms;
	_Atomic bool draining;
	_Atomic int64_t active, suspended, images_sent;
};

struct relayed {
	struct relay *r;
	struct worker *worker;
	struct MHD_Connection *connection;
	struct connection *tracked;
	char *target;
	const char *method;
	struct errand *errand; /* NULL: the answer is ours */
	bool begun, body_ended, answered, suspended;
	/* an image that is sent from here: */
	struct relay_image image;
	bool opening, sent_image, by_leader; /* by_leader: it could not be */
	size_t discarded;
	char peer[64];
	/* our own answer */
	unsigned status;
	const char *type;
	struct buf out;
	char id[40];
};

static void on_log(void *cls, const char *fmt, va_list ap)
{
	(void)cls;
	(void)fmt;
	(void)ap;
}

/* --- waiting --- */

static void suspend(void *owner)
{
	struct relayed *q = owner;

	q->suspended = true;
	atomic_fetch_add(&q->r->suspended, 1);
	if (q->tracked)
		connection_deadline(q->tracked, 0);
	MHD_suspend_connection(q->connection);
}

static void resume(void *owner)
{
	struct relayed *q = owner;
	struct relay *r = q->r;

	/* Q may be gone before this returns, and the workers must not be. */
	atomic_fetch_add(&r->suspended, 1);
	worker_resume(q->worker, q->connection);
	atomic_fetch_sub(&r->suspended, 1);
}

static void goes_on(struct relayed *q)
{
	if (q->suspended)
		atomic_fetch_sub(&q->r->suspended, 1);
	q->suspended = false;
}

/* --- answers of our own --- */

static const char *header(struct relayed *q, const char *name)
{
	return MHD_lookup_connection_value(q->connection, MHD_HEADER_KIND, name);
}

static void say(struct relayed *q, unsigned status, const char *sentence)
{
	q->status = status;
	q->type = "application/json";
	buf_reset(&q->out);
	json_open(&q->out, NULL, '{');
	json_str(&q->out, "detail", sentence);
	json_close(&q->out, '}');
}

static void say_nobody_leads(struct relayed *q, const struct lease_view *v)
{
	char text[400];

	snprintf(text, sizeof text,
		 "no instance of the service leads at the moment%s%s; come again",
		 v->problem[0] ? ": " : "", v->problem);
	say(q, 503, text);
}

static void show_health(struct relayed *q)
{
	struct lease_view v;

	lease_look(q->r->lease, &v);
	q->status = v.leader[0] ? 200 : 503;
	q->type = "application/json";
	relay_write_health(&q->out, &v, (clock_mono_ms() - q->r->started_mono_ms) / 1000);
}

static void show_metrics(struct relayed *q)
{
	const struct errands_stats *s = errands_stats(q->r->errands);
	struct lease_view v;
	bool text = accept_prefers_text(header(q, "Accept"));

	lease_look(q->r->lease, &v);
	struct relay_figures f = {
		.epoch = v.epoch,
		.connections = connections_count(q->r->connections),
		.relayed = s->relayed,
		.failed = s->failed,
		.images = q->r->images_sent,
	};
	q->status = 200;
	q->type = text ? "text/plain; version=0.0.4; charset=utf-8" : "application/json";
	relay_write_metrics(&q->out, text, &f);
}

static bool is_path(const char *target, const char *path)
{
	size_t n = strlen(path);

	return strncmp(target, path, n) == 0 && (target[n] == '\0' || target[n] == '?');
}

static bool answer_here(struct relayed *q)
{
	if (strcmp(q->method, "GET") != 0 && strcmp(q->method, "HEAD") != 0)
		return false;
	if (is_path(q->target, "/health"))
		show_health(q);
	else if (is_path(q->target, "/metrics"))
		show_metrics(q);
	else
		return false;
	return true;
}

/* --- passing on --- */

struct headers {
	struct relay_headers to;
	struct buf forwarded; /* by proxies that are believed */
	bool trusted, accept, type;
};

static enum MHD_Result take_header(void *cls, enum MHD_ValueKind kind, const char *name,
				   const char *value)
{
	struct headers *h = cls;

	(void)kind;
	value = value ? value : "";
	if (h->trusted && strcasecmp(name, "X-Forwarded-For") == 0)
		buf_printf(&h->forwarded, "%s, ", value);
	if (relay_header_stays(name) || (!h->trusted && strncasecmp(name, "X-Forwarded-", 12) == 0))
		return MHD_YES;
	h->accept |= strcasecmp(name, "Accept") == 0;
	h->type |= strcasecmp(name, "Content-Type") == 0;
	relay_header_add(&h->to, name, value);
	return MHD_YES;
}

/* Content-Length as said; without one a body may come in pieces, or there is none (0). */
static int64_t declared_length(struct relayed *q)
{
	const char *text = header(q, "Content-Length");

	if (text)
		return strtoll(text, NULL, 10);
	return header(q, "Transfer-Encoding") ? -1 : 0;
}

static bool is_download(const struct relayed *q)
{
	return strcmp(q->method, "GET") == 0 &&
	       strncmp(q->target, DOWNLOADS, strlen(DOWNLOADS)) == 0;
}

/* NULL: out of memory. */
static struct curl_slist *headers_for_leader(struct relayed *q)
{
	struct headers h = {.to = {.ok = true}};
	int64_t length = declared_length(q);

	h.trusted = socket_peer(q->connection, q->r->connections, q->peer, sizeof q->peer);
	MHD_get_connection_values(q->connection, MHD_HEADER_KIND, take_header, &h);
	buf_adds(&h.forwarded, q->peer);
	if (buf_ok(&h.forwarded))
		relay_header_add(&h.to, "X-Forwarded-For", h.forwarded.data);
	h.to.ok = h.to.ok && buf_ok(&h.forwarded);
	buf_fini(&h.forwarded);
	relay_header_add(&h.to, RELAYED, "1");
	if (q->r->images && !q->by_leader && is_download(q))
		relay_header_add(&h.to, IMAGES_HERE, "1");
	/* A large body that is refused is refused before it is sent: one that is on its way when
	 * the leader closes can cost the answer. */
	if (length < 0 || length > BODY_MAX)
		relay_header_add(&h.to, "Expect", "100-continue");
	else
		relay_header_leave_out(&h.to, "Expect:");
	if (!h.accept)
		relay_header_leave_out(&h.to, "Accept:");
	if (!h.type)
		relay_header_leave_out(&h.to, "Content-Type:");
	if (h.to.ok)
		return h.to.list;
	curl_slist_free_all(h.to.list);
	return NULL;
}

static void begin_errand(struct relayed *q, const struct lease_view *v)
{
	bool has_body = header(q, "Content-Length") || header(q, "Transfer-Encoding");
	struct errand_order o = {
		.leader = v->leader,
		.epoch = v->epoch,
		.method = q->method,
		.target = q->target,
		.headers = headers_for_leader(q),
		.body_length = has_body ? declared_length(q) : -1,
		.suspend = suspend,
		.resume = resume,
		.owner = q,
	};

	if (o.headers)
		q->errand = errand_new(q->r->errands, &o);
	if (!q->errand)
		say(q, 503, "the service has too much to do; come again");
}

static enum MHD_Result queue(struct relayed *q, unsigned status, struct MHD_Response *m, bool ok,
			     bool is_long)
{
	enum MHD_Result rc = MHD_NO;

	q->answered = true;
	if (q->tracked)
		connection_deadline(q->tracked, is_long ? q->r->cfg->download_timeout_s
							: q->r->cfg->request_timeout_s);
	if (atomic_load(&q->r->draining))
		ok = ok && MHD_add_response_header(m, "Connection", "close") == MHD_YES;
	if (ok)
		rc = MHD_queue_response(q->connection, status, m);
	MHD_destroy_response(m);
	return rc;
}

static void make_id(struct relayed *q)
{
	const char *given = header(q, "X-Request-Id");
	uint64_t chance = 0;

	if (given && given[0] && strlen(given) < sizeof q->id && !name_version_error(given)) {
		snprintf(q->id, sizeof q->id, "%s", given);
		return;
	}
	if (!random_bytes(&chance, sizeof chance))
		chance = (uint64_t)clock_wall_us();
	hex_encode((const uint8_t *)&chance, sizeof chance, q->id);
}

static enum MHD_Result answer_own(struct relayed *q)
{
	static char no_memory[] = "{\"detail\":\"out of memory\"}";
	size_t len = 0;
	char *body = buf_take(&q->out, &len);
	struct MHD_Response *m =
		body ? MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE)
		     : MHD_create_response_from_buffer(sizeof no_memory - 1, no_memory,
						       MHD_RESPMEM_PERSISTENT);
	unsigned status = body ? q->status : 503;

	if (!m) {
		free(body);
		return MHD_NO;
	}
	bool ok = MHD_add_response_header(m, "Content-Type", body ? q->type : "application/json") ==
		  MHD_YES;
	make_id(q);
	ok = ok && MHD_add_response_header(m, "X-Request-Id", q->id) == MHD_YES;
	if (status == 503)
		ok = ok && MHD_add_response_header(m, "Retry-After", AGAIN_S) == MHD_YES;
	return queue(q, status, m, ok, false);
}

static ssize_t read_answer(void *cls, uint64_t pos, char *out, size_t max)
{
	struct relayed *q = cls;

	(void)pos;
	goes_on(q);
	ssize_t n = errand_read(q->errand, out, max);
	if (n == -1)
		return MHD_CONTENT_READER_END_OF_STREAM;
	return n < 0 ? MHD_CONTENT_READER_END_WITH_ERROR : n;
}

static enum MHD_Result pass_back(struct relayed *q, const struct errand_answer *a)
{
	bool is_head = strcmp(q->method, "HEAD") == 0;
	uint64_t length = a->length < 0 ? MHD_SIZE_UNKNOWN : (uint64_t)a->length;
	struct MHD_Response *m =
		a->whole && !is_head
			? MHD_create_response_from_buffer(a->body->len,
							  a->body->len ? a->body->data : (char *)"",
							  MHD_RESPMEM_MUST_COPY)
			: MHD_create_response_from_callback(length, BLOCK, read_answer, q, NULL);

	if (!m)
		return MHD_NO;
	return queue(q, (unsigned)a->status, m, relay_headers_copy(m, a->headers), !a->whole);
}

/* The leader has said which image, and leaves it to us.  True: it is being opened. */
static bool open_image(struct relayed *q, const struct errand_answer *a)
{
	if (q->by_leader || !relay_image_read(&q->image, a->headers))
		return false;
	q->image.done = resume;
	q->image.owner = q;
	q->opening = true;
	suspend(q);
	relay_image_open(q->r->images, &q->image);
	return true;
}

static enum MHD_Result finish(struct relayed *q);

/* The image is not to be had here: the leader is asked again, and sends it. */
static enum MHD_Result leave_to_leader(struct relayed *q)
{
	struct lease_view v;

	log_event(LOG_WARNING, "relay", "image_not_here", "%s; the leader sends it",
		  q->image.err.msg);
	relay_image_end(&q->image);
	errand_end(&q->errand);
	q->by_leader = true;
	lease_look(q->r->lease, &v);
	if (v.leader[0] && v.role != LEASE_LEADS)
		begin_errand(q, &v);
	else
		say_nobody_leads(q, &v);
	if (q->errand)
		errand_fed(q->errand);
	return finish(q);
}

static enum MHD_Result send_image(struct relayed *q, const struct errand_answer *a)
{
	if (q->image.code != OTA_OK)
		return leave_to_leader(q);
	struct MHD_Response *m = relay_image_response(&q->image);
	if (!m)
		return MHD_NO;
	atomic_fetch_add(&q->r->images_sent, 1);
	q->sent_image = true;
	return queue(q, (unsigned)a->status, m, relay_headers_copy(m, a->headers), true);
}

static enum MHD_Result finish(struct relayed *q)
{
	struct errand_answer a;

	if (!q->errand)
		return answer_own(q);
	switch (errand_look(q->errand, &a)) {
	case ERRAND_UNDER_WAY: return MHD_YES;
	case ERRAND_ANSWERED:
		if (q->opening) {
			q->opening = false;
			return send_image(q, &a);
		}
		return open_image(q, &a) ? MHD_YES : pass_back(q, &a);
	case ERRAND_FAILED: break;
	}
	say(q, 503, "the instance that leads has not answered; come again");
	return answer_own(q);
}

/* --- the life of a request --- */

/* No instance takes so much: that is told before it is sent. */
static bool is_too_large(struct relayed *q)
{
	long long max = q->r->cfg->max_firmware_bytes;
	char text[160];

	if (declared_length(q) <= max + BODY_MAX)
		return false;
	snprintf(text, sizeof text, IMAGE_TOO_LARGE, max);
	say(q, 413, text);
	return true;
}

static enum MHD_Result begin(struct relayed *q)
{
	struct lease_view v;

	q->begun = true;
	lease_look(q->r->lease, &v);
	if (atomic_load(&q->r->draining))
		say(q, 503, "the service is shutting down; come again");
	else if (answer_here(q) || is_too_large(q))
		;
	else if (v.role == LEASE_LEADS || !v.leader[0] ||
		 strcmp(v.leader, q->r->cfg->instance_url) == 0)
		say_nobody_leads(q, &v);
	else if (header(q, RELAYED))
		say(q, 503, "this instance does not lead; come again");
	else
		begin_errand(q, &v);
	if (!q->errand && declared_length(q) > BODY_MAX)
		return answer_own(q);
	return MHD_YES;
}

static enum MHD_Result feed(struct relayed *q, const char *data, size_t *size)
{
	if (!q->errand) {
		q->discarded += *size;
		*size = 0;
		return q->discarded > DISCARD_MAX ? MHD_NO : MHD_YES;
	}
	size_t taken = errand_feed(q->errand, data, *size);
	*size -= taken;
	if (taken > 0 && q->tracked)
		connection_arriving(q->tracked, q->r->cfg->request_timeout_s * 1000);
	return MHD_YES;
}

static void *on_begin(void *cls, const char *uri, struct MHD_Connection *connection)
{
	struct relay *r = cls;
	struct relayed *q = calloc(1, sizeof *q);

	if (!q || !(q->target = strdup(uri))) {
		free(q);
		return NULL;
	}
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	q->r = r;
	q->worker = worker_current();
	q->connection = connection;
	q->tracked = info ? info->socket_context : NULL;
	if (q->tracked)
		connection_arriving(q->tracked, r->cfg->request_timeout_s * 1000);
	atomic_fetch_add(&r->active, 1);
	return q;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload_data,
				  size_t *upload_size, void **con_cls)
{
	struct relayed *q = *con_cls;

	(void)cls;
	(void)connection;
	(void)url;
	(void)version;
	if (!q)
		return MHD_NO;
	goes_on(q);
	q->method = method;
	if (!q->begun)
		return begin(q);
	if (*upload_size > 0)
		return feed(q, upload_data, upload_size);
	if (q->answered)
		return MHD_YES;
	if (!q->body_ended && q->errand)
		errand_fed(q->errand);
	q->body_ended = true;
	return finish(q);
}

/* An attempt's image went out whole. */
static void tell_sent(struct relayed *q)
{
	const struct relay_image *i = &q->image;
	struct lease_view v;

	if (!q->sent_image || i->first + i->length != i->size || !strstr(q->target, "attempt="))
		return;
	lease_look(q->r->lease, &v);
	if (!v.leader[0])
		return;
	relay_image_tell(i, q->r->errands, &v, q->target, q->peer);
	q->target = NULL;
}

static void on_end(void *cls, struct MHD_Connection *connection, void **con_cls,
		   enum MHD_RequestTerminationCode why)
{
	struct relay *r = cls;
	struct relayed *q = *con_cls;

	(void)connection;
	*con_cls = NULL;
	if (!q)
		return;
	goes_on(q);
	errand_end(&q->errand);
	if (why == MHD_REQUEST_TERMINATED_COMPLETED_OK)
		tell_sent(q);
	relay_image_end(&q->image);
	if (q->tracked)
		connection_idle(r->connections, q->tracked);
	buf_fini(&q->out);
	free(q->target);
	free(q);
	atomic_fetch_sub(&r->active, 1);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
			  enum MHD_ConnectionNotificationCode toe)
{
	struct relay *r = cls;

	socket_notify(r->connections, connection, socket_context, toe);
}

/* --- start and stop --- */

static void relay_free(struct relay *r)
{
	errands_stop(&r->errands);
	relay_images_close(&r->images);
	connections_stop(&r->connections);
	if (r->listen_fd >= 0)
		close(r->listen_fd);
	free(r);
}

static enum ota_code start_workers(struct relay *r, struct ota_err *err)
{
	struct workers_config wc = {
		.threads = r->cfg->http_threads,
		.max_connections = r->cfg->max_connections,
		.timeout_s = r->cfg->download_timeout_s,
		.listen_fd = r->listen_fd,
		.request = on_request,
		.begin = on_begin,
		.end = on_end,
		.connection = on_connection,
		.log = on_log,
		.cls = r,
	};

	return workers_start(&wc, &r->workers, err);
}

enum ota_code relay_start(const struct config *cfg, struct lease *lease, int listen_fd,
			  struct relay **out, struct ota_err *err)
{
	struct relay *r = calloc(1, sizeof *r);
	struct connections_config cc = {
		.max = cfg->max_connections,
		.idle_timeout_s = cfg->idle_timeout_s,
		.trusted_proxies = cfg->trusted_proxies,
	};

	if (!r) {
		close(listen_fd);
		return ota_fail_nomem(err);
	}
	r->cfg = cfg;
	r->lease = lease;
	r->listen_fd = listen_fd;
	r->started_mono_ms = clock_mono_ms();
	if (connections_start(&cc, &r->connections, err) != OTA_OK ||
	    errands_start(lease, &r->errands, err) != OTA_OK) {
		relay_free(r);
		return err->code;
	}
	if (relay_images_open(cfg, &r->images, err) != OTA_OK)
		log_event(LOG_WARNING, "relay", "no_images_here", "%s; the leader sends them",
			  err->msg);
	if (start_workers(r, err) != OTA_OK) {
		relay_free(r);
		return err->code;
	}
	*out = r;
	return OTA_OK;
}

int relay_port(const struct relay *r)
{
	return socket_port(r->listen_fd);
}

void relay_stop(struct relay **rp, int64_t wait_s, const volatile int *hurry)
{
	struct relay *r = *rp;
	int64_t until_ms = clock_mono_ms() + wait_s * 1000;

	if (!r)
		return;
	atomic_store(&r->draining, true);
	while (atomic_load(&r->active) > 0 && clock_mono_ms() < until_ms && !*hurry)
		wait_a_moment();
	workers_let_go(r->workers);
	errands_close(r->errands);
	relay_images_abort(r->images);
	/* Who asks now on a connection that he has is told to open another: that is the next one's.
	 */
	until_ms = clock_mono_ms() + LAST_ANSWERS_MS;
	while (connections_count(r->connections) > 0 && clock_mono_ms() < until_ms)
		wait_a_moment();
	/* No request waits past this: each errand is over, and a new one finds them closed. */
	while (atomic_load(&r->suspended) > 0)
		wait_a_moment();
	workers_stop(&r->workers);
	relay_free(r);
	*rp = NULL;
}
