/* SPDX-License-Identifier: MIT */
#include "http/errand.h"

#include "base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW     (256 * 1024)
#define WHOLE_MAX  (64 * 1024) /* an answer up to that is passed on when all of it is there */
#define TURN_MS    100         /* how often it is looked whether the leader still leads */
#define CONNECT_MS 2000L
#define STILL_S    40L /* an errand that stands still for so long has failed */
#define IDLE_REUSE_S                                                                               \
	20L /* less than any instance keeps an idle connection (OTA_IDLE_TIMEOUT_S)                \
	     */
#define KEPT_MAX 256L

struct errand {
	struct errands *w;
	struct errand *next_new, *next_poked, *next, **at; /* the thread's lists */
	struct errand_order o;
	char *target; /* ours, where it was left */
	char leader[LEASE_URL_SIZE], url[LEASE_URL_SIZE + 8];
	CURL *easy; /* the thread's, once it was sent */
	/* Under the lock: */
	struct buf up, down, headers;
	size_t up_at, down_at;
	bool sent, streams, up_ends, starved; /* starved: libcurl waits for more of the body */
	bool full;                            /* libcurl waits for room for the answer */
	bool poked, over, failed, owned, suspended;
	long status;
	int64_t length;
};

struct errands {
	struct lease *lease;
	struct errands_stats stats;
	CURLM *multi;
	pthread_t thread;
	_Atomic bool stopping;
	struct errand *under_way; /* the thread's */
	pthread_mutex_t lock;
	bool closed;
	struct errand *new_ones, *poked; /* under the lock */
};

/* --- under the lock --- */

static void resume(struct errand *e)
{
	if (!e->suspended)
		return;
	e->suspended = false;
	e->o.resume(e->o.owner);
}

static void suspend(struct errand *e)
{
	e->suspended = true;
	e->o.suspend(e->o.owner);
}

static void poke(struct errand *e)
{
	if (!e->sent || e->poked || e->over)
		return;
	e->poked = true;
	e->next_poked = e->w->poked;
	e->w->poked = e;
	curl_multi_wakeup(e->w->multi);
}

static void send_off(struct errand *e)
{
	e->sent = true;
	e->next_new = e->w->new_ones;
	e->w->new_ones = e;
	curl_multi_wakeup(e->w->multi);
}

static void end_errand(struct errand *e, bool failed)
{
	e->over = true;
	e->failed = failed;
	atomic_fetch_add(failed ? &e->w->stats.failed : &e->w->stats.relayed, 1);
	resume(e);
}

static void free_errand(struct errand *e)
{
	curl_slist_free_all(e->o.headers);
	buf_fini(&e->up);
	buf_fini(&e->down);
	buf_fini(&e->headers);
	free(e->target);
	free(e);
}

/* --- what libcurl calls, on the thread --- */

static size_t on_header(char *data, size_t one, size_t size, void *cls)
{
	struct errand *e = cls;
	size_t n = size;

	(void)one;
	pthread_mutex_lock(&e->w->lock);
	while (n > 0 && (data[n - 1] == '\n' || data[n - 1] == '\r'))
		n--;
	if (e->status)
		n = 0; /* a trailer */
	if (n >= 5 && memcmp(data, "HTTP/", 5) == 0) {
		buf_reset(&e->headers); /* the one before was a 100 */
	} else if (n > 0) {
		buf_add(&e->headers, data, n);
		buf_add(&e->headers, "", 1);
	}
	pthread_mutex_unlock(&e->w->lock);
	return size;
}

/* Before the first byte of the body: it is known what comes. */
static void note_answer(struct errand *e)
{
	curl_off_t length = -1;

	if (e->status)
		return;
	curl_easy_getinfo(e->easy, CURLINFO_RESPONSE_CODE, &e->status);
	curl_easy_getinfo(e->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	e->length = length;
}

static size_t on_answer(char *data, size_t one, size_t size, void *cls)
{
	struct errand *e = cls;
	size_t taken = size;

	(void)one;
	pthread_mutex_lock(&e->w->lock);
	note_answer(e);
	if (e->down.len - e->down_at + size > WINDOW && e->down.len > e->down_at) {
		e->full = true;
		taken = CURL_WRITEFUNC_PAUSE;
	} else {
		buf_add(&e->down, data, size);
		if (!buf_ok(&e->down))
			taken = e->down_at = 0;
	}
	if (e->down.len > WHOLE_MAX)
		resume(e);
	pthread_mutex_unlock(&e->w->lock);
	return taken;
}

static size_t on_body(char *out, size_t one, size_t max, void *cls)
{
	struct errand *e = cls;

	(void)one;
	pthread_mutex_lock(&e->w->lock);
	size_t n = e->up.len - e->up_at;
	if (n > max)
		n = max;
	if (!buf_ok(&e->up)) { /* a part of it is lost: it must not look whole */
		n = CURL_READFUNC_ABORT;
	} else if (n > 0) {
		memcpy(out, e->up.data + e->up_at, n);
		e->up_at += n;
		resume(e);
	} else if (!e->up_ends) {
		e->starved = true;
		n = CURL_READFUNC_PAUSE;
	}
	pthread_mutex_unlock(&e->w->lock);
	return n;
}

/* --- the thread --- */

static CURL *make_easy(struct errand *e)
{
	CURL *c = curl_easy_init();

	if (!c)
		return NULL;
	curl_easy_setopt(c, CURLOPT_PRIVATE, e);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_URL, e->url);
	curl_easy_setopt(c, CURLOPT_REQUEST_TARGET, e->o.target);
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, e->o.headers);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, STILL_S);
	curl_easy_setopt(c, CURLOPT_MAXAGE_CONN, IDLE_REUSE_S);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, e);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_answer);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, e);
	if (e->streams) {
		curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)e->o.body_length);
		curl_easy_setopt(c, CURLOPT_READFUNCTION, on_body);
		curl_easy_setopt(c, CURLOPT_READDATA, e);
	} else if (e->up.len > 0 || e->o.body_length == 0) {
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)e->up.len);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, e->up.len ? e->up.data : "");
	}
	if (strcmp(e->o.method, "HEAD") == 0)
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
	else
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, e->o.method);
	return c;
}

