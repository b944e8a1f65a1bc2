/* SPDX-License-Identifier: MIT */
/* What a run leaves behind: for people, for scripts, and device by device. */
#include "fleet-sim/screen.h"

#include "cli/term.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tally {
	const char *version;
	int64_t count;
};

/* How many devices call themselves what; versions are interned, so pointers tell them apart. */
static struct tally *count_versions(const struct fleet *f, size_t *count)
{
	struct tally *t = NULL;
	size_t n = 0;

	for (uint32_t i = 0; i < f->o.devices; i++) {
		size_t k = 0;

		while (k < n && t[k].version != f->devices[i].version)
			k++;
		if (k == n) {
			struct tally *more = realloc(t, (n + 1) * sizeof *t);

			if (!more)
				break;
			t = more;
			t[n++] = (struct tally){f->devices[i].version, 0};
		}
		t[k].count++;
	}
	*count = n;
	return t;
}

static void print_verdict(const struct differences *d, const char *reason)
{
	if (!d) {
		printf("not compared: %s\n", reason);
		return;
	}
	if (d->count == 0) {
		printf("%sconsistent%s: the service has recorded what the devices saw (%" PRId64
		       " devices, %" PRId64 " attempts)\n",
		       term_sgr(COLOUR_GREEN), term_sgr(COLOUR_NONE), d->devices, d->attempts);
		return;
	}
	printf("%s%" PRId64 " differences%s between what devices saw and what the service has "
	       "recorded:\n",
	       term_sgr(COLOUR_RED), d->count, term_sgr(COLOUR_NONE));
	for (int64_t i = 0; i < d->count && i < DIFFERENCES_SHOWN; i++)
		printf("  %s\n", d->first[i]);
	if (d->count > DIFFERENCES_SHOWN)
		printf("  and %" PRId64 " more\n", d->count - DIFFERENCES_SHOWN);
}

void summary_print(const struct fleet *f, const struct differences *verified, const char *reason,
		   int64_t took_ms)
{
	const struct web_stats *w = web_stats(f->web);
	size_t n = 0;
	struct tally *t = count_versions(f, &n);

	printf("%" PRIu32 " devices of %s, seed %" PRIu64 ", %.1f s\n", f->o.devices, f->o.model,
	       f->o.seed, (double)took_ms / 1000);
	printf("  versions ");
	for (size_t i = 0; i < n; i++)
		printf("  %s %" PRId64, t[i].version, t[i].count);
	free(t);
	printf("\n  attempts ");
	for (int k = 0; k < OUTCOMES; k++)
		if (f->stats.outcomes[k])
			printf("  %s %" PRId64, outcome_name((enum outcome)k),
			       f->stats.outcomes[k]);
	printf("\n  told       %" PRId64 " offers, %" PRId64 " of them again\n",
	       f->stats.offers + f->stats.again, f->stats.again);
	if (f->broker)
		printf("  MQTT       %" PRId64 " messages out, %" PRId64 " acknowledged, %" PRId64
		       " in, %" PRId64 " connections lost\n",
		       broker_stats(f->broker)->published, broker_stats(f->broker)->acknowledged,
		       broker_stats(f->broker)->received, broker_stats(f->broker)->lost);
	printf("  HTTP       %" PRId64 " answers, %" PRId64 " busy (503), %" PRId64
	       " without an answer\n",
	       w->answers, w->busy, w->failures);
	printf("  images     %" PRId64 " (%.1f MB), %" PRId64 " damaged\n", f->stats.images,
	       (double)w->bytes / 1e6, f->stats.corrupt);
	print_verdict(verified, reason);
}

/* ------------------------------------------------------------------ JSON */

static json_t *counts_json(const struct fleet *f)
{
	json_t *o = json_object();

	for (int k = 0; k < OUTCOMES; k++)
		json_object_set_new(o, outcome_name((enum outcome)k),
				    json_integer(f->stats.outcomes[k]));
	return o;
}

