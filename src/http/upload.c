/* SPDX-License-Identifier: MIT */
/*
 * Uploads: the multipart body streams to a temporary file while it is hashed; then, on a job
 * thread, the image is inspected and made durable; then the committer makes it a release.  At no
 * time is more than a piece of the image in memory, and until the last step there is nothing to
 * undo but a temporary file.
 */
#include "http/request.h"

#include "base/hash.h"
#include "base/log.h"
#include "core/names.h"
#include "firmware/image.h"
#include "http/parse/multipart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD_MAX (64 * 1024) /* a text field of the form */

enum field {
	F_VERSION,
	F_MODEL,
	F_MIN_VERSION,
	F_CHANGELOG,
	F_NOTES,
	F_SIGNED,
	F_IMAGE_TYPE,
	FIELDS
};
static const char *const field_names[FIELDS] = {
	[F_VERSION] = "version",       [F_MODEL] = "device_model",  [F_MIN_VERSION] = "min_version",
	[F_CHANGELOG] = "changelog",   [F_NOTES] = "release_notes", [F_SIGNED] = "is_signed",
	[F_IMAGE_TYPE] = "image_type",
};

struct upload {
	struct multipart multipart;
	struct blob_writer *writer;
	int files;
	bool in_file;
	int in_field; /* -1: a field nobody asked for */
	struct buf fields[FIELDS];
	bool given[FIELDS];
	/* what the inspection found */
	struct image_info info;
	enum image_type type;
	enum chip chip;
	struct buf image_json;
	char file_name[BLOB_NAME_SIZE];
};

/* --- taking the body --- */

static enum ota_code on_part_begin(void *arg, const char *name, const char *filename,
				   const char *content_type, struct ota_err *err)
{
	struct request *r = arg;
	struct upload *u = r->upload;

	(void)content_type;
	u->in_file = strcmp(name, "file") == 0;
	u->in_field = -1;
	if (u->in_file) {
		if (++u->files > 1)
			return ota_fail(err, OTA_EUNPROCESSABLE,
					"the form has two files; upload one image at a time");
		if (filename && !filename[0])
			return ota_fail(err, OTA_EUNPROCESSABLE,
					"the file has an empty name: no file was chosen");
		return blob_writer_open(r->server->blobs, &u->writer, err);
	}
	for (int i = 0; i < FIELDS; i++)
		if (strcmp(name, field_names[i]) == 0)
			u->in_field = i;
	if (u->in_field >= 0 && u->given[u->in_field])
		return ota_fail(err, OTA_EUNPROCESSABLE, "the field %s is given twice", name);
	if (u->in_field >= 0)
		u->given[u->in_field] = true;
	return OTA_OK;
}

static enum ota_code on_part_data(void *arg, const void *data, size_t len, struct ota_err *err)
{
	struct request *r = arg;
	struct upload *u = r->upload;

	if (u->in_file) {
		uint64_t max = (uint64_t)r->server->cfg->max_firmware_bytes;
		if (blob_writer_size(u->writer) + len > max)
			return ota_fail(err, OTA_ETOOLARGE, IMAGE_TOO_LARGE, (long long)max);
		return blob_writer_write(u->writer, data, len, err);
	}
	if (u->in_field < 0)
		return OTA_OK;
	struct buf *b = &u->fields[u->in_field];
	if (b->len + len > FIELD_MAX)
		return ota_fail(err, OTA_EUNPROCESSABLE, "the field %s is longer than %d bytes",
				field_names[u->in_field], FIELD_MAX);
	buf_add(b, data, len);
	return buf_ok(b) ? OTA_OK : ota_fail_nomem(err);
}

static enum ota_code on_part_end(void *arg, struct ota_err *err)
{
	(void)arg;
	(void)err;
	return OTA_OK;
}

static const struct multipart_ops ops = {on_part_begin, on_part_data, on_part_end};

enum ota_code upload_begin(struct request *r, struct ota_err *err)
{
	const char *type = request_header(r, "Content-Type");
	char boundary[MULTIPART_MAX_BOUNDARY + 1];
	enum ota_code rc;

