/* SPDX-License-Identifier: MIT */
/* The store, whichever: what a commit writes and what load() gives back, refusals, lists and their
 * paging. */
#include "store_text.h"

#include "core/target.h"
#include "random.h"

/* A time for rows that are written by hand. */
#define T "2026-01-01T00:00:00.000000Z"

/* --- round trip --- */

static void add_release(struct batch_of *x, const struct release *r)
{
	struct change *c = add(x, CHANGE_RELEASE_INSERT);

	c->release.release = r;
	c->release.file_path = "/f";
	c->release.created_by = "api";
	c->release.release_notes = "notes 'quoted' \xC3\xA4";
	c->release.metadata = "{\"a\":1}";
}

static void add_rollout(struct batch_of *x, const struct rollout *o, const char *filter)
{
	struct change *c = add(x, CHANGE_ROLLOUT_INSERT);

	c->rollout.rollout = o;
	c->rollout.target_filter = filter;
	c->rollout.created_by = "api";
	c->rollout.metadata = "{}";
	c->rollout.stages = "[{\"percent\":25}]";
}

static void each_change(void **state)
{
	struct place *p = *state;
	struct release r = {.id = 1,
			    .version = "2.0.0",
			    .model = "m",
			    .min_version = "1.0.0",
			    .file_size = 77,
			    .created_us = T0,
			    .sha256 = {0xAB}};
	struct rollout o = {
		.id = 1,
		.name = "all \"of\" it",
		.release = &r,
		.active = true,
		.allow_downgrade = true,
		.max_attempts = 5,
		.created_us = T0,
		.priority = -3,
		.requires = "1.5.0",
		.not_before_us = T0 + 3,
		.deadline_us = T0 + 4,
		.walk = {.state = ROLLOUT_SCHEDULED, .state_since_us = T0, .reason = ""},
		.target = {.type = TARGET_GROUP, .percent = 25}};
	struct device_digests g = {
		.has_firmware = true, .has_elf = true, .firmware = {0x12}, .elf = {[31] = 0x34}};
	struct device d = device_of(1, "d1"), e = device_of(2, "d2"), gone = device_of(3, "d3");
	struct {
		size_t count;
		const char *items[2];
	} two = {2, {"beta", "kitchen"}};
	struct attempt a = attempt_of(1, ATTEMPT_PENDING, "aaaaaaaaaaaaa"),
		       b = attempt_of(2, ATTEMPT_PENDING, "bbbbbbbbbbbbb");
	struct batch_of x = {0};
	struct change *c;

	d.state.mac = UINT64_C(0xFFEEDDCCBBAA);
	d.state.hw = "rev 2";
	d.state.boot_hash = UINT64_C(0xFFFFFFFFFFFFFFFE);
	d.state.booted_us = T0 - 5;
	d.state.boot_seen_us = T0 - 4;
	d.state.digests = &g;
	d.state.ran_release_id = 1;
	d.state.ran_as = "two";
	d.state.ran_from = "one";
	add_release(&x, &r);
	add_rollout(&x, &o, "{\"group\":\"beta\"}");
	put(&x, &d);
	put(&x, &e);
	put(&x, &gone);
	for (int i = 0; i < 2; i++) {
		c = add(&x, CHANGE_DEVICE_GROUPS);
		c->groups.device_id = i ? "d3" : "d1";
		c->groups.groups = (const struct string_list *)&two;
	}
	c = add(&x, CHANGE_DEVICE_LABEL);
	c->label.device_id = "d1";
	c->label.value = "kitchen lamp";
	c = add(&x, CHANGE_DEVICE_LABEL);
	c->label.device_id = "d1";
	c->label.value = "some notes";
	c->label.notes = true;
	for (int i = 0; i < 2; i++) {
		c = add(&x, CHANGE_FAILURES);
		c->failures.device_id = i ? "d3" : "d1";
		c->failures.failures = (struct failure_count){1, 2 * i, 3, 7 * i};
	}
	put_attempt(&x, CHANGE_ATTEMPT_INSERT, "d1", &a);
	put_attempt(&x, CHANGE_ATTEMPT_INSERT, "d2", &b);
	c = add(&x, CHANGE_EVENT);
	c->event.type = "firmware_uploaded";
	c->event.created_us = T0;
	c->event.rollout_id = 1;
	c->event.data = "{}";
	close_group(&x);
	assert_int_equal(commit_all(p, &x), OTA_OK);
	assert_int_equal(x.groups[0].result, OTA_OK);
	p->s->ops->close(&p->s);
	open_store(p);
	char *text = load_text(p);
	assert_string_equal(
		text,
		"release 1 2.0.0 m min=1.0.0 size=77 sha=ab000000 notes=notes 'quoted' "
		"\xC3\xA4 at=2027-01-15T08:00:00.000000Z"
		" meta={\"a\":1} learnt=- deleted=-\n"
		"rollout 1 all \"of\" it release=1 group {\"group\":\"beta\"} 25% "
		"active=1 down=1 max=5"
		" at=2027-01-15T08:00:00.000000Z meta={}"
		" scheduled since=2027-01-15T08:00:00.000000Z why=- stage=1 since=-"
		" held=0 approved=0 of [{\"percent\":25}]"
		" from=2027-01-15T08:00:00.000003Z to=2027-01-15T08:00:00.000004Z"
		" priority=-3 requires=1.5.0\n"
		"device 1 d1 seen=2027-01-15T08:00:00.000001Z "
		"made=2027-01-15T08:00:00.000000Z model=m version=1 hw=rev 2"
		" booted=1799999999999995 bootseen=1799999999999996 "
		"boot=fffffffffffffffe mac=ffeeddccbbaa ran=1 as=two from=one digests=11 1234\n"
		"device 2 d2 seen=2027-01-15T08:00:00.000002Z "
		"made=2027-01-15T08:00:00.000000Z model=m version=1 hw="
		" booted=0 bootseen=0 boot=0 mac=0 ran=0 as= from= digests=00 0000\n"
		"device 3 d3 seen=2027-01-15T08:00:00.000003Z "
		"made=2027-01-15T08:00:00.000000Z model=m version=1 hw="
		" booted=0 bootseen=0 boot=0 mac=0 ran=0 as= from= digests=00 0000\n"
		"group d1 beta\ngroup d1 kitchen\ngroup d3 beta\ngroup d3 kitchen\n"
		"failures d1 1 0 3 0\nfailures d3 1 2 3 7\n"
		"attempt 1 d1 pending -1% release=1 rollout=1 opened=1800000000000000 "
		"reported=1800000000000001 installing=0"
		" 2.0.0<-1 aaaaaaaaaaaaa settled=0\n"
		"attempt 2 d2 pending -1% release=1 rollout=1 opened=1800000000000000 "
		"reported=1800000000000002 installing=0"
		" 2.0.0<-1 bbbbbbbbbbbbb settled=0\n");
	free(text);
	/* Ids go on where they were. */
	assert_int_equal(p->s->ops->next_id(p->s, ID_DEVICE), 4);
	assert_int_equal(p->s->ops->next_id(p->s, ID_ATTEMPT), 3);
	assert_int_equal(p->s->ops->next_id(p->s, ID_RELEASE), 2);
	assert_int_equal(p->s->ops->next_id(p->s, ID_ROLLOUT), 2);
	assert_int_equal(p->s->ops->next_id(p->s, ID_ROLLOUT), 3);

	/* And what changes or removes. */
	memset(&x, 0, sizeof x);
	c = add(&x, CHANGE_DEVICE_SEEN);
	c->seen.id = 2;
	c->seen.last_seen_us = T0 + 9 * US_PER_S;
	c = add(&x, CHANGE_DEVICE_GROUPS);
	c->groups.device_id = "d1";
	c = add(&x, CHANGE_DEVICE_LABEL);
	c->label.device_id = "d1";
	c = add(&x, CHANGE_DEVICE_DELETE);
	c->device_delete.device_id = "d3";
	c = add(&x, CHANGE_FAILURES);
	c->failures.device_id = "d1";
	c->failures.failures.release_id = 1;
	c = add(&x, CHANGE_RELEASE_LEARNT);
	c->release_learnt.id = 1;
	c->release_learnt.names = "[\"x\"]";
	c = add(&x, CHANGE_RELEASE_DELETED);
	c->release_deleted.id = 1;
	c->release_deleted.deleted_us = T0 + 1;
	const struct walk paused = {.state = ROLLOUT_PAUSED,
				    .stage = 1,
				    .approved = true,
				    .state_since_us = T0 + 2,
				    .stage_since_us = T0 + 1,
				    .held_us = 7,
				    .reason = "a 'reason'"};
	c = add(&x, CHANGE_ROLLOUT_WALK);
	c->rollout_walk.rollout = &o;
	c->rollout_walk.walk = &paused;
	c->rollout_walk.percent = 25;
	c->rollout_walk.updated_us = T0 + 2;
	a.state = ATTEMPT_INSTALLING;
	a.percent = 40;
	a.installing_us = T0 + 3;
	put_attempt(&x, CHANGE_ATTEMPT_UPDATE, "d1", &a);
	b.state = ATTEMPT_SUCCESS;
	b.settled = true;
	put_attempt(&x, CHANGE_ATTEMPT_UPDATE, "d2", &b);
	d.state.digests = NULL;
	d.state.mac = 0;
	d.state.hw = d.state.ran_as = d.state.ran_from = d.state.model = "";
	put(&x, &d);
	close_group(&x);
	assert_int_equal(commit_all(p, &x), OTA_OK);
	text = load_text(p);
	assert_string_equal(text,
			    "release 1 2.0.0 m min=1.0.0 size=77 sha=ab000000 notes=notes 'quoted' "
			    "\xC3\xA4 at=2027-01-15T08:00:00.000000Z"
			    " meta={\"a\":1} learnt=[\"x\"] deleted=2027-01-15T08:00:00.000001Z\n"
			    "rollout 1 all \"of\" it release=1 group {\"group\":\"beta\"} 25% "
			    "active=0 down=1 max=5"
			    " at=2027-01-15T08:00:00.000000Z meta={}"
			    " paused since=2027-01-15T08:00:00.000002Z why=a 'reason' stage=2"
			    " since=2027-01-15T08:00:00.000001Z held=7 approved=1 of "
			    "[{\"percent\":25}]"
			    " from=2027-01-15T08:00:00.000003Z to=2027-01-15T08:00:00.000004Z"
			    " priority=-3 requires=1.5.0\n"
			    "device 1 d1 seen=2027-01-15T08:00:00.000001Z "
			    "made=2027-01-15T08:00:00.000000Z model= version=1 hw="
			    " booted=1799999999999995 bootseen=1799999999999996 "
			    "boot=fffffffffffffffe mac=0 ran=1 as= from= digests=00 0000\n"
			    "device 2 d2 seen=2027-01-15T08:00:09.000000Z "
			    "made=2027-01-15T08:00:00.000000Z model=m version=1 hw="
			    " booted=0 bootseen=0 boot=0 mac=0 ran=0 as= from= digests=00 0000\n"
			    "attempt 1 d1 installing 40% release=1 rollout=1 "
			    "opened=1800000000000000 reported=1800000000000001"
			    " installing=1800000000000003 2.0.0<-1 aaaaaaaaaaaaa settled=0\n");
	free(text);
	assert_int_equal(
		number(p,
		       "SELECT count(*) FROM devices WHERE label IS NULL AND notes='some notes'"),
		1);
	/* The table can be read as the contract says. */
	assert_int_equal(
		number(p, "SELECT count(*) FROM device_update_status WHERE metadata IS NOT NULL"),
		2);
	assert_int_equal(
		number(p,
		       "SELECT count(*) FROM rollout_configurations WHERE updated_at > created_at"),
		1);
}

