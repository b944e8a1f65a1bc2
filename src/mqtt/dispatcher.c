/* SPDX-License-Identifier: MIT */
#include "mqtt/dispatcher.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "core/dispatch.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TURN_MS     100
#define TEND_MS     250
#define READ_MS     2     /* from one look at the broker's acknowledgements to the next */
#define LOOK_MS     5     /* at the fleet, in one turn */
#define ROUND_MS    1000  /* from one round to the next, at least */
#define LANE_MAX    16384 /* devices that wait of one rollout; the next round finds the others */
#define OUTSTANDING 2000  /* commands with the committer, or waiting for the broker */
#define REFILL      1000  /* so many at once: a transaction has a price, whatever it holds */

#define COMMAND_TOPIC_SIZE   300
#define COMMAND_PAYLOAD_SIZE 700

/* The devices of one rollout whose turn it may be. */
struct lane {
	struct lane *next;
	int64_t rollout_id; /* 0: devices whose attempt is to end */
	int priority;       /* the rollout's; lanes of the highest that have somebody take turns */
	size_t first, count;
	char *ids[LANE_MAX]; /* a ring */
};

/* Orders that were handed over together: the last that is answered wakes the dispatcher. */
struct handful {
	_Atomic size_t unanswered;
};

struct order {
	struct command command;
	struct dispatcher *dispatcher;
	struct handful *handful;
	struct order *next; /* of the done ones, or of those that are to be told */
	int64_t until_ms;   /* of its window: what is told later is told anew */
	char device_id[];
};

struct dispatcher {
	struct dispatcher_config cfg;
	struct client client;
	struct dispatcher_stats stats;
	char will_topic[300];
	const char *base_url;
	/* who is to be told */
	struct lane *lanes, *turn; /* turn: whose turn it is; NULL: the first's */
	size_t waiting;
	int shard; /* of the round; FLEET_SHARDS: it is over */
	int64_t round_began_ms, round_at_ms;
	bool left_out;      /* by the round: the next one begins when nobody waits */
	bool places_wanted; /* it met devices that wait for one */
	uint64_t plan_number;
	double tokens;
	int64_t filled_ms, tend_ms, read_ms;
	/* with the committer, and back from it */
	_Atomic size_t outstanding; /* the ready ones too */
	pthread_mutex_t done_lock;
	struct order *done, **done_end; /* under done_lock */
	/* Durable, and told as soon as the broker has room: what libmosquitto has cannot be taken
	 * back, but whoever is not to be told any more is not told. */
	struct order *ready, **ready_end;
	size_t ready_count;
};

/* --- the command --- */

static void write_url(struct buf *b, const char *base_url, const struct attempt *a)
{
	buf_adds(b, base_url);
	buf_adds(b, "/api/firmware/download/");
	for (const char *p = a->version; *p; p++)
		*p == '+' ? buf_adds(b, "%2B") : buf_addc(b, *p);
	buf_printf(b, "?attempt=%s", a->token);
}

/* No white space, and the attempt in the URL alone: PubSubClient drops packets of over 256 bytes.
 */
static bool write_command(const struct device *d, const struct release *r, const char *base_url,
			  char *topic, char *payload)
{
	const struct device_link *l = d->state.link;
	struct buf b = BUF_INIT;
	char hex[SHA256_HEX_SIZE];

	hex_encode(r->sha256, DIGEST_SIZE, hex);
	buf_adds(&b, "{\"url\":\"");
	write_url(&b, base_url, d->state.attempt);
	buf_printf(&b, "\",\"checksum\":\"%s\",\"version\":\"%s\"}", hex, r->version);
	bool ok = buf_ok(&b) && b.len < COMMAND_PAYLOAD_SIZE;
	if (ok)
		memcpy(payload, b.data, b.len + 1);
	buf_fini(&b);
	int n = snprintf(topic, COMMAND_TOPIC_SIZE, "%s/%s/%s/cmd/ota", l->site,
			 l->form == TOPIC_FORM_DEVICES ? "devices" : "edge", d->device_id);
	return ok && n < COMMAND_TOPIC_SIZE;
}

