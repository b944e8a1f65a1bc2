/* SPDX-License-Identifier: MIT */
/* The command line of paku-device: what is wrong is named, with what would be right; exit code 2.
 */
#include "port.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_S 86400

static const char help[] =
	"paku-device: the reference update agent, on Linux\n"
	"\n"
	"Asks a Paku OTA service for updates, loads them into one of two slot files, starts\n"
	"the new version on trial, and confirms it or goes back.\n"
	"\n"
	"  --server URL       the service, as in http://127.0.0.1:8080\n"
	"  --mqtt HOST[:PORT] take commands over MQTT instead of asking (1883); MQTT_USER and\n"
	"                     MQTT_PASSWORD of the environment are the account. --server is\n"
	"                     not needed then. mqtts://HOST[:PORT] is with TLS (8883)\n"
	"  --cacert FILE      trust these authorities, not the system's: for https and mqtts\n"
	"  --cert FILE        show this certificate to the broker; with it\n"
	"  --key FILE         its private key, without a password\n"
	"  --site SITE        the first level of the topics (paku)\n"
	"  --id ID            this device: 1 to 128 characters without / + # and spaces\n"
	"  --model MODEL      its model, as releases name it\n"
	"  --version V        the version it came with; later the slot knows its version\n"
	"  --dir DIR          where the slots and the boot record lie; made if need be\n"
	"  --once             check once (or await one command), bring an update to\n"
	"                     its end, and exit\n"
	"  --poll S           check every S seconds, whatever the service recommends\n"
	"  --max-polls N      exit after N checks\n"
	"  --selftest CMD     shell command that decides a trial by its exit code; it is\n"
	"                     told PAKU_VERSION and PAKU_IMAGE (without one: the image\n"
	"                     verifies and the service can be reached)\n"
	"  --trial S          how long a self-test may take (120)\n"
	"  --slot-size BYTES  size of a slot (16777216)\n"
	"  --speed BYTES      load no faster than so many bytes a second\n"
	"  --fail WHAT        play a bad device: verify (a bit of the flash is wrong), boot\n"
	"                     (the new version does not start), selftest (it says no)\n"
	"  --mac MAC          sent with each check, if given\n"
	"  --hw HW            the same, the revision of the hardware\n"
	"  --json             events as JSON, one object a line, on stderr\n"
	"  --help\n"
	"\n"
	"Exit codes: 0 up to date, or ended as asked; 1 the update failed or was rolled\n"
	"back; 2 wrong arguments; 3 the service did not answer, or refused; 4 the state\n"
	"directory is of no use.\n";

static int wrong(const char *option, const char *value, const char *need)
{
	fprintf(stderr, "paku-device: %s \"%s\": %s\n", option, value, need);
	return EXIT_USAGE;
}

static bool number(const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
	char *end;

	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno || *end || text[0] < '0' || text[0] > '9' || value < min || value > max)
		return false;
	*out = (uint32_t)value;
	return true;
}

static bool word_ok(const char *s)
{
	size_t len =
		strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-");

	return len && len <= 128 && !s[len];
}

static bool id_ok(const char *s)
{
	size_t len = strlen(s);

	for (size_t i = 0; i < len; i++)
		if (s[i] < 0x21 || s[i] > 0x7E || strchr("/+#", s[i]))
			return false;
	return len >= 1 && len <= 128;
}

static bool server_ok(const char *s)
{
	const char *host = strncmp(s, "http://", 7) == 0    ? s + 7
			   : strncmp(s, "https://", 8) == 0 ? s + 8
							    : NULL;

	return host && *host && *host != '/' && !strpbrk(host, " ?#") && strlen(s) < 256;
}

/* A path comes behind it, which begins with one. */
static const char *without_slash(char *server)
{
	size_t len = strlen(server);

	while (len && server[len - 1] == '/')
		server[--len] = '\0';
	return server;
}

static bool fail_of(const char *s, enum port_fail *fail)
{
	*fail = strcmp(s, "verify") == 0     ? FAIL_VERIFY
		: strcmp(s, "boot") == 0     ? FAIL_BOOT
		: strcmp(s, "selftest") == 0 ? FAIL_SELFTEST
					     : FAIL_NOTHING;
	return *fail != FAIL_NOTHING;
}

enum {
	O_SERVER = 256,
	O_MQTT,
	O_CACERT,
	O_CERT,
	O_KEY,
	O_SITE,
	O_ID,
	O_MODEL,
	O_VERSION,
	O_DIR,
	O_ONCE,
	O_POLL,
	O_MAX_POLLS,
	O_SELFTEST,
	O_TRIAL,
	O_SLOT_SIZE,
	O_SPEED,
	O_FAIL,
	O_MAC,
	O_HW,
	O_JSON,
	O_HELP,
};

static const struct option longs[] = {
	{"server", required_argument, NULL, O_SERVER},
	{"mqtt", required_argument, NULL, O_MQTT},
	{"cacert", required_argument, NULL, O_CACERT},
	{"cert", required_argument, NULL, O_CERT},
	{"key", required_argument, NULL, O_KEY},
	{"site", required_argument, NULL, O_SITE},
	{"id", required_argument, NULL, O_ID},
	{"model", required_argument, NULL, O_MODEL},
	{"version", required_argument, NULL, O_VERSION},
	{"dir", required_argument, NULL, O_DIR},
	{"once", no_argument, NULL, O_ONCE},
	{"poll", required_argument, NULL, O_POLL},
	{"max-polls", required_argument, NULL, O_MAX_POLLS},
	{"selftest", required_argument, NULL, O_SELFTEST},
	{"trial", required_argument, NULL, O_TRIAL},
	{"slot-size", required_argument, NULL, O_SLOT_SIZE},
	{"speed", required_argument, NULL, O_SPEED},
	{"fail", required_argument, NULL, O_FAIL},
	{"mac", required_argument, NULL, O_MAC},
	{"hw", required_argument, NULL, O_HW},
	{"json", no_argument, NULL, O_JSON},
	{"help", no_argument, NULL, O_HELP},
	{NULL, 0, NULL, 0},
};

