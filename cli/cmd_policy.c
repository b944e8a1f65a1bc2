/* SPDX-License-Identifier: MIT */
/* policy replay: another gate over a rollout that was. */
#include "cli/api.h"
#include "cli/format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct opt replay_opts[] = {
	{.name = "gate",
	 .arg = "LIST",
	 .help = "p0=0.01,suspects=0.05,0.2,halt_at=125,prove_s=600,max_unproven=50 (as it was)"},
	{0},
};

static bool set_number(json_t *gate, const char *key, const char *text)
{
	char *end;
	bool whole = text[strcspn(text, ".eE")] == '\0';
	double d = strtod(text, &end);
	json_t *v = whole ? json_integer(strtoll(text, NULL, 10)) : json_real(d);

	if (!*text || *end || !v) {
		json_decref(v);
		return false;
	}
	if (strcmp(key, "suspects") != 0)
		return json_object_set_new(gate, key, v) == 0;
	json_t *list = json_object_get(gate, key);
	if (!list) {
		list = json_array();
		if (json_object_set_new(gate, key, list) != 0) {
			json_decref(v);
			return false;
		}
	}
	return json_array_append_new(list, v) == 0;
}

/* "p0=0.02,suspects=0.05,0.1,halt_at=50" as the service wants it: what has no name belongs to the
 * suspects before it.  Whether the numbers make sense the service says. */
static json_t *gate_of(struct cli *c, const char *list, struct ota_err *err)
{
	char *copy = strdup(list), *rest = NULL, key[32] = "";
	json_t *gate = json_object();

	for (char *part = copy ? strtok_r(copy, ",", &rest) : NULL; part && gate;
	     part = strtok_r(NULL, ",", &rest)) {
		char *is = strchr(part, '=');
		bool named = is && (size_t)(is - part) < sizeof(key) && is > part;

		if (named) {
			memcpy(key, part, (size_t)(is - part));
			key[is - part] = '\0';
		}
		if ((named || (!is && strcmp(key, "suspects") == 0)) &&
		    set_number(gate, key, named ? is + 1 : part))
			continue;
		ota_fail(err, OTA_EINVAL, "--gate: '%.60s' is not NAME=NUMBER", part);
		cli_hint(c, "as in --gate p0=0.02,suspects=0.05,0.1,0.5,halt_at=50");
		json_decref(gate);
		gate = NULL;
	}
	if (!copy || (!gate && err->code == OTA_OK))
		ota_fail_nomem(err);
	free(copy);
	return gate;
}

static void show_side(const char *label, const json_t *s)
{
	char line[200];

	snprintf(line, sizeof(line),
		 "%" PRId64 " met it, %" PRId64 " proved it, %" PRId64 " failed%s%.40s",
		 api_int(s, "exposed", 0), api_int(s, "proven", 0), api_int(s, "failed", 0),
		 api_true(s, "halted") ? "; halted at " : "",
		 api_str(s, "halted_at") ? api_str(s, "halted_at") : "");
	format_field(label, line);
	format_field("", api_str(s, "sentence"));
}

static void show(const json_t *r)
{
	const json_t *held = json_object_get(r, "variants_held"), *v;
	char line[400], longest[FORMAT_SIZE];
	size_t i;

	format_text(api_str(r, "sentence") ? api_str(r, "sentence") : "");
	show_side("as it was", json_object_get(r, "was"));
	show_side("this gate", json_object_get(r, "would_be"));
	snprintf(line, sizeof(line), "%" PRId64 " devices; %" PRId64 " of them failed",
		 api_int(r, "spared", 0), api_int(r, "spared_failed", 0));
	format_field("spared", line);
	format_duration(api_int(r, "longest_wait_s", 0), longest);
	snprintf(line, sizeof(line),
		 "%" PRId64 " devices, by %s at the most; %" PRId64 " wait still",
		 api_int(r, "held_up", 0), longest, api_int(r, "waiting", 0));
	format_field("held up", line);
	json_array_foreach(held, i, v)
	{
		const char *hw = api_str(v, "hw"), *from = api_str(v, "from_version");

		snprintf(line, sizeof(line), "hardware %.128s that ran %.128s, at %.40s",
			 hw ? hw : "unknown", from ? from : "unknown", api_str(v, "halted_at"));
		format_field("held back", line);
	}
}

static enum ota_code policy_replay(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct buf url = BUF_INIT;
	json_t *gate = gate_of(c, args_get(a, "gate") ? args_get(a, "gate") : "", err), *answer;
	enum ota_code code;
	int64_t id;

	if (!gate)
		return err->code;
	code = api_rollout_id(c, a->pos[0], &id, err);
	if (code != OTA_OK) {
		json_decref(gate);
		return code;
	}
	api_url(c, &url, "/api/admin/rollouts");
	buf_printf(&url, "/%" PRId64 "/replay", id);
	code = api_call(c, "POST", &url, json_pack("{s:o}", "guard", gate), &answer, err);
	if (code != OTA_OK)
		return code;
	if (c->json)
		code = api_print_json(answer, err);
	else
		show(answer);
	json_decref(answer);
	return code;
}

const struct cmd cmd_policy_subs[] = {
	{"replay", "ROLLOUT", "run another gate over what happened in a rollout",
	 "  paku-ota policy replay --gate halt_at=50,max_unproven=20 7\n"
	 "\n"
	 "Says when it would have stopped the release, whom it would have spared, and whom it\n"
	 "would have held up. What --gate leaves out is as it was. Changes nothing.",
	 .opts = replay_opts, .min_args = 1, .max_args = 1, .run = policy_replay},
	{0},
};
