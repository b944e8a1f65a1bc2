/* SPDX-License-Identifier: MIT */
/*
 * commit, when things fail: the store (commit N, one group, a full disk), and every allocation in
 * turn. Nobody hears OK about what is not there afterwards, nothing half is left, and the service
 * recovers.
 *
 * malloc and its kin are wrapped by the linker (-Wl,--wrap), for this program's code; SQLite's own
 * memory is failed through its allocator interface.
 */
#include "failing_store.h"
#include "store/sqlite.h"

/* --- allocations that fail --- */

static atomic_long allocations; /* counted while `armed` */
static atomic_long fail_at;     /* this one fails, and with `for_good` all after it; 0: none */
static atomic_bool armed, for_good;

static bool fails(void)
{
	if (!atomic_load(&armed))
		return false;
	long n = atomic_fetch_add(&allocations, 1) + 1, at = atomic_load(&fail_at);

	return at > 0 && (n == at || (n > at && atomic_load(&for_good)));
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

static sqlite3_mem_methods sqlite_memory;

static void *sqlite_malloc(int n)
{
	return fails() ? NULL : sqlite_memory.xMalloc(n);
}

static void *sqlite_realloc(void *p, int n)
{
	return fails() ? NULL : sqlite_memory.xRealloc(p, n);
}

static void wrap_sqlite_memory(void)
{
	sqlite3_mem_methods mine;

	if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_memory) != SQLITE_OK)
		abort();
	mine = sqlite_memory;
	mine.xMalloc = sqlite_malloc;
	mine.xRealloc = sqlite_realloc;
	/* Without look-aside memory every allocation of SQLite can be the one that fails. */
	if (sqlite3_config(SQLITE_CONFIG_MALLOC, &mine) != SQLITE_OK ||
	    sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0) != SQLITE_OK)
		abort();
}

/* --- scenes: each does one thing, and says what the world must look like when it said OK --- */

typedef enum ota_code scene_fn(struct bench *b);

/* Of the gate: two failures are not enough, three are. */
#define HALTS_AT 300

static enum ota_code scene_new_device(struct bench *b)
{
	return ask_with(b, "new", "1.0.0", (struct told){.hw = "rev1", .mac = 0x77, .boot = 5})
		.code;
}

static enum ota_code scene_offer(struct bench *b)
{
	return ask(b, "idle", "1.0.0").code;
}

static enum ota_code scene_new_version(struct bench *b)
{
	struct device_digests g = {.has_elf = true, .elf = {1}};

	return ask_with(b, "waits", "2.0.0", (struct told){.digests = &g}).code;
}

static enum ota_code scene_learn(struct bench *b)
{
	return ask(b, "done", "another-name").code;
}

static enum ota_code scene_look_back(struct bench *b)
{
	/* One command: what is offered after a failure takes another. */
	struct command cmd = {
		.kind = COMMAND_CHECKIN,
		.checkin = {.device_id = "settled", .model = MODEL, .version = "1.0.0", .hw = ""}};

	return committer_run(b->c, &cmd);
}

static char waits_token[ATTEMPT_TOKEN_LEN + 1];

static void stage_sending(struct bench *b)
{
	strcpy(waits_token, ask(b, "waits", "1.0.0").token);
}

/* The image of "waits" is sent to its end. */
static enum ota_code scene_sent(struct bench *b)
{
	struct command cmd = {.kind = COMMAND_SENT, .sent = {waits_token}};

	return committer_run(b->c, &cmd);
}

/* One is proven: seen, and well for so long. */
static enum ota_code scene_look(struct bench *b)
{
	const struct command look = {.kind = COMMAND_GATE_LOOK};
	struct command first = look, later = look;
	struct checkin in = {.device_id = "settled", .model = MODEL, .version = "2.0.0", .hw = ""};
	struct soft_answer soft;

