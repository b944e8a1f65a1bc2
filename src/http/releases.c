/* SPDX-License-Identifier: MIT */
/* Releases: the list, and deletion. */
#include "http/request.h"

#include "base/hash.h"
#include "core/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* metadata.{image_type,image,warnings} are columns of the answer. */
static void add_metadata(struct buf *b, const char *metadata)
{
	json_t *meta = metadata ? json_loads(metadata, 0, NULL) : NULL;
	static const char *const keys[] = {"image_type", "image", "warnings"};

	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		const json_t *v = json_object_get(meta, keys[i]);
		char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
		if (text)
			json_raw(b, keys[i], text);
		else
			json_nil(b, keys[i]);
		free(text);
	}
	json_decref(meta);
}

static bool add_release(void *ctx, const struct row_release *row)
{
	struct page *p = ctx;
	struct buf *b = p->b;

	if (!page_takes(p, row->id))
		return false;
	json_open(b, NULL, '{');
	json_int(b, "id", row->id);
	json_str(b, "version", row->version);
	json_str(b, "device_model", row->device_model);
	json_str(b, "min_version", row->min_version);
	json_str(b, "file_path", row->file_path);
	json_int(b, "file_size", row->file_size);
	json_str(b, "checksum_sha256", row->sha256);
	json_str(b, "changelog", row->changelog);
	json_str(b, "release_notes", row->release_notes);
	json_bool(b, "is_signed", row->is_signed);
	json_str(b, "created_at", row->created_at);
	json_str(b, "created_by", row->created_by);
	add_metadata(b, row->metadata);
	json_bool(b, "suspect", row->suspect_at != NULL);
	json_str(b, "suspect_since", row->suspect_at);
	json_raw(b, "learnt_versions", row->learnt ? row->learnt : "[]");
	json_close(b, '}');
	return true;
}

static void query_releases(struct request *r)
{
	struct list_query *q = r->memory;
	struct page p = {.b = respond_begin(r, 200), .limit = q->limit++};

	json_open(p.b, "releases", '[');
	r->job_code = r->server->store->ops->list_releases(r->server->store, q, add_release, &p,
							   &r->job_err);
	json_close(p.b, ']');
	respond_cursor(r, p.count > p.limit, p.last_id);
	respond_end(r);
}

enum next releases_list(struct request *r)
{
	struct list_query *q = request_list(r);

	if (!q)
		return NEXT_ANSWER;
	q->device_model = request_name_filter(r, "device_model");
	q->version = request_name_filter(r, "version");
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	return request_job(r, query_releases, request_list_done);
}

/* --- deletion --- */

/* Which file the deleted release named. */
static bool find_file(struct request *r)
{
	fleet_plan_read(r->server->fleet);
	const struct release *rel = fleet_release(r->server->fleet, r->command.out.id);
	if (rel)
		memcpy(r->command.release.sha256, rel->sha256, SHA256_SIZE);
	fleet_plan_done(r->server->fleet);
	return rel;
}

static enum next answer_deleted(struct request *r)
{
	return respond_ok(r, "release %s for %s is deleted", r->args[0], (const char *)r->memory);
}

static enum next after_delete(struct request *r)
{
	if (r->command.code != OTA_OK)
		return respond_err(r, &r->command.err);
	return find_file(r) ? request_job(r, request_forget_image, answer_deleted)
			    : answer_deleted(r);
}

/* When the client has gone, nobody asks for the answer. */
static void release_deleted(struct request *r)
{
	if (r->file_loose && r->command.code == OTA_OK && find_file(r))
		request_forget_image(r);
}

/* The one model that has the version, when none is named; NULL and an answer otherwise. */
static char *model_of(struct request *r)
{
	const char *given = request_name_filter(r, "device_model"), *found = given;
	int count = 0;

	if (field_errors_any(&r->errors)) {
		respond_fields(r);
		return NULL;
	}
	fleet_plan_read(r->server->fleet);
	for (const struct model *m = fleet_models(r->server->fleet); m && !given; m = m->next) {
		const struct release *rel = fleet_release_of(m, r->args[0]);
		if (rel && !rel->deleted) {
			found = m->name;
			count++;
		}
	}
	char *copy = found && count <= 1 ? strdup(found) : NULL;
	fleet_plan_done(r->server->fleet);
	if (count > 1)
		respond_status(r, 409, "release %s exists for several models; add ?device_model=",
			       r->args[0]);
	else if (!found)
		respond_status(r, 404, "there is no release %s", r->args[0]);
	else if (!copy)
		respond_error(r, OTA_ENOMEM, "out of memory");
	return copy;
}

enum next release_delete(struct request *r)
{
	r->memory = model_of(r);
	if (!r->memory)
		return NEXT_ANSWER;
	r->command.kind = COMMAND_RELEASE_DELETE;
	r->command.release_delete.version = r->args[0];
	r->command.release_delete.model = r->memory;
	r->file_loose = true;
	r->release = release_deleted;
	if (!request_reason(r))
		return respond_fields(r);
	return request_submit(r, after_delete);
}
