/* SPDX-License-Identifier: MIT */
#include "paku_updater.h"
#include "text.h"

#include <string.h>

#define PAYLOAD_SIZE 768
/* What is kept: how far it was, then "VERSION ATTEMPT". */
#define LINE_SIZE (1 + PAKU_VERSION_SIZE + PAKU_ATTEMPT_SIZE)
#define BEGUN     '-'
#define INSTALLED '+'

#define TELL_MS 1000

void paku_updater_init(struct paku_updater *u, const struct paku_updater_io *io, const char *site,
		       const struct paku_identity *id, const char *version)
{
	void *ctx = u->ctx;

	memset(u, 0, sizeof *u);
	u->io = io;
	u->ctx = ctx;
	u->site = site;
	u->id = *id;
	u->version = version;
	if (!paku_mqtt_topic(u->status_topic, sizeof u->status_topic, site, id->device_id,
			     PAKU_TOPIC_STATUS))
		u->status_topic[0] = '\0';
	if (!paku_mqtt_topic(u->command_topic, sizeof u->command_topic, site, id->device_id,
			     PAKU_TOPIC_COMMAND))
		u->command_topic[0] = '\0';
}

static bool say(struct paku_updater *u, enum paku_topic which, const char *payload)
{
	char topic[PAKU_TOPIC_SIZE];

	return paku_mqtt_topic(topic, sizeof topic, u->site, u->id.device_id, which) &&
	       u->io->publish(u, topic, payload, which == PAKU_TOPIC_STATUS);
}

static bool say_result(struct paku_updater *u, const struct paku_about *about,
		       enum paku_result result, const char *message)
{
	char payload[PAYLOAD_SIZE];

	return paku_mqtt_result(payload, sizeof payload, about, result, message) &&
	       say(u, PAKU_TOPIC_RESULT, payload);
}

/* Of OFFER; `attempt` has to live as long. */
static struct paku_about about(const struct paku_offer *offer, char attempt[PAKU_ATTEMPT_SIZE])
{
	paku_attempt_of(offer->url, attempt);
	return (struct paku_about){.version = offer->version, .attempt = attempt};
}

/* ----------------------------------------------------------------------- the start and its end */

/* The version that is up says how its update went; what is not said now is said when it can be. */
static void tell_end(struct paku_updater *u)
{
	char line[LINE_SIZE];

	u->io->kept(u, line, sizeof line);
	if (!line[0])
		return;
	char *version = line + 1, *space = strchr(version, ' ');
	struct paku_about a = {.version = version, .attempt = space ? space + 1 : ""};
	bool told;
	if (space)
		*space = '\0';
	if (paku_version_same(version, u->version))
		told = say_result(u, &a, PAKU_RESULT_SUCCESS, "it runs");
	else if (line[0] == INSTALLED)
		told = say_result(u, &a, PAKU_RESULT_INVALID_FIRMWARE, "it did not stay");
	else
		told = say_result(u, &a, PAKU_RESULT_DOWNLOAD_FAILED, "a restart came between");
	if (told)
		u->io->keep(u, "");
}

void paku_updater_connected(struct paku_updater *u)
{
	char payload[PAYLOAD_SIZE];

	u->io->confirm(u);
	u->id.uptime_s = u->io->now_ms(u) / 1000;
	if (paku_mqtt_birth(payload, sizeof payload, &u->id, u->version))
		(void)say(u, PAKU_TOPIC_STATUS, payload);
	if (!u->open) /* else it is a reconnect, and what is kept has not ended */
		tell_end(u);
}

/* --------------------------------------------------------------------------------- the command */

bool paku_updater_command(struct paku_updater *u, const char *json, size_t len)
{
	char attempt[PAKU_ATTEMPT_SIZE], payload[PAYLOAD_SIZE];
	struct paku_offer offer;
	enum paku_result result = paku_parse_command(json, len, &offer);
	struct paku_about a = about(&offer, attempt);

	if (!offer.version[0])
		return false;
	if (result != PAKU_RESULT_SUCCESS) {
		(void)say_result(u, &a, result, "the command cannot be understood");
	} else if (u->open && paku_version_same(offer.version, u->offer.version)) {
		/* told twice */
	} else if (u->open) {
		(void)say_result(u, &a, PAKU_RESULT_ALREADY_RUNNING, "another update is under way");
	} else if (paku_version_same(offer.version, u->version)) {
		(void)say_result(u, &a, PAKU_RESULT_SUCCESS, "it runs already");
	} else {
		if (paku_mqtt_accepted(payload, sizeof payload, &a))
			(void)say(u, PAKU_TOPIC_ACCEPTED, payload);
		u->offer = offer;
		u->open = true;
		return true;
	}
	return false;
}

/* ---------------------------------------------------------------------------------- the update */

void paku_updater_progress(struct paku_updater *u, enum paku_state state, uint32_t downloaded,
			   uint32_t total)
{
	char attempt[PAKU_ATTEMPT_SIZE], payload[PAYLOAD_SIZE];
	struct paku_about a = about(&u->offer, attempt);
	uint32_t now_ms = u->io->now_ms(u);
	struct paku_progress progress = {state, downloaded, total, now_ms - u->begun_ms};

	if (state == u->told_state && now_ms - u->told_ms < TELL_MS)
		return;
	u->told_state = state;
	u->told_ms = now_ms;
	if (paku_mqtt_progress(payload, sizeof payload, &a, &progress))
		(void)say(u, PAKU_TOPIC_PROGRESS, payload);
}

/* The power may fail at any time, and the next start says how it ended. */
static void keep(struct paku_updater *u, const struct paku_about *a, char how_far)
{
	char line[LINE_SIZE];
	struct text t = text_begin(line, sizeof line);

	text_put(&t, how_far);
	text_puts(&t, a->version);
	text_put(&t, ' ');
	text_puts(&t, a->attempt);
	u->io->keep(u, line);
}

void paku_updater_run(struct paku_updater *u)
{
	char attempt[PAKU_ATTEMPT_SIZE];

	if (!u->open)
		return;
	struct paku_offer offer = u->offer; /* the next command may come while the end is told */
	struct paku_about a = about(&offer, attempt);
	u->begun_ms = u->io->now_ms(u);
	u->told_state = PAKU_STATE_IDLE;
	keep(u, &a, BEGUN); /* before the first byte */
	enum paku_result result = u->io->install(u, &offer);
	if (result == PAKU_RESULT_SUCCESS) {
		keep(u, &a, INSTALLED);
		u->io->restart(u);
		return;
	}
	u->io->keep(u, "");
	u->open = false;
	(void)say_result(u, &a, result, "the old version stays");
}
