/* SPDX-License-Identifier: MIT */
/*
 * All that a device says and does over MQTT, for one whose SDK can load an image into the spare
 * slot: birth message, command, accepted, progress, and the result, which the version tells that
 * comes up after the restart.  For a device that is to resume downloads and to roll back by itself
 * there is the agent (paku_device.h); this is a tenth of it.
 *
 * C99 without heap; the MQTT client and the flash are the caller's.  paku_updater_connected() and
 * paku_updater_command() may run in another task than paku_updater_run().
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include "paku_mqtt.h"

struct paku_updater;

/* Every function gets the updater; its `ctx` is the caller's.  Each must be there. */
struct paku_updater_io {
	/* With QoS 1 where the client can; false if it is lost. */
	bool (*publish)(struct paku_updater *u, const char *topic, const char *payload,
			bool retain);
	/*
	 * Loads offer->url into the spare slot, with paku_updater_progress() after each piece;
	 * PAKU_RESULT_SUCCESS only when the flash reads back offer->sha256, and the next start
	 * is of this image.
	 */
	enum paku_result (*install)(struct paku_updater *u, const struct paku_offer *offer);
	/* One line that outlives a restart; "" for none. */
	void (*keep)(struct paku_updater *u, const char *line);
	void (*kept)(struct paku_updater *u, char *line, size_t size);
	/* The broker was reached: this version can be updated again, and stays. */
	void (*confirm)(struct paku_updater *u);
	/* When what was published has left. */
	void (*restart)(struct paku_updater *u);
	uint32_t (*now_ms)(struct paku_updater *u); /* may wrap */
};

struct paku_updater {
	const struct paku_updater_io *io;
	void *ctx;
	const char *site, *version;
	struct paku_identity id;
	/* For the MQTT client: its last will (PAKU_MQTT_WILL, retained) and its subscription (QoS
	 * 1);
	 * "" if site or id is too long. */
	char status_topic[PAKU_TOPIC_SIZE], command_topic[PAKU_TOPIC_SIZE];
	/* While an update runs: what it is about.  Set by the command, cleared by the end. */
	volatile bool open;
	struct paku_offer offer;
	enum paku_state told_state;
	uint32_t begun_ms, told_ms;
};

/* The strings stay the caller's, and valid.  id->boot_id must be another one after each start. */
void paku_updater_init(struct paku_updater *u, const struct paku_updater_io *io, const char *site,
		       const struct paku_identity *id, const char *version);

/* After each connect, with command_topic subscribed to.  Says who we are, and how the update ended
 * that this start is the end of. */
void paku_updater_connected(struct paku_updater *u);

/* A message came on the command's topic.  True if it is to be run now. */
bool paku_updater_command(struct paku_updater *u, const char *json, size_t len);

/* Runs the update that was commanded, if one was; restarts the device when it is installed. */
void paku_updater_run(struct paku_updater *u);

/* Bytes in flash, of how many.  As often as one likes: it is told once a second. */
void paku_updater_progress(struct paku_updater *u, enum paku_state state, uint32_t downloaded,
			   uint32_t total);

#ifdef __cplusplus
}
#endif
