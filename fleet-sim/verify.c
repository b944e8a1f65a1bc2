/* SPDX-License-Identifier: MIT */
#include "fleet-sim/verify.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 1000

struct verifying {
	struct fleet *f;
	struct cli *c;
	int64_t since_us;
	struct differences *d;
	uint8_t *listed; /* by device: the service knows it */
	int64_t waiting;
};

static void differ(struct verifying *v, const char *fmt, ...) OTA_PRINTF(2, 3);
static void differ(struct verifying *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (v->d->count < DIFFERENCES_SHOWN)
		vsnprintf(v->d->first[v->d->count], sizeof v->d->first[0], fmt, ap);
	va_end(ap);
	v->d->count++;
}

static const char *or_none(const char *s)
{
	return s ? s : "nothing";
}

/* ------------------------------------------------------------------ pages */

/* Calls ROW for each row of the list, page by page. */
static enum ota_code each_row(struct verifying *v, const char *path, const char *list,
			      void (*row)(struct verifying *, const json_t *), struct ota_err *err)
{
	char *cursor = NULL;
	enum ota_code code;

	do {
		struct buf url = BUF_INIT;
		const json_t *one;
		json_t *page = NULL;
		const char *next;
		size_t i;

		api_url(v->c, &url, path);
		url_query_int(&url, "limit", PAGE);
		url_query(&url, "cursor", cursor);
		free(cursor);
		cursor = NULL;
		code = api_get(v->c, &url, &page, err);
		if (code != OTA_OK)
			break;
		json_array_foreach(json_object_get(page, list), i, one)
		{
			row(v, one);
		}
		next = api_str(page, "next_cursor");
		if (next && !(cursor = strdup(next)))
			code = ota_fail_nomem(err);
		json_decref(page);
	} while (code == OTA_OK && cursor);
	free(cursor);
	return code;
}

/* ------------------------------------------------------------------ attempts */

/* Which of the service's words go with what the device saw. */
static bool agrees(const struct seen *s, const char *status)
{
	static const char *const under_way[] = {"pending", "downloading", "downloaded",
						"installing"};
	const char *wanted = NULL;

	switch ((enum outcome)s->outcome) {
	case OUTCOME_SUCCESS: wanted = "success"; break;
	case OUTCOME_FAILED: wanted = "failed"; break;
	case OUTCOME_ROLLED_BACK: wanted = "rolled_back"; break;
	case OUTCOME_WITHDRAWN: wanted = "pending"; break;
	case OUTCOME_BRICKED: return strcmp(status, "installing") == 0 || !strcmp(status, "failed");
	default: break;
	}
	if (wanted)
		return strcmp(status, wanted) == 0;
	/* Cut off: the service may go on waiting, or have given up. */
	for (size_t i = 0; i < sizeof under_way / sizeof under_way[0]; i++)
		if (strcmp(status, under_way[i]) == 0)
			return true;
	return strcmp(status, "failed") == 0;
}

static void check_row(struct verifying *v, struct seen *s, const json_t *row)
{
	const char *id = or_none(api_str(row, "device_id"));
	const char *status = or_none(api_str(row, "status"));
	const char *version = or_none(api_str(row, "firmware_version"));
	const char *error = api_str(row, "error_message");
	const char *words = result_code_words(s->code);

	if (s->matched)
		differ(v, "%s: the service has attempt %s twice", id, s->token);
	s->matched = true;
	if (strcmp(version, s->version) != 0)
		differ(v, "%s: attempt %s was at %s, the service says %.100s", id, s->token,
		       s->version, version);
	if (!agrees(s, status))
		differ(v, "%s: its attempt %s at %s ended %s, the service says %.40s", id, s->token,
		       s->version, outcome_name((enum outcome)s->outcome), status);
	else if (s->outcome == OUTCOME_FAILED &&
		 (!error || strncmp(error, words, strlen(words)) != 0))
		differ(v, "%s: it failed with code %d (%s), the service says '%.100s'", id, s->code,
		       words, or_none(error));
}

