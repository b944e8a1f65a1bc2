/* SPDX-License-Identifier: MIT */
/*
 * backup: the service's archive into a file.  It is written beside FILE and takes its name when it
 * is whole and on the disk.
 */
#include "cli/api.h"
#include "cli/bar.h"
#include "cli/format.h"
#include "cli/term.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of the archive's first file (src/http/backup.h). */
#define HEAD_NAME "paku-ota-backup.json"

const struct opt cmd_backup_opts[] = {
	{.name = "force", .help = "replace FILE where it exists"},
	{0},
};

static enum ota_code open_part(const char *part, FILE **out, struct ota_err *err)
{
	int fd = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	*out = fd >= 0 ? fdopen(fd, "w+b") : NULL;
	if (*out)
		return OTA_OK;
	ota_fail(err, OTA_EINVAL, "cannot write %s: %s", part, strerror(errno));
	if (fd >= 0)
		close(fd);
	return err->code;
}

static enum ota_code keep(FILE *f, const char *part, const char *path, struct ota_err *err)
{
	if (fflush(f) == 0 && fsync(fileno(f)) == 0 && rename(part, path) == 0)
		return OTA_OK;
	return ota_fail(err, OTA_EINVAL, "cannot write %s: %s", path, strerror(errno));
}

/* What else may answer there with a good conscience is no backup. */
static enum ota_code look_at(FILE *f, const struct cli *c, struct ota_err *err)
{
	char begins[sizeof(HEAD_NAME)] = "";

	rewind(f);
	if (fread(begins, 1, sizeof(begins), f) == sizeof(begins) && strcmp(begins, HEAD_NAME) == 0)
		return OTA_OK;
	return ota_fail(err, OTA_EIO, "%s answers with something else than a backup", c->server);
}

static enum ota_code fetch(struct cli *c, FILE *f, struct ota_err *err)
{
	struct http_request q = {
		.method = "GET", .accept = "application/x-tar", .save = f, .patient = true};
	struct bar bar = {.drawn = -1};
	struct buf url = BUF_INIT;

	bar_begin(&bar, &q, !c->json);
	api_url(c, &url, "/api/admin/backup");
	enum ota_code code = api_send(c, &url, &q, NULL, err);
	bar_end(&bar);
	if (code == OTA_EIO && ftell(f) > 0)
		cli_hint(c, "the service's log may say why it broke off: backup_broken_off");
	return code == OTA_OK ? look_at(f, c, err) : code;
}

static enum ota_code tell(const struct cli *c, const char *path, struct ota_err *err)
{
	char size[FORMAT_SIZE];
	struct stat st;

	if (stat(path, &st) != 0)
		return ota_fail(err, OTA_EINVAL, "%s: %s", path, strerror(errno));
	if (c->json) {
		json_t *said = json_pack("{s:s,s:I}", "file", path, "size", (json_int_t)st.st_size);
		enum ota_code code = said ? api_print_json(said, err) : ota_fail_nomem(err);
		json_decref(said);
		return code;
	}
	format_bytes((int64_t)st.st_size, size);
	format_text(path);
	format_field("size", size);
	if (term_is_tty(stdout))
		printf("to restore, on the service's machine: paku-otad --restore FILE\n");
	return OTA_OK;
}

enum ota_code cmd_backup(struct cli *c, const struct args *a, struct ota_err *err)
{
	const char *path = a->pos[0];
	struct buf part = BUF_INIT;
	FILE *f = NULL;
	enum ota_code code;

	if (access(path, F_OK) == 0 && !args_flag(a, "force")) {
		cli_hint(c, "paku-ota backup --force %s", path);
		return ota_fail(err, OTA_EINVAL, "%s exists", path);
	}
	buf_printf(&part, "%s.part", path);
	code = buf_ok(&part) ? open_part(part.data, &f, err) : ota_fail_nomem(err);
	if (code == OTA_OK && (code = fetch(c, f, err)) == OTA_OK)
		code = keep(f, part.data, path, err);
	if (f) {
		fclose(f);
		if (code != OTA_OK)
			unlink(part.data);
	}
	buf_fini(&part);
	return code == OTA_OK ? tell(c, path, err) : code;
}
