/* SPDX-License-Identifier: MIT */
#include "conductor/webhook.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define URL_MAX     2048
#define NAME_SIZE   17 /* 16 digits of its hash: the address itself may hold a secret */
#define LABEL_SIZE  32
#define ERROR_SIZE  256
#define HEADER_SIZE 192
/* Without a word it looks so often whether something is left to send. */
#define NAP_MS 60000
/* At the start so many messages to forgotten addresses are given up in one go. */
#define SWEEP 1000

struct address {
	char *url;
	char name[NAME_SIZE];
	char label[LABEL_SIZE]; /* "webhook/2": how the log calls it */
	int failures;           /* in a row */
	int64_t again_mono_ms;  /* not before */
};

struct webhooks {
	struct webhooks_parts parts;
	struct address addresses[WEBHOOK_TARGETS_MAX];
	const char *names[WEBHOOK_TARGETS_MAX];
	size_t count;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool woken; /* under lock */
	_Atomic bool stopping;
	bool started;
};

/* A message on its way. */
struct message {
	int64_t id, created_us;
	bool cleared, found;
	struct buf body;
	struct webhooks *w;
	size_t received;
	char error[ERROR_SIZE];
};

/* --- addresses --- */

/* Takes the next one out of *LIST; false: there is none. */
static bool next_url(const char **list, const char **at, size_t *len)
{
	*at = *list + strspn(*list, " ,\t\n");
	*len = strcspn(*at, " ,\t\n");
	*list = *at + *len;
	return *len > 0;
}

static bool is_http(CURLU *u)
{
	char *scheme = NULL, *host = NULL;
	bool ok = curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		  (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) &&
		  curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK && host[0];

	curl_free(scheme);
	curl_free(host);
	return ok;
}

/* An address to post to, taken apart; NULL: it is none. */
static CURLU *parse_url(const char *at, size_t len)
{
	CURLU *u = curl_url();
	char url[URL_MAX];

	if (u && len < sizeof url) {
		snprintf(url, sizeof url, "%.*s", (int)len, at);
		if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
		    is_http(u))
			return u;
	}
	curl_url_cleanup(u);
	return NULL;
}

enum ota_code webhooks_check(const char *urls, const char *secret, struct ota_err *err)
{
	const char *at;
	size_t len;
	int n = 0;

	while (next_url(&urls, &at, &len)) {
		if (++n > WEBHOOK_TARGETS_MAX)
			return ota_fail(err, OTA_EINVAL,
					"OTA_WEBHOOK_URL has more than %d addresses",
					WEBHOOK_TARGETS_MAX);
		CURLU *u = parse_url(at, len);
		if (!u)
			return ota_fail(err, OTA_EINVAL,
					"OTA_WEBHOOK_URL: its address number %d is none; write "
					"something like https://hooks.example.org/abc (http or "
					"https, several separated by blanks or commas)",
					n);
		curl_url_cleanup(u);
	}
	if (n == 0 && secret[0])
		return ota_fail(err, OTA_EINVAL,
				"OTA_WEBHOOK_SECRET is set without OTA_WEBHOOK_URL: there is "
				"nothing to sign");
	return OTA_OK;
}

/* Of Alertmanager its own address is enough. */
static bool set_path(CURLU *u, enum webhook_format format)
{
	char *path = NULL;
	bool ok = curl_url_get(u, CURLUPART_PATH, &path, 0) == CURLUE_OK;

	if (ok && format == WEBHOOK_ALERTMANAGER && strcmp(path, "/") == 0)
		ok = curl_url_set(u, CURLUPART_PATH, "/api/v2/alerts", 0) == CURLUE_OK;
	curl_free(path);
	return ok;
}

static bool add_address(struct webhooks *w, const char *at, size_t len)
{
	struct address *t = &w->addresses[w->count];
	uint8_t digest[SHA256_SIZE];
	CURLU *u = parse_url(at, len);
	bool ok = u && set_path(u, w->parts.format) && sha256_once(at, len, digest) &&
		  curl_url_get(u, CURLUPART_URL, &t->url, 0) == CURLUE_OK;

	curl_url_cleanup(u);
	if (!ok)
		return false;
	hex_encode(digest, (NAME_SIZE - 1) / 2, t->name);
	for (size_t i = 0; i < w->count; i++)
		if (strcmp(w->addresses[i].name, t->name) == 0) {
			curl_free(t->url); /* twice the same: once is enough */
			t->url = NULL;
			return true;
		}
	snprintf(t->label, sizeof t->label, "webhook/%zu", w->count + 1);
	w->names[w->count++] = t->name;
	return true;
}

