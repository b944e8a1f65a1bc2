/* SPDX-License-Identifier: MIT */
/* rollout create: who gets a release, in which stages, and when. */
#include "cli/rollout.h"
#include "cli/api.h"
#include "cli/format.h"
#include "base/hash.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const strategies[] = {"canary-10", "canary-25", "canary-50", "full",
					 "test",      "guarded",   NULL};

static const char *const on_halt[] = {"keep", "rollback", NULL};

const struct opt rollout_create_opts[] = {
	/* these two not of a plan: ROLLOUT_PLAN_OPTS */
	{.name = "watch", .help = "then watch it to its end"},
	{.name = "timeout",
	 .arg = "S",
	 .help = "of --watch, as of 'paku-ota watch'",
	 .min = 1,
	 .max = 31536000},
	{.name = "model", .arg = "M", .help = "the release's model (required)"},
	{.name = "all", .help = "to every device of the model"},
	{.name = "percent",
	 .arg = "N",
	 .help = "to N % of them (with --group: of the group)",
	 .min = 1,
	 .max = 100},
	{.name = "group", .arg = "G", .help = "to the devices of a group"},
	{.name = "devices", .arg = "A,B,C", .help = "to these devices"},
	{.name = "stages",
	 .arg = "LIST",
	 .help = "to more and more, by itself: 10:24h,25:24h:approve,100"},
	{.name = "strategy", .arg = "WORD", .help = "stages by name", .choices = strategies},
	{.name = "name",
	 .arg = "NAME",
	 .help = "its name (else made from model, version and target)"},
	{.name = "inactive", .help = "create it, but offer nothing yet"},
	{.name = "allow-downgrade", .help = "also to devices that run a later version"},
	{.name = "max-attempts",
	 .arg = "N",
	 .help = "failures in a row before a device is left alone "
		 "(3)",
	 .min = 1,
	 .max = 1000},
	{.name = "max-parallel",
	 .arg = "N",
	 .help = "so many devices at a time, the others wait their turn (any number)",
	 .min = 0,
	 .max = 1000000},
	{.name = "not-before", .arg = "TIME", .help = "begin then: 2027-03-01T02:00:00+02:00"},
	{.name = "deadline", .arg = "TIME", .help = "pause then, whatever is done"},
	{.name = "window",
	 .arg = "HOURS",
	 .help = "begin updates only then: 'Mon-Fri 01:00-05:00 Europe/Helsinki'"},
	{.name = "priority",
	 .arg = "N",
	 .help = "before rollouts of a lower one (0)",
	 .min = -100,
	 .max = 100},
	{.name = "requires", .arg = "V", .help = "only devices that run at least this version"},
	{.name = "on-halt",
	 .arg = "WORD",
	 .help = "when its release is found bad: keep, or rollback to what devices ran before",
	 .choices = on_halt},
	{.name = "no-guard", .help = "without the gate that halts a bad release"},
	{.name = "override-suspect", .help = "also a release that was found bad (with --reason)"},
	{.name = "reason", .arg = "TEXT", .help = "why, for the log"},
	{0},
};

/* The ids of "a,b,c"; NULL when there are none. */
static json_t *split(const char *list)
{
	json_t *ids = json_array();

	while (ids && *list) {
		size_t n = strcspn(list, ",");

		while (n && *list == ' ') {
			list++;
			n--;
		}
		if (n && json_array_append_new(ids, json_stringn(list, n)) != 0)
			break;
		list += n + (list[n] == ',');
	}
	if (json_array_size(ids) == 0) {
		json_decref(ids);
		return NULL;
	}
	return ids;
}

/* One way to say who gets it. */
static enum ota_code check_target(struct cli *c, const struct args *a, struct ota_err *err)
{
	int n = args_flag(a, "all") + args_flag(a, "group") + args_flag(a, "devices");
	bool walks = args_flag(a, "stages") || args_flag(a, "strategy");

	if (!args_get(a, "model")) {
		cli_hint(c, "paku-ota %s %s --model esp32-c3 --percent 10", a->path, a->pos[0]);
		return ota_fail(err, OTA_EINVAL, "%s needs --model", a->path);
	}
	if (args_flag(a, "stages") && args_flag(a, "strategy"))
		return ota_fail(err, OTA_EINVAL, "--stages or --strategy, not both");
	if (walks && args_flag(a, "percent")) {
		cli_hint(c, "--stages %s alone is one stage", args_get(a, "percent"));
		return ota_fail(err, OTA_EINVAL, "--percent and stages: the target is given twice");
	}
	if (n == 0 && !walks && !args_flag(a, "percent")) {
		cli_hint(c, "--all, --percent N, --stages LIST, --group G or --devices A,B,C");
		return ota_fail(err, OTA_EINVAL, "say which devices get it");
	}
	if (n > 1 ||
	    (args_flag(a, "percent") && (args_flag(a, "all") || args_flag(a, "devices")))) {
		cli_hint(c, "only --group and --percent go together");
		return ota_fail(err, OTA_EINVAL, "the target is given twice");
	}
	return OTA_OK;
}