	if (committer_run(b->c, &first) != OTA_OK)
		return first.code;
	/* Nearer than a clock that leaps. */
	for (int s = 0; s < 700; s += 50) {
		struct command between = look;
		clock_service_not_before(clock_service_us() + 50 * US_PER_S);
		if (committer_run(b->c, &between) != OTA_OK)
			return between.code;
	}
	fleet_plan_read(b->fleet);
	assert_true(committer_soft_checkin(b->c, &in, &soft));
	fleet_plan_done(b->fleet);
	return committer_run(b->c, &later);
}

static enum ota_code scene_fails_it(struct bench *b, const char *id)
{
	struct command cmd = {.kind = COMMAND_REPORT};

	cmd.report = (struct report){.device_id = id,
				     .version = "2.0.0",
				     .percent = -1,
				     .code = 4,
				     .event = EVENT_REPORT_FAILED};
	return committer_run(b->c, &cmd);
}

/* The third failure: the rollout is halted, what waits is withdrawn. */
static enum ota_code scene_halt(struct bench *b)
{
	return scene_fails_it(b, "waits");
}

static void stage_two_failed(struct bench *b)
{
	for (int i = 0; i < 2; i++) {
		const char *id = i ? "first" : "second";
		assert_true(ask(b, id, "1.0.0").offered);
		assert_int_equal(scene_fails_it(b, id), OTA_OK);
	}
	assert_true(ask(b, "another", "1.0.0").offered);
	assert_int_equal(row_int(b, "SELECT count(*) FROM ota_events WHERE event_type="
				    "'device_failed'"),
			 2);
}

static void stage_halted(struct bench *b)
{
	stage_two_failed(b);
	assert_int_equal(scene_halt(b), OTA_OK);
	assert_string_equal(row_text(b, "SELECT state FROM rollout_configurations"), "halted");
}

static enum ota_code scene_override(struct bench *b)
{
	static const struct stage all[] = {{100, 0, -1, false}};
	struct rollout_new n = rollout_of("again", "2.0.0");
	struct command cmd;

	n.stages = all;
	n.stage_count = 1;
	n.guard = (struct guard){.given = true, .bounded = true, .params = gate_params_default()};
	n.override_suspect = true;
	n.reason = "a \"reason\"";
	return roll_out_as(b, &n, &cmd);
}

static enum ota_code scene_report(struct bench *b)
{
	return tell(b, "waits", "2.0.0", "failed", 30, NULL, "it \"broke\"");
}

static enum ota_code scene_success(struct bench *b)
{
	return tell(b, "waits", "2.0.0", "success", -1, NULL, NULL);
}

static enum ota_code scene_unsolicited(struct bench *b)
{
	return tell(b, "stranger", "9.0.0", "success", -1, "aaaaaaaaaaaaa", NULL);
}

static enum ota_code scene_release(struct bench *b)
{
	struct release_new n = release_facts_of("3.0.0", "three");
	struct command cmd;

	n.inner_version = "3.0.0-inner";
	n.project = "p";
	n.image_type = "esp";
	n.image_json = "{\"version\":\"3.0.0-inner\",\"project\":\"p\"}";
	return upload_as(b, &n, &cmd);
}

static enum ota_code scene_rollout(struct bench *b)
{
	static const char *const ids[] = {"idle", "new"};
	static const uint64_t macs[] = {3, 2, 1};
	struct rollout_new n = rollout_of("more", "2.0.0");
	struct command cmd;

	n.type = TARGET_SPECIFIC;
	n.device_ids = ids;
	n.device_id_count = 2;
	n.macs = macs;
	n.mac_count = 3;
	return roll_out_as(b, &n, &cmd);
}

static enum ota_code scene_staged(struct bench *b)
{
	static const struct stage stages[] = {{10, 60, 1, true}, {100, 0, -1, false}};
	struct rollout_new n = rollout_of("walk", "2.0.0");
	struct command cmd;

	n.stages = stages;
	n.stage_count = 2;
	n.requires = "1.0.0";
	n.not_before_us = INT64_C(4000000000) * US_PER_S; /* in 2096 */
	n.deadline_us = n.not_before_us + US_PER_S;
	n.reason = "to \"see\"";
	return roll_out_as(b, &n, &cmd);
}