static void find_attempts(void **state)
{
	struct place *p = *state;
	struct attempt a = attempt_of(1, ATTEMPT_FAILED, "aaaaaaaaaaaaa"),
		       b = attempt_of(2, ATTEMPT_PENDING, "bbbbbbbbbbbbb");
	struct stored_attempt out;
	struct batch_of x = {0};
	struct ota_err err;

	put_attempt(&x, CHANGE_ATTEMPT_INSERT, "d1", &a);
	put_attempt(&x, CHANGE_ATTEMPT_INSERT, "d1", &b);
	close_group(&x);
	assert_int_equal(commit_all(p, &x), OTA_OK);
	assert_int_equal(p->s->ops->find_attempt(p->s, "aaaaaaaaaaaaa", NULL, NULL, &out, &err),
			 OTA_OK);
	assert_true(out.a.id == 1 && out.a.state == ATTEMPT_FAILED && out.completed_us == T0 + 1);
	assert_string_equal(out.device_id, "d1");
	assert_string_equal(out.a.version, "2.0.0");
	assert_int_equal(p->s->ops->find_attempt(p->s, "ccccccccccccc", NULL, NULL, &out, &err),
			 OTA_ENOTFOUND);
	assert_int_equal(p->s->ops->find_attempt(p->s, NULL, "d1", "2.0.0", &out, &err), OTA_OK);
	assert_true(out.a.id == 2 && out.completed_us == 0);
	assert_int_equal(p->s->ops->find_attempt(p->s, NULL, "d1", "v2.0.0", &out, &err), OTA_OK);
	assert_int_equal(out.a.id, 2);
	assert_int_equal(p->s->ops->find_attempt(p->s, NULL, "d1", "v", &out, &err), OTA_ENOTFOUND);
	assert_int_equal(p->s->ops->find_attempt(p->s, NULL, "d2", "2.0.0", &out, &err),
			 OTA_ENOTFOUND);
}

