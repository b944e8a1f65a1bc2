/* SPDX-License-Identifier: MIT */
#include "http/connections.h"

#include "base/clock.h"
#include "base/hash.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define ADDRESS_BUCKETS 1024
/*
 * A paced socket takes so much more than it has sent: an eighth of a second, within limits.  More
 * would be with the kernel when the image counts as sent.
 */
#define UNSENT_MIN 32768
#define UNSENT_MAX (1024 * 1024)

struct address {
	struct address *next;
	int64_t requests;
	char text[];
};

struct connections {
	struct connections_config cfg;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* under lock: */
	bool stopping;
	struct connection *newest;
	int64_t count;
	struct connection *senders; /* of images, where there is a cap */
	int64_t sender_count, share_given;
	pthread_mutex_t address_lock;
	struct address *addresses[ADDRESS_BUCKETS]; /* under address_lock */
};

/* The client ended the stream and all that it sent was read: what is missing will not come. */
static bool stream_ended(const struct connection *k)
{
	char byte;

	return atomic_load(&k->doing) == CONNECTION_ARRIVING &&
	       recv(k->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* --- pacing --- */

static void set_pace(int fd, uint64_t bytes_per_s, int unsent)
{
	/* What cannot be set (no memory in the kernel) is tried again at the next change. */
	(void)setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_per_s, sizeof bytes_per_s);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
}

static void give_share(const struct connection *k, int64_t share)
{
	int64_t unsent = share / 8;

	if (unsent < UNSENT_MIN)
		unsent = UNSENT_MIN;
	if (unsent > UNSENT_MAX)
		unsent = UNSENT_MAX;
	set_pace(k->fd, (uint64_t)share, (int)unsent);
}

static int64_t even_share(const struct connections *c)
{
	int64_t share = c->sender_count ? c->cfg.download_bytes_per_s / c->sender_count : 0;

	return share > 0 ? share : 1;
}

static void share_out(struct connections *c)
{
	c->share_given = even_share(c);
	for (const struct connection *k = c->senders; k; k = k->next_sender)
		give_share(k, c->share_given);
}

/* Among many, one more or less changes little: that waits for the watcher, a second at the most. */
static void share_out_soon(struct connections *c)
{
	int64_t share = even_share(c), change = share - c->share_given;

	if (change > share / 16 || -change > share / 16)
		share_out(c);
}

void connection_image_begin(struct connections *c, struct connection *k)
{
	if (c->cfg.download_bytes_per_s == 0)
		return;
	k->paced = true;
	pthread_mutex_lock(&c->lock);
	k->sends_image = true;
	k->previous_sender = NULL;
	k->next_sender = c->senders;
	if (c->senders)
		c->senders->previous_sender = k;
	c->senders = k;
	c->sender_count++;
	share_out_soon(c);
	give_share(k, c->share_given);
	pthread_mutex_unlock(&c->lock);
}

/* With the lock. */
static void leave_senders(struct connections *c, struct connection *k)
{
	if (!k->sends_image)
		return;
	*(k->previous_sender ? &k->previous_sender->next_sender : &c->senders) = k->next_sender;
	if (k->next_sender)
		k->next_sender->previous_sender = k->previous_sender;
	k->sends_image = false;
	c->sender_count--;
	share_out_soon(c);
}

void connection_image_end(struct connections *c, struct connection *k)
{
	if (c->cfg.download_bytes_per_s == 0)
		return;
	pthread_mutex_lock(&c->lock);
	leave_senders(c, k);
	pthread_mutex_unlock(&c->lock);
}

void connection_unpace(struct connection *k)
{
	if (k->paced)
		set_pace(k->fd, UINT64_MAX, 0);
	k->paced = false;
}

/* --- the watch --- */

static void look_once(struct connections *c)
{
	int64_t now = clock_mono_ms();

	pthread_mutex_lock(&c->lock);
	bool crowded = c->count > c->cfg.max / 10 * 9;
	for (struct connection *k = c->newest; k; k = k->older) {
		int64_t deadline = atomic_load(&k->deadline_ms);
		bool ended_before = k->ended;

		if (crowded && atomic_load(&k->doing) == CONNECTION_IDLE)
			deadline -= (c->cfg.idle_timeout_s - 1) * 1000;
		/* Seen twice: at first the last bytes may be with a worker still. */
		k->ended = stream_ended(k);
		/* The worker sees the end of the stream and closes; the descriptor stays its own.
		 */
		if (deadline <= now || (k->ended && ended_before))
			shutdown(k->fd, SHUT_RDWR);
	}
	if (c->senders && c->share_given != even_share(c))
		share_out(c);
	pthread_mutex_unlock(&c->lock);
}

static void *watch(void *arg)
{
	struct connections *c = arg;
	struct timespec until;

	pthread_mutex_lock(&c->lock);
	while (!c->stopping) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec++;
		pthread_cond_timedwait(&c->wake, &c->lock, &until);
		pthread_mutex_unlock(&c->lock);
		look_once(c);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

enum ota_code connections_start(const struct connections_config *cfg, struct connections **out,
				struct ota_err *err)
{
	struct connections *c = calloc(1, sizeof *c);
	pthread_condattr_t attr;

	if (!c)
		return ota_fail_nomem(err);
	c->cfg = *cfg;
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->address_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->wake, &attr);
	pthread_condattr_destroy(&attr);
	int rc = pthread_create(&c->thread, NULL, watch, c);
	if (rc != 0) {
		free(c);
		return ota_fail_errno(err, rc, "starting a thread");
	}
	*out = c;
	return OTA_OK;
}

void connections_stop(struct connections **cp)
{
	struct connections *c = *cp;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stopping = true;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	for (int i = 0; i < ADDRESS_BUCKETS; i++)
		for (struct address *a = c->addresses[i], *next; a; a = next) {
			next = a->next;
			free(a);
		}
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->address_lock);
	pthread_cond_destroy(&c->wake);
	free(c);
	*cp = NULL;
}

