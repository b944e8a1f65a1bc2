/* SPDX-License-Identifier: MIT */
#include "fleet-sim/web.h"

#include "base/buf.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define BODY_MAX          (1u << 20)
#define CONNECT_TIMEOUT_S 10L
#define STALL_TIMEOUT_S   30L

struct request {
	struct web *web;
	struct web_ask ask; /* url and body are ours */
	CURL *easy;         /* while it runs */
	struct buf body;
	int64_t got;
	bool cut;
	struct request *next; /* in a lane's queue, or of those that run */
	struct request *prev;
};

struct lane {
	struct request *first, *last; /* those that wait */
	int running, limit;
	CURL **idle; /* handles to use again */
	int nidle;
};

/* A socket of libcurl's. */
struct wire {
	struct source source;
	struct web *web;
};

struct web {
	struct loop *loop;
	CURLM *multi;
	struct curl_slist *headers;
	struct lane lanes[2];
	struct request *running;
	uint64_t timer; /* generation of the timer that counts */
	bool inside;    /* libcurl calls us: nothing may be added now */
	struct web_stats stats;
};

static void request_free(struct request *r)
{
	free((char *)(uintptr_t)r->ask.url);
	free((char *)(uintptr_t)r->ask.body);
	buf_fini(&r->body);
	free(r);
}

/* ------------------------------------------------------------------ what comes in */

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
	struct request *r = ctx;
	size_t len = size * n, take = len;
	long status = 0;

	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
	r->web->stats.bytes += (int64_t)len;
	if (r->ask.lane == WEB_TALK || status >= 300) {
		if (len > BODY_MAX - r->body.len)
			return 0;
		buf_add(&r->body, data, len);
		return buf_ok(&r->body) ? len : 0;
	}
	if (r->ask.stop_at >= 0 && r->got + (int64_t)len > r->ask.stop_at - r->ask.from)
		take = (size_t)(r->ask.stop_at - r->ask.from - r->got);
	if (take > 0 && r->ask.hash && !sha256_update(r->ask.hash, data, take))
		return 0;
	r->got += (int64_t)take;
	if (r->ask.progress)
		r->ask.progress(r->ask.ctx, r->ask.arg, r->ask.from + r->got);
	r->cut = take < len;
	return take;
}

/* ------------------------------------------------------------------ requests */

static void set_load_options(CURL *e, struct request *r)
{
	char range[40];

	if (r->ask.head)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	if (r->ask.from > 0) {
		snprintf(range, sizeof range, "%lld-", (long long)r->ask.from);
		curl_easy_setopt(e, CURLOPT_RANGE, range);
	}
	if (r->ask.bytes_per_s > 0)
		curl_easy_setopt(e, CURLOPT_MAX_RECV_SPEED_LARGE, (curl_off_t)r->ask.bytes_per_s);
}

static void set_options(CURL *e, struct request *r)
{
	curl_easy_reset(e);
	curl_easy_setopt(e, CURLOPT_URL, r->ask.url);
	curl_easy_setopt(e, CURLOPT_PRIVATE, r);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_USERAGENT, "paku-fleet/" PAKU_VERSION);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, STALL_TIMEOUT_S);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, r);
	if (r->ask.body) {
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->ask.body);
		curl_easy_setopt(e, CURLOPT_HTTPHEADER, r->web->headers);
	}
	if (r->ask.lane == WEB_LOAD)
		set_load_options(e, r);
}

static void start(struct web *w, struct lane *l)
{
	struct request *r = l->first;

	l->first = r->next;
	if (!l->first)
		l->last = NULL;
	r->easy = l->nidle > 0 ? l->idle[--l->nidle] : curl_easy_init();
	l->running++;
	r->prev = NULL;
	r->next = w->running;
	if (w->running)
		w->running->prev = r;
	w->running = r;
	if (r->easy) {
		set_options(r->easy, r);
		curl_multi_add_handle(w->multi, r->easy);
	}
}

static void fill(struct web *w)
{
	for (int i = 0; i < 2; i++)
		while (w->lanes[i].first && w->lanes[i].running < w->lanes[i].limit)
			start(w, &w->lanes[i]);
}

bool web_send(struct web *w, const struct web_ask *a)
{
	struct request *r = calloc(1, sizeof *r);
	struct lane *l = &w->lanes[a->lane];

	if (!r)
		return false;
	r->web = w;
	r->ask = *a;
	r->ask.url = strdup(a->url);
	r->ask.body = a->body ? strdup(a->body) : NULL;
	if (!r->ask.url || (a->body && !r->ask.body)) {
		request_free(r);
		return false;
	}
	if (l->last)
		l->last->next = r;
	else
		l->first = r;
	l->last = r;
	w->stats.under_way++;
	if (!w->inside)
		fill(w);
	return true;
}

/* Takes R out of those that run; its handle is for the next. */
static void unlink_running(struct web *w, struct request *r)
{
	struct lane *l = &w->lanes[r->ask.lane];

	curl_multi_remove_handle(w->multi, r->easy);
	l->idle[l->nidle++] = r->easy;
	l->running--;
	if (r->prev)
		r->prev->next = r->next;
	else
		w->running = r->next;
	if (r->next)
		r->next->prev = r->prev;
}

