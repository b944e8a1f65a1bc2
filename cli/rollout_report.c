/* SPDX-License-Identifier: MIT */
/* rollout report: what one did, as a page; with its picture beside it. */
#include "cli/api.h"
#include "cli/format.h"
#include "cli/rollout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What the page calls its picture. */
#define PICTURE "report?format=svg"

static const char *const formats[] = {"markdown", "json", "svg", NULL};

const struct opt rollout_report_opts[] = {
	{.name = "format",
	 .arg = "WORD",
	 .help = "markdown (default), json or svg",
	 .choices = formats},
	{.name = "output",
	 .arg = "FILE",
	 .help = "into a file; of Markdown, the picture beside it",
	 .is_file = true},
	{0},
};

static enum ota_code fetch(struct cli *c, int64_t id, const char *format, struct buf *out,
			   struct ota_err *err)
{
	struct buf url = BUF_INIT;

	api_url(c, &url, "/api/admin/rollouts");
	buf_printf(&url, "/%" PRId64 "/report", id);
	url_query(&url, "format", format);
	return api_get_text(c, &url, out, err);
}

static enum ota_code write_file(const char *path, const char *data, size_t len, struct ota_err *err)
{
	FILE *f = fopen(path, "wb");
	bool ok = f && fwrite(data, 1, len, f) == len;

	if (f && fclose(f) != 0)
		ok = false;
	return ok ? OTA_OK
		  : ota_fail(err, OTA_EINVAL, "cannot write %.200s: %s", path, strerror(errno));
}

/* "report.md": "report.svg". */
static char *picture_path(const char *path)
{
	const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
	size_t stem = dot && dot > (slash ? slash + 1 : path) ? (size_t)(dot - path) : strlen(path);
	char *out = malloc(stem + 5);

	if (out) {
		memcpy(out, path, stem);
		strcpy(out + stem, ".svg");
	}
	return out;
}

/* The page, its picture being the file beside it. */
static enum ota_code write_page(const char *path, const char *picture, const struct buf *page,
				struct ota_err *err)
{
	const char *name = strrchr(picture, '/') ? strrchr(picture, '/') + 1 : picture;
	const char *at = strstr(page->data, "](" PICTURE ")");
	struct buf out = BUF_INIT;
	enum ota_code code;

	if (at) {
		buf_add(&out, page->data, (size_t)(at - page->data));
		buf_printf(&out, "](<%s>)", name);
		buf_adds(&out, at + strlen("](" PICTURE ")"));
	} else {
		buf_add(&out, page->data, page->len);
	}
	code = buf_ok(&out) ? write_file(path, out.data, out.len, err) : ota_fail_nomem(err);
	buf_fini(&out);
	return code;
}

static enum ota_code write_both(struct cli *c, int64_t id, const char *path, const struct buf *page,
				struct ota_err *err)
{
	char *picture = picture_path(path);
	struct buf svg = BUF_INIT;
	enum ota_code code;

	if (!picture)
		return ota_fail_nomem(err);
	if (strcmp(picture, path) == 0) {
		free(picture);
		return ota_fail(err, OTA_EINVAL,
				"%.200s would be the page and its picture: give --format svg, or "
				"another name",
				path);
	}
	code = fetch(c, id, "svg", &svg, err);
	if (code == OTA_OK)
		code = write_file(picture, svg.data, svg.len, err);
	if (code == OTA_OK)
		code = write_page(path, picture, page, err);
	if (code == OTA_OK) {
		printf("the page is in ");
		format_text(path);
		printf("its picture in ");
		format_text(picture);
	}
	buf_fini(&svg);
	free(picture);
	return code;
}

enum ota_code rollout_report(struct cli *c, const struct args *a, struct ota_err *err)
{
	const char *format = args_get(a, "format"), *path = args_get(a, "output");
	struct buf page = BUF_INIT;
	enum ota_code code;
	int64_t id;

	if (!format)
		format = c->json ? "json" : "markdown";
	code = api_rollout_id(c, a->pos[0], &id, err);
	if (code == OTA_OK)
		code = fetch(c, id, format, &page, err);
	if (code != OTA_OK)
		return code;
	if (path && strcmp(format, "markdown") == 0)
		code = write_both(c, id, path, &page, err);
	else if (path)
		code = write_file(path, page.data, page.len, err);
	else
		fwrite(page.data, 1, page.len, stdout);
	if (!path && page.len && page.data[page.len - 1] != '\n')
		putchar('\n');
	buf_fini(&page);
	return code;
}