/* With what waits, which is withdrawn. */
static enum ota_code scene_pause(struct bench *b)
{
	struct command cmd = {.kind = COMMAND_ROLLOUT_WALK,
			      .by = "tester",
			      .walk = {.id = 1, .event = ROLLOUT_PAUSE, .reason = "a \"reason\""}};

	return committer_run(b->c, &cmd);
}

static enum ota_code scene_deactivate(struct bench *b)
{
	return set_active(b, 1, false);
}

static enum ota_code scene_device_delete(struct bench *b)
{
	return delete_device(b, "waits");
}

static enum ota_code scene_edit(struct bench *b)
{
	static const char *const groups[] = {"x", "y"};
	struct device_edit e[] = {
		{.device_id = "waits", .set_groups = true, .groups = groups, .group_count = 2},
		{.device_id = "done", .add_group = "z", .set_label = true, .label = "l"}};

	return edit(b, e, 2);
}

static enum ota_code scene_retry(struct bench *b)
{
	return retry(b, "unlucky", NULL);
}

/* --- over MQTT --- */

static const struct via paku = {"paku", TOPIC_FORM_EDGE}, other = {"other", TOPIC_FORM_EDGE};

static enum ota_code status_of(struct bench *b, struct status s)
{
	struct command cmd = {.kind = COMMAND_STATUS, .status = s};

	cmd.status.facts.model = s.online ? MODEL : "";
	cmd.status.facts.hw = "";
	if (!s.facts.version)
		cmd.status.facts.version = "";
	if (!s.via.site)
		cmd.status.via = paku;
	return committer_run(b->c, &cmd);
}

static enum ota_code birth(struct bench *b, const char *id, const char *version)
{
	return status_of(
		b, (struct status){.facts = {.device_id = id, .version = version}, .online = true});
}

static enum ota_code report_of(struct bench *b, struct report r)
{
	struct command cmd = {.kind = COMMAND_REPORT, .report = r};

	cmd.report.via = paku;
	return committer_run(b->c, &cmd);
}

static enum ota_code dispatch(struct bench *b, const char *id)
{
	struct command cmd = {.kind = COMMAND_DISPATCH, .dispatch = {id}};

	return committer_run(b->c, &cmd);
}

static void seconds_pass(int seconds)
{
	clock_service_not_before(clock_service_us() + seconds * US_PER_S);
}

/* "mute" was heard, and told just now. */
static void stage_told(struct bench *b)
{
	birth(b, "mute", "1.0.0");
	dispatch(b, "mute");
}

static void stage_heard(struct bench *b)
{
	birth(b, "mute", "1.0.0");
}

static void stage_window_over(struct bench *b)
{
	stage_told(b);
	seconds_pass(60);
}

static void stage_all_windows_over(struct bench *b)
{
	static const int waits[] = {60, 300, 1800};

	stage_told(b);
	for (int i = 0; i < 3; i++) {
		seconds_pass(waits[i]);
		dispatch(b, "mute");
	}
	seconds_pass(60);
}

static void stage_other_release(struct bench *b)
{
	stage_told(b);
	roll_out(b, "2.1.0");
}

static void stage_gone(struct bench *b)
{
	stage_told(b);
	status_of(b, (struct status){.facts = {.device_id = "mute"}});
}

static void stage_installs(struct bench *b)
{
	stage_told(b);
	report_of(b, (struct report){.device_id = "mute",
				     .event = EVENT_REPORT_INSTALLING,
				     .percent = -1,
				     .accepted = true});
	seconds_pass(1);
}

static enum ota_code set_stop(struct bench *b, const char *reason)
{
	struct command cmd = {.kind = COMMAND_STOP, .stop = {reason}};

	return committer_run(b->c, &cmd);
}

static void stage_stopped(struct bench *b)
{
	set_stop(b, "a bad batch");
}

static enum ota_code scene_birth(struct bench *b)
{
	return birth(b, "newborn", "1.0.0");
}

/* Also back online: what it was told counts anew. */
static enum ota_code scene_birth_again(struct bench *b)
{
	return birth(b, "mute", "1.0.0");
}

