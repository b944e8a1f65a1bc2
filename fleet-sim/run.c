/* SPDX-License-Identifier: MIT */
/*
 * `paku-fleet run`: start the fleet, turn the loop until it is done, compare.
 *
 * The order: read what is asked (a mistake is exit code 2), look whether service and broker are
 * there (3), run, let what was said go out, compare (again and again for a while: the service may
 * still be writing), tell.
 */
#include "fleet-sim/run.h"
#include "fleet-sim/screen.h"

#include "base/clock.h"
#include "cli/http.h"
#include "cli/term.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define READY_MS     20000
#define DRAIN_MS     30000
#define COMPARE_MS   1000
#define ASK_MS       2000
#define TALKS        64
#define RAMP_A_S     2000 /* devices that start in a second */
#define FDS_A_CLIENT 3    /* libmosquitto's socket and its pair */

static const char *const until_words[] = {"done", "time", NULL};

const struct opt run_opts[] = {
	{.name = "devices", .arg = "N", .help = "how many (100)", .min = 1, .max = 100000},
	{.name = "model", .arg = "M", .help = "of which model (sample)"},
	{.name = "version", .arg = "V", .help = "what they run at the start (1.0.0)"},
	{.name = "broker",
	 .arg = "HOST[:PORT]",
	 .help = "over MQTT (127.0.0.1:1883; MQTT_USER and MQTT_PASSWORD are heeded); "
		 "mqtts://HOST[:PORT] is with TLS (8883)"},
	{.name = "cert", .arg = "FILE", .help = "show this certificate to the broker"},
	{.name = "key", .arg = "FILE", .help = "its private key, without a password"},
	{.name = "http", .help = "over HTTP alone: devices poll"},
	{.name = "connections",
	 .arg = "N|each",
	 .help = "to the broker: N shared ones (32), or each device its own"},
	{.name = "site", .arg = "NAME", .help = "first level of the topics (paku)"},
	{.name = "qos", .arg = "0|1", .help = "of what devices publish (1)", .min = 0, .max = 1},
	{.name = "seed",
	 .arg = "S",
	 .help = "the same seed, the same run (1)",
	 .min = 0,
	 .max = 1000000000000},
	{.name = "scenario",
	 .arg = "FILE",
	 .help = "habits of the fleet, as JSON",
	 .is_file = true},
	{.name = "habits",
	 .arg = "LIST",
	 .help = "the same in short: fail:4=3,brick=0.5,duty:20/40=30 (percent)"},
	{.name = "hw",
	 .arg = "LIST",
	 .help = "hardware revisions, as many devices of each: A,B,C; brick@B=50 is of them alone"},
	{.name = "until",
	 .arg = "done|time",
	 .help = "ends when nothing is to come (done), or after --duration",
	 .choices = until_words},
	{.name = "duration",
	 .arg = "S",
	 .help = "ends after so many seconds in any case",
	 .min = 1,
	 .max = 31536000},
	{.name = "quiet",
	 .arg = "S",
	 .help = "MQTT: done after so long without news (10)",
	 .min = 1,
	 .max = 86400},
	{.name = "settle",
	 .arg = "S",
	 .help = "wait so long for the service to agree (30)",
	 .min = 0,
	 .max = 86400},
	{.name = "poll",
	 .arg = "S",
	 .help = "HTTP: poll so often, not as the service says",
	 .min = 1,
	 .max = 86400},
	{.name = "ramp",
	 .arg = "N",
	 .help = "devices that start in a second (2000)",
	 .min = 1,
	 .max = 100000},
	{.name = "downloads", .arg = "N", .help = "images at a time (64)", .min = 1, .max = 10000},
	{.name = "no-download", .help = "ask for images with HEAD alone"},
	{.name = "record", .arg = "FILE", .help = "write what each device saw, a line each"},
	{0},
};