const char *const *webhooks_targets(const struct webhooks *w, size_t *count)
{
	*count = w->count;
	return w->names;
}

/* --- what the store has to know --- */

static bool note(struct webhooks *w, enum webhook_change what, int64_t id, const char *error)
{
	struct command cmd = {.kind = COMMAND_WEBHOOK,
			      .webhook = {.what = what, .id = id, .error = error}};

	if (committer_run(w->parts.committer, &cmd) == OTA_OK)
		return true;
	log_event(LOG_WARNING, "webhooks", "webhook_not_noted",
		  "message %" PRId64 ", which is sent again: %s", id, cmd.err.msg);
	return false;
}

static bool take_message(void *ctx, const struct row_webhook *row)
{
	struct message *m = ctx;

	m->id = row->id;
	m->created_us = row->created_us;
	m->cleared = row->cleared;
	m->found = true;
	webhook_body(m->w->parts.format, row, &m->body);
	return false;
}

/* M is the caller's to free; m->found false: there is none. */
static bool next_message(struct webhooks *w, const struct address *t, int64_t before_us,
			 struct message *m)
{
	struct webhook_query q = {.target = t->name, .created_before_us = before_us, .limit = 1};
	struct ota_err err;

	*m = (struct message){.w = w};
	if (w->parts.store->ops->list_webhooks(w->parts.store, &q, take_message, m, &err) == OTA_OK)
		return true;
	log_event(LOG_WARNING, "webhooks", "webhooks_unread", "%s", err.msg);
	return false;
}

static void give_up_old(struct webhooks *w, const struct address *t)
{
	struct message m = {0}; /* nothing is read into it when the service stops */
	bool goes_on;

	do {
		int64_t now_us = clock_service_us();
		goes_on = !w->stopping && next_message(w, t, now_us - WEBHOOK_GIVE_UP_US, &m) &&
			  m.found && note(w, WEBHOOK_GIVEN_UP, m.id, NULL);
		if (goes_on)
			log_event(LOG_ERROR, t->label, "webhook_given_up",
				  "message %" PRId64 " has not arrived within a day", m.id);
		buf_fini(&m.body);
	} while (goes_on);
}

/* --- sending --- */

static size_t take_answer(char *data, size_t size, size_t count, void *ctx)
{
	struct message *m = ctx;

	(void)data;
	m->received += size * count;
	return m->received > WEBHOOK_ANSWER_MAX ? 0 : size * count; /* 0 ends it */
}

static int look_up(void *ctx, curl_off_t dt, curl_off_t d, curl_off_t ut, curl_off_t u)
{
	const struct webhooks *w = ctx;

	(void)dt;
	(void)d;
	(void)ut;
	(void)u;
	return w->stopping; /* not 0 ends it */
}

static bool add_header(struct curl_slist **list, const char *fmt, ...) OTA_PRINTF(2, 3);
static bool add_header(struct curl_slist **list, const char *fmt, ...)
{
	char text[HEADER_SIZE];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	struct curl_slist *more = curl_slist_append(*list, text);
	if (more)
		*list = more;
	return more != NULL;
}

/* Time and body are signed together: neither can be sent again with another one. */
static bool add_signature(struct curl_slist **list, const struct message *m, const char *secret)
{
	char hex[SHA256_HEX_SIZE];
	uint8_t mac[SHA256_SIZE];
	struct buf text = BUF_INIT;
	int64_t now_s = clock_wall_us() / US_PER_S;

	buf_printf(&text, "%" PRId64 ".", now_s);
	buf_add(&text, m->body.data, m->body.len);
	bool ok = buf_ok(&text) && hmac_sha256(secret, text.data, text.len, mac);
	buf_fini(&text);
	if (!ok)
		return false;
	hex_encode(mac, sizeof mac, hex);
	return add_header(list, "X-Paku-Timestamp: %" PRId64, now_s) &&
	       add_header(list, "X-Paku-Signature: sha256=%s", hex);
}

