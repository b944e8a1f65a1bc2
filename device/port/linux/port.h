/* SPDX-License-Identifier: MIT */
/*
 * The Linux device: two slot files and a boot record file for flash, libcurl for the network, and
 * a restart that happens inside the process.  One thread; everything hangs on struct port.
 */
#pragma once

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "paku_glue.h"

#include <curl/curl.h>
#include <signal.h>
#include <sys/types.h>

#define PORT_BLOCK_SIZE 65536
#define PORT_NET_BUFFER (256 * 1024)

enum port_fail { FAIL_NOTHING, FAIL_VERIFY, FAIL_BOOT, FAIL_SELFTEST };

struct options {
	const char *server, *id, *model, *version, *dir, *selftest, *mac, *hw;
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

struct port {
	struct options opt;
	struct paku_identity id;
	char boot_id[33], digest[SHA256_HEX_SIZE];
	int64_t boot_mono_ms;
	struct port_flash flash;
	struct port_net net;
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

/* events.c: one line an event on stderr, "ID: what happened", or one JSON object a line. */
void port_event(void *ctx, enum paku_event event, uint32_t value);
void port_say(struct port *p, const char *event, const char *fmt, ...) OTA_PRINTF(3, 4);
/* Sleeps, until a signal at the latest. */
void port_sleep_ms(uint32_t ms);