struct connection *connection_add(struct connections *c, int fd)
{
	struct connection *k = calloc(1, sizeof *k);

	if (!k)
		return NULL;
	k->fd = fd;
	connection_idle(c, k);
	pthread_mutex_lock(&c->lock);
	k->older = c->newest;
	if (c->newest)
		c->newest->newer = k;
	c->newest = k;
	c->count++;
	pthread_mutex_unlock(&c->lock);
	return k;
}

void connection_remove(struct connections *c, struct connection *k)
{
	pthread_mutex_lock(&c->lock);
	leave_senders(c, k);
	*(k->newer ? &k->newer->older : &c->newest) = k->older;
	if (k->older)
		k->older->newer = k->newer;
	c->count--;
	pthread_mutex_unlock(&c->lock);
	free(k);
}

/* The watcher looks once a second: a deadline may be seen a moment late, or be some ms off. */
static void set_deadline(struct connection *k, enum connection_doing doing, int64_t deadline_ms)
{
	atomic_store_explicit(&k->deadline_ms, deadline_ms, memory_order_relaxed);
	atomic_store_explicit(&k->doing, doing, memory_order_relaxed);
}

void connection_arriving(struct connection *k, int64_t ms)
{
	atomic_store_explicit(&k->asked, true, memory_order_relaxed);
	set_deadline(k, CONNECTION_ARRIVING, clock_coarse_ms() + ms);
}

void connection_deadline(struct connection *k, int64_t seconds)
{
	set_deadline(k, CONNECTION_ANSWERED,
		     seconds ? clock_coarse_ms() + seconds * 1000 : INT64_MAX);
}

void connection_idle(struct connections *c, struct connection *k)
{
	set_deadline(k, CONNECTION_IDLE, clock_coarse_ms() + c->cfg.idle_timeout_s * 1000);
}

int64_t connections_count(struct connections *c)
{
	pthread_mutex_lock(&c->lock);
	int64_t n = c->count;
	pthread_mutex_unlock(&c->lock);
	return n;
}

void connections_close_idle(struct connections *c)
{
	pthread_mutex_lock(&c->lock);
	for (struct connection *k = c->newest; k; k = k->older)
		if (atomic_load(&k->asked) && atomic_load(&k->doing) == CONNECTION_IDLE)
			shutdown(k->fd, SHUT_RDWR);
	pthread_mutex_unlock(&c->lock);
}

bool connections_trust(const struct connections *c, const char *peer)
{
	const char *p = c->cfg.trusted_proxies;
	size_t len = strlen(peer);

	while (*p) {
		p += strspn(p, ", ");
		size_t n = strcspn(p, ", ");
		if (n == len && len > 0 && strncmp(p, peer, n) == 0)
			return true;
		p += n;
	}
	return false;
}

static struct address **find_address(struct connections *c, const char *text)
{
	struct address **a = &c->addresses[hash64(text, strlen(text)) % ADDRESS_BUCKETS];

	while (*a && strcmp((*a)->text, text) != 0)
		a = &(*a)->next;
	return a;
}

bool connections_enter(struct connections *c, const char *address)
{
	bool ok = false;

	if (c->cfg.per_address == 0)
		return true;
	pthread_mutex_lock(&c->address_lock);
	struct address **at = find_address(c, address);
	if (!*at) {
		size_t len = strlen(address) + 1;
		*at = calloc(1, sizeof **at + len);
		if (*at)
			memcpy((*at)->text, address, len);
	}
	if (*at && (*at)->requests < c->cfg.per_address) {
		(*at)->requests++;
		ok = true;
	}
	pthread_mutex_unlock(&c->address_lock);
	return ok;
}

void connections_leave(struct connections *c, const char *address)
{
	if (c->cfg.per_address == 0)
		return;
	pthread_mutex_lock(&c->address_lock);
	struct address **at = find_address(c, address);
	if (*at && --(*at)->requests == 0) {
		struct address *dead = *at;
		*at = dead->next;
		free(dead);
	}
	pthread_mutex_unlock(&c->address_lock);
}