/* --- refusals --- */

static void refused_among_others(void **state)
{
	enum { N = 33 };
	struct place *p = *state;
	static struct device d[N];
	static char names[N][8];

	random_begin("refusals");
	for (int round = 0; round < 30; round++) {
		struct batch_of x = {0};
		bool bad[N] = {false};
		int good = 0;
		assert_true(sql(p, "DELETE FROM devices; DELETE FROM device_update_status"));
		for (int i = 0; i < N; i++) {
			snprintf(names[i], sizeof names[i], "d%d", i);
			bad[i] = random_below(8) == 0;
			/* A bad one has a device id that stands already, under another row id. */
			d[i] = device_of(100 + i, bad[i] ? "taken" : names[i]);
			good += !bad[i];
		}
		struct device taken = device_of(1, "taken");
		put(&x, &taken);
		close_group(&x);
		for (int i = 0; i < N; i++) {
			/* A refused command leaves nothing: its event, written first, goes too. */
			if (i < 20) {
				struct change *c = add(&x, CHANGE_DEVICE_LABEL);
				c->label.device_id = "taken";
				c->label.value = bad[i] ? "refused" : "fine";
			}
			put(&x, &d[i]);
			close_group(&x);
		}
		assert_int_equal(commit_all(p, &x), OTA_OK);
		for (int i = 0; i < N; i++)
			if ((x.groups[i + 1].result == OTA_ECONFLICT) != bad[i] ||
			    (x.groups[i + 1].result == OTA_OK) == bad[i])
				fail_msg("round %d, group %d: %d", round, i,
					 x.groups[i + 1].result);
		assert_int_equal(number(p, "SELECT count(*) FROM devices"), good + 1);
		assert_int_equal(number(p, "SELECT count(*) FROM devices WHERE label='refused'"),
				 0);
	}
}

