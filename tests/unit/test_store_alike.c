/* SPDX-License-Identifier: MIT */
/*
 * SQLite and PostgreSQL side by side: the same random batches, in which much touches the same rows
 * and some is refused, leave the same rows and refuse the same commands.
 */
#include "store_text.h"

#include "random.h"

#define DEVICES  5
#define ATTEMPTS 400
#define BATCHES  60

/* What a batch's changes point to. */
struct dice {
	struct device devices[64];
	struct device_digests digests;
	struct device_link link;
	struct attempt attempts[64];
	int attempt_of[ATTEMPTS]; /* whose: by id */
	int attempt_count;
	int64_t alert_count;
	struct {
		size_t count;
		const char *items[2];
	} groups[64];
	int64_t now_us;
};

static const char *const names[DEVICES] = {"d0", "d1", "d2", "d3", "d4"};
static const char *const words[] = {"", "one", "two", "\xC3\xA4 'three'"};

static const char *word(void)
{
	return words[random_below(4)];
}

static const char *word_or_null(void)
{
	return random_below(3) ? word() : NULL;
}

static int64_t some_time(struct dice *d)
{
	return random_below(3) ? d->now_us + random_below(1000) : 0;
}

static void roll_device(struct dice *d, struct batch_of *x, int i)
{
	struct change *c = add(x, CHANGE_DEVICE_PUT);
	struct device *v = &d->devices[x->b.change_count - 1];

	/* Now and then in a second row: the database refuses it. */
	*v = device_of(random_below(12) ? i + 1 : 100 + i, names[i]);
	v->last_seen_us = d->now_us + random_below(9);
	v->habit_us = random_below(99);
	v->state.model = word();
	v->state.version = word();
	v->state.hw = word();
	v->state.ran_as = word();
	v->state.ran_from = word();
	v->state.mac = (uint64_t)random_below(3);
	v->state.boot_hash = random_next();
	v->state.booted_us = some_time(d);
	v->state.boot_seen_us = some_time(d);
	v->state.retry_us = some_time(d);
	v->state.ran_release_id = random_below(4);
	v->state.digests = random_below(2) ? &d->digests : NULL;
	v->state.link = random_below(2) ? &d->link : NULL;
	c->device.device = v;
	c->device.state = &v->state;
	c->device.same = random_below(2);
}

static void roll_attempt(struct dice *d, struct batch_of *x, int i)
{
	struct attempt *a = &d->attempts[x->b.change_count];
	int64_t id = 1 + random_below(d->attempt_count + 1);
	bool stays_open = id % 3 == 0; /* only such are moved on and progress */
	enum attempt_state state = stays_open
					   ? (enum attempt_state)(ATTEMPT_PENDING + random_below(4))
					   : (enum attempt_state)random_below(ATTEMPT_STATES);
	char token[ATTEMPT_TOKEN_LEN + 1];
	bool insert = id > d->attempt_count;

	if (insert && d->attempt_count == ATTEMPTS - 1)
		return;
	if (insert)
		d->attempt_of[d->attempt_count = (int)id] = i;
	snprintf(token, sizeof token, "t%d", random_below(10) ? (int)id : 1); /* some: twice */
	*a = attempt_of(id, state, token);
	a->percent = random_below(102) - 1;
	a->reported_us = d->now_us + random_below(1000);
	a->installing_us = some_time(d);
	a->accepted_us = some_time(d);
	a->commanded_us = some_time(d);
	a->commands = (uint8_t)random_below(5);
	a->settled = random_below(2);
	a->unsolicited = stays_open;
	put_attempt(x, insert ? CHANGE_ATTEMPT_INSERT : CHANGE_ATTEMPT_UPDATE,
		    names[d->attempt_of[id]], a);
	struct change *c = &x->changes[x->b.change_count - 1];
	c->attempt.error_message = word_or_null();
	c->attempt.closed_why = word_or_null();
	c->attempt.started_us = some_time(d);
	c->attempt.completed_us = attempt_is_open(state) ? 0 : d->now_us;
	c->attempt.reach = stays_open ? (enum attempt_reach)random_below(3) : ATTEMPT_CHANGES;
}

