/* SPDX-License-Identifier: MIT */
/*
 * paku-ota: the table of contents, and the way from an error to an exit code.
 * Every command is a row of a table; its code is in the cmd_*.c of the same name.
 */
#include "cli/cli.h"
#include "cli/api.h"
#include "cli/http.h"
#include "cli/term.h"
#include "cli/text.h"
#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct opt cli_global_opts[] = {
	{.name = "server",
	 .arg = "URL",
	 .help = "the service (else OTA_SERVICE_URL, the login, "
		 "127.0.0.1:8080)"},
	{.name = "cacert",
	 .arg = "FILE",
	 .help = "trust this certificate authority",
	 .is_file = true},
	{.name = "json", .help = "the service's JSON instead of text"},
	{.name = "help", .help = "this text; -h does the same"},
	{0},
};

static const struct opt root_opts[] = {{.name = "version", .help = "print the version"}, {0}};

static const struct cmd commands[] = {
	{"upload", "FILE", "upload an image: a new release",
	 "  paku-ota upload build/firmware.bin --version 1.3.0 --model esp32-c3\n"
	 "\n"
	 "The service checks the image before it becomes a release. The same file again is\n"
	 "no error; another file under the same version is. --version auto takes the\n"
	 "version that ESP-IDF has put into the image.",
	 .opts = cmd_upload_opts, .min_args = 1, .max_args = 1, .run = cmd_upload,
	 .takes_file = true},
	{"rollout", "COMMAND", "give a release to devices, and see how far it is",
	 .subs = cmd_rollout_subs},
	{"policy", "COMMAND", "try another gate on what happened", .subs = cmd_policy_subs},
	{"watch", "ROLLOUT", "watch a rollout (id or name) until it has ended",
	 "Redraws one screen; q or Ctrl-C leaves. Without a terminal: a line for each change.\n"
	 "Ends with 0 when every device of the target runs the version, with 1 when it is over\n"
	 "and some do not (all their attempts failed, or the rollout is not active), with 5\n"
	 "when --timeout passed first.",
	 .opts = cmd_watch_opts, .min_args = 1, .max_args = 1, .run = cmd_watch},
	{"devices", "[COMMAND]", "list, show and label devices, and put them into groups",
	 .subs = cmd_devices_subs, .fallback = "list"},
	{"releases", "[COMMAND]", "list and delete releases", .subs = cmd_releases_subs,
	 .fallback = "list"},
	{"windows", "[COMMAND]", "the hours in which updates of a group may begin",
	 .subs = cmd_windows_subs, .fallback = "list"},
	{"updates", NULL, "list attempts to update, the newest first", .opts = cmd_updates_opts,
	 .run = cmd_updates},
	{"events", NULL, "list what happened, the newest first", .opts = cmd_events_opts,
	 .run = cmd_events},
	{"log", NULL, "list who did what, and why, the newest first", .opts = cmd_log_opts,
	 .run = cmd_log},
	{"rejected", NULL, "list messages over MQTT that were not understood, the newest first",
	 .opts = cmd_rejected_opts, .run = cmd_rejected},
	{"alerts", NULL, "list what a person is to know of, and say that you have seen it",
	 "  paku-ota alerts\n"
	 "  paku-ota alerts --ack 7 --reason 'the lab looks into it'\n"
	 "\n"
	 "Those that are not over, the newest first; --past lists the others too. An alert is\n"
	 "over when what it tells is over; --ack says that somebody knows.",
	 .opts = cmd_alerts_opts, .run = cmd_alerts},
	{"explain", "ID", "say why a device is, or is not, being updated", .min_args = 1,
	 .max_args = 1, .run = cmd_explain},
	{"retry", "ID", "let a device try again that has failed too often", .opts = cmd_retry_opts,
	 .min_args = 1, .max_args = 1, .run = cmd_retry},
	{"stop-all", NULL, "stop everything: offer nothing new to any device",
	 "  paku-ota stop-all --reason 'pumps do not come back'\n"
	 "\n"
	 "What waits is withdrawn; downloads under way run to their end. It lasts, also over a\n"
	 "restart of the service, until 'paku-ota resume-all'.",
	 .opts = cmd_stop_all_opts, .run = cmd_stop_all},
	{"resume-all", NULL, "take stop-all back", .opts = cmd_resume_all_opts,
	 .run = cmd_resume_all},
	{"status", NULL, "the service's health and figures, in a few lines", .run = cmd_status},
	{"doctor", NULL, "look closely whether all is well, and say what to do where it is not",
	 "One line a check: ok, warning or problem, what was found, and what to do. The service\n"
	 "looks at its store, disks, images, broker, clock, devices and alerts; from here, "
	 "whether\n"
	 "clocks agree and an image comes over from the address that devices are told.\n"
	 "Ends with 1 when there is a problem, else with 0.",
	 .run = cmd_doctor},
	{"backup", "FILE", "save everything the service keeps into one file",
	 "  paku-ota backup paku-ota.tar\n"
	 "\n"
	 "The database as it stands at one moment, every image that it names, and the hash of the\n"
	 "key; devices are served meanwhile. On PostgreSQL the images: the database is pg_dump's,\n"
	 "first. On the service's machine, 'paku-otad --restore FILE' brings it back into an "
	 "empty\n"
	 "data folder.",
	 .opts = cmd_backup_opts, .min_args = 1, .max_args = 1, .run = cmd_backup,
	 .takes_file = true},
	{"login", "URL", "store the service's address and key for later",
	 "Asks for the key (or reads it from stdin), tries it, and stores both in\n"
	 "$XDG_CONFIG_HOME/paku-ota (~/.config/paku-ota), readable by you alone.",
	 .opts = cmd_login_opts, .min_args = 1, .max_args = 1, .run = cmd_login, .is_local = true},
	{"completion", "SHELL", "print the completion for a shell", .subs = cmd_completion_subs},
	{0},
};