static void one_open_attempt(void **state)
{
	struct place *p = *state;
	struct attempt a[4] = {
		attempt_of(1, ATTEMPT_PENDING, "a"), attempt_of(2, ATTEMPT_PENDING, "b"),
		attempt_of(3, ATTEMPT_DOWNLOADING, ""), attempt_of(4, ATTEMPT_LAPSED, "d")};
	struct batch_of x = {0};

	a[2].unsolicited = true;
	for (int i = 0; i < 4; i++) {
		put_attempt(&x, CHANGE_ATTEMPT_INSERT, "d1", &a[i]);
		close_group(&x);
	}
	assert_int_equal(commit_all(p, &x), OTA_OK);
	assert_int_equal(x.groups[0].result, OTA_OK);
	assert_int_equal(x.groups[1].result, OTA_ECONFLICT);
	assert_int_equal(x.groups[2].result, OTA_OK);
	assert_int_equal(x.groups[3].result, OTA_OK);
	/* A lapsed one cannot open beside it, and can when it is closed. */
	a[3].state = ATTEMPT_DOWNLOADING;
	memset(&x, 0, sizeof x);
	put_attempt(&x, CHANGE_ATTEMPT_UPDATE, "d1", &a[3]);
	close_group(&x);
	assert_int_equal(commit_all(p, &x), OTA_OK);
	assert_int_equal(x.groups[0].result, OTA_ECONFLICT);
	memset(&x, 0, sizeof x);
	a[0].state = ATTEMPT_WITHDRAWN;
	put_attempt(&x, CHANGE_ATTEMPT_UPDATE, "d1", &a[0]);
	put_attempt(&x, CHANGE_ATTEMPT_UPDATE, "d1", &a[3]);
	close_group(&x);
	assert_int_equal(commit_all(p, &x), OTA_OK);
	assert_int_equal(x.groups[0].result, OTA_OK);
}