/* Takes it off the thread's list; it is freed here, or by its owner. */
static void leave(struct errand *e, bool failed)
{
	struct errands *w = e->w;

	if (e->easy) {
		curl_multi_remove_handle(w->multi, e->easy);
		curl_easy_cleanup(e->easy);
		e->easy = NULL;
	}
	*e->at = e->next;
	if (e->next)
		e->next->at = e->at;
	pthread_mutex_lock(&w->lock);
	end_errand(e, failed);
	bool last = !e->owned && !e->poked;
	pthread_mutex_unlock(&w->lock);
	if (last)
		free_errand(e);
}

static void begin_new(struct errands *w)
{
	pthread_mutex_lock(&w->lock);
	struct errand *e = w->new_ones, *next;
	w->new_ones = NULL;
	pthread_mutex_unlock(&w->lock);
	for (; e; e = next) {
		next = e->next_new;
		e->next = w->under_way;
		e->at = &w->under_way;
		if (e->next)
			e->next->at = &e->next;
		w->under_way = e;
		e->easy = make_easy(e);
		if (!e->easy || curl_multi_add_handle(w->multi, e->easy) != CURLM_OK)
			leave(e, true);
	}
}

/* One that is not over stays: only this thread ends it.  One that is belongs to its owner, if there
 * still is one. */
static void tend_one(struct errand *e, bool over, bool owned)
{
	if (over && !owned)
		free_errand(e);
	else if (!over && !owned)
		leave(e, true);
	else if (!over)
		curl_easy_pause(e->easy, CURLPAUSE_CONT);
}

static void tend_poked(struct errands *w)
{
	pthread_mutex_lock(&w->lock);
	for (struct errand *e; (e = w->poked) != NULL;) {
		bool over = e->over, owned = e->owned;
		w->poked = e->next_poked;
		e->poked = e->starved = e->full = false;
		pthread_mutex_unlock(&w->lock);
		tend_one(e, over, owned);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
}

static void take_ended(struct errands *w)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(w->multi, &left)) != NULL) {
		struct errand *e = NULL;
		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&e);
		bool failed = m->data.result != CURLE_OK;
		if (failed)
			log_event(LOG_DEBUG, "relay", "failed", "%s: %s", e->leader,
				  curl_easy_strerror(m->data.result));
		pthread_mutex_lock(&w->lock);
		if (!failed)
			note_answer(e);
		pthread_mutex_unlock(&w->lock);
		leave(e, failed);
	}
}

static void fail_orphans(struct errands *w, bool all)
{
	struct lease_view v;
	struct errand *next;

	lease_look(w->lease, &v);
	for (struct errand *e = w->under_way; e; e = next) {
		next = e->next;
		if (all || e->o.epoch != v.epoch || strcmp(e->leader, v.leader) != 0)
			leave(e, true);
	}
}

static void *run(void *arg)
{
	struct errands *w = arg;
	int unused;

	while (!w->stopping) {
		begin_new(w);
		tend_poked(w);
		pthread_mutex_lock(&w->lock);
		bool closed = w->closed;
		pthread_mutex_unlock(&w->lock);
		fail_orphans(w, closed);
		curl_multi_perform(w->multi, &unused);
		take_ended(w);
		curl_multi_poll(w->multi, NULL, 0, TURN_MS, &unused);
	}
	begin_new(w);
	tend_poked(w);
	fail_orphans(w, true);
	tend_poked(w);
	return NULL;
}

/* --- the door's side --- */

struct errand *errand_new(struct errands *w, const struct errand_order *o)
{
	struct errand *e = calloc(1, sizeof *e);

	pthread_mutex_lock(&w->lock);
	bool closed = w->closed;
	pthread_mutex_unlock(&w->lock);
	if (!e || closed) {
		curl_slist_free_all(o->headers);
		free(e);
		return NULL;
	}
	e->w = w;
	e->o = *o;
	e->owned = true;
	snprintf(e->leader, sizeof e->leader, "%s", o->leader);
	snprintf(e->url, sizeof e->url, "%s/", o->leader);
	return e;
}