	if (!type || strncasecmp(type, "multipart/form-data", 19) != 0)
		return ota_fail(err, OTA_EUNPROCESSABLE,
				"send the image as multipart/form-data with a field called file "
				"(curl -F file=@firmware.bin)");
	rc = multipart_boundary(type, boundary, err);
	if (rc != OTA_OK)
		return rc;
	r->upload = calloc(1, sizeof *r->upload);
	if (!r->upload)
		return ota_fail_nomem(err);
	multipart_init(&r->upload->multipart, boundary, &ops, r);
	return OTA_OK;
}

enum ota_code upload_feed(struct request *r, const void *data, size_t len, struct ota_err *err)
{
	enum ota_code rc = multipart_feed(&r->upload->multipart, data, len, err);

	if (rc == OTA_EUNAVAIL)
		r->retry_after_s = 60;
	/* The disk is full: a cache is no reason to fail when the client comes again. */
	if (rc == OTA_EUNAVAIL && r->server->mirror)
		mirror_empty(r->server->mirror);
	return rc;
}

void upload_free(struct upload **up)
{
	struct upload *u = *up;

	if (!u)
		return;
	blob_writer_close(&u->writer);
	for (int i = 0; i < FIELDS; i++)
		buf_fini(&u->fields[i]);
	buf_fini(&u->image_json);
	free(u);
	*up = NULL;
}

/* --- the parameters: of the query, or of the form --- */

static const char *parameter(struct request *r, enum field f)
{
	const char *q = query_get(&r->query, field_names[f]);
	struct upload *u = r->upload;

	if (q)
		return q;
	if (!u->given[f])
		return NULL;
	return u->fields[f].data ? u->fields[f].data : "";
}

/* Both may say it, but not each something else. */
static void check_agreement(struct request *r)
{
	const struct upload *u = r->upload;

	for (int f = 0; f < FIELDS; f++) {
		const char *q = query_get(&r->query, field_names[f]);
		const struct buf *b = &u->fields[f];
		if (q && u->given[f] &&
		    (strlen(q) != b->len || (b->len && memcmp(q, b->data, b->len) != 0)))
			field_errors_add(&r->errors, "body", field_names[f], FIELD_TYPE_VALUE,
					 "contradicts the query, which says %s", q);
	}
}

/* A version or model outside the pattern is 400 (the contract's words). */
static bool check_name(struct request *r, enum field f, bool needed)
{
	const char *v = parameter(r, f);

	if (!v || (!needed && !v[0])) {
		if (needed)
			field_errors_add(&r->errors, "query", field_names[f], FIELD_TYPE_MISSING,
					 "field required");
		return true;
	}
	const char *wrong =
		strlen(v) != r->upload->fields[f].len && !query_get(&r->query, field_names[f])
			? "must not contain a NUL"
			: name_version_error(v);
	if (!wrong)
		return true;
	respond_status(r, 400, "%s %s", field_names[f], wrong);
	return false;
}

/* A text of the form; the query's was checked when it was taken apart. */
static void check_text(struct request *r, enum field f)
{
	const struct buf *b = &r->upload->fields[f];

	if (b->len > 0 && (memchr(b->data, '\0', b->len) || !utf8_valid(b->data, b->len)))
		field_errors_add(&r->errors, "body", field_names[f], FIELD_TYPE_VALUE,
				 "must be UTF-8 text without NUL");
}

static bool read_bool(struct request *r, enum field f, bool *out)
{
	const char *v = parameter(r, f);
	static const char *const yes[] = {"true", "1", "yes", "on"}, *const no[] = {"false", "0",
										    "no", "off",
										    ""};

	*out = false;
	if (!v)
		return true;
	for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++)
		if (strcasecmp(v, yes[i]) == 0)
			return *out = true;
	for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
		if (strcasecmp(v, no[i]) == 0)
			return true;
	field_errors_add(&r->errors, "query", field_names[f], FIELD_TYPE_BOOL,
			 "must be true or false");
	return false;
}