/* A whole number of blocks: what does not fill one is of no use to the agent. */
static bool slot_size_of(const char *text, uint32_t *size)
{
	if (!number(text, PORT_BLOCK_SIZE, UINT32_C(1) << 30, size))
		return false;
	*size -= *size % PORT_BLOCK_SIZE;
	return true;
}

/* The options that are a number or a choice; NULL if the value is fine, else what it must be. */
static const char *take_checked(struct options *opt, int which, const char *value)
{
	switch (which) {
	case O_MQTT:
		return broker_place_parse("--mqtt", value, &opt->mqtt, NULL) == OTA_OK
			       ? NULL
			       : "must be HOST, HOST:PORT or mqtts://HOST[:PORT]";
	case O_POLL:
		return number(value, 1, DAY_S, &opt->poll_s) ? NULL : "must be 1 to 86400 seconds";
	case O_TRIAL:
		return number(value, 1, DAY_S, &opt->trial_s) ? NULL : "must be 1 to 86400 seconds";
	case O_MAX_POLLS:
		return number(value, 1, UINT32_MAX, &opt->max_polls) ? NULL : "must be 1 or more";
	case O_SPEED:
		return number(value, 1, UINT32_MAX, &opt->speed)
			       ? NULL
			       : "must be 1 or more bytes a second";
	case O_SLOT_SIZE:
		return slot_size_of(value, &opt->slot_size) ? NULL
							    : "must be 65536 to 1073741824 bytes";
	default: return fail_of(value, &opt->fail) ? NULL : "must be verify, boot or selftest";
	}
}

/* What goes with --mqtt and what does not. */
static int broker_complete(const struct options *opt)
{
	if (opt->poll_s || opt->max_polls) {
		fputs("paku-device: --poll and --max-polls have no meaning with --mqtt\n", stderr);
		return EXIT_USAGE;
	}
	if (!id_ok(opt->site))
		return wrong("--site", opt->site,
			     "must be 1 to 128 visible ASCII characters without / + #");
	return -1;
}

static bool tls_complete(const struct options *opt)
{
	struct ota_err err = {0};

	if ((opt->tls.cert || opt->tls.key) && !opt->mqtt.tls)
		fputs("paku-device: --cert and --key go with --mqtt mqtts://HOST alone\n", stderr);
	else if (broker_tls_check(&opt->tls, &err) != OTA_OK)
		fprintf(stderr, "paku-device: %s\n", err.msg);
	else
		return true;
	return false;
}

static int complete(const struct options *opt)
{
	bool mqtt = opt->mqtt.host[0] != '\0';
	const struct {
		const char *name, *value;
	} needed[] = {{"--server", opt->server},
		      {"--id", opt->id},
		      {"--model", opt->model},
		      {"--version", opt->version},
		      {"--dir", opt->dir}};

	for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
		if (needed[i].value || (mqtt && i == 0))
			continue;
		fprintf(stderr, "paku-device: %s is missing; --help says what it is\n",
			needed[i].name);
		return EXIT_USAGE;
	}
	if (opt->server && !server_ok(opt->server))
		return wrong("--server", opt->server, "must be http://HOST[:PORT] or https://...");
	if (!id_ok(opt->id))
		return wrong("--id", opt->id,
			     "must be 1 to 128 visible ASCII characters without / + #");
	if (!word_ok(opt->model))
		return wrong("--model", opt->model, "must be 1 to 128 of A-Z a-z 0-9 . _ + -");
	if (!word_ok(opt->version))
		return wrong("--version", opt->version, "must be 1 to 128 of A-Z a-z 0-9 . _ + -");
	if (!tls_complete(opt))
		return EXIT_USAGE;
	return mqtt ? broker_complete(opt) : -1;
}

int options_parse(struct options *opt, int argc, char **argv)
{
	int which, index = 0;

	*opt = (struct options){.site = "paku", .trial_s = 120, .slot_size = 16 << 20};
	while ((which = getopt_long(argc, argv, "", longs, &index)) != -1) {
		const char *need = NULL;
		switch (which) {
		case O_SERVER: opt->server = without_slash(optarg); break;
		case O_CACERT: opt->tls.ca = optarg; break;
		case O_CERT: opt->tls.cert = optarg; break;
		case O_KEY: opt->tls.key = optarg; break;
		case O_SITE: opt->site = optarg; break;
		case O_ID: opt->id = optarg; break;
		case O_MODEL: opt->model = optarg; break;
		case O_VERSION: opt->version = optarg; break;
		case O_DIR: opt->dir = optarg; break;
		case O_SELFTEST: opt->selftest = optarg; break;
		case O_MAC: opt->mac = optarg; break;
		case O_HW: opt->hw = optarg; break;
		case O_ONCE: opt->once = true; break;
		case O_JSON: opt->json = true; break;
		case O_HELP: fputs(help, stdout); return EXIT_FINE;
		case '?':
			fputs("paku-device: --help lists the options\n", stderr);
			return EXIT_USAGE;
		default: need = take_checked(opt, which, optarg); break;
		}
		if (need) {
			char option[32];
			snprintf(option, sizeof option, "--%s", longs[index].name);
			return wrong(option, optarg, need);
		}
	}
	if (optind < argc)
		return wrong("argument", argv[optind], "options begin with --; --help lists them");
	return complete(opt);
}