/* The topic and the payload for the device's attempt; false: it does not wait any more. */
static bool find_command(const struct dispatcher *x, const char *device_id, int64_t attempt_id,
			 char topic[COMMAND_TOPIC_SIZE], char payload[COMMAND_PAYLOAD_SIZE])
{
	struct fleet *f = x->cfg.fleet;
	bool ok = false;

	fleet_plan_read(f);
	const struct device *d = fleet_lock_device(f, device_id);
	const struct attempt *a = d ? d->state.attempt : NULL;
	const struct release *r = a && a->id == attempt_id ? fleet_release(f, a->release_id) : NULL;
	if (r && !r->deleted && d->state.link && attempt_is_open(a->state) && a->commands > 0 &&
	    !(fleet_is_stopped(f) && a->state == ATTEMPT_PENDING)) {
		const char *base = download_base_find(x->cfg.bases, &d->state);
		ok = write_command(d, r, base ? base : x->base_url, topic, payload);
	}
	if (d)
		fleet_unlock_device(f, d);
	fleet_plan_done(f);
	return ok;
}

/* Who is not told is told again after its window, if it is still to be told. */
static void tell(struct dispatcher *d, const struct order *o)
{
	char topic[COMMAND_TOPIC_SIZE], payload[COMMAND_PAYLOAD_SIZE];
	int64_t left_ms = o->until_ms - clock_mono_ms();

	if (left_ms <= 0 || !find_command(d, o->device_id, o->command.out.id, topic, payload))
		return;
	int rc = client_publish(&d->client, topic, payload, false,
				(uint32_t)((left_ms + 999) / 1000));
	if (rc == MOSQ_ERR_SUCCESS)
		d->stats.commands++;
	else
		log_event(LOG_WARNING, "mqtt", "not_sent", "command for device %s: %s",
			  o->device_id, mosquitto_strerror(rc));
}

static bool is_up(const struct dispatcher *d)
{
	return d->client.m && d->client.up;
}

static void tell_ready(struct dispatcher *d)
{
	while (d->ready && (!is_up(d) || client_has_room(&d->client))) {
		struct order *o = d->ready;
		d->ready = o->next;
		if (!d->ready)
			d->ready_end = &d->ready;
		d->ready_count--;
		if (is_up(d))
			tell(d, o);
		free(o);
		d->outstanding--;
	}
}

/* --- orders: with the committer, and back --- */

/* Each of them by itself would wake it a thousand times for one transaction. */
static void handful_answered(struct handful *h, size_t count, int wake_fd)
{
	uint64_t one = 1;

	if (atomic_fetch_sub(&h->unanswered, count) != count)
		return;
	free(h);
	(void)!write(wake_fd, &one, sizeof one);
}

/* On the committer's thread. */
static void order_done(struct command *cmd)
{
	struct order *o = cmd->owner;
	struct dispatcher *d = o->dispatcher;
	struct handful *h = o->handful;
	int fd = d->cfg.wake_fd;

	pthread_mutex_lock(&d->done_lock);
	o->next = NULL;
	*d->done_end = o;
	d->done_end = &o->next;
	pthread_mutex_unlock(&d->done_lock);
	handful_answered(h, 1, fd);
}

static struct order *order_new(struct dispatcher *d, const char *device_id)
{
	size_t len = strlen(device_id) + 1;
	struct order *o = calloc(1, sizeof *o + len);

	if (!o)
		return NULL;
	memcpy(o->device_id, device_id, len);
	o->dispatcher = d;
	o->command.kind = COMMAND_DISPATCH;
	o->command.dispatch.device_id = o->device_id;
	o->command.owner = o;
	o->command.done = order_done;
	return o;
}

static void take_done(struct dispatcher *d)
{
	int64_t until_ms = clock_mono_ms() + d->cfg.command_timeout_s * 1000;

	pthread_mutex_lock(&d->done_lock);
	struct order *o = d->done, *next;
	d->done = NULL;
	d->done_end = &d->done;
	pthread_mutex_unlock(&d->done_lock);
	for (; o; o = next) {
		next = o->next;
		if (o->command.code == OTA_OK && o->command.out.send) {
			o->next = NULL;
			o->until_ms = until_ms;
			*d->ready_end = o;
			d->ready_end = &o->next;
			d->ready_count++;
			continue;
		}
		d->tokens += 1; /* nobody was told */
		free(o);
		d->outstanding--;
	}
	tell_ready(d);
}