/* The same command has the same name, so that a job run again finds its rollout. */
static void make_name(const struct args *a, char out[320])
{
	const char *group = args_get(a, "group"), *devices = args_get(a, "devices");
	const char *percent = args_get(a, "percent"), *stages = args_get(a, "stages");
	const char *strategy = args_get(a, "strategy");
	char target[160], walk[64] = "";

	if (strategy)
		snprintf(walk, sizeof(walk), "-%s", strategy);
	if (stages)
		snprintf(walk, sizeof(walk), "-stages-%06x",
			 (unsigned)(hash64(stages, strlen(stages)) & 0xFFFFFF));

	if (devices && !strchr(devices, ','))
		snprintf(target, sizeof(target), "%s", devices);
	else if (devices)
		snprintf(target, sizeof(target), "devices-%06x",
			 (unsigned)(hash64(devices, strlen(devices)) & 0xFFFFFF));
	else if (group)
		snprintf(target, sizeof(target), "group-%.128s%s%s", group, percent ? "-" : "",
			 percent ? percent : "");
	else if (percent)
		snprintf(target, sizeof(target), "canary-%s", percent);
	else
		snprintf(target, sizeof(target), "all");
	snprintf(out, 320, "%.128s-%.60s-%.128s%s", args_get(a, "model"), a->pos[0], target, walk);
}

/* "24h" to seconds; -1 for anything else. */
static int64_t duration_s(const char *text)
{
	char *unit;
	long long n = strtoll(text, &unit, 10);
	int64_t of = strcmp(unit, "d") == 0   ? 86400
		     : strcmp(unit, "h") == 0 ? 3600
		     : strcmp(unit, "m") == 0 ? 60
		     : strcmp(unit, "s") == 0 ? 1
					      : 0;

	return *text >= '0' && *text <= '9' && n <= 1000000000 && (of || n == 0) ? n * of : -1;
}

/* One of "25:24h:proven=40:approve" after its percent. */
static bool stage_part(json_t *stage, const char *part)
{
	char *end;

	if (strcmp(part, "approve") == 0)
		return json_object_set_new(stage, "approve", json_true()) == 0;
	if (strncmp(part, "proven=", 7) == 0) {
		long long n = strtoll(part + 7, &end, 10);
		return part[7] && !*end &&
		       json_object_set_new(stage, "min_proven", json_integer(n)) == 0;
	}
	int64_t s = duration_s(part);
	return s >= 0 && !json_object_get(stage, "min_duration_s") &&
	       json_object_set_new(stage, "min_duration_s", json_integer(s)) == 0;
}

/* TEXT is taken apart.  What the numbers may be the service says. */
static json_t *stage_of(char *text)
{
	json_t *stage = json_object();
	char *rest = NULL, *end, *part = strtok_r(text, ":", &rest);
	long long percent = part ? strtoll(part, &end, 10) : 0;
	bool ok = part && *end == '\0' &&
		  json_object_set_new(stage, "percent", json_integer(percent)) == 0;

	while (ok && (part = strtok_r(NULL, ":", &rest)) != NULL)
		ok = stage_part(stage, part);
	if (ok)
		return stage;
	json_decref(stage);
	return NULL;
}

/* "10:24h,25:24h:approve,100" as the service wants it. */
static json_t *stages_of(struct cli *c, const char *text, struct ota_err *err)
{
	json_t *stages = json_array();

	for (const char *p = text; stages && *p; p += strspn(p, ",")) {
		size_t n = strcspn(p, ",");
		char one[128];
		json_t *stage = NULL;

		if (n < sizeof(one)) {
			memcpy(one, p, n);
			one[n] = '\0';
			stage = stage_of(one);
		}
		if (!stage) {
			json_decref(stages);
			cli_hint(c, "PERCENT[:DURATION][:proven=N][:approve], as in "
				    "10:24h,50:2d:approve,100");
			ota_fail(err, OTA_EINVAL, "--stages: '%.*s' is no stage",
				 (int)(n < 60 ? n : 60), p);
			return NULL;
		}
		json_array_append_new(stages, stage);
		p += n;
	}
	return stages;
}

/* The options that go to the service as they are. */
static bool add_words(json_t *body, const struct args *a)
{
	static const char *const words[][2] = {
		{"strategy", "strategy"}, {"not-before", "not_before"}, {"deadline", "deadline"},
		{"requires", "requires"}, {"window", "window"},         {"reason", "reason"},
		{"on-halt", "on_halt"}};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		const char *value = args_get(a, words[i][0]);

		if (value && json_object_set_new(body, words[i][1], json_string(value)) != 0)
			return false;
	}
	return !args_flag(a, "priority") ||
	       json_object_set_new(body, "priority", json_integer(args_int(a, "priority", 0))) == 0;
}

