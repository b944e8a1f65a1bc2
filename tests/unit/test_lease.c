/* SPDX-License-Identifier: MIT */
/*
 * Who leads, and that nobody else writes: two instances' leases and stores in one process, on a
 * PostgreSQL of the test's own.
 */
#include "store_bench.h"

#include "store/lease.h"

#include <time.h>

static void ignore(void)
{
}

static struct lease *begin_lease(const char *url)
{
	struct ota_err err;
	struct lease *l = NULL;

	if (lease_start("", url, ignore, &l, &err) != OTA_OK)
		fail_msg("%s", err.msg);
	return l;
}

/* The epoch in which L leads, when it does. */
static int64_t wait_for_lead(struct lease *l)
{
	static const struct timespec pause = {0, 10 * 1000000};
	int64_t until_ms = clock_mono_ms() + 10000;
	struct lease_view v;

	while (!lease_holds(l) && clock_mono_ms() < until_ms)
		nanosleep(&pause, NULL);
	assert_true(lease_holds(l));
	lease_look(l, &v);
	assert_int_equal(v.role, LEASE_LEADS);
	return v.epoch;
}

static enum ota_code open_in(int64_t epoch, struct store **s)
{
	struct ota_err err = {0};

	*s = NULL;
	return store_postgres_open("", epoch, s, &err);
}

/* One event of KIND, through S. */
static enum ota_code write_event(struct store *s, const char *kind)
{
	struct batch_of x = {0};
	struct ota_err err;
	struct change *c = add(&x, CHANGE_EVENT);

	c->event.type = kind;
	c->event.created_us = T0;
	close_group(&x);
	return s->ops->commit(s, &x.b, &err);
}

static int64_t events(struct place *p)
{
	return number(p, "SELECT count(*) FROM ota_events");
}

static void who_led_before_writes_nothing(void **state)
{
	struct place p = {0};
	struct store *before, *after, *other;

	(void)state;
	begin_postgres(&p);
	p.s->ops->close(&p.s);
	struct lease *first = begin_lease("http://first");
	assert_int_equal(wait_for_lead(first), 1);
	struct lease *second = begin_lease("http://second");
	assert_int_equal(open_in(1, &before), OTA_OK);
	assert_int_equal(write_event(before, "one"), OTA_OK);
	assert_false(lease_holds(second));
	assert_int_equal(open_in(2, &other), OTA_EUNAVAIL); /* nobody has raised it so far */
	assert_int_equal(write_event(before, "two"), OTA_OK);

	/* It goes, and the store does not hear of it: as if its process slept. */
	lease_stop(&first);
	assert_int_equal(wait_for_lead(second), 2);
	assert_int_equal(write_event(before, "three"), OTA_OK); /* before the other one has read */
	assert_int_equal(open_in(2, &after), OTA_OK);
	assert_int_equal(write_event(before, "four"), OTA_EUNAVAIL);
	assert_int_equal(open_in(1, &other), OTA_EUNAVAIL);
	assert_int_equal(write_event(after, "five"), OTA_OK);
	assert_int_equal(events(&p), 4);

	/* If it could get at the database all the same, the token would tell. */
	struct postgres_store *pg = (struct postgres_store *)before;
	strcpy(pg->epoch, "2");
	pg->next_try_mono_ms = 0;
	assert_false(atomic_load(&before->overtaken));
	assert_int_equal(write_event(before, "six"), OTA_EUNAVAIL);
	assert_true(atomic_load(&before->overtaken));
	before->ops->close(&before);
	assert_int_equal(write_event(after, "seven"), OTA_OK);
	assert_int_equal(events(&p), 5);
	after->ops->close(&after);
	lease_stop(&second);
	drop_postgres(&p);
}

static void the_lead_goes_on_when_the_session_is_lost(void **state)
{
	struct place p = {0};

	(void)state;
	begin_postgres(&p);
	p.s->ops->close(&p.s);
	struct lease *l = begin_lease("http://only");
	assert_int_equal(wait_for_lead(l), 1);
	assert_int_equal(number(&p,
				"SELECT count(pg_terminate_backend(a.pid)) FROM"
				" pg_stat_activity a, ota_leader o WHERE"
				" a.pid || ' ' || extract(epoch FROM a.backend_start) = o.session"),
			 1);
	int64_t until_ms = clock_mono_ms() + 5000;
	while (lease_holds(l) && clock_mono_ms() < until_ms)
		;
	assert_false(lease_holds(l)); /* at once, not when the beat is late */
	assert_int_equal(wait_for_lead(l), 1);
	lease_resign(l, true);
	while (lease_holds(l) && clock_mono_ms() < until_ms)
		;
	assert_false(lease_holds(l));
	lease_stop(&l);
	drop_postgres(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_led_before_writes_nothing),
		cmocka_unit_test(the_lead_goes_on_when_the_session_is_lost),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
