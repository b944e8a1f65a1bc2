/* SPDX-License-Identifier: MIT */
/*
 * doctor: what the service finds when it looks at itself, and what shows from here only: whether
 * it answers, its clock beside ours, its version, and an image over the address that devices are
 * told.
 */
#include "cli/api.h"
#include "cli/term.h"
#include "cli/text.h"
#include "base/clock.h"
#include "base/hash.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CLOCK_WARNS_S 5
#define CLOCK_WRONG_S 60

/* Adds a finding to CHECKS; ADVICE may be NULL. */
static bool add(json_t *checks, const char *check, const char *level, const char *finding,
		const char *advice)
{
	json_t *one = json_pack("{s:s,s:s,s:s,s:s?}", "check", check, "level", level, "finding",
				finding, "advice", advice);

	return one && json_array_append_new(checks, one) == 0;
}

/* --- from here --- */

static bool check_version(json_t *checks, const char *theirs)
{
	char found[160];

	if (!theirs || strcmp(theirs, PAKU_VERSION) == 0)
		return true;
	snprintf(found, sizeof(found), "the service is of version %.60s, and this is paku-ota %s",
		 theirs, PAKU_VERSION);
	return add(checks, "version", "warning", found, "install the same version of both");
}

/* What the service's clock showed at the end of its answer, beside ours then. */
static bool check_clock(json_t *checks, const char *now, int64_t ours_us)
{
	int64_t theirs_us, far_s;
	char found[160];

	if (!now || !time_parse(now, &theirs_us))
		return add(checks, "clock", "warning", "the service does not tell its time",
			   "update the service");
	far_s = (theirs_us > ours_us ? theirs_us - ours_us : ours_us - theirs_us) / US_PER_S;
	if (far_s <= 1)
		snprintf(found, sizeof(found), "the service's and this machine's agree");
	else
		snprintf(found, sizeof(found),
			 "the service's clock is %" PRId64 " s %s this machine's", far_s,
			 theirs_us > ours_us ? "ahead of" : "behind");
	return add(checks, "clock",
		   far_s > CLOCK_WRONG_S   ? "problem"
		   : far_s > CLOCK_WARNS_S ? "warning"
					   : "ok",
		   found,
		   far_s > CLOCK_WARNS_S ? "let NTP (chrony, systemd-timesyncd) set both" : NULL);
}

/* NULL: what came is the image. */
static const char *wrong_with(const struct http_reply *r, const json_t *test, char *text,
			      size_t size)
{
	const char *want = api_str(test, "checksum_sha256");
	uint8_t sha256[SHA256_SIZE];
	char hex[SHA256_HEX_SIZE];

	if (r->status != 200) {
		snprintf(text, size, "it answers %ld%s%s", r->status,
			 r->location[0] ? " and points to " : "", r->location);
		return text;
	}
	if (!sha256_once(r->body.data ? r->body.data : "", r->body.len, sha256))
		return "out of memory";
	hex_encode(sha256, sizeof(sha256), hex);
	if (want && strcmp(hex, want) == 0)
		return NULL;
	snprintf(text, size, "%zu bytes come, and they are not the image", r->body.len);
	return text;
}

static bool say_download(json_t *checks, const json_t *test, const char *wrong)
{
	const char *base = api_str(test, "base_url"), *who = api_str(test, "for");
	char found[900], advice[300], them[200];

	snprintf(them, sizeof(them), "devices%s%.160s", who ? " of " : "", who ? who : "");
	if (!wrong) {
		snprintf(found, sizeof(found),
			 "%.200s%s%.160s: a test download of %" PRId64 " bytes came over",
			 base ? base : "?", who ? " for " : "", who ? who : "",
			 api_int(test, "file_size", 0));
		return add(checks, "address", "ok", found, NULL);
	}
	snprintf(found, sizeof(found), "%s are told to download from %.200s, and from here %.300s",
		 them, base ? base : "?", wrong);
	snprintf(advice, sizeof(advice), "%s",
		 who ? "is OTA_DOWNLOAD_BASE_URLS right, and does what answers there ask the "
		       "service?"
		 : api_true(test, "configured")
			 ? "is OTA_PUBLIC_URL right, and does the way there (proxy, firewall, DNS) "
			   "lead to the service?"
			 : "set OTA_PUBLIC_URL to what devices can reach");
	return add(checks, "address", "problem", found, advice);
}

/* As a device does it: without the key. */
static bool check_download(struct cli *c, json_t *checks, const json_t *test)
{
	const char *url = api_str(test, "url"), *wrong;
	struct http_request q = {.method = "GET", .accept = "*/*", .url = url};
	struct http_reply reply;
	struct ota_err err;
	char text[300];

	if (!url)
		return add(checks, "address", "ok",
			   "there is no release yet, so nothing was downloaded to try it", NULL);
	if (http_send(c->http, &q, &reply, &err) != OTA_OK)
		return say_download(checks, test, err.msg);
	wrong = wrong_with(&reply, test, text, sizeof(text));
	buf_fini(&reply.body);
	return say_download(checks, test, wrong);
}