static void roll_alert(struct dice *d, struct batch_of *x)
{
	static const char *const subjects[] = {"device/d0", "device/d1"};
	struct change *c = add(x, CHANGE_ALERT);

	c->alert.id = 1 + random_below((int)d->alert_count + 1);
	c->alert.at_us = d->now_us;
	c->alert.what = c->alert.id > d->alert_count ? ALERT_RAISE
			: random_below(2)            ? ALERT_CLEAR
						     : ALERT_ACKNOWLEDGE;
	if (c->alert.what == ALERT_RAISE)
		d->alert_count++;
	c->alert.kind = (enum alert_kind)random_below(2);
	c->alert.subject = subjects[random_below(2)];
	c->alert.sentence = "a sentence";
	c->alert.data = "{}";
	c->alert.by = "me";
	c->alert.reason = word();
	if (c->alert.what == ALERT_RAISE && random_below(2)) {
		int64_t id = c->alert.id;
		c = add(x, CHANGE_WEBHOOK);
		c->webhook.what = WEBHOOK_ADD;
		c->webhook.alert_id = id;
		c->webhook.target = "there";
		c->webhook.at_us = d->now_us;
	}
}

static void roll_groups(struct dice *d, struct batch_of *x, int i)
{
	struct change *c = add(x, CHANGE_DEVICE_GROUPS);

	d->groups[x->b.change_count - 1].count = (size_t)random_below(3);
	d->groups[x->b.change_count - 1].items[0] = "beta";
	d->groups[x->b.change_count - 1].items[1] = "kitchen";
	c->groups.device_id = names[i];
	c->groups.groups = (const struct string_list *)&d->groups[x->b.change_count - 1];
}

static void roll_rest(struct dice *d, struct batch_of *x, int i)
{
	struct change *c;

	switch (random_below(6)) {
	case 0:
		c = add(x, CHANGE_DEVICE_SEEN);
		c->seen.id = i + 1;
		c->seen.last_seen_us = d->now_us + random_below(1000);
		c->seen.habit_us = random_below(99);
		break;
	case 1:
		c = add(x, CHANGE_DEVICE_LABEL);
		c->label.device_id = names[i];
		c->label.value = word_or_null();
		c->label.notes = random_below(2);
		break;
	case 2:
		c = add(x, CHANGE_FAILURES);
		c->failures.device_id = names[i];
		c->failures.failures = (struct failure_count){random_below(2), random_below(2),
							      random_below(2), random_below(9)};
		break;
	case 3:
		c = add(x, CHANGE_STATE);
		c->state.key = random_below(2) ? "a" : "b";
		c->state.value = word_or_null();
		break;
	case 4:
		c = add(x, CHANGE_REJECTED);
		c->rejected.topic = "t";
		c->rejected.payload = "\0\xff";
		c->rejected.payload_len = (size_t)random_below(3);
		c->rejected.reason = c->rejected.detail = word();
		c->rejected.created_us = d->now_us;
		break;
	default:
		c = add(x, CHANGE_EVENT);
		c->event.type = "happened";
		c->event.device_id = names[i];
		c->event.version = word_or_null();
		c->event.rollout_id = random_below(3);
		c->event.data = random_below(2) ? "{\"b\":[1,2.50,\"x\"]}" : NULL;
		c->event.created_us = d->now_us + random_below(1000);
	}
}

static void roll(struct dice *d, struct batch_of *x)
{
	int i = random_below(DEVICES);
	struct change *c;

	switch (random_below(10)) {
	case 0:
	case 1: roll_device(d, x, i); break;
	case 2:
	case 3:
	case 4: roll_attempt(d, x, i); break;
	case 5: roll_alert(d, x); break;
	case 6: roll_groups(d, x, i); break;
	case 7:
		if (random_below(3) == 0) {
			c = add(x, CHANGE_DEVICE_DELETE);
			c->device_delete.device_id = names[i];
			break;
		}
		/* fall through */
	default: roll_rest(d, x, i);
	}
}

/* --- what there is --- */

#define T(text) ((text) ? (text) : "-")

static bool say_update(void *ctx, const struct row_update *r)
{
	buf_printf(ctx, "update %lld %s %s %s %s %s %s %s %s %s %s %s %d %lld %d\n",
		   (long long)r->id, T(r->attempt_id), r->device_id, r->status, T(r->closed),
		   T(r->closed_why), T(r->error_message), T(r->from_version), r->opened_at,
		   T(r->started_at), T(r->completed_at), r->reported_at, r->percent,
		   (long long)r->release_id, r->unsolicited);
	return true;
}

static bool say_device(void *ctx, const struct row_device *r)
{
	buf_printf(ctx, "listed %lld %s %s %s %s %s %s %s %s %d %s %s %s\n", (long long)r->id,
		   r->device_id, T(r->mac), T(r->model), T(r->version), T(r->hw), T(r->label),
		   T(r->notes), T(r->site), r->online, T(r->presence_at), T(r->other_site),
		   T(r->conflict_at));
	return true;
}

