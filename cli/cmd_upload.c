/* SPDX-License-Identifier: MIT */
/*
 * upload: an image becomes a release.  The file is streamed from disk; a bar on stderr shows how
 * far it is, where that is a terminal.
 */
#include "cli/api.h"
#include "cli/bar.h"
#include "cli/format.h"
#include "cli/term.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const image_types[] = {"auto", "esp", "raw", NULL};

const struct opt cmd_upload_opts[] = {
	{.name = "version", .arg = "V", .help = "the release's version, or auto (required)"},
	{.name = "model", .arg = "M", .help = "the device model it is for (required)"},
	{.name = "min-version",
	 .arg = "V",
	 .help = "only for devices that run this or a later one"},
	{.name = "changelog", .arg = "TEXT", .help = "what has changed"},
	{.name = "release-notes", .arg = "TEXT", .help = "for the people who use the device"},
	{.name = "signed", .help = "the image carries a signature"},
	{.name = "image-type", .arg = "TYPE", .help = "auto, esp or raw", .choices = image_types},
	{0},
};

/*
 * ESP-IDF app image format: 24 bytes of image header, 8 of the first segment's, then
 * esp_app_desc_t: magic word, secure_version, 8 reserved bytes, version[32].
 */
#define APP_DESC_OFFSET  32
#define APP_DESC_MAGIC   0xABCD5432u
#define APP_DESC_VERSION (APP_DESC_OFFSET + 16)
#define APP_VERSION_SIZE 32

/* What a version may be made of (API: ^[A-Za-z0-9._+-]{1,128}$). */
#define VERSION_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-"

static enum ota_code embedded_version(const char *path, char out[APP_VERSION_SIZE + 1],
				      struct ota_err *err)
{
	unsigned char head[APP_DESC_VERSION + APP_VERSION_SIZE];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, head, sizeof(head)) : -1;
	const unsigned char *m = head + APP_DESC_OFFSET;

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return ota_fail(err, OTA_EINVAL, "cannot read %s: %s", path, strerror(errno));
	if (n != (ssize_t)sizeof(head) || head[0] != 0xE9 ||
	    ((uint32_t)m[3] << 24 | (uint32_t)m[2] << 16 | (uint32_t)m[1] << 8 | m[0]) !=
		    APP_DESC_MAGIC ||
	    !head[APP_DESC_VERSION])
		return ota_fail(err, OTA_EINVAL, "%s names no version inside; say --version V",
				path);
	memcpy(out, head + APP_DESC_VERSION, APP_VERSION_SIZE);
	out[APP_VERSION_SIZE] = 0;
	/* Arduino leaves its core's own description there: "esp-idf: v4.4.3 6407ecb3f8". */
	if (strspn(out, VERSION_CHARS) != strlen(out))
		return ota_fail(err, OTA_EINVAL,
				"the version inside %s is '%s', which is none; say --version V",
				path, out);
	return OTA_OK;
}

static enum ota_code check_file(const char *path, struct ota_err *err)
{
	struct stat st;

	if (stat(path, &st) != 0 || access(path, R_OK) != 0)
		return ota_fail(err, OTA_EINVAL, "cannot read %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return ota_fail(err, OTA_EINVAL, "%s is not a file", path);
	if (st.st_size == 0)
		return ota_fail(err, OTA_EINVAL, "%s is empty", path);
	return OTA_OK;
}

static void print_image(const json_t *image)
{
	const char *chip = api_str(image, "chip"), *project = api_str(image, "project");
	const char *version = api_str(image, "version"), *idf = api_str(image, "idf_version");
	char line[256];

	if (!json_is_object(image))
		return;
	snprintf(line, sizeof(line), "%s%s%s%s%s%s%s", chip ? chip : "unknown chip",
		 project ? ", " : "", project ? project : "", version ? " " : "",
		 version ? version : "", idf ? ", ESP-IDF " : "", idf ? idf : "");
	format_field("image", line);
	format_field("built", api_str(image, "build_time"));
}

static void print_release(const char *model, const json_t *answer)
{
	const char *sha = api_str(answer, "checksum_sha256"), *version = api_str(answer, "version");
	const json_t *warning;
	char size[FORMAT_SIZE], id[FORMAT_SIZE];
	size_t i;

	format_text(api_str(answer, "message") ? api_str(answer, "message") : "uploaded");
	format_field("version", version);
	format_field("model", model);
	format_int(answer, "release_id", id);
	format_field("release", id);
	format_bytes(api_int(answer, "file_size", 0), size);
	format_field("size", size);
	format_field("sha256", sha);
	print_image(json_object_get(answer, "image"));
	json_array_foreach(json_object_get(answer, "warnings"), i, warning)
	{
		const char *text = json_is_string(warning) ? json_string_value(warning)
							   : api_str(warning, "message");

		printf("%s", term_sgr(COLOUR_YELLOW));
		format_field("warning", text);
		printf("%s", term_sgr(COLOUR_NONE));
	}
	if (term_is_tty(stdout) && version)
		printf("next: paku-ota rollout create %s --model %s --percent 10 --watch\n",
		       version, model);
}

static void upload_url(const struct cli *c, const struct args *a, const char *version,
		       struct buf *url)
{
	api_url(c, url, "/api/admin/firmware/upload");
	url_query(url, "version", version);
	url_query(url, "device_model", args_get(a, "model"));
	url_query(url, "min_version", args_get(a, "min-version"));
	url_query(url, "changelog", args_get(a, "changelog"));
	url_query(url, "release_notes", args_get(a, "release-notes"));
	url_query(url, "is_signed", args_flag(a, "signed") ? "true" : NULL);
	url_query(url, "image_type", args_get(a, "image-type"));
}

enum ota_code cmd_upload(struct cli *c, const struct args *a, struct ota_err *err)
{
	const char *path = a->pos[0], *version = args_get(a, "version"),
		   *model = args_get(a, "model");
	char embedded[APP_VERSION_SIZE + 1], *copy;
	struct http_request q = {.method = "POST", .upload_path = path};
	struct bar bar = {.drawn = -1, .at_end = ", being checked"};
	struct buf url = BUF_INIT;
	json_t *answer;
	enum ota_code code;

	if (!version || !model) {
		cli_hint(c, "paku-ota upload %s --version 1.0.0 --model esp32-c3", path);
		return ota_fail(err, OTA_EINVAL, "upload needs --%s",
				version ? "model" : "version");
	}
	code = check_file(path, err);
	if (code == OTA_OK && strcmp(version, "auto") == 0) {
		code = embedded_version(path, embedded, err);
		version = embedded;
	}
	if (code != OTA_OK)
		return code;
	copy = strdup(path);
	if (!copy)
		return ota_fail_nomem(err);
	q.upload_name = basename(copy);
	bar_begin(&bar, &q, !c->json);
	upload_url(c, a, version, &url);
	code = api_send(c, &url, &q, &answer, err);
	bar_end(&bar);
	free(copy);
	if (code != OTA_OK)
		return code;
	if (c->json)
		code = api_print_json(answer, err);
	else
		print_release(model, answer);
	json_decref(answer);
	return code;
}