/* What each model or group with an address of its own is told. */
static bool check_others(struct cli *c, json_t *checks, const json_t *tests)
{
	for (size_t i = 0; i < json_array_size(tests); i++) {
		const json_t *test = json_array_get(tests, i);
		if (api_str(test, "url") && !check_download(c, checks, test))
			return false;
	}
	return true;
}

/* --- asking --- */

/* No answer, or no key, is a finding as well. */
static bool say_refused(const struct cli *c, json_t *checks, enum ota_code code,
			const struct ota_err *err)
{
	if (code == OTA_EAUTH)
		return add(checks, "key", "problem", err->msg,
			   "paku-ota login URL, or set OTA_API_KEY; a new one is made by paku-otad "
			   "--new-key");
	return add(checks, "service", "problem", err->msg,
		   code == OTA_EIO && c->hint[0]
			   ? "is it running? systemctl status paku-otad, ./up --status, docker "
			     "compose ps; --server URL names another"
			   : "look into its log");
}

static enum ota_code examine(struct cli *c, json_t *checks)
{
	struct http_request q = {.method = "GET", .patient = true};
	struct buf url = BUF_INIT;
	struct ota_err err = {0};
	json_t *found = NULL;
	bool ok;

	api_url(c, &url, "/api/admin/doctor");
	enum ota_code code = api_send(c, &url, &q, &found, &err);
	int64_t answered_us = clock_wall_us();
	if (code == OTA_ENOMEM)
		return code;
	if (code != OTA_OK) {
		ok = say_refused(c, checks, code, &err);
		c->hint[0] = '\0';
		return ok ? OTA_OK : OTA_ENOMEM;
	}
	ok = json_array_extend(checks, json_object_get(found, "checks")) == 0 &&
	     check_version(checks, api_str(found, "version")) &&
	     check_clock(checks, api_str(found, "now"), answered_us) &&
	     check_download(c, checks, json_object_get(found, "test_download")) &&
	     check_others(c, checks, json_object_get(found, "test_downloads"));
	json_decref(found);
	return ok ? OTA_OK : OTA_ENOMEM;
}

/* --- showing --- */

static enum colour level_colour(const char *level)
{
	return strcmp(level, "ok") == 0        ? COLOUR_GREEN
	       : strcmp(level, "warning") == 0 ? COLOUR_YELLOW
					       : COLOUR_RED;
}

static void print_finding(const json_t *one)
{
	const char *level = api_str(one, "level"), *check = api_str(one, "check"),
		   *advice = api_str(one, "advice"), *finding = api_str(one, "finding");
	struct buf line = BUF_INIT, clean = BUF_INIT;

	level = level ? level : "problem";
	buf_printf(&line, "%-9s %s", check ? check : "?", finding ? finding : "?");
	if (advice && strcmp(level, "ok") != 0)
		buf_printf(&line, ". To do: %s", advice);
	text_clean(&clean, line.data ? line.data : "", line.len, TEXT_LINE,
		   term_is_tty(stdout) && !term_utf8());
	printf("%s%-8s%s %s\n", term_sgr(level_colour(level)), level, term_sgr(COLOUR_NONE),
	       buf_ok(&clean) && clean.data ? clean.data : "out of memory");
	buf_fini(&line);
	buf_fini(&clean);
}

static bool is_well(const json_t *checks)
{
	const json_t *one;
	size_t i;

	json_array_foreach(checks, i, one)
	{
		const char *level = api_str(one, "level");
		if (!level || strcmp(level, "problem") == 0)
			return false;
	}
	return true;
}

static enum ota_code show(struct cli *c, json_t *checks, struct ota_err *err)
{
	const json_t *one;
	bool well = is_well(checks);
	size_t i;

	c->exit_status = well ? EXIT_OK : EXIT_REFUSED;
	if (!c->json) {
		json_array_foreach(checks, i, one) print_finding(one);
		return OTA_OK;
	}
	json_t *all = json_pack("{s:b,s:O}", "ok", well, "checks", checks);
	enum ota_code code = all ? api_print_json(all, err) : ota_fail_nomem(err);
	json_decref(all);
	return code;
}

enum ota_code cmd_doctor(struct cli *c, const struct args *a, struct ota_err *err)
{
	json_t *checks = json_array();
	enum ota_code code = checks ? examine(c, checks) : OTA_ENOMEM;

	(void)a;
	code = code == OTA_OK ? show(c, checks, err) : ota_fail_nomem(err);
	json_decref(checks);
	return code;
}