size_t errand_feed(struct errand *e, const char *data, size_t size)
{
	struct errands *w = e->w;

	pthread_mutex_lock(&w->lock);
	if (e->streams && e->up_at > 0) {
		e->up.len -= e->up_at;
		memmove(e->up.data, e->up.data + e->up_at, e->up.len);
		e->up_at = 0;
	}
	if (!e->over && !w->closed) {
		if (e->up.len > 0 && e->up.len + size > WINDOW) {
			suspend(e);
			size = 0;
		} else {
			buf_add(&e->up, data, size);
		}
		if (!e->sent && e->up.len + size > WINDOW / 2) {
			e->streams = true;
			send_off(e);
		} else if (e->starved && size > 0) {
			poke(e);
		}
	}
	pthread_mutex_unlock(&w->lock);
	return size;
}

void errand_fed(struct errand *e)
{
	pthread_mutex_lock(&e->w->lock);
	e->up_ends = true;
	if (!e->sent && !e->w->closed && buf_ok(&e->up))
		send_off(e);
	else if (!e->sent)
		end_errand(e, true);
	else if (e->starved)
		poke(e);
	pthread_mutex_unlock(&e->w->lock);
}

enum errand_state errand_look(struct errand *e, struct errand_answer *out)
{
	enum errand_state state = ERRAND_UNDER_WAY;

	pthread_mutex_lock(&e->w->lock);
	if (e->over && (e->failed || !buf_ok(&e->headers) || !buf_ok(&e->up)))
		state = ERRAND_FAILED;
	else if (e->over || e->down.len > WHOLE_MAX)
		state = ERRAND_ANSWERED;
	else if (e->w->closed)
		state = ERRAND_FAILED;
	else
		suspend(e);
	*out = (struct errand_answer){.status = e->status,
				      .length = e->length,
				      .whole = e->over,
				      .body = &e->down,
				      .headers = &e->headers};
	pthread_mutex_unlock(&e->w->lock);
	return state;
}

ssize_t errand_read(struct errand *e, char *out, size_t max)
{
	ssize_t got = 0;

	pthread_mutex_lock(&e->w->lock);
	size_t n = e->down.len - e->down_at;
	if (n > 0) {
		got = (ssize_t)(n < max ? n : max);
		memcpy(out, e->down.data + e->down_at, (size_t)got);
		e->down_at += (size_t)got;
	} else if (e->over || e->w->closed) {
		got = e->over && !e->failed ? -1 : -2;
	} else {
		suspend(e);
	}
	if (e->down_at == e->down.len) {
		buf_reset(&e->down);
		e->down_at = 0;
		if (e->full)
			poke(e);
	}
	pthread_mutex_unlock(&e->w->lock);
	return got;
}

void errand_end(struct errand **ep)
{
	struct errand *e = *ep;

	if (!e)
		return;
	*ep = NULL;
	pthread_mutex_lock(&e->w->lock);
	e->owned = false;
	bool last = (!e->sent || e->over) && !e->poked;
	if (!last)
		poke(e);
	pthread_mutex_unlock(&e->w->lock);
	if (last)
		free_errand(e);
}

void errand_leave(struct errand **ep, char *target)
{
	struct errand *e = *ep;

	*ep = NULL;
	pthread_mutex_lock(&e->w->lock);
	e->owned = false;
	e->target = target;
	bool last = e->over && !e->poked;
	pthread_mutex_unlock(&e->w->lock);
	if (last)
		free_errand(e);
}

/* --- start and stop --- */

enum ota_code errands_start(struct lease *lease, struct errands **out, struct ota_err *err)
{
	struct errands *w = calloc(1, sizeof *w);

	if (!w)
		return ota_fail_nomem(err);
	w->lease = lease;
	pthread_mutex_init(&w->lock, NULL);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(w->multi = curl_multi_init())) {
		free(w);
		return ota_fail(err, OTA_EINTERNAL, "libcurl does not start");
	}
	curl_multi_setopt(w->multi, CURLMOPT_MAXCONNECTS, KEPT_MAX);
	int rc = pthread_create(&w->thread, NULL, run, w);
	if (rc != 0) {
		curl_multi_cleanup(w->multi);
		free(w);
		return ota_fail_errno(err, rc, "starting a thread");
	}
	*out = w;
	return OTA_OK;
}

void errands_close(struct errands *w)
{
	pthread_mutex_lock(&w->lock);
	w->closed = true;
	pthread_mutex_unlock(&w->lock);
	curl_multi_wakeup(w->multi);
}

void errands_stop(struct errands **wp)
{
	struct errands *w = *wp;

	if (!w)
		return;
	errands_close(w);
	w->stopping = true;
	curl_multi_wakeup(w->multi);
	pthread_join(w->thread, NULL);
	curl_multi_cleanup(w->multi);
	pthread_mutex_destroy(&w->lock);
	free(w);
	*wp = NULL;
}

const struct errands_stats *errands_stats(const struct errands *w)
{
	return &w->stats;
}