static void finish(struct web *w, struct request *r, CURLcode rc)
{
	struct web_reply reply = {.got = r->got, .whole = rc == CURLE_OK, .cut = r->cut};
	curl_off_t retry_s = 0, length = -1;

	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &reply.status);
	curl_easy_getinfo(r->easy, CURLINFO_RETRY_AFTER, &retry_s);
	curl_easy_getinfo(r->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	reply.retry_after_s = retry_s > 0 && retry_s <= RETRY_MOST_S ? (int)retry_s : 0;
	reply.length = (int64_t)length;
	reply.body = r->body.data ? r->body.data : "";
	if (rc != CURLE_OK && !r->cut) {
		reply.status = reply.got > 0 ? reply.status : 0;
		w->stats.failures++;
		snprintf(w->stats.problem, sizeof w->stats.problem, "%s", curl_easy_strerror(rc));
	} else {
		w->stats.answers++;
		w->stats.busy += reply.status == 503;
	}
	unlink_running(w, r);
	w->stats.under_way--;
	r->ask.done(r->ask.ctx, r->ask.arg, &reply);
	request_free(r);
}

static void reap(struct web *w)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(w->multi, &left)) != NULL) {
		struct request *r = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &r);
		finish(w, r, m->data.result);
	}
	fill(w);
}

/* ------------------------------------------------------------------ libcurl on the loop */

static void act(struct web *w, curl_socket_t fd, int what)
{
	int running;

	w->inside = true;
	curl_multi_socket_action(w->multi, fd, what, &running);
	w->inside = false;
	reap(w);
}

static void on_ready(struct source *s, uint32_t events)
{
	struct wire *wire = (struct wire *)s;
	struct web *w = wire->web;
	int what = 0;

	if (events & (EPOLLIN | EPOLLHUP))
		what |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		what |= CURL_CSELECT_OUT;
	if (events & EPOLLERR)
		what |= CURL_CSELECT_ERR;
	act(w, s->fd, what);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *assigned)
{
	struct web *w = ctx;
	struct wire *wire = assigned;
	uint32_t events = 0;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (wire) {
			loop_forget(w->loop, &wire->source);
			free(wire);
			curl_multi_assign(w->multi, fd, NULL);
		}
		return 0;
	}
	if (!wire) {
		wire = calloc(1, sizeof *wire);
		if (!wire)
			return -1;
		wire->source = SOURCE_INIT(on_ready);
		wire->web = w;
		curl_multi_assign(w->multi, fd, wire);
	}
	events |= what & CURL_POLL_IN ? EPOLLIN : 0;
	events |= what & CURL_POLL_OUT ? EPOLLOUT : 0;
	return loop_watch(w->loop, &wire->source, fd, events) ? 0 : -1;
}

static void on_timer(void *ctx, uint64_t generation)
{
	struct web *w = ctx;

	if (generation == w->timer)
		act(w, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer_asked(CURLM *multi, long ms, void *ctx)
{
	struct web *w = ctx;

	(void)multi;
	w->timer++;
	if (ms >= 0 && !loop_after(w->loop, ms, on_timer, w, w->timer))
		return -1;
	return 0;
}

enum ota_code web_new(struct loop *l, const struct web_limits *limits, struct web **out,
		      struct ota_err *err)
{
	struct web *w = calloc(1, sizeof *w);

	if (!w)
		return ota_fail_nomem(err);
	w->loop = l;
	w->lanes[WEB_TALK].limit = limits->talk;
	w->lanes[WEB_LOAD].limit = limits->load;
	for (int i = 0; i < 2; i++)
		w->lanes[i].idle = calloc((size_t)w->lanes[i].limit, sizeof(CURL *));
	w->headers = curl_slist_append(NULL, "Content-Type: application/json");
	w->multi = curl_multi_init();
	if (!w->lanes[0].idle || !w->lanes[1].idle || !w->headers || !w->multi) {
		web_free(&w);
		return ota_fail_nomem(err);
	}
	curl_multi_setopt(w->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(w->multi, CURLMOPT_SOCKETDATA, w);
	curl_multi_setopt(w->multi, CURLMOPT_TIMERFUNCTION, on_timer_asked);
	curl_multi_setopt(w->multi, CURLMOPT_TIMERDATA, w);
	curl_multi_setopt(w->multi, CURLMOPT_MAXCONNECTS, (long)(limits->talk + limits->load));
	*out = w;
	return OTA_OK;
}

void web_free(struct web **p)
{
	struct web *w = *p;
	struct request *r;

	if (!w)
		return;
	while ((r = w->running) != NULL) {
		unlink_running(w, r);
		request_free(r);
	}
	for (int i = 0; i < 2; i++) {
		while ((r = w->lanes[i].first) != NULL) {
			w->lanes[i].first = r->next;
			request_free(r);
		}
		for (int k = 0; w->lanes[i].idle && k < w->lanes[i].nidle; k++)
			curl_easy_cleanup(w->lanes[i].idle[k]);
		free(w->lanes[i].idle);
	}
	curl_multi_cleanup(w->multi);
	curl_slist_free_all(w->headers);
	w->timer++;
	free(w);
	*p = NULL;
}

const struct web_stats *web_stats(const struct web *w)
{
	return &w->stats;
}