const struct cmd cli_root = {
	.name = "paku-ota",
	.summary = "The command line of the Paku OTA service: firmware for fleets of devices.",
	.about = "The key comes from OTA_API_KEY, else from the login ('paku-ota login URL').\n"
		 "Exit codes: 0 ok, 1 the service said no or a rollout failed, 2 usage,\n"
		 "3 the service cannot be reached, 4 key, 5 watch --timeout, 130 Ctrl-C.",
	.opts = root_opts,
	.subs = commands,
};

static int exit_code_of(enum ota_code code)
{
	switch (code) {
	case OTA_OK: return EXIT_OK;
	case OTA_EINVAL: return EXIT_USAGE;
	case OTA_EIO: return EXIT_UNREACHABLE;
	case OTA_EAUTH: return EXIT_AUTH;
	default: return EXIT_REFUSED;
	}
}

static void put_line(const char *before, const struct buf *text)
{
	struct buf line = BUF_INIT;

	text_clean(&line, text->data ? text->data : "", text->len, TEXT_LINE,
		   term_is_tty(stderr) && !term_utf8());
	fprintf(stderr, "%s%s\n", before, buf_ok(&line) && line.data ? line.data : "out of memory");
	buf_fini(&line);
}

static void print_error(const struct cli *c, const struct ota_err *err)
{
	const json_t *detail = json_object_get(c->refusal, "detail");
	struct buf text = BUF_INIT;

	fprintf(stderr, "%spaku-ota:%s ", term_sgr_err(COLOUR_RED), term_sgr_err(COLOUR_NONE));
	buf_adds(&text, err->msg);
	put_line("", &text);
	for (size_t i = 1; i < json_array_size(detail); i++) {
		buf_reset(&text);
		api_mistake(json_array_get(detail, i), &text);
		put_line("  ", &text);
	}
	if (c->hint[0]) {
		buf_reset(&text);
		buf_adds(&text, c->hint);
		put_line("  ", &text);
	}
	buf_fini(&text);
}

static enum ota_code run(struct cli *c, const struct args *a, struct ota_err *err)
{
	enum ota_code code = OTA_OK;

	c->json = args_flag(a, "json");
	c->cacert = args_get(a, "cacert");
	if (a->cmd->subs) {
		cli_hint(c, "paku-ota %s%s--help", a->path, a->path[0] ? " " : "");
		return ota_fail(err, OTA_EINVAL, "which command?");
	}
	if (!a->cmd->is_local)
		code = cli_configure(c, a, err);
	if (code == OTA_OK && !(c->http = http_new(c->cacert, err)))
		code = err->code;
	if (code == OTA_OK)
		code = a->cmd->run(c, a, err);
	return code;
}

static void finish(struct cli *c)
{
	http_free(&c->http);
	free(c->server);
	if (c->key)
		explicit_bzero(c->key, strlen(c->key));
	free(c->key);
	json_decref(c->refusal);
}

/* Prints what is left to say, and makes the exit code. */
static int conclude(struct cli *c, enum ota_code code, struct ota_err *err)
{
	int status = code == OTA_OK ? c->exit_status : exit_code_of(code);

	term_restore();
	if (term_interrupted() && code != OTA_OK) {
		status = EXIT_INTERRUPTED;
	} else if (code != OTA_OK) {
		struct ota_err ignored;

		if (c->json && c->refusal && api_print_json(c->refusal, &ignored) != OTA_OK)
			status = EXIT_REFUSED;
		fflush(stdout);
		print_error(c, err);
	}
	if ((fflush(stdout) != 0 || ferror(stdout)) && status == EXIT_OK) {
		fprintf(stderr, "paku-ota: cannot write the output: %s\n", strerror(errno));
		status = EXIT_USAGE;
	}
	return status;
}

int main(int argc, char **argv)
{
	struct ota_err err = {0};
	struct cli c = {0};
	struct args a;
	enum ota_code code;
	int status;

	term_init();
	code = args_parse(&cli_root, cli_global_opts, argc, argv, &a, &err);
	if (code == OTA_OK && args_flag(&a, "help")) {
		args_help(&a, stdout);
	} else if (code == OTA_OK && a.cmd == &cli_root && args_flag(&a, "version")) {
		puts("paku-ota " PAKU_VERSION);
	} else if (code == OTA_OK && a.cmd == &cli_root && argc == 1) {
		args_help(&a, stderr);
		c.exit_status = EXIT_USAGE;
	} else if (code == OTA_OK) {
		code = run(&c, &a, &err);
	} else {
		cli_hint(&c, "paku-ota %s%s--help", a.path, a.path[0] ? " " : "");
	}
	status = conclude(&c, code, &err);
	finish(&c);
	args_fini(&a);
	return status;
}
