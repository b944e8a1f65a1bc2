/* SPDX-License-Identifier: MIT */
/*
 * The Linux device: two slot files and a boot record file for flash, libcurl (and with --mqtt
 * libmosquitto) for the network, and a restart that happens inside the process.  One thread;
 * everything hangs on struct port.
 */
#pragma once

#include "base/broker_place.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "paku_mqtt.h"

#include <curl/curl.h>
#include <mosquitto.h>
#include <signal.h>
#include <sys/types.h>

#define PORT_BLOCK_SIZE 65536
#define PORT_NET_BUFFER (256 * 1024)

enum port_fail { FAIL_NOTHING, FAIL_VERIFY, FAIL_BOOT, FAIL_SELFTEST };

struct options {
	const char *server, *id, *model, *version, *dir, *selftest, *mac, *hw, *site;
	struct broker_place mqtt; /* without a host: over HTTP, with check-ins */
	struct broker_tls tls;
	uint32_t poll_s, trial_s, slot_size, speed; /* poll_s, speed: 0 if not given */
	uint32_t max_polls;                         /* 0: no end */
	enum port_fail fail;
	bool once, json;
};

/* What port_exit() of the process says; in --help too. */
enum port_exit { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_SERVICE = 3, EXIT_STATE = 4 };

struct port_flash {
	int lock, slot[2], record; /* -1 while closed */
};

struct port_net {
	CURL *api, *download;
	CURLM *multi;
	struct curl_slist *headers; /* of the download under way */
	struct paku_head head;
	bool head_done, ended, paused;
	CURLcode result;
	char *data; /* PORT_NET_BUFFER bytes; [start, start + len) is not read yet */
	size_t start, len;
};

enum port_command_state { COMMAND_NONE, COMMAND_OPEN, COMMAND_ENDED };

/* The last command; lies in DIR/command. */
struct port_command {
	uint8_t state, result; /* enum port_command_state; enum paku_result once it has ended */
	char attempt[PAKU_ATTEMPT_SIZE], message[128];
	struct paku_offer offer;
};

struct port_mqtt {
	struct mosquitto *client; /* one for each boot */
	char now[TIME_TEXT_SIZE];
	char topics[PAKU_TOPIC_STATUS + 1][PAKU_TOPIC_SIZE];
	bool trying, connected, announced;
	uint32_t tries;
	int64_t trying_mono_ms, retry_mono_ms;
	char tls_error[128]; /* of this try to connect; "": none */
	int awaited;         /* id of the message whose PUBACK is waited for */
	bool ending;         /* ... and is the command's result: */
	enum paku_result end_result;
	const char *end_message;
	struct port_command command;
	bool begun;     /* the agent has the command */
	uint32_t ended; /* commands that came to an end */
	enum paku_state told_state;
	uint32_t told_bytes;
	int64_t told_mono_ms, begun_mono_ms;
};

struct port {
	struct options opt;
	struct paku_identity id;
	char boot_id[33], digest[SHA256_HEX_SIZE];
	int64_t boot_mono_ms;
	struct port_flash flash;
	struct port_net net;
	struct port_mqtt mqtt;
	struct sha256 *sha;
	struct paku agent;
	struct paku_io io;
	struct paku_config cfg;
	uint8_t *block;
	pid_t selftest_pid; /* of --selftest, and its process group; 0: none runs */
	uint32_t polls;
	enum port_exit outcome; /* of the last update, or the last check */
	bool update_ended;
	uint32_t shown_percent;
};

/* Set by SIGINT and SIGTERM; waits end early then. */
extern volatile sig_atomic_t port_stop;

/* options.c: fills *opt, or prints one sentence (or the help) and returns the exit code. */
int options_parse(struct options *opt, int argc, char **argv);

/* flash.c */
bool port_flash_open(struct port *p, struct ota_err *err) OTA_MUST_USE;
void port_flash_close(struct port *p);
extern const struct paku_flash_ops port_flash_ops;

/* net.c */
bool port_net_open(struct port *p, struct ota_err *err) OTA_MUST_USE;
void port_net_close(struct port *p);
/* True if the service answers anything at all. */
bool port_net_reachable(struct port *p);
extern const struct paku_net_ops port_net_ops;

/* command.c: what is kept in p->mqtt.command.  False (and told) if it is not on the disk. */
void port_command_load(struct port *p);
bool port_command_save(struct port *p) OTA_MUST_USE;

/* mqtt.c; with --mqtt only. */
bool port_mqtt_open(struct port *p, struct ota_err *err) OTA_MUST_USE;
/* Says that we are offline, if that can be said at once. */
void port_mqtt_close(struct port *p);
/* Of each boot: a client, which connects by and by; and the end of it, without a word. */
bool port_mqtt_start(struct port *p) OTA_MUST_USE;
void port_mqtt_reset(struct port *p);
/* Keeps the connection going, for so long at most; returns when something has happened. */
void port_mqtt_pump(struct port *p, uint32_t timeout_ms);
int port_mqtt_socket(const struct port *p); /* to wait for with others; -1 for none */
/* Between two steps of the agent: hands it a command that has come. */
void port_mqtt_begin(struct port *p);
/* The download was answered with 410: the command is no more. */
void port_mqtt_withdrawn(struct port *p);
/* In the place of those of port_net_ops. */
enum paku_outcome port_mqtt_check(void *ctx, const char *version, struct paku_offer *offer,
				  uint32_t *retry_after_s);
enum paku_outcome port_mqtt_report(void *ctx, const struct paku_report *report);

/* events.c: one line an event on stderr, "ID: what happened", or one JSON object a line. */
void port_event(void *ctx, enum paku_event event, uint32_t value);
void port_say(struct port *p, const char *event, const char *fmt, ...) OTA_PRINTF(3, 4);
/* Sleeps, until a signal at the latest. */
void port_sleep_ms(uint32_t ms);