static struct curl_slist *headers_of(const struct webhooks *w, const struct message *m)
{
	struct curl_slist *list = NULL;
	const char *secret = w->parts.secret;

	if (add_header(&list, "Content-Type: application/json") && add_header(&list, "Expect:") &&
	    add_header(&list, "X-Paku-Delivery: %" PRId64, m->id) &&
	    add_header(&list, "X-Paku-Event: %s", m->cleared ? "cleared" : "raised") &&
	    (!secret[0] || add_signature(&list, m, secret)))
		return list;
	curl_slist_free_all(list);
	return NULL;
}

static void set_options(CURL *c, const struct address *t, struct message *m,
			struct curl_slist *headers, char *why)
{
	curl_easy_setopt(c, CURLOPT_URL, t->url);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)WEBHOOK_TIMEOUT_MS);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)WEBHOOK_TIMEOUT_MS);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "paku-otad/" PAKU_VERSION);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_POST, 1L);
	curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)m->body.len);
	curl_easy_setopt(c, CURLOPT_POSTFIELDS, m->body.data);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, m);
	curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, look_up);
	curl_easy_setopt(c, CURLOPT_XFERINFODATA, m->w);
	curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
}

/* Whether it arrived; if not, m->error says why. */
static bool judge_answer(CURL *c, CURLcode rc, const char *why, struct message *m)
{
	long status = 0;
	char *to = NULL;

	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	if (m->received > WEBHOOK_ANSWER_MAX)
		snprintf(m->error, sizeof m->error, "its answer is longer than %d bytes",
			 WEBHOOK_ANSWER_MAX);
	else if (rc != CURLE_OK)
		snprintf(m->error, sizeof m->error, "%s", why[0] ? why : curl_easy_strerror(rc));
	else if (status >= 200 && status < 300)
		return true;
	else if (curl_easy_getinfo(c, CURLINFO_REDIRECT_URL, &to) == CURLE_OK && to)
		snprintf(m->error, sizeof m->error,
			 "it answered %ld and leads to another address, which is not followed: "
			 "OTA_WEBHOOK_URL must have that one",
			 status);
	else
		snprintf(m->error, sizeof m->error, "it answered %ld", status);
	return false;
}

static bool send_message(struct webhooks *w, const struct address *t, struct message *m)
{
	char why[CURL_ERROR_SIZE] = "";
	CURL *c = curl_easy_init();
	struct curl_slist *headers = buf_ok(&m->body) ? headers_of(w, m) : NULL;
	bool arrived = false;

	if (c && headers) {
		set_options(c, t, m, headers, why);
		arrived = judge_answer(c, curl_easy_perform(c), why, m);
	} else {
		snprintf(m->error, sizeof m->error, "out of memory");
	}
	curl_easy_cleanup(c);
	curl_slist_free_all(headers);
	return arrived;
}

static void after_failure(struct webhooks *w, struct address *t)
{
	int64_t pause_s = webhook_pause_s(w->parts.retry_s, ++t->failures);

	t->again_mono_ms = clock_mono_ms() + pause_s * 1000;
	give_up_old(w, t);
}

/* Sends the next message to T; false: there is none, or not now. */
static bool send_next(struct webhooks *w, struct address *t)
{
	struct message m;
	bool arrived = false;

	if (w->stopping || clock_mono_ms() < t->again_mono_ms || !lease_holds(w->parts.lease))
		return false;
	if (!next_message(w, t, 0, &m))
		t->again_mono_ms = clock_mono_ms() + w->parts.retry_s * 1000;
	if (m.found)
		arrived = send_message(w, t, &m);
	if (m.found && arrived) {
		log_event(LOG_INFO, t->label, "webhook_sent", "message %" PRId64, m.id);
		t->failures = 0;
		/* Not written down, it would be sent again at once. */
		if (!note(w, WEBHOOK_SENT, m.id, NULL))
			after_failure(w, t);
	} else if (m.found && !w->stopping) {
		note(w, WEBHOOK_FAILED, m.id, m.error);
		after_failure(w, t);
		log_event(LOG_WARNING, t->label, "webhook_failed",
			  "message %" PRId64 ": %s; tried again in %" PRId64 " s", m.id, m.error,
			  webhook_pause_s(w->parts.retry_s, t->failures));
	}
	buf_fini(&m.body);
	return arrived;
}

/* --- the thread --- */