static enum ota_code scene_copy(struct bench *b)
{
	return status_of(b, (struct status){.facts = {.device_id = "copied", .version = "1.0.0"},
					    .online = true,
					    .retained = true});
}

static enum ota_code scene_copy_shows_target(struct bench *b)
{
	return status_of(b, (struct status){.facts = {.device_id = "mute", .version = "2.0.0"},
					    .online = true,
					    .retained = true});
}

static enum ota_code scene_last_will(struct bench *b)
{
	return status_of(b, (struct status){.facts = {.device_id = "mute"}});
}

static enum ota_code scene_two_sites(struct bench *b)
{
	return status_of(b, (struct status){.facts = {.device_id = "mute", .version = "1.0.0"},
					    .via = other,
					    .online = true});
}

static enum ota_code scene_accepted(struct bench *b)
{
	return report_of(b, (struct report){.device_id = "mute",
					    .version = "2.0.0",
					    .percent = -1,
					    .accepted = true});
}

static enum ota_code scene_progress(struct bench *b)
{
	return report_of(b, (struct report){.device_id = "mute",
					    .event = EVENT_REPORT_DOWNLOADING,
					    .percent = 7,
					    .accepted = true});
}

static enum ota_code scene_result(struct bench *b)
{
	return report_of(b, (struct report){.device_id = "mute",
					    .version = "2.0.0",
					    .event = EVENT_REPORT_FAILED,
					    .percent = -1,
					    .error_message = "download failed",
					    .hash = 0x8000000000000001});
}

static enum ota_code scene_result_unsolicited(struct bench *b)
{
	return report_of(b, (struct report){.device_id = "stranger",
					    .version = "9.0.0",
					    .event = EVENT_REPORT_SUCCESS,
					    .percent = -1,
					    .hash = 5});
}

static enum ota_code scene_dispatch(struct bench *b)
{
	return dispatch(b, "mute");
}

static enum ota_code scene_rejected(struct bench *b)
{
	struct command cmd = {
		.kind = COMMAND_REJECTED,
		.rejected = {"mute", "paku/edge/mute/status", "not_json", "no", "{", 1}};

	return committer_run(b->c, &cmd);
}

static enum ota_code scene_stop(struct bench *b)
{
	return set_stop(b, "a bad batch");
}

static enum ota_code scene_resume(struct bench *b)
{
	return set_stop(b, NULL);
}

static enum ota_code scene_alert(struct bench *b)
{
	static const char *const targets[] = {"a", "b"};
	static char subject[32];
	static int n;

	/* One is open for a subject: the next try is about another. */
	snprintf(subject, sizeof subject, "rollout/%d", ++n);
	struct command cmd = {.kind = COMMAND_ALERT,
			      .alert = {.what = ALERT_RAISE,
					.kind = ALERT_ROLLOUT_STUCK,
					.subject = subject,
					.sentence = "it is stuck",
					.data = "{}",
					.targets = targets,
					.target_count = 2}};

	return committer_run(b->c, &cmd);
}

static void stage_alert(struct bench *b)
{
	assert_int_equal(scene_alert(b), OTA_OK);
}

static enum ota_code scene_alert_seen(struct bench *b)
{
	struct command cmd = {
		.kind = COMMAND_ALERT,
		.by = "somebody",
		.alert = {.what = ALERT_ACKNOWLEDGE, .id = 1, .reason = "I am on it"}};

	return committer_run(b->c, &cmd);
}

static enum ota_code scene_webhook(struct bench *b)
{
	struct command cmd = {.kind = COMMAND_WEBHOOK,
			      .webhook = {.what = WEBHOOK_GIVEN_UP, .id = 1, .error = "it hangs"}};

	return committer_run(b->c, &cmd);
}