static void read_type(struct request *r)
{
	const char *v = parameter(r, F_IMAGE_TYPE);

	r->upload->type = IMAGE_AUTO;
	if (!v || !v[0] || strcmp(v, "auto") == 0)
		return;
	if (strcmp(v, "esp") == 0)
		r->upload->type = IMAGE_ESP;
	else if (strcmp(v, "raw") == 0)
		r->upload->type = IMAGE_RAW;
	else
		field_errors_add(&r->errors, "query", "image_type", FIELD_TYPE_WORD,
				 "must be one of auto, esp, raw");
}

/* --- inspection and durability, on a job thread --- */

static enum ota_code read_upload(void *ctx, uint64_t off, void *buf, size_t len,
				 struct ota_err *err)
{
	return blob_writer_read(ctx, off, buf, len, err);
}

static void add_hex(struct buf *b, const char *key, bool has, const uint8_t *digest)
{
	char hex[SHA256_HEX_SIZE];

	if (has)
		hex_encode(digest, SHA256_SIZE, hex);
	json_str(b, key, has ? hex : NULL);
}

static void describe_image(struct upload *u)
{
	const struct image_info *i = &u->info;
	struct buf *b = &u->image_json;

	json_open(b, NULL, '{');
	json_str(b, "chip", chip_name(i->chip));
	json_str(b, "layout", i->layout);
	json_str(b, "project", i->has_app_desc ? i->project : NULL);
	json_str(b, "version", i->has_app_desc ? i->version : NULL);
	json_str(b, "build_time", i->has_app_desc ? i->build_time : NULL);
	json_str(b, "idf_version", i->has_app_desc ? i->idf_version : NULL);
	add_hex(b, "elf_sha256", i->has_elf_sha256, i->elf_sha256);
	add_hex(b, "image_digest", i->has_digest, i->digest);
	if (i->has_app_desc)
		json_int(b, "secure_version", i->secure_version);
	else
		json_nil(b, "secure_version");
	if (i->min_chip_rev >= 0)
		json_int(b, "min_chip_rev", i->min_chip_rev);
	else
		json_nil(b, "min_chip_rev");
	json_int(b, "segments", i->segments);
	json_bool(b, "signature_block", i->signed_block);
	json_close(b, '}');
}

static void fill_command(struct request *r)
{
	struct upload *u = r->upload;
	struct release_new *n = &r->command.release;

	r->command.kind = COMMAND_RELEASE_CREATE;
	r->command.by = ADMIN_NAME;
	n->version = parameter(r, F_VERSION);
	n->model = parameter(r, F_MODEL);
	n->min_version = parameter(r, F_MIN_VERSION);
	n->changelog = parameter(r, F_CHANGELOG);
	n->release_notes = parameter(r, F_NOTES);
	n->file_path = u->file_name;
	n->image_json = u->info.is_esp ? u->image_json.data : NULL;
	n->image_type = u->info.is_esp ? "esp" : "raw";
	n->inner_version = u->info.is_esp && u->info.has_app_desc ? u->info.version : "";
	n->project = u->info.is_esp && u->info.has_app_desc ? u->info.project : "";
	n->has_image_digest = u->info.is_esp && u->info.has_digest;
	n->has_elf_digest = u->info.is_esp && u->info.has_elf_sha256;
	memcpy(n->image_digest, u->info.digest, SHA256_SIZE);
	memcpy(n->elf_digest, u->info.elf_sha256, SHA256_SIZE);
	n->file_size = (int64_t)blob_writer_size(u->writer);
	n->secure_version = u->info.secure_version;
	n->chip = u->info.is_esp ? u->info.chip : CHIP_NONE;
}

static void inspect_and_keep(struct request *r)
{
	struct upload *u = r->upload;
	struct image_source src = {u->writer, read_upload, blob_writer_size(u->writer)};

	r->job_code =
		image_inspect(&src, u->type, parameter(r, F_MODEL), u->chip, &u->info, &r->job_err);
	if (r->job_code != OTA_OK)
		return;
	if (u->info.is_esp) {
		describe_image(u);
		if (!buf_ok(&u->image_json)) {
			r->job_code = ota_fail_nomem(&r->job_err);
			return;
		}
	}
	r->job_code = blob_writer_hash(u->writer, r->command.release.sha256, &r->job_err);
	if (r->job_code != OTA_OK)
		return;
	r->file_loose = true;
	r->job_code = blob_writer_keep(u->writer, &r->job_err);
	if (r->job_code == OTA_OK && r->server->mirror)
		r->job_code = mirror_put(r->server->mirror, u->writer, &r->job_err);
	if (r->job_code != OTA_OK)
		return;
	blob_name(r->command.release.sha256, u->file_name);
	fill_command(r);
	request_job_submit(r);
}