struct run {
	struct cli *c;
	const struct args *a;
	struct fleet_options o;
	struct scenario scenario;
	struct broker_door door;
	int64_t duration_ms, quiet_ms, settle_ms;
	bool until_time;
	struct loop *loop;
	struct fleet *f;
	struct screen *screen;
	int64_t begun_ms, since_us;
	int64_t asked_ms; /* the service, whether it waits */
	bool stopped;     /* q or a signal */
};

/* ------------------------------------------------------------------ what is asked */

static enum ota_code check_name(const char *option, const char *name, struct ota_err *err)
{
	size_t n = strlen(name);

	if (n == 0 || n > 120 ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-") != n)
		return ota_fail(err, OTA_EINVAL,
				"--%s is 1 to 120 of A-Z a-z 0-9 . _ + and -, not '%.130s'", option,
				name);
	return OTA_OK;
}

static enum ota_code read_connections(struct run *r, struct ota_err *err)
{
	const char *text = args_get(r->a, "connections");
	char *end = NULL;
	long n = text ? strtol(text, &end, 10) : 32;

	if (text && strcmp(text, "each") == 0) {
		r->o.connections = 0;
		return OTA_OK;
	}
	if (text && (*end || n < 1 || n > 10000))
		return ota_fail(err, OTA_EINVAL,
				"--connections is a whole number from 1 to 10000, or 'each', not "
				"'%s'",
				text);
	r->o.connections = (uint32_t)n < r->o.devices ? (uint32_t)n : r->o.devices;
	return OTA_OK;
}

/* An option that goes with the other way of speaking. */
static enum ota_code check_way(const struct run *r, struct ota_err *err)
{
	static const char *const mqtt_only[] = {"broker", "cert", "key",  "connections",
						"site",   "qos",  "quiet"};

	for (size_t i = 0; !r->o.mqtt && i < sizeof mqtt_only / sizeof mqtt_only[0]; i++)
		if (args_get(r->a, mqtt_only[i]))
			return ota_fail(err, OTA_EINVAL, "--%s does not go with --http",
					mqtt_only[i]);
	if (r->o.mqtt && args_get(r->a, "poll"))
		return ota_fail(err, OTA_EINVAL, "--poll goes with --http alone");
	if (r->until_time && r->duration_ms == 0)
		return ota_fail(err, OTA_EINVAL, "--until time needs --duration");
	if (strpbrk(r->o.site, "/+#") || !*r->o.site || strlen(r->o.site) > 64)
		return ota_fail(err, OTA_EINVAL, "--site is one level of a topic, not '%.80s'",
				r->o.site);
	return OTA_OK;
}

static const char *or_else(const char *value, const char *fallback)
{
	return value ? value : fallback;
}

/* Long enough that devices which are away come back meanwhile. */
static void stretch_quiet(struct run *r)
{
	for (size_t i = 0; i < r->scenario.count; i++) {
		const struct habit *h = &r->scenario.habits[i];
		int64_t around_ms = h->kind == HABIT_DUTY ? h->on_ms + h->off_ms + 5000 : 0;

		r->quiet_ms = around_ms > r->quiet_ms ? around_ms : r->quiet_ms;
	}
}

static enum ota_code read_options(struct run *r, struct ota_err *err)
{
	const struct args *a = r->a;
	enum ota_code code;