static bool say_event(void *ctx, const struct row_event *r)
{
	buf_printf(ctx, "event %s %s %s %lld %s %s %s\n", r->type, T(r->device_id), T(r->version),
		   (long long)r->rollout_id, r->data ? "data" : "-", r->created_at,
		   T(r->created_by));
	return true;
}

static bool say_alert(void *ctx, const struct row_alert *r)
{
	buf_printf(ctx, "alert %lld %s %s %s %s %s %s %s waiting=%lld\n", (long long)r->id, r->kind,
		   r->subject, r->severity, r->raised_at, T(r->acknowledged_at),
		   T(r->acknowledged_reason), T(r->cleared_at), (long long)r->waiting);
	return true;
}

static bool say_rejected(void *ctx, const struct row_rejected *r)
{
	buf_printf(ctx, "rejected %s %zu %s %s\n", r->topic, r->payload_len, r->reason,
		   r->created_at);
	for (size_t i = 0; i < r->payload_len; i++)
		buf_printf(ctx, "%02x", ((const uint8_t *)r->payload)[i]);
	return true;
}

static char *all_of(struct place *p)
{
	const struct list_query q = {.limit = 1000, .active = -1};
	const struct store_ops *o = p->s->ops;
	struct ota_err err;
	struct buf b = BUF_INIT;
	char *loaded = load_text(p);

	buf_adds(&b, loaded);
	free(loaded);
	assert_int_equal(o->list_updates(p->s, &q, say_update, &b, &err), OTA_OK);
	assert_int_equal(o->list_devices(p->s, &q, say_device, &b, &err), OTA_OK);
	assert_int_equal(o->list_events(p->s, &q, say_event, &b, &err), OTA_OK);
	assert_int_equal(o->list_alerts(p->s, &q, say_alert, &b, &err), OTA_OK);
	assert_int_equal(o->list_rejected(p->s, &q, say_rejected, &b, &err), OTA_OK);
	buf_printf(&b, "state %lld\n",
		   (long long)number(p, "SELECT count(*) FROM service_state WHERE key <> 'writer'"
					" AND key <> 'probe'"));
	return buf_take(&b, NULL);
}

static void same(struct place *a, struct place *b, int batch)
{
	char *one = all_of(a), *two = all_of(b);
	size_t at = 0;

	while (one[at] && one[at] == two[at])
		at++;
	if (one[at] || two[at]) {
		while (at > 0 && one[at - 1] != '\n')
			at--;
		fail_msg("batch %d: SQLite has\n%.*s\nand PostgreSQL\n%.*s", batch,
			 (int)strcspn(one + at, "\n"), one + at, (int)strcspn(two + at, "\n"),
			 two + at);
	}
	free(one);
	free(two);
}

static void leave_the_same(void **state)
{
	struct place *lite = *state, postgres = {0};
	static struct dice d;
	int refused = 0;

	begin_postgres(&postgres);
	random_begin("alike");
	d.digests = (struct device_digests){.has_firmware = true, .firmware = {7}};
	d.link = (struct device_link){.site = "paku",
				      .form = TOPIC_FORM_EDGE,
				      .presence = PRESENCE_OFFLINE,
				      .presence_us = T0,
				      .other_site = "",
				      .heard_us = T0};
	for (int n = 0; n < BATCHES; n++) {
		struct batch_of x = {0}, y;
		d.now_us = T0 + n * US_PER_S;
		for (int g = 1 + random_below(8); g > 0; g--) {
			size_t before = x.b.change_count;
			for (int k = 1 + random_below(4); k > 0; k--)
				roll(&d, &x);
			if (x.b.change_count > before)
				close_group(&x);
		}
		y = x;
		y.b.changes = y.changes;
		y.b.groups = y.groups;
		assert_int_equal(commit_all(lite, &x), OTA_OK);
		assert_int_equal(commit_all(&postgres, &y), OTA_OK);
		for (size_t g = 0; g < x.b.group_count; g++) {
			if (x.groups[g].result != y.groups[g].result)
				fail_msg("batch %d, group %zu: %d (%s), %d (%s)", n, g,
					 x.groups[g].result, x.groups[g].err.msg,
					 y.groups[g].result, y.groups[g].err.msg);
			refused += x.groups[g].result != OTA_OK;
		}
		same(lite, &postgres, n);
	}
	assert_true(refused > 0);
	drop_postgres(&postgres);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(leave_the_same, begin_sqlite, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