/* Until somebody wakes it, or an address is to be tried again. */
static void nap(struct webhooks *w)
{
	int64_t now_ms = clock_mono_ms(), until_ms = now_ms + NAP_MS;
	struct timespec until;

	for (size_t i = 0; i < w->count; i++)
		if (w->addresses[i].again_mono_ms > now_ms &&
		    w->addresses[i].again_mono_ms < until_ms)
			until_ms = w->addresses[i].again_mono_ms;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (until_ms - now_ms) / 1000;
	until.tv_nsec += (until_ms - now_ms) % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&w->lock);
	while (!w->woken && !w->stopping && pthread_cond_timedwait(&w->cond, &w->lock, &until) == 0)
		;
	w->woken = false;
	pthread_mutex_unlock(&w->lock);
}

static void *webhooks_thread(void *arg)
{
	struct webhooks *w = arg;
	bool any;

	while (!w->stopping) {
		do {
			any = false;
			for (size_t i = 0; i < w->count; i++)
				any |= send_next(w, &w->addresses[i]);
		} while (any);
		nap(w);
	}
	return NULL;
}

void webhooks_wake(struct webhooks *w)
{
	pthread_mutex_lock(&w->lock);
	w->woken = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

/* --- start and stop --- */

struct sweep {
	const struct webhooks *w;
	int64_t ids[SWEEP];
	size_t count;
};

static bool find_forgotten(void *ctx, const struct row_webhook *row)
{
	struct sweep *s = ctx;

	for (size_t i = 0; i < s->w->count; i++)
		if (strcmp(s->w->names[i], row->target) == 0)
			return true;
	s->ids[s->count++] = row->id;
	return s->count < SWEEP;
}

static enum ota_code sweep(struct webhooks *w, struct ota_err *err)
{
	struct webhook_query q = {.limit = 100 * SWEEP};
	struct sweep *s = calloc(1, sizeof *s);
	enum ota_code rc;

	if (!s)
		return ota_fail_nomem(err);
	s->w = w;
	rc = w->parts.store->ops->list_webhooks(w->parts.store, &q, find_forgotten, s, err);
	for (size_t i = 0; i < s->count && rc == OTA_OK; i++)
		if (note(w, WEBHOOK_GIVEN_UP, s->ids[i], "its address is not set any more"))
			log_event(LOG_WARNING, "webhooks", "webhook_given_up",
				  "message %" PRId64 ": its address is not set any more",
				  s->ids[i]);
	free(s);
	return rc;
}

static struct webhooks *make(const struct webhooks_parts *parts)
{
	struct webhooks *w = calloc(1, sizeof *w);
	pthread_condattr_t attr;

	if (!w)
		return NULL;
	w->parts = *parts;
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->cond, &attr);
	pthread_condattr_destroy(&attr);
	return w;
}

enum ota_code webhooks_start(const struct webhooks_parts *parts, struct webhooks **out,
			     struct ota_err *err)
{
	enum ota_code rc = webhooks_check(parts->urls, parts->secret, err);
	const char *urls = parts->urls, *at;
	size_t len;
	bool ok = true;

	if (rc != OTA_OK)
		return rc;
	struct webhooks *w = make(parts);
	if (!w)
		return ota_fail_nomem(err);
	while (ok && next_url(&urls, &at, &len))
		ok = add_address(w, at, len);
	if (!ok)
		rc = ota_fail_nomem(err);
	else if (w->count > 0 && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		rc = ota_fail(err, OTA_EINTERNAL, "libcurl does not start");
	if (rc == OTA_OK)
		rc = sweep(w, err);
	if (rc == OTA_OK && w->count > 0) {
		int e = pthread_create(&w->thread, NULL, webhooks_thread, w);
		w->started = e == 0;
		if (e != 0)
			rc = ota_fail_errno(err, e, "starting the webhooks");
	}
	if (rc != OTA_OK)
		webhooks_stop(&w);
	else
		*out = w;
	return rc;
}

void webhooks_stop(struct webhooks **wp)
{
	struct webhooks *w = *wp;

	if (!w)
		return;
	w->stopping = true;
	webhooks_wake(w);
	if (w->started)
		pthread_join(w->thread, NULL);
	for (size_t i = 0; i < w->count; i++)
		curl_free(w->addresses[i].url);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->cond);
	free(w);
	*wp = NULL;
}