static json_t *versions_json(const struct fleet *f)
{
	json_t *o = json_object();
	size_t n = 0;
	struct tally *t = count_versions(f, &n);

	for (size_t i = 0; i < n; i++)
		json_object_set_new(o, t[i].version, json_integer(t[i].count));
	free(t);
	return o;
}

static json_t *mqtt_json(const struct fleet *f)
{
	const struct broker_stats *b = f->broker ? broker_stats(f->broker) : NULL;

	if (!b)
		return json_null();
	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:i}", "published", (json_int_t)b->published,
			 "acknowledged", (json_int_t)b->acknowledged, "abandoned",
			 (json_int_t)b->abandoned, "received", (json_int_t)b->received,
			 "connections_lost", (json_int_t)b->lost, "connections", (int)b->joined);
}

static json_t *http_json(const struct fleet *f)
{
	const struct web_stats *w = web_stats(f->web);

	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "answers", (json_int_t)w->answers, "busy",
			 (json_int_t)w->busy, "failures", (json_int_t)w->failures, "reports",
			 (json_int_t)f->stats.reports, "images", (json_int_t)f->stats.images,
			 "image_bytes", (json_int_t)w->bytes, "corrupt",
			 (json_int_t)f->stats.corrupt);
}

enum ota_code summary_json(const struct fleet *f, const struct differences *verified,
			   const char *reason, int64_t took_ms, struct ota_err *err)
{
	json_t *first = json_array(), *root;
	enum ota_code code;

	for (int64_t i = 0; verified && i < verified->count && i < DIFFERENCES_SHOWN; i++)
		json_array_append_new(first, json_string(verified->first[i]));
	root = json_pack("{s:i,s:s,s:I,s:f,s:o,s:o,s:I,s:I,s:o,s:o}", "devices", (int)f->o.devices,
			 "model", f->o.model, "seed", (json_int_t)f->o.seed, "seconds",
			 (double)took_ms / 1000, "versions", versions_json(f), "attempts",
			 counts_json(f), "offers", (json_int_t)f->stats.offers, "offers_again",
			 (json_int_t)f->stats.again, "mqtt", mqtt_json(f), "http", http_json(f));
	if (!root) {
		json_decref(first);
		return ota_fail_nomem(err);
	}
	json_object_set_new(root, "consistent",
			    verified ? json_boolean(verified->count == 0) : json_null());
	json_object_set_new(root, "not_compared", verified ? json_null() : json_string(reason));
	json_object_set_new(root, "differences",
			    json_integer(verified ? (json_int_t)verified->count : 0));
	json_object_set_new(root, "first_differences", first);
	code = api_print_json(root, err);
	json_decref(root);
	return code;
}

static void write_device(const struct fleet *f, const struct device *d, struct buf *b)
{
	char id[DEVICE_ID_SIZE];

	device_id(f, d, id);
	buf_reset(b);
	json_open(b, NULL, '{');
	json_str(b, "device", id);
	json_str(b, "version", d->version);
	json_open(b, "attempts", '[');
	for (uint32_t k = 0; k < d->record.count; k++) {
		const struct seen *s = &d->record.tries[k];

		json_open(b, NULL, '{');
		json_str(b, "version", s->version);
		json_str(b, "outcome", outcome_name((enum outcome)s->outcome));
		json_int(b, "code", s->code);
		json_close(b, '}');
	}
	json_close(b, ']');
	json_close(b, '}');
	buf_addc(b, '\n');
}

enum ota_code record_write(const struct fleet *f, const char *path, struct ota_err *err)
{
	FILE *out = fopen(path, "we");
	struct buf b = BUF_INIT;
	bool ok = out != NULL;

	for (uint32_t i = 0; ok && i < f->o.devices; i++) {
		write_device(f, &f->devices[i], &b);
		ok = buf_ok(&b) && fwrite(b.data, 1, b.len, out) == b.len;
	}
	buf_fini(&b);
	if (out && fclose(out) != 0)
		ok = false;
	return ok ? OTA_OK
		  : ota_fail(err, OTA_EINVAL, "cannot write %s: %s", path, strerror(errno));
}