static void events_are_kept(void **state)
{
	struct place *p = *state;

	assert_true(sql(p, "INSERT INTO ota_events (event_type, created_at)"
			   " VALUES ('x','" T "')"));
	assert_false(sql(p, "DELETE FROM ota_events"));
	assert_non_null(strstr(p->error, "append-only"));
	assert_false(sql(p, "UPDATE ota_events SET event_type='z'"));
	assert_int_equal(number(p, "SELECT count(*) FROM ota_events WHERE event_type='x'"), 1);
	assert_false(sql(p, "INSERT INTO device_update_status (id, device_id, firmware_version,"
			    " status, reported_at, opened_at)"
			    " VALUES (1, 'd','1','done','" T "','" T "')"));
	assert_non_null(strstr(p->error, "status"));
}

/* --- lists --- */

static bool collect_id(void *ctx, int64_t id)
{
	int64_t *ids = ctx;

	ids[++ids[0]] = id;
	return true;
}

static bool update_id(void *ctx, const struct row_update *r)
{
	return collect_id(ctx, r->id);
}

static bool event_id(void *ctx, const struct row_event *r)
{
	return collect_id(ctx, r->id);
}

static void insert_updates(struct place *p, int from, int to)
{
	char text[768];

	for (int i = from; i < to; i++) {
		snprintf(text, sizeof text,
			 "INSERT INTO device_update_status "
			 "(id,device_id,firmware_version,status,reported_at,"
			 "opened_at,completed_at,rollout_id) VALUES "
			 "(%d,'d%d','%d.0','%s','" T "','" T "','" T "',%d);"
			 "INSERT INTO ota_events "
			 "(id,event_type,device_id,firmware_version,rollout_id,created_at)"
			 " VALUES (%d,'e%d','d%d','%d.0',%d,'" T "')",
			 i, i % 7, i % 3, i % 2 ? "success" : "failed", i % 5, i, i % 2, i % 7,
			 i % 3, i % 5);
		assert_true(sql(p, text));
	}
}

/* Every combination of filters, page by page, while rows are added: each row once, newest first. */
static void pages(void **state)
{
	struct place *p = *state;
	int64_t ids[400];
	struct ota_err err;

	assert_true(sql(p, "BEGIN"));
	insert_updates(p, 1, 300);
	assert_true(sql(p, "COMMIT"));
	for (int mask = 0; mask < 16; mask++)
		for (int events = 0; events < 2; events++)
			for (int limit = 1; limit < 40; limit += 19) {
				struct list_query q = {.limit = limit, .active = -1};
				int64_t top = number(p, "SELECT max(id) FROM ota_events"),
					want = top, before = 0;
				if (mask & 1)
					q.device_id = "d3";
				if (mask & 2)
					q.version = "1.0";
				if (mask & 4) {
					q.status = "success";
					q.event_type = "e1";
				}
				if (mask & 8)
					q.rollout_id = 4;
				for (int page = 0;; page++) {
					ids[0] = 0;
					q.before_id = before;
					enum ota_code rc =
						events ? p->s->ops->list_events(p->s, &q, event_id,
										ids, &err)
						       : p->s->ops->list_updates(
								 p->s, &q, update_id, ids, &err);
					assert_int_equal(rc, OTA_OK);
					if (ids[0] == 0)
						break;
					assert_true(ids[0] <= limit);
					for (int k = 1; k <= ids[0]; k++, want--) {
						while (!((!(mask & 1) || want % 7 == 3) &&
							 (!(mask & 2) || want % 3 == 1) &&
							 (!(mask & 4) || want % 2 == 1) &&
							 (!(mask & 8) || want % 5 == 4)))
							want--;
						assert_int_equal(ids[k], want);
					}
					before = ids[ids[0]];
					if (page == 0) /* new rows come on top */
						insert_updates(p, (int)top + 1, (int)top + 2);
				}
				while (want > 0 && !((!(mask & 1) || want % 7 == 3) &&
						     (!(mask & 2) || want % 3 == 1) &&
						     (!(mask & 4) || want % 2 == 1) &&
						     (!(mask & 8) || want % 5 == 4)))
					want--;
				assert_int_equal(want, 0);
			}
}