/* --- lanes --- */

static struct lane *lane_of(struct dispatcher *d, int64_t rollout_id, int priority)
{
	struct lane **p = &d->lanes;

	for (; *p; p = &(*p)->next)
		if ((*p)->rollout_id == rollout_id)
			return *p;
	*p = calloc(1, sizeof **p);
	if (*p) {
		(*p)->rollout_id = rollout_id;
		(*p)->priority = priority;
	}
	return *p;
}

static void lane_push(struct dispatcher *d, const struct rollout *r, const char *device_id)
{
	struct lane *l = lane_of(d, r ? r->id : 0, r ? r->priority : INT_MAX);
	char *id = l && l->count < LANE_MAX ? strdup(device_id) : NULL;

	if (!id) {
		d->left_out = true; /* the next round finds it */
		return;
	}
	l->ids[(l->first + l->count++) % LANE_MAX] = id;
	d->waiting++;
}

static char *lane_pop(struct dispatcher *d, struct lane *l)
{
	char *id = l->ids[l->first];

	l->first = (l->first + 1) % LANE_MAX;
	l->count--;
	d->waiting--;
	return id;
}

/* Empty lanes go, so that a rollout that ended leaves nothing. */
static void lanes_sweep(struct dispatcher *d, bool all)
{
	struct lane **p = &d->lanes, *l;

	while ((l = *p) != NULL) {
		while (all && l->count > 0)
			free(lane_pop(d, l));
		if (l->count > 0) {
			p = &l->next;
			continue;
		}
		*p = l->next;
		free(l);
	}
	d->turn = NULL;
}

/* The highest priority of which somebody waits. */
static int highest_priority(const struct dispatcher *d)
{
	int highest = INT_MIN;

	for (const struct lane *l = d->lanes; l; l = l->next)
		if (l->count > 0 && l->priority > highest)
			highest = l->priority;
	return highest;
}

/* The next device of the next rollout that has one, of those that go first. */
static char *next_device(struct dispatcher *d)
{
	if (d->waiting == 0)
		return NULL;
	for (int priority = highest_priority(d);;) {
		if (!d->turn)
			d->turn = d->lanes;
		struct lane *l = d->turn;
		d->turn = l->next;
		if (l->count > 0 && l->priority == priority)
			return lane_pop(d, l);
	}
}

/* --- the look at the fleet --- */

struct look {
	struct dispatcher *d;
	struct decide_params decide;
	struct dispatch_params dispatch;
};

static bool look_at(const struct device *dev, void *ctx)
{
	struct look *l = ctx;

	if (!dev->state.link || !dev->state.model[0])
		return true;
	const struct model *m = fleet_model(l->d->cfg.fleet, dev->state.model);
	struct decision x = decide(dev, m, &l->decide);
	l->d->places_wanted |= x.reason == REASON_WAITS;
	if (x.reason == REASON_NO_PLACE && dev->state.link->presence == PRESENCE_ONLINE)
		committer_note_waiting(l->d->cfg.committer, dev, x.rollout);
	switch (dispatch_judge(dev, &x, &l->dispatch)) {
	case DISPATCH_NOTHING: break;
	case DISPATCH_LAPSE: lane_push(l->d, NULL, dev->device_id); break;
	case DISPATCH_OPEN:
	case DISPATCH_AGAIN: lane_push(l->d, x.rollout, dev->device_id); break;
	}
	return true;
}

static struct look look_now(struct dispatcher *d)
{
	struct look l = {.d = d, .decide = committer_decide_params(d->cfg.committer)};

	l.dispatch = (struct dispatch_params){l.decide.now_us, d->cfg.command_timeout_s * US_PER_S};
	return l;
}