static const struct {
	const char *name;
	scene_fn *run;
	void (*before)(struct bench *b); /* what this one needs besides; NULL: nothing */
} scenes[] = {
	{"new device", scene_new_device, NULL},
	{"offer", scene_offer, NULL},
	{"new version", scene_new_version, NULL},
	{"learn", scene_learn, NULL},
	{"look back", scene_look_back, NULL},
	{"report", scene_report, NULL},
	{"success", scene_success, NULL},
	{"unsolicited", scene_unsolicited, NULL},
	{"release", scene_release, NULL},
	{"rollout", scene_rollout, NULL},
	{"staged", scene_staged, NULL},
	{"pause", scene_pause, NULL},
	{"deactivate", scene_deactivate, NULL},
	{"sent", scene_sent, stage_sending},
	{"look", scene_look, NULL},
	{"halt", scene_halt, stage_two_failed},
	{"override", scene_override, stage_halted},
	{"device delete", scene_device_delete, NULL},
	{"edit", scene_edit, NULL},
	{"retry", scene_retry, NULL},
	{"birth", scene_birth, NULL},
	{"back online", scene_birth_again, stage_gone},
	{"rolled back", scene_birth_again, stage_installs},
	{"copy", scene_copy, NULL},
	{"copy shows target", scene_copy_shows_target, stage_told},
	{"last will", scene_last_will, stage_told},
	{"two sites", scene_two_sites, stage_told},
	{"accepted", scene_accepted, stage_told},
	{"progress", scene_progress, stage_told},
	{"result", scene_result, stage_told},
	{"result unsolicited", scene_result_unsolicited, NULL},
	{"told", scene_dispatch, stage_heard},
	{"told again", scene_dispatch, stage_window_over},
	{"unanswered", scene_dispatch, stage_all_windows_over},
	{"other release", scene_dispatch, stage_other_release},
	{"rejected", scene_rejected, NULL},
	{"alert", scene_alert, NULL},
	{"alert seen", scene_alert_seen, stage_alert},
	{"webhook", scene_webhook, stage_alert},
	{"stop", scene_stop, stage_told},
	{"resume", scene_resume, stage_stopped},
};
#define SCENES (sizeof scenes / sizeof scenes[0])

/* Uploaded and rolled out, with a gate that lets much pass. */
static void roll_out_watched(struct bench *b)
{
	struct rollout_new n = rollout_of("2.0.0", "2.0.0");
	struct command cmd;

	n.guard = (struct guard){.given = true, .params = gate_params_default()};
	n.guard.params.halt_at = HALTS_AT;
	assert_int_equal(upload(b, "2.0.0"), OTA_OK);
	assert_int_equal(roll_out_as(b, &n, &cmd), OTA_OK);
}

/* Devices in each condition that a scene wants. */
static void set_the_stage(struct bench *b)
{
	struct answer a;

	ask(b, "idle", "1.0.0");
	roll_out_watched(b);
	ask(b, "waits", "1.0.0");
	a = ask(b, "done", "1.0.0");
	tell(b, "done", "2.0.0", "success", -1, a.token, NULL);
	a = ask(b, "settled", "1.0.0");
	tell(b, "settled", "2.0.0", "success", -1, a.token, NULL);
	ask(b, "settled", "2.0.0");
	a = ask(b, "unlucky", "1.0.0");
	tell(b, "unlucky", "2.0.0", "failed", -1, a.token, NULL);
}

static struct bench stage(size_t scene)
{
	struct bench b = bench_new();

	/* The failures count from a fresh process: no tick of the slow clock may come between. */
	b.cfg.last_seen_flush_s = 3600;
	bench_open(&b);
	set_the_stage(&b);
	if (scenes[scene].before)
		scenes[scene].before(&b);
	return b;
}

/* last_seen is soft: a device was heard of, whatever became of what it said. */
static void forget_seen(char *dump)
{
	static const char *const soft[] = {" seen=", " habit="};

	for (int i = 0; i < 2; i++)
		for (char *p = dump; (p = strstr(p, soft[i])) != NULL;) {
			p += strlen(soft[i]);
			size_t digits = strspn(p, "0123456789");
			memmove(p, p + digits, strlen(p + digits) + 1);
		}
}

static void same_gates(struct committer *c, const char *before)
{
	char *after = gates_dump(c);

	same_fleet(before, after);
	free(after);
}