	r->o = (struct fleet_options){
		.server = r->c->server,
		.mqtt = !args_flag(a, "http"),
		.site = or_else(args_get(a, "site"), "paku"),
		.model = or_else(args_get(a, "model"), "sample"),
		.version = or_else(args_get(a, "version"), "1.0.0"),
		.seed = (uint64_t)args_int(a, "seed", 1),
		.devices = (uint32_t)args_int(a, "devices", 100),
		.download = !args_flag(a, "no-download"),
		.qos = (int)args_int(a, "qos", 1),
		.poll_ms = args_int(a, "poll", 0) * 1000,
	};
	r->o.ramp_ms = (int64_t)r->o.devices * 1000 / args_int(a, "ramp", RAMP_A_S);
	r->until_time = strcmp(or_else(args_get(a, "until"), "done"), "time") == 0;
	r->duration_ms = args_int(a, "duration", 0) * 1000;
	r->quiet_ms = args_int(a, "quiet", 10) * 1000;
	r->settle_ms = args_int(a, "settle", 30) * 1000;
	code = check_way(r, err);
	if (code == OTA_OK)
		code = check_name("model", r->o.model, err);
	if (code == OTA_OK)
		code = check_name("version", r->o.version, err);
	if (code == OTA_OK)
		code = read_connections(r, err);
	if (code == OTA_OK && r->o.mqtt)
		code = broker_door_read(&r->door, a, err);
	if (code == OTA_OK && args_get(a, "scenario"))
		code = scenario_read(&r->scenario, args_get(a, "scenario"), err);
	if (code == OTA_OK && args_get(a, "habits"))
		code = scenario_add_list(&r->scenario, args_get(a, "habits"), err);
	if (code == OTA_OK && args_get(a, "hw"))
		code = scenario_set_hws(&r->scenario, args_get(a, "hw"), err);
	if (code == OTA_OK)
		code = scenario_check(&r->scenario, err);
	stretch_quiet(r);
	return code;
}

/* As many open files as the connections need. */
static enum ota_code raise_limit(const struct run *r, struct ota_err *err)
{
	rlim_t clients = !r->o.mqtt ? 0 : r->o.connections ? r->o.connections : r->o.devices;
	rlim_t need = 64 + TALKS + (rlim_t)args_int(r->a, "downloads", 64) + FDS_A_CLIENT * clients;
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur >= need)
		return OTA_OK;
	l.rlim_cur = l.rlim_max == RLIM_INFINITY || l.rlim_max >= need ? need : l.rlim_max;
	if (l.rlim_cur < need || setrlimit(RLIMIT_NOFILE, &l) != 0)
		return ota_fail(err, OTA_EINVAL,
				"%llu open files are needed and %llu allowed (ulimit -n): ask for "
				"fewer --connections",
				(unsigned long long)need, (unsigned long long)l.rlim_max);
	return OTA_OK;
}

/* ------------------------------------------------------------------ the run */

/* The service is there; its clock tells from when on its record is ours. */
static enum ota_code reach_service(struct run *r, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *answer = NULL;
	enum ota_code code;

	api_url(r->c, &url, "/health");
	code = api_get(r->c, &url, &answer, err);
	json_decref(answer);
	r->since_us = r->c->service_us;
	return code == OTA_OK || code == OTA_EUNAVAIL ? OTA_OK : code;
}

static enum ota_code reach_broker(struct run *r, struct ota_err *err)
{
	struct broker_config cfg = {
		.loop = r->loop,
		.door = &r->door,
		.connections = r->o.connections ? r->o.connections : r->o.devices,
		.ctx = r->f,
		.describe = fleet_describe,
		.message = fleet_message,
		.ready = fleet_ready,
	};
	enum ota_code code = broker_new(&cfg, &r->f->broker, err);

	if (code == OTA_OK && r->o.connections > 0)
		code = broker_join_all(r->f->broker, READY_MS, err);
	return code;
}

/* A command that met nobody is sent again: only the service knows that it waits. */
static bool service_waits(struct run *r)
{
	struct ota_err ignored;
	int64_t waiting = 0;

	if (!r->o.mqtt || !r->c->key)
		return false;
	if (clock_mono_ms() < r->asked_ms + ASK_MS)
		return true;
	r->asked_ms = clock_mono_ms();
	return verify_waiting(r->f, r->c, &waiting, &ignored) == OTA_OK && waiting > 0;
}