/* Most that are seen have nothing to be told: that costs no command. */
void dispatcher_consider(struct dispatcher *d, const char *device_id)
{
	struct look l = look_now(d);

	fleet_plan_read(d->cfg.fleet);
	const struct device *dev = fleet_lock_device(d->cfg.fleet, device_id);
	if (dev) {
		(void)look_at(dev, &l);
		fleet_unlock_device(d->cfg.fleet, dev);
	}
	fleet_plan_done(d->cfg.fleet);
}

static void look_on(struct dispatcher *d)
{
	int64_t until_ms = clock_mono_ms() + LOOK_MS;
	struct look l = look_now(d);

	do {
		fleet_plan_read(d->cfg.fleet);
		fleet_visit(d->cfg.fleet, d->shard, d->shard + 1, look_at, &l);
		fleet_plan_done(d->cfg.fleet);
		d->shard++;
	} while (d->shard < FLEET_SHARDS && clock_mono_ms() < until_ms);
	if (d->shard == FLEET_SHARDS) {
		/*
		 * What a round finds by itself is what fell due; it takes a fiftieth of the time
		 * at the most (with 100,000 devices rounds took a tenth of what a message costs),
		 * a tenth where somebody waits for a place that another leaves.
		 */
		int64_t now_ms = clock_mono_ms(), took_ms = now_ms - d->round_began_ms;
		int64_t pause_ms = took_ms * (d->places_wanted ? 10 : 50);
		d->round_at_ms = now_ms + (pause_ms > ROUND_MS ? pause_ms : ROUND_MS);
	}
}

/* True: there is more to look at. */
static bool look(struct dispatcher *d)
{
	uint64_t number = fleet_plan_number(d->cfg.fleet);
	bool due = d->shard == FLEET_SHARDS && d->waiting == 0 &&
		   (d->left_out || clock_mono_ms() >= d->round_at_ms);

	if (number != d->plan_number || due) {
		/* What waited is looked at again, too: the plan may not want it any more. */
		d->plan_number = number;
		lanes_sweep(d, true);
		d->left_out = d->places_wanted = false;
		d->shard = 0;
		d->round_began_ms = clock_mono_ms();
	}
	if (d->shard < FLEET_SHARDS)
		look_on(d);
	return d->shard < FLEET_SHARDS;
}

/* --- a turn --- */

static void fill_tokens(struct dispatcher *d)
{
	int64_t now_ms = clock_mono_ms();
	double most = (double)d->cfg.per_second / 2 + 1;

	d->tokens += (double)(now_ms - d->filled_ms) / 1000.0 * (double)d->cfg.per_second;
	d->filled_ms = now_ms;
	if (d->tokens > most)
		d->tokens = most;
}

/*
 * As many as a transaction takes, or all there are: each place that the broker gives free by itself
 * would be a transaction of one.  MORE: the look at the fleet goes on.
 */
static bool may_refill(const struct dispatcher *d, bool more)
{
	size_t places = OUTSTANDING - d->outstanding;

	if (d->tokens < 1 || d->waiting == 0)
		return false;
	return d->outstanding == 0 || (places >= REFILL && d->waiting >= REFILL) ||
	       (places >= d->waiting && !more);
}

static void take_orders(struct dispatcher *d, struct handful *h, struct command_list *out)
{
	char *id;

	list_init(out);
	while (d->tokens >= 1 && d->outstanding < OUTSTANDING && (id = next_device(d)) != NULL) {
		struct order *o = order_new(d, id);
		free(id);
		if (!o)
			return; /* the next round finds it */
		o->handful = h;
		list_push(out, &o->command);
		d->outstanding++;
		d->tokens -= 1;
	}
}

static void send_orders(struct dispatcher *d, bool more)
{
	struct command_list orders;
	struct command *refused;
	struct ota_err err;

	fill_tokens(d);
	struct handful *h = may_refill(d, more) ? malloc(sizeof *h) : NULL;
	if (!h)
		return;
	take_orders(d, h, &orders);
	size_t ours = 1; /* some are answered before all are handed over */
	h->unanswered = orders.count + ours;
	(void)committer_submit_list(d->cfg.committer, &orders, &err);
	while ((refused = list_pop(&orders)) != NULL) { /* the next round finds them */
		free(refused->owner);
		d->outstanding--;
		d->tokens += 1;
		ours++;
	}
	handful_answered(h, ours, d->cfg.wake_fd);
}