static bool is_failure_told(enum ota_code code)
{
	return code == OTA_ENOMEM || code == OTA_EUNAVAIL;
}

/*
 * Fails allocation 1, 2, 3 ... of each scene until one goes through without. PAKU_FAULT_STRIDE
 * takes only one in so many, for those to whom each costs much.
 */
static void every_allocation(void **state)
{
	const char *text = getenv("PAKU_FAULT_STRIDE");
	long stride = text ? atol(text) : 1;

	(void)state;
	assert_true(stride > 0);
	for (size_t s = 0; s < SCENES; s++)
		for (int good = 0; good < 2; good++) {
			struct bench b = stage(s);
			long n;
			for (n = 1; n < 5000; n += stride) {
				char *before = fleet_dump(b.fleet);
				char *gates = gates_dump(b.c);
				atomic_store(&allocations, 0);
				atomic_store(&fail_at, n);
				atomic_store(&for_good, good);
				atomic_store(&armed, true);
				enum ota_code rc = scenes[s].run(&b);
				atomic_store(&armed, false);
				if (rc == OTA_OK) {
					free(before);
					free(gates);
					bench_restart(&b); /* what was taken is what is there */
					if (atomic_load(&allocations) < n)
						break;
					bench_end(&b); /* it did without: on a new stage the next
							  one */
					b = stage(s);
					continue;
				}
				if (!is_failure_told(rc))
					fail_msg("%s, allocation %ld: code %d", scenes[s].name, n,
						 rc);
				/* Refused: nothing of it may be in memory or in the store. */
				committer_barrier(b.c);
				same_gates(b.c, gates);
				committer_stop(&b.c);
				char *after = fleet_dump(b.fleet);
				struct ota_err err;
				assert_int_equal(
					committer_start(b.fleet, b.store, &b.cfg, &b.c, &err),
					OTA_OK);
				committer_barrier(b.c);
				same_gates(b.c, gates);
				free(gates);
				forget_seen(before);
				forget_seen(after);
				same_fleet(before, after);
				free(before);
				free(after);
			}
			if (n < 10)
				fail_msg("%s: only %ld allocations", scenes[s].name, n - 1);
			assert_true(n < 5000);
			assert_int_equal(scenes[s].run(&b), scenes[s].run == scene_device_delete
								    ? OTA_ENOTFOUND
								    : OTA_OK);
			bench_end(&b);
		}
}

/* Each commit of each scene fails once, and after that a whole while. */
static void failing_commits(void **state)
{
	char reason[256];

	(void)state;
	for (size_t s = 0; s < SCENES; s++) {
		struct bench b = bench_new();
		b.wrap = wrap_failing;
		bench_open(&b);
		set_the_stage(&b);
		if (scenes[s].before)
			scenes[s].before(&b);
		char *before = fleet_dump(b.fleet), *gates = gates_dump(b.c);
		atomic_store(&failures_in_all, -1);
		atomic_store(&commits_until_failure, 1);
		for (int i = 0; i < 3; i++)
			assert_int_equal(scenes[s].run(&b), OTA_EUNAVAIL);
		assert_false(committer_healthy(b.c, reason, sizeof reason));
		assert_non_null(strstr(reason, "on fire"));
		/* Works again: the probe finds out by itself, within a second; seen for a few. */
		atomic_store(&commits_until_failure, 0);
		if (s < 4) {
			for (int i = 0; i < 1000 && !committer_healthy(b.c, reason, sizeof reason);
			     i++)
				usleep(10000);
			assert_true(committer_healthy(b.c, reason, sizeof reason));
		}
		same_gates(b.c, gates);
		free(gates);
		committer_stop(&b.c);
		char *after = fleet_dump(b.fleet);
		struct ota_err err;
		assert_int_equal(committer_start(b.fleet, b.store, &b.cfg, &b.c, &err), OTA_OK);
		forget_seen(before);
		forget_seen(after);
		same_fleet(before, after);
		free(before);
		free(after);
		bench_restart(&b);
		assert_int_equal(scenes[s].run(&b), OTA_OK);
		bench_restart(&b);
		bench_end(&b);
	}
}