/* --- the answer --- */

void request_forget_image(struct request *r)
{
	const struct http_server *s = r->server;

	r->file_loose = false;
	if (s->mirror)
		mirror_forget(s->mirror, r->command.release.sha256);
	else
		blob_remove(s->blobs, r->command.release.sha256, fleet_names_image, s->fleet);
}

/* A kept file that became no release is removed, unless another release has the same bytes. */
static void forget_file(struct request *r)
{
	if (r->upload)
		blob_writer_close(&r->upload->writer);
	request_forget_image(r);
}

static void add_warnings(struct request *r, struct buf *b)
{
	const char *policy = r->command.warnings, *note = r->upload->info.note;

	if (!note[0]) {
		json_raw(b, "warnings", policy);
		return;
	}
	json_open(b, "warnings", '[');
	json_str(b, NULL, note);
	if (strlen(policy) > 2)
		buf_printf(b, ",%.*s", (int)strlen(policy) - 2, policy + 1);
	json_close(b, ']');
}

static enum next after_upload(struct request *r)
{
	struct command *cmd = &r->command;
	char hex[SHA256_HEX_SIZE];

	if (r->job_code != OTA_OK) {
		if (r->file_loose)
			forget_file(r);
		return respond_err(r, &r->job_err);
	}
	if (cmd->code != OTA_OK) {
		/* A restart may find the release after all: then the file decides what it is worth.
		 */
		if (cmd->code != OTA_EUNKNOWN)
			forget_file(r);
		return respond_err(r, &cmd->err);
	}
	r->file_loose = false;
	const struct release_new *n = &cmd->release;
	struct buf *b = respond_begin(r, 200);
	char message[400];
	snprintf(message, sizeof message,
		 cmd->out.existed ? "release %s for %s is here already, with the same bytes"
				  : "release %s for %s is uploaded",
		 n->version, n->model);
	hex_encode(n->sha256, SHA256_SIZE, hex);
	json_str(b, "status", "ok");
	json_str(b, "message", message);
	json_str(b, "version", n->version);
	json_str(b, "device_model", n->model);
	json_int(b, "release_id", cmd->out.id);
	json_int(b, "file_size", n->file_size);
	json_str(b, "checksum_sha256", hex);
	json_str(b, "image_type", n->image_type);
	json_raw(b, "image", n->image_json);
	add_warnings(r, b);
	return respond_end(r);
}

/* When the client has gone, nobody asks for the answer. */
static void release_upload(struct request *r)
{
	if (r->file_loose && r->command.code != OTA_EUNKNOWN)
		forget_file(r);
}

enum next firmware_upload(struct request *r)
{
	struct upload *u = r->upload;
	struct ota_err err;
	bool is_signed;

	if (multipart_finish(&u->multipart, &err) != OTA_OK)
		return respond_err(r, &err);
	check_agreement(r);
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	if (!check_name(r, F_VERSION, true) || !check_name(r, F_MODEL, true) ||
	    !check_name(r, F_MIN_VERSION, false))
		return NEXT_ANSWER;
	read_bool(r, F_SIGNED, &is_signed);
	read_type(r);
	check_text(r, F_CHANGELOG);
	check_text(r, F_NOTES);
	if (u->files == 0)
		field_errors_add(&r->errors, "body", "file", FIELD_TYPE_MISSING,
				 "field required: the image, as in curl -F file=@firmware.bin");
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	r->command.release.is_signed = is_signed;
	fleet_plan_read(r->server->fleet);
	const struct model *m = fleet_model(r->server->fleet, parameter(r, F_MODEL));
	u->chip = m ? m->chip : chip_from_model(parameter(r, F_MODEL));
	fleet_plan_done(r->server->fleet);
	r->release = release_upload;
	return request_inspection(r, inspect_and_keep, after_upload);
}