static json_t *make_body(struct cli *c, const struct args *a, struct ota_err *err)
{
	const char *group = args_get(a, "group"), *devices = args_get(a, "devices");
	char name[320];
	bool walks = args_flag(a, "stages") || args_flag(a, "strategy");
	json_t *body, *ids, *stages;

	make_name(a, name);
	body = json_pack("{s:s, s:s, s:s, s:s, s:b}", "name",
			 args_get(a, "name") ? args_get(a, "name") : name, "firmware_version",
			 a->pos[0], "device_model", args_get(a, "model"), "target_type",
			 devices                   ? "specific"
			 : group                   ? "group"
			 : args_flag(a, "percent") ? "canary"
						   : "all",
			 "is_active", !args_flag(a, "inactive"));
	if (body && !walks)
		json_object_set_new(body, "rollout_percentage",
				    json_integer(args_int(a, "percent", 100)));
	if (body && args_flag(a, "stages")) {
		stages = stages_of(c, args_get(a, "stages"), err);
		if (!stages) {
			json_decref(body);
			return NULL;
		}
		json_object_set_new(body, "stages", stages);
	}
	if (body && group)
		json_object_set_new(body, "target_filter", json_pack("{s:s}", "group", group));
	if (body && devices) {
		ids = split(devices);
		if (!ids) {
			json_decref(body);
			ota_fail(err, OTA_EINVAL, "--devices names no device");
			return NULL;
		}
		json_object_set_new(body, "target_filter", json_pack("{s:o}", "device_ids", ids));
	}
	if (body && args_flag(a, "allow-downgrade"))
		json_object_set_new(body, "allow_downgrade", json_true());
	if (body && args_flag(a, "no-guard"))
		json_object_set_new(body, "guard", json_string("off"));
	if (body && args_flag(a, "override-suspect"))
		json_object_set_new(body, "override_suspect", json_true());
	if (body && args_flag(a, "max-attempts"))
		json_object_set_new(body, "max_attempts",
				    json_integer(args_int(a, "max-attempts", 3)));
	if (body && args_flag(a, "max-parallel"))
		json_object_set_new(body, "max_parallel",
				    json_integer(args_int(a, "max-parallel", 0)));
	if (body && !add_words(body, a)) {
		json_decref(body);
		body = NULL;
	}
	if (!body)
		ota_fail(err, OTA_EINVAL, "the arguments are not UTF-8");
	return body;
}

json_t *rollout_body(struct cli *c, const struct args *a, struct ota_err *err)
{
	return check_target(c, a, err) == OTA_OK ? make_body(c, a, err) : NULL;
}

/* --watch and --timeout, where they make sense. */
static enum ota_code check_watch(const struct args *a, struct ota_err *err)
{
	if (args_flag(a, "inactive") && args_flag(a, "watch"))
		return ota_fail(err, OTA_EINVAL, "--inactive and --watch: nothing would happen");
	if (args_flag(a, "timeout") && !args_flag(a, "watch"))
		return ota_fail(err, OTA_EINVAL, "--timeout goes with --watch");
	return OTA_OK;
}

enum ota_code rollout_create(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *body, *answer;
	enum ota_code code;
	char name[320];
	int64_t id;

	body = rollout_body(c, a, err);
	if (!body)
		return err->code;
	code = check_watch(a, err);
	if (code != OTA_OK) {
		json_decref(body);
		return code;
	}
	snprintf(name, sizeof(name), "%s", api_str(body, "name"));
	api_url(c, &url, "/api/admin/rollout/create");
	code = api_call(c, "POST", &url, body, &answer, err);
	if (code == OTA_ENOTFOUND)
		cli_hint(c, "paku-ota releases --model %s    shows what there is",
			 args_get(a, "model"));
	if (code != OTA_OK)
		return code;
	id = api_int(answer, "rollout_id", -1);
	if (c->json && !args_flag(a, "watch")) {
		code = api_print_json(answer, err);
	} else if (!c->json && !(args_flag(a, "watch") && term_is_tty(stdout))) {
		format_text(api_str(answer, "message") ? api_str(answer, "message") : "created");
		printf("  rollout %" PRId64 ", ", id);
		format_text(name);
		if (term_is_tty(stdout))
			printf("next: paku-ota watch %" PRId64 "\n", id);
	}
	json_decref(answer);
	fflush(stdout);
	if (code == OTA_OK && args_flag(a, "watch"))
		code = watch_rollout(
			c, id,
			&(struct watch_options){.interval_ms = 1000,
						.timeout_s = args_int(a, "timeout", 0)},
			err);
	return code;
}