struct gathering {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int left;
};

static void gathered(struct command *cmd)
{
	struct gathering *g = cmd->owner;

	pthread_mutex_lock(&g->lock);
	if (--g->left == 0)
		pthread_cond_signal(&g->cond);
	pthread_mutex_unlock(&g->lock);
}

/* One command of a batch is refused by the database: the others are in, it is not, and all hear so.
 */
static void one_refused(void **state)
{
	enum { N = 200 };
	static struct command cmds[N];
	static char ids[N][8];
	struct gathering g = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, N};
	struct bench b = bench_new();
	struct command_list all;
	struct ota_err err;

	(void)state;
	list_init(&all);
	b.wrap = wrap_failing;
	bench_open(&b);
	roll_out(&b, "2.0.0");
	refused_device = "d77";
	memset(cmds, 0, sizeof cmds);
	for (int i = 0; i < N; i++) {
		snprintf(ids[i], sizeof ids[i], "d%d", i);
		cmds[i].kind = COMMAND_CHECKIN;
		cmds[i].checkin = (struct checkin){
			.device_id = ids[i], .model = MODEL, .version = "1", .hw = ""};
		cmds[i].owner = &g;
		cmds[i].done = gathered;
		list_push(&all, &cmds[i]);
	}
	assert_int_equal(committer_submit_list(b.c, &all, &err), OTA_OK);
	pthread_mutex_lock(&g.lock);
	while (g.left > 0)
		pthread_cond_wait(&g.cond, &g.lock);
	pthread_mutex_unlock(&g.lock);
	for (int i = 0; i < N; i++)
		assert_int_equal(cmds[i].code, i == 77 ? OTA_ECONFLICT : OTA_OK);
	assert_int_equal(row_int(&b, "SELECT count(*) FROM devices"), N - 1);
	assert_int_equal(row_int(&b, "SELECT count(*) FROM device_update_status"), N - 1);
	assert_int_equal(fleet_device_count(b.fleet), N - 1);
	bench_restart(&b);
	refused_device = NULL;
	assert_int_equal(ask(&b, "d77", "1").code, OTA_OK);
	bench_end(&b);
}

/* The limit belongs to the writing connection, which only the committer's thread may touch: it is
 * idle here. */
static void limit_pages(struct bench *b, int pages)
{
	char text[64];

	snprintf(text, sizeof text, "PRAGMA max_page_count=%d", pages);
	assert_int_equal(
		sqlite3_exec(((struct sqlite_store *)b->store)->db, text, NULL, NULL, NULL),
		SQLITE_OK);
}

/* As good as a full disk: the database may have no more pages. */
static void full_disk(void **state)
{
	struct bench b = bench_new();
	char id[32], reason[300];
	enum ota_code rc = OTA_OK;
	int n;

	(void)state;
	bench_open(&b);
	roll_out(&b, "2.0.0");
	limit_pages(&b, 60);
	for (n = 0; n < 2000 && rc == OTA_OK; n++) {
		snprintf(id, sizeof id, "device-with-a-long-name-%d", n);
		rc = ask(&b, id, "1.0.0").code;
	}
	assert_int_equal(rc, OTA_EUNAVAIL);
	assert_false(committer_healthy(b.c, reason, sizeof reason));
	assert_non_null(strstr(reason, "full"));
	assert_int_equal(row_int(&b, "SELECT count(*) FROM devices"), n - 1);
	assert_int_equal(fleet_device_count(b.fleet), n - 1);
	limit_pages(&b, 1000000);
	for (int i = 0; i < 1000 && !committer_healthy(b.c, reason, sizeof reason); i++)
		usleep(10000);
	assert_true(committer_healthy(b.c, reason, sizeof reason));
	assert_int_equal(ask(&b, id, "1.0.0").code, OTA_OK);
	bench_restart(&b);
	bench_end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_allocation),
		cmocka_unit_test(failing_commits),
		cmocka_unit_test(one_refused),
		cmocka_unit_test(full_disk),
	};
	wrap_sqlite_memory();
	log_configure(LOG_ERROR, false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