static void on_update(struct verifying *v, const json_t *row)
{
	const char *id = api_str(row, "device_id"), *token = api_str(row, "attempt_id");
	const char *status = or_none(api_str(row, "status")), *opened = api_str(row, "opened_at");
	struct device *d = id ? fleet_find(v->f, id) : NULL;
	int64_t opened_us = 0;

	if (!d)
		return;
	v->d->attempts++;
	for (uint32_t i = 0; token && i < d->record.count; i++)
		if (strcmp(d->record.tries[i].token, token) == 0) {
			check_row(v, &d->record.tries[i], row);
			return;
		}
	/* Of an earlier run, or an offer that the device never heard of: it may wait for ever. */
	if ((opened && time_parse(opened, &opened_us) && opened_us < v->since_us) ||
	    strcmp(status, "pending") == 0)
		return;
	differ(v, "%s: the service has a %.40s attempt %s at %.100s that the device never saw", id,
	       status, or_none(token), or_none(api_str(row, "firmware_version")));
}

static void look_for_missing(struct verifying *v)
{
	for (uint32_t i = 0; i < v->f->o.devices; i++) {
		struct device *d = &v->f->devices[i];
		char id[DEVICE_ID_SIZE];

		device_id(v->f, d, id);
		if (d->told && !v->listed[i])
			differ(v, "%s: the service does not know it", id);
		for (uint32_t k = 0; k < d->record.count; k++) {
			const struct seen *s = &d->record.tries[k];

			if (!s->matched)
				differ(v, "%s: its attempt %s at %s (%s) is not in the record", id,
				       s->token, s->version,
				       outcome_name((enum outcome)s->outcome));
		}
	}
}

/* ------------------------------------------------------------------ devices */

static void on_device(struct verifying *v, const json_t *row)
{
	const char *id = api_str(row, "device_id");
	const char *runs = or_none(api_str(row, "current_firmware_version"));
	const char *model = or_none(api_str(row, "device_model"));
	struct device *d = id ? fleet_find(v->f, id) : NULL;
	const char *hw;

	if (!d)
		return;
	hw = scenario_hw(&v->f->scenario, d->number);
	v->listed[d->number] = 1;
	v->d->devices++;
	if (!d->told)
		return;
	if (strcmp(runs, d->told) != 0)
		differ(v, "%s: it runs %s, the service says %.100s", id, d->told, runs);
	if (hw && strcmp(hw, or_none(api_str(row, "hw"))) != 0)
		differ(v, "%s: its hardware is %s, the service says %.100s", id, hw,
		       or_none(api_str(row, "hw")));
	if (strcmp(model, v->f->o.model) != 0)
		differ(v, "%s: its model is %s, the service says %.100s", id, v->f->o.model, model);
}

enum ota_code verify(struct fleet *f, struct cli *c, int64_t since_us, struct differences *out,
		     struct ota_err *err)
{
	struct verifying v = {.f = f, .c = c, .since_us = since_us, .d = out};
	enum ota_code code;

	*out = (struct differences){0};
	v.listed = calloc(f->o.devices, 1);
	if (!v.listed)
		return ota_fail_nomem(err);
	for (uint32_t i = 0; i < f->o.devices; i++)
		for (uint32_t k = 0; k < f->devices[i].record.count; k++)
			f->devices[i].record.tries[k].matched = false;
	if (f->stats.corrupt > 0)
		differ(&v, "%lld images came with another SHA-256 than was announced",
		       (long long)f->stats.corrupt);
	if (f->stats.refused > 0)
		differ(&v, "the service refused %lld requests of devices; the last with %.200s",
		       (long long)f->stats.refused, f->stats.refusal);
	if (f->stats.odd_commands > 0)
		differ(&v, "%lld commands could not be read", (long long)f->stats.odd_commands);
	code = each_row(&v, "/api/admin/devices", "devices", on_device, err);
	if (code == OTA_OK)
		code = each_row(&v, "/api/admin/update-status", "updates", on_update, err);
	if (code == OTA_OK)
		look_for_missing(&v);
	free(v.listed);
	return code;
}

static void on_pending(struct verifying *v, const json_t *row)
{
	const char *id = api_str(row, "device_id");
	const struct device *d = id ? fleet_find(v->f, id) : NULL;

	if (d && d->state != DEVICE_BRICKED && !api_str(row, "closed"))
		v->waiting++;
}

enum ota_code verify_waiting(struct fleet *f, struct cli *c, int64_t *out, struct ota_err *err)
{
	struct verifying v = {.f = f, .c = c};
	enum ota_code code =
		each_row(&v, "/api/admin/update-status?status=pending", "updates", on_pending, err);

	*out = v.waiting;
	return code;
}