/* One rollout's, oldest first, without what its attempts say; page by page, each once. */
static void history(void **state)
{
	struct place *p = *state;
	int64_t ids[101], after = 0, want = 4;
	struct ota_err err;

	assert_true(sql(p, "BEGIN"));
	insert_updates(p, 1, 100);
	assert_true(sql(p, "INSERT INTO ota_events (id,event_type,rollout_id,created_at)"
			   " VALUES (100,'update_offered',4,'" T "'),(101,'device_exposed',4,'" T
			   "')"));
	assert_true(sql(p, "COMMIT"));
	for (int limit = 1; limit < 40; limit += 12) {
		for (after = 0, want = 4;; after = ids[ids[0]]) {
			ids[0] = 0;
			assert_int_equal(p->s->ops->rollout_history(p->s, 4, after, limit, event_id,
								    ids, &err),
					 OTA_OK);
			if (ids[0] == 0)
				break;
			assert_true(ids[0] <= limit);
			for (int k = 1; k <= ids[0]; k++, want += 5) {
				want = want == 104 ? 101 : want;
				assert_int_equal(ids[k], want);
			}
		}
		assert_int_equal(after, 101);
	}
}

struct device_page {
	int count;
	char time[TIME_TEXT_SIZE];
	int64_t id;
	int seen[400]; /* how often each id came */
};

static bool device_seen(void *ctx, const struct row_device *r)
{
	struct device_page *d = ctx;

	d->count++;
	if (d->time[0]) {
		int c = strcmp(r->last_seen, d->time);
		assert_true(c < 0 || (c == 0 && r->id < d->id));
	}
	strcpy(d->time, r->last_seen);
	d->id = r->id;
	d->seen[r->id]++;
	return true;
}

/* Last contact first; who is heard of meanwhile moves out of the listing, all others come exactly
 * once. */
static void device_pages(void **state)
{
	enum { N = 300 };
	struct place *p = *state;
	static struct device d[N + 1];
	static char names[N + 1][8];
	char text[TIME_TEXT_SIZE], until[TIME_TEXT_SIZE];

	random_begin("device pages");
	for (int i = 1; i <= N; i++) {
		struct batch_of x = {0};
		snprintf(names[i], sizeof names[i], "d%d", i);
		d[i] = device_of(i, names[i]);
		d[i].last_seen_us = T0 + random_below(50) * US_PER_S; /* many at the same moment */
		d[i].state.model = i % 3 ? "m" : "n";
		put(&x, &d[i]);
		close_group(&x);
		assert_int_equal(commit_all(p, &x), OTA_OK);
	}
	for (int model = 0; model < 2; model++) {
		struct device_page page = {0};
		bool heard[N + 1] = {false};
		struct ota_err err;
		struct list_query q = {
			.limit = 7, .active = -1, .device_model = model ? "n" : NULL};
		int64_t began = T0 + (100 + 1000 * model) * US_PER_S;
		time_format(began, until);
		q.until_time = until;
		for (int k = 0;; k++) {
			page.count = 0;
			assert_int_equal(
				p->s->ops->list_devices(p->s, &q, device_seen, &page, &err),
				OTA_OK);
			if (page.count == 0)
				break;
			strcpy(text, page.time);
			q.before_time = text;
			q.before_id = page.id;
			for (int j = 0; j < 5; j++) {
				struct batch_of x = {0};
				int i = 1 + random_below(N);
				struct change *c = add(&x, CHANGE_DEVICE_SEEN);
				c->seen.id = i;
				c->seen.last_seen_us = began + (k + 1) * US_PER_S;
				heard[i] = true;
				close_group(&x);
				assert_int_equal(commit_all(p, &x), OTA_OK);
			}
		}
		for (int i = 1; i <= N; i++) {
			int most = !model || i % 3 == 0;
			if (page.seen[i] > most || (!heard[i] && page.seen[i] != most))
				fail_msg("device %d came %d times", i, page.seen[i]);
		}
	}
}

