/* SPDX-License-Identifier: MIT */
/*
 * paku-ota, the command line: what every command is given, and what it may answer.
 *
 * One thread.  A command parses nothing itself (opt.c did, from the command's table), talks to the
 * service through api.h, prints to stdout, and answers an ota_code; main() prints the sentence on
 * stderr and makes the exit code.  Two codes have a narrow meaning here: OTA_EINVAL is a mistake on
 * this side (command line, local file), OTA_EIO is a service that cannot be reached.
 */
#pragma once

#include "base/err.h"
#include "cli/opt.h"

#include <jansson.h>
#include <stdint.h>

enum exit_code {
	EXIT_OK = 0,
	EXIT_REFUSED = 1,     /* the service said no, or the watched rollout ended with failures */
	EXIT_USAGE = 2,       /* the command line, or a local file */
	EXIT_UNREACHABLE = 3, /* no answer, or an answer that is not the service's */
	EXIT_AUTH = 4,        /* no key, a wrong key, a login file that others can read */
	EXIT_TIMEOUT = 5,     /* watch --timeout passed first */
	EXIT_INTERRUPTED = 130,
};

struct http;

struct cli {
	/* set by main() before the command runs */
	char *server; /* without a slash at the end */
	char *key;    /* NULL: none */
	const char *cacert;
	bool json; /* --json: the service's JSON instead of tables */
	struct http *http;
	/* left behind by the command */
	int exit_status;         /* when it answers OTA_OK */
	char hint[256];          /* what to type next, printed under an error */
	json_t *refusal;         /* the service's JSON of the last refusal */
	int64_t service_us;      /* the service's clock at its last answer (Date), 0: unknown */
	int64_t service_mono_ms; /* our monotonic clock at that moment */
};

/* Finds server and key (option, environment, login file); config.c. */
enum ota_code cli_configure(struct cli *c, const struct args *a, struct ota_err *err);
void cli_hint(struct cli *c, const char *fmt, ...) OTA_PRINTF(2, 3);
/* The service's time, else ours. */
int64_t cli_now_us(const struct cli *c);

/* The whole command tree, for help and completion; main.c. */
extern const struct cmd cli_root;
extern const struct opt cli_global_opts[];

/* Tables of sub-commands, each in its cmd_*.c. */
extern const struct cmd cmd_devices_subs[], cmd_releases_subs[], cmd_rollout_subs[],
	cmd_windows_subs[];
extern const struct cmd cmd_completion_subs[], cmd_policy_subs[];
extern const struct opt cmd_upload_opts[], cmd_updates_opts[], cmd_events_opts[], cmd_log_opts[],
	cmd_watch_opts[], cmd_login_opts[], cmd_rejected_opts[], cmd_stop_all_opts[],
	cmd_resume_all_opts[], cmd_retry_opts[], cmd_alerts_opts[], cmd_backup_opts[];

enum ota_code cmd_upload(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_updates(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_log(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_events(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_rejected(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_doctor(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_backup(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_alerts(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_stop_all(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_resume_all(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_explain(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_retry(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_status(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_watch(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_login(struct cli *c, const struct args *a, struct ota_err *err);

struct watch_options {
	int64_t timeout_s; /* 0: none */
	int64_t interval_ms;
};
/* Watches rollout ID to its end; sets c->exit_status; cmd_watch.c. */
enum ota_code watch_rollout(struct cli *c, int64_t id, const struct watch_options *o,
			    struct ota_err *err);
