/* SPDX-License-Identifier: MIT */
/* paku-fleet: the table of contents, and the way from an error to an exit code. */
#include "fleet-sim/run.h"

#include "cli/api.h"
#include "cli/http.h"
#include "cli/term.h"
#include "cli/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct opt global_opts[] = {
	{.name = "server",
	 .arg = "URL",
	 .help = "the service (else OTA_SERVICE_URL, the login of paku-ota, 127.0.0.1:8080)"},
	{.name = "cacert", .arg = "FILE", .help = "trust this certificate authority"},
	{.name = "json", .help = "the summary as JSON, and no screen"},
	{.name = "help", .help = "this text; -h does the same"},
	{0},
};

static const struct opt root_opts[] = {{.name = "version", .help = "print the version"}, {0}};

static const struct cmd commands[] = {
	{"run", NULL, "simulate a fleet, and hold its record against the service's",
	 "  paku-fleet run --devices 1000 --model sample --version 1.0.0\n"
	 "  paku-fleet run --http --poll 2 --habits fail:4=3,brick=1,power_loss=5\n"
	 "\n"
	 "Devices are fleet-SEED-NUMBER. They download for real, report, restart into the new\n"
	 "version. Habits, of which each device has some: fail:CODE brick roll_back lie\n"
	 "power_loss slow:BYTES_PER_S broken_link duty:ON_S/OFF_S twice late:S out_of_order:S\n"
	 "old_topics. At the end: 'consistent', or the differences.",
	 .opts = run_opts, .run = cmd_run},
	{0},
};

static const struct cmd root = {
	.name = "paku-fleet",
	.summary = "A fleet of simulated devices for a Paku OTA service.",
	.about = "The key for the comparison comes from OTA_API_KEY, else from 'paku-ota login'.\n"
		 "Exit codes: 0 consistent, 1 differences, 2 usage, 3 service or broker cannot be\n"
		 "reached, 4 key, 130 Ctrl-C.",
	.opts = root_opts,
	.subs = commands,
};

static int exit_code_of(enum ota_code code)
{
	switch (code) {
	case OTA_OK: return EXIT_OK;
	case OTA_EINVAL: return EXIT_USAGE;
	case OTA_EAUTH: return EXIT_AUTH;
	default: return EXIT_UNREACHABLE;
	}
}

static void print_line(const char *before, const char *text)
{
	struct buf line = BUF_INIT;

	text_clean(&line, text, strlen(text), TEXT_LINE, term_is_tty(stderr) && !term_utf8());
	fprintf(stderr, "%s%s\n", before, buf_ok(&line) && line.data ? line.data : "out of memory");
	buf_fini(&line);
}

static enum ota_code run(struct cli *c, const struct args *a, struct ota_err *err)
{
	enum ota_code code;

	if (a->cmd->subs) {
		cli_hint(c, "paku-fleet --help");
		return ota_fail(err, OTA_EINVAL, "which command?");
	}
	c->json = args_flag(a, "json");
	c->cacert = args_get(a, "cacert");
	code = cli_configure(c, a, err);
	if (code == OTA_OK && !(c->http = http_new(c->cacert, err)))
		code = err->code;
	return code == OTA_OK ? a->cmd->run(c, a, err) : code;
}

static int conclude(const struct cli *c, enum ota_code code, const struct ota_err *err)
{
	int status = code == OTA_OK ? c->exit_status : exit_code_of(code);

	term_restore();
	if (code != OTA_OK && term_interrupted()) {
		status = EXIT_INTERRUPTED;
	} else if (code != OTA_OK) {
		fflush(stdout);
		print_line("paku-fleet: ", err->msg);
		if (c->hint[0])
			print_line("  ", c->hint);
	}
	if ((fflush(stdout) != 0 || ferror(stdout)) && status == EXIT_OK) {
		fprintf(stderr, "paku-fleet: cannot write the output: %s\n", strerror(errno));
		status = EXIT_USAGE;
	}
	return status;
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

int main(int argc, char **argv)
{
	struct ota_err err = {0};
	struct cli c = {0};
	struct args a;
	enum ota_code code;
	int status;

	term_init();
	code = args_parse(&root, global_opts, argc, argv, &a, &err);
	if (code == OTA_OK && args_flag(&a, "help")) {
		args_help(&a, stdout);
	} else if (code == OTA_OK && a.cmd == &root && args_flag(&a, "version")) {
		puts("paku-fleet " PAKU_VERSION);
	} else if (code == OTA_OK && argc == 1) {
		args_help(&a, stderr);
		c.exit_status = EXIT_USAGE;
	} else if (code == OTA_OK) {
		code = run(&c, &a, &err);
	} else {
		cli_hint(&c, "paku-fleet %s%s--help", a.path, a.path[0] ? " " : "");
	}
	status = conclude(&c, code, &err);
	finish(&c);
	args_fini(&a);
	return status;
}