static void on_up(struct client *c)
{
	struct dispatcher *d = c->owner;
	char payload[100];

	snprintf(payload, sizeof payload, "{\"online\":true,\"version\":\"%s\"}", PAKU_VERSION);
	(void)client_publish(c, d->will_topic, payload, true, 0);
}

static void on_message(struct client *c, const struct mosquitto_message *m)
{
	(void)c;
	(void)m; /* it subscribes to nothing */
}

struct pollfd dispatcher_pollfd(const struct dispatcher *d)
{
	struct pollfd p = client_pollfd(&d->client);

	if (clock_mono_ms() < d->read_ms)
		p.events &= ~POLLIN;
	return p;
}

/* A broker acknowledges one by one: who looks at each by itself does nothing else.  In how many
 * milliseconds to look again. */
static int read_broker(struct dispatcher *d)
{
	int64_t now_ms = clock_mono_ms();

	if (now_ms < d->read_ms)
		return (int)(d->read_ms - now_ms);
	if (!client_read(&d->client))
		return TURN_MS;
	while (client_read(&d->client))
		;
	d->read_ms = now_ms + READ_MS;
	return READ_MS;
}

int dispatcher_turn(struct dispatcher *d)
{
	bool more = false;

	if (clock_mono_ms() >= d->tend_ms) {
		d->tend_ms = clock_mono_ms() + TEND_MS;
		client_tend(&d->client);
		client_misc(&d->client);
	}
	int wait_ms = read_broker(d);
	take_done(d);
	/* Nobody is told while nobody can be. */
	if (is_up(d)) {
		more = look(d);
		send_orders(d, more);
	}
	d->stats.waiting = (int64_t)(d->waiting + d->ready_count);
	client_write(&d->client);
	if (d->client.in_flight > 0)
		client_hurry(&d->client);
	return more ? 0 : wait_ms;
}

enum ota_code dispatcher_new(const struct dispatcher_config *cfg, struct dispatcher **out,
			     struct ota_err *err)
{
	struct dispatcher *d = calloc(1, sizeof *d);

	if (!d)
		return ota_fail_nomem(err);
	d->cfg = *cfg;
	pthread_mutex_init(&d->done_lock, NULL);
	snprintf(d->will_topic, sizeof d->will_topic, "%s/ota-service/status", cfg->site);
	d->client = (struct client){
		.cfg = cfg->broker,
		.id = cfg->client_id,
		.will_topic = d->will_topic,
		.will_payload = "{\"online\":false}",
		.on_up = on_up,
		.on_message = on_message,
		.owner = d,
	};
	client_init(&d->client);
	d->filled_ms = clock_mono_ms();
	d->shard = FLEET_SHARDS;
	d->ready_end = &d->ready;
	d->done_end = &d->done;
	*out = d;
	return OTA_OK;
}

void dispatcher_set_base_url(struct dispatcher *d, const char *base_url)
{
	d->base_url = base_url;
}

void dispatcher_end(struct dispatcher *d)
{
	struct pollfd wake = {.fd = d->cfg.wake_fd, .events = POLLIN};
	uint64_t n;

	for (take_done(d); d->outstanding > d->ready_count; take_done(d))
		if (poll(&wake, 1, TURN_MS) > 0)
			(void)!read(d->cfg.wake_fd, &n, sizeof n);
	lanes_sweep(d, true);
	if (is_up(d))
		(void)client_publish(&d->client, d->will_topic, d->client.will_payload, true, 0);
	client_fini(&d->client);
	tell_ready(d); /* nobody any more */
}

void dispatcher_free(struct dispatcher **dp)
{
	struct dispatcher *d = *dp;

	if (!d)
		return;
	pthread_mutex_destroy(&d->done_lock);
	free(d);
	*dp = NULL;
}

const struct client *dispatcher_client(const struct dispatcher *d)
{
	return &d->client;
}

const struct dispatcher_stats *dispatcher_stats(const struct dispatcher *d)
{
	return &d->stats;
}
