/* SPDX-License-Identifier: MIT */
/*
 * The simulated fleet: devices, and what they share.  One thread, on the loop.
 *
 * device.c is a device's life, speak.c how it says what it has to say (MQTT or HTTP), fetch.c how
 * it gets an image.  What happens is decided by fate.h alone; time only says when.
 */
#pragma once

#include "fleet-sim/broker.h"
#include "fleet-sim/fate.h"
#include "fleet-sim/record.h"
#include "fleet-sim/web.h"

#include "base/hash.h"

struct fleet_options {
	const char *server; /* without a slash at its end */
	bool mqtt;
	const char *site, *model, *version;
	uint64_t seed;
	uint32_t devices;
	uint32_t connections; /* 0: each device its own */
	bool download;        /* false: HEAD alone */
	int qos;
	int64_t poll_ms; /* 0: as the service says */
	int64_t ramp_ms; /* over which the devices start */
};

enum device_state {
	DEVICE_OFF, /* not started, without power, or away by its duty cycle */
	DEVICE_IDLE,
	DEVICE_WAITING,     /* for its turn to download */
	DEVICE_DOWNLOADING, /* and checking what came */
	DEVICE_INSTALLING,
	DEVICE_RESTARTING,
	DEVICE_BRICKED,
	DEVICE_STATES,
};
const char *device_state_name(enum device_state s); /* "waiting" */

/* What a device says about a try. */
enum word {
	WORD_ACCEPTED,
	WORD_DOWNLOADING,
	WORD_VERIFYING,
	WORD_INSTALLING,
	WORD_COMPLETE,
	WORD_SUCCESS,
	WORD_FAILED,
	WORD_ROLLED_BACK,
};

/* An offer or command under way. */
struct work {
	struct try_plan plan;
	uint32_t try_index; /* of the device's record */
	char *url;
	uint8_t checksum[SHA256_SIZE];
	int64_t size; /* -1: not known yet */
	struct sha256 *hash;
	int64_t got;
	int breaks;                /* that happened */
	int refusals;              /* answers that were no image */
	char why[80];              /* it failed */
	int64_t begun_ms, told_ms; /* the last progress message */
};

struct fleet;
struct device;
typedef void device_step(struct fleet *f, struct device *d);

struct report; /* a message on its way, of HTTP; speak.c */

struct device {
	uint32_t number;
	struct traits traits;
	uint8_t state; /* enum device_state; changed by device_enter() alone */
	bool settled;  /* HTTP: the last check said that there is nothing to come */
	bool up_to_date, checking, posting, seen;
	bool away;     /* by its duty cycle */
	uint16_t held; /* messages held back */
	int64_t held_until_ms;
	device_step *then;   /* what its timer does */
	uint32_t generation; /* of the timer */
	uint32_t boot;       /* how often it has started */
	uint32_t tries, polls, messages;
	const char *version; /* what it runs, as it calls it */
	const char *before;  /* what it ran before the last installation */
	const char *told;    /* the version it said last, or said that it had installed */
	struct work *work;
	struct report *reports;
	struct record record;
};

struct fleet_stats {
	int64_t states[DEVICE_STATES];
	int64_t outcomes[OUTCOMES];
	int64_t offers, again;       /* first tellings, repeated ones */
	int64_t odd_commands;        /* that a device could not read */
	int64_t images, corrupt;     /* downloads; those with another SHA-256 */
	int64_t reports, refused;    /* over HTTP: taken, refused for good */
	int64_t lost;                /* messages that could not be published */
	int64_t settled, up_to_date; /* devices; HTTP */
	int64_t seen;                /* devices that said something */
	int64_t last_news_ms;        /* when something last happened to a try */
	char refusal[240];           /* the last one's words */
};

struct fleet {
	struct fleet_options o;
	struct scenario scenario;
	struct loop *loop;
	struct web *web;
	struct broker *broker; /* NULL over HTTP */
	struct pool *pool;
	struct device *devices;
	bool ending; /* nothing new is begun */
	struct fleet_stats stats;
};

/* LOOP stays the caller's; the strings of O too.  Over MQTT broker comes later. */
enum ota_code fleet_new(struct loop *loop, const struct fleet_options *o, const struct scenario *s,
			const struct web_limits *limits, struct fleet **out, struct ota_err *err);
void fleet_free(struct fleet **f);
/* Devices begin to live, spread over the ramp. */
void fleet_start(struct fleet *f);
/* Of broker.h: the connections of this fleet, and what comes in. */
void fleet_describe(void *ctx, uint32_t connection, struct broker_client *out);
void fleet_message(void *ctx, uint32_t connection, const char *topic, const char *payload,
		   size_t len);
void fleet_ready(void *ctx, uint32_t connection);

/* Is there nothing more to come, as far as devices can tell?  QUIET_MS: MQTT, without news. */
bool fleet_is_done(const struct fleet *f, int64_t quiet_ms);
/* Nothing new is begun; what was said goes out. */
void fleet_end(struct fleet *f);
bool fleet_is_drained(const struct fleet *f);

#define DEVICE_ID_SIZE 40
void device_id(const struct fleet *f, const struct device *d, char out[DEVICE_ID_SIZE]);
/* The device of an id of this fleet; NULL: none. */
struct device *fleet_find(struct fleet *f, const char *id);

/* device.c */
void device_start(struct fleet *f, struct device *d);
struct offer {
	const char *url, *version, *checksum;
	int64_t size; /* -1: not told */
};
void device_offered(struct fleet *f, struct device *d, const struct offer *o);
void device_enter(struct fleet *f, struct device *d, enum device_state s);
/* THEN in MS, in place of what was to come. */
void device_after(struct fleet *f, struct device *d, int64_t ms, device_step *then);
/* Of fetch.c: the image is here and right; it is not, with a result code; power went; 410. */
void device_fetched(struct fleet *f, struct device *d);
void device_failed(struct fleet *f, struct device *d, int code, const char *why);
void device_lost_power(struct fleet *f, struct device *d);
void device_withdrawn(struct fleet *f, struct device *d);
struct seen *device_try(struct device *d);

/* fetch.c */
void device_fetch(struct fleet *f, struct device *d);

/* speak.c */
const char *result_code_words(int code); /* "download failed" */
void device_announce(struct fleet *f, struct device *d);
void device_leave(struct fleet *f, struct device *d);
void device_say(struct fleet *f, struct device *d, enum word w, const char *why);
void reports_free(struct device *d);

/* check.c: HTTP's polling */
void device_check(struct fleet *f, struct device *d);
void device_check_later(struct fleet *f, struct device *d);