static bool is_over(struct run *r)
{
	int64_t took_ms = loop_now_ms(r->loop) - r->begun_ms;

	if (r->stopped)
		return true;
	if (r->duration_ms > 0 && took_ms >= r->duration_ms)
		return true;
	return !r->until_time && fleet_is_done(r->f, r->quiet_ms) && !service_waits(r);
}

static void turn(struct run *r, const char *phase)
{
	loop_turn(r->loop, 100);
	r->stopped |= screen_draw(r->screen, phase) || term_take_interrupt();
}

/* What was said goes out; then nothing moves any more. */
static void drain(struct run *r)
{
	int64_t until_ms = clock_mono_ms() + DRAIN_MS;

	fleet_end(r->f);
	while (!fleet_is_drained(r->f) && clock_mono_ms() < until_ms && !term_interrupted()) {
		loop_turn(r->loop, 100);
		screen_draw(r->screen, "ending");
	}
}

/* Compares until both agree or the time for that is over. */
static enum ota_code compare(struct run *r, struct differences *d, struct ota_err *err)
{
	int64_t until_ms = clock_mono_ms() + r->settle_ms, next_ms;
	enum ota_code code;

	for (;;) {
		code = verify(r->f, r->c, r->since_us, d, err);
		if (code != OTA_OK || d->count == 0 || clock_mono_ms() >= until_ms ||
		    term_interrupted())
			return code;
		next_ms = clock_mono_ms() + COMPARE_MS;
		while (clock_mono_ms() < next_ms && !term_interrupted()) {
			loop_turn(r->loop, 100);
			screen_draw(r->screen, "comparing");
		}
	}
}

static enum ota_code tell(struct run *r, int64_t took_ms, struct ota_err *err)
{
	struct differences d = {0}, *verified = NULL;
	const char *reason = "no API key (OTA_API_KEY, or paku-ota login)", *path;
	enum ota_code code = OTA_OK;

	if (r->c->key) {
		code = compare(r, &d, err);
		verified = code == OTA_OK ? &d : NULL;
		reason = err->msg;
	}
	screen_close(r->screen);
	if (r->c->json)
		code = summary_json(r->f, verified, reason, took_ms, err) == OTA_OK ? code
										    : OTA_ENOMEM;
	else
		summary_print(r->f, verified, reason, took_ms);
	path = args_get(r->a, "record");
	if (code == OTA_OK && path)
		code = record_write(r->f, path, err);
	r->c->exit_status = verified && verified->count > 0 ? EXIT_REFUSED : EXIT_OK;
	return code;
}

static enum ota_code run_fleet(struct run *r, struct ota_err *err)
{
	struct web_limits limits = {TALKS, (int)args_int(r->a, "downloads", 64)};
	enum ota_code code = loop_new(&r->loop, err);

	if (code == OTA_OK)
		code = fleet_new(r->loop, &r->o, &r->scenario, &limits, &r->f, err);
	if (code == OTA_OK && r->o.mqtt)
		code = reach_broker(r, err);
	if (code != OTA_OK)
		return code;
	r->screen = screen_new(r->f, r->c->json);
	if (!r->screen)
		return ota_fail_nomem(err);
	r->begun_ms = loop_now_ms(r->loop);
	fleet_start(r->f);
	while (!is_over(r))
		turn(r, "running");
	drain(r);
	return tell(r, loop_now_ms(r->loop) - r->begun_ms, err);
}

enum ota_code cmd_run(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct run *r = calloc(1, sizeof *r);
	enum ota_code code;

	if (!r)
		return ota_fail_nomem(err);
	r->c = c;
	r->a = a;
	scenario_init(&r->scenario);
	code = read_options(r, err);
	if (code == OTA_OK)
		code = raise_limit(r, err);
	if (code == OTA_OK)
		code = reach_service(r, err);
	if (code == OTA_OK)
		code = run_fleet(r, err);
	screen_free(&r->screen);
	fleet_free(&r->f);
	loop_free(&r->loop);
	free(r);
	return code;
}