static bool count_rollouts(void *ctx, const struct row_rollout *r)
{
	(void)r;
	++*(int *)ctx;
	return true;
}

static bool count_releases(void *ctx, const struct row_release *r)
{
	(void)r;
	++*(int *)ctx;
	return true;
}

static bool count_devices(void *ctx, const struct row_device *r)
{
	(void)r;
	++*(int *)ctx;
	return true;
}

static void other_lists(void **state)
{
	struct place *p = *state;
	struct release r[3];
	struct rollout o[3];
	struct batch_of x = {0};
	struct device d = device_of(1, "d1"), e = device_of(2, "d2");
	struct {
		size_t count;
		const char *items[1];
	} beta = {1, {"beta"}};
	struct list_query q = {.limit = 10, .active = -1};
	struct attempt_counts counts;
	struct ota_err err;
	static const char *const names[] = {"a", "b", "c"}, *const versions[] = {"1", "2", "3"};
	int n;

	for (int i = 0; i < 3; i++) {
		r[i] = (struct release){.id = i + 1,
					.version = versions[i],
					.model = i == 2 ? "n" : "m",
					.min_version = "",
					.created_us = T0};
		o[i] = (struct rollout){.id = i + 1,
					.name = names[i],
					.release = &r[i],
					.active = i != 1,
					.max_attempts = 3,
					.created_us = T0,
					.target = {.percent = 100, .type = (enum target_type)i}};
		add_release(&x, &r[i]);
		add_rollout(&x, &o[i], "{}");
	}
	put(&x, &d);
	put(&x, &e);
	struct change *c = add(&x, CHANGE_DEVICE_GROUPS);
	c->groups.device_id = "d2";
	c->groups.groups = (const struct string_list *)&beta;
	c = add(&x, CHANGE_RELEASE_DELETED);
	c->release_deleted.id = 1;
	c->release_deleted.deleted_us = T0;
	close_group(&x);
	assert_int_equal(commit_all(p, &x), OTA_OK);
#define COUNT(list, visit, want)                                                                   \
	n = 0, assert_int_equal(p->s->ops->list(p->s, &q, visit, &n, &err), OTA_OK),               \
	assert_int_equal(n, want)
	COUNT(list_releases, count_releases, 2);
	COUNT(list_rollouts, count_rollouts, 3);
	COUNT(list_devices, count_devices, 2);
	q.group = "beta";
	COUNT(list_devices, count_devices, 1);
	q.group = "nobody";
	COUNT(list_devices, count_devices, 0);
	q.group = NULL;
	q.active = 1;
	COUNT(list_rollouts, count_rollouts, 2);
	q.active = 0;
	COUNT(list_rollouts, count_rollouts, 1);
	q.active = -1;
	q.device_model = "n";
	COUNT(list_rollouts, count_rollouts, 1);
	COUNT(list_releases, count_releases, 1);
	COUNT(list_devices, count_devices, 0);
	q.device_model = NULL;
	q.limit = 1;
	COUNT(list_rollouts, count_rollouts, 1);
	insert_updates(p, 1, 100);
	assert_true(sql(p, "UPDATE device_update_status SET status='pending', closed='lapsed' "
			   "WHERE id % 10 = 3;"
			   "UPDATE device_update_status SET status='pending', closed='withdrawn' "
			   "WHERE id % 10 = 8"));
	assert_int_equal(p->s->ops->rollout_counts(p->s, 3, &counts, &err), OTA_OK);
	assert_int_equal(counts.by_state[ATTEMPT_LAPSED], 10);
	assert_int_equal(counts.by_state[ATTEMPT_WITHDRAWN], 10);
	assert_int_equal(counts.by_state[ATTEMPT_PENDING], 0);
	assert_int_equal(p->s->ops->rollout_counts(p->s, 2, &counts, &err), OTA_OK);
	assert_int_equal(counts.by_state[ATTEMPT_SUCCESS] + counts.by_state[ATTEMPT_FAILED], 20);
	int64_t since;
	assert_int_equal(p->s->ops->updates_since(p->s, T0, &since, &err), OTA_OK);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_change),      TEST(find_attempts),   TEST(refused_among_others),
		TEST(one_open_attempt), TEST(events_are_kept), TEST(pages),
		TEST(history),          TEST(device_pages),    TEST(other_lists),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
