/* SPDX-License-Identifier: MIT */
/* Groups, labels and notes of devices: one by one, or many at once from CSV. */
#include "http/request.h"

#include "core/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUPS_MAX    100
#define LABEL_MAX     200
#define NOTES_MAX     10000
#define IMPORT_MAX    20000 /* lines at once */
#define IMPORT_ERRORS 20    /* told one by one */

static enum next after_edit(struct request *r)
{
	if (r->command.code != OTA_OK)
		return respond_err(r, &r->command.err);
	return respond_ok(r, "device %s is changed", r->args[0]);
}

/* An edit of the device in the path, in r->memory; NULL: the answer is made. */
static struct device_edit *begin_edit(struct request *r)
{
	struct device_edit *e;

	if (!request_device_id(r, r->args[0]))
		return NULL;
	e = calloc(1, sizeof *e + GROUPS_MAX * sizeof(char *));
	if (!e) {
		respond_error(r, OTA_ENOMEM, "out of memory");
		return NULL;
	}
	r->memory = e;
	e->device_id = r->args[0];
	r->command.kind = COMMAND_DEVICE_EDIT;
	r->command.edit.edits = e;
	r->command.edit.count = 1;
	(void)request_reason(r); /* with all other errors: submit_edit() */
	return e;
}

static enum next submit_edit(struct request *r)
{
	return field_errors_any(&r->errors) ? respond_fields(r) : request_submit(r, after_edit);
}

enum next groups_put(struct request *r)
{
	struct device_edit *e = begin_edit(r);
	const json_t *groups = NULL;

	if (!e || !request_json(r))
		return NEXT_ANSWER;
	struct json_fields f = {.object = r->json, .errors = &r->errors};
	const char **names = (const char **)(void *)(e + 1);
	json_field_strings(&f, "groups", true, GROUPS_MAX, 0, 100000, &groups);
	for (size_t i = 0; i < json_array_size(groups); i++) {
		names[i] = json_string_value(json_array_get(groups, i));
		const char *wrong = names[i] ? name_version_error(names[i]) : "must be a string";
		if (wrong)
			field_errors_add(&r->errors, "body", "groups", FIELD_TYPE_VALUE,
					 "group %zu %s", i + 1, wrong);
	}
	e->set_groups = true;
	e->groups = names;
	e->group_count = json_array_size(groups);
	return submit_edit(r);
}

enum next groups_delete(struct request *r)
{
	struct device_edit *e = begin_edit(r);

	if (!e)
		return NEXT_ANSWER;
	e->set_groups = true;
	return submit_edit(r);
}

static enum next edit_group(struct request *r, bool add)
{
	struct device_edit *e = begin_edit(r);

	if (!e)
		return NEXT_ANSWER;
	if (name_version_error(r->args[1]))
		field_errors_add(&r->errors, "path", "group", FIELD_TYPE_VALUE, "a group's name %s",
				 name_version_error(r->args[1]));
	if (add)
		e->add_group = r->args[1];
	else
		e->remove_group = r->args[1];
	return submit_edit(r);
}

enum next group_put(struct request *r)
{
	return edit_group(r, true);
}

enum next group_delete(struct request *r)
{
	return edit_group(r, false);
}

static enum next put_text(struct request *r, const char *name, size_t max)
{
	struct device_edit *e = begin_edit(r);
	const char *text = NULL;

	if (!e || !request_json(r))
		return NEXT_ANSWER;
	struct json_fields f = {.object = r->json, .errors = &r->errors};
	json_field_string(&f, name, true, 0, max, &text);
	if (strcmp(name, "label") == 0) {
		e->set_label = true;
		e->label = text;
	} else {
		e->set_notes = true;
		e->notes = text;
	}
	return submit_edit(r);
}

enum next label_put(struct request *r)
{
	return put_text(r, "label", LABEL_MAX);
}

enum next notes_put(struct request *r)
{
	return put_text(r, "notes", NOTES_MAX);
}

enum next label_delete(struct request *r)
{
	struct device_edit *e = begin_edit(r);

	if (!e)
		return NEXT_ANSWER;
	e->set_label = true;
	return submit_edit(r);
}

enum next notes_delete(struct request *r)
{
	struct device_edit *e = begin_edit(r);

	if (!e)
		return NEXT_ANSWER;
	e->set_notes = true;
	return submit_edit(r);
}

/* --- CSV (RFC 4180) --- */

enum column { C_ID, C_GROUPS, C_LABEL, C_NOTES, C_COUNT };
static const char *const column_names[C_COUNT] = {"device_id", "groups", "label", "notes"};

struct import {
	struct device_edit *edits;
	size_t count;
	const char **groups; /* of all lines, one after the other */
	size_t group_count, group_cap;
	int at[C_COUNT]; /* column of each, -1: not there */
};

static void release_import(struct request *r)
{
	struct import *im = r->memory;

	free(im->edits);
	free(im->groups);
}

/*
 * Takes one record off *at (NUL-terminated, changed in place) into up to MAX cells; returns how
 * many cells there were, -1 when a quote is not closed.
 */
static int csv_record(char **at, char **cells, int max)
{
	char *p = *at, *out;
	int n = 0;

	for (;;) {
		char *cell = out = p;
		bool quoted = *p == '"';
		if (quoted) {
			for (p++; *p && !(p[0] == '"' && p[1] != '"'); p++) {
				if (*p == '"')
					p++;
				*out++ = *p;
			}
			if (!*p)
				return -1;
			p++;
		}
		while (*p && *p != ',' && *p != '\n' && *p != '\r')
			*out++ = *p++;
		char end = *p;
		if (end == '\r' && p[1] == '\n')
			p++;
		if (end)
			p++;
		*out = '\0';
		if (n < max)
			cells[n] = cell;
		n++;
		if (end != ',') {
			*at = p;
			return n;
		}
	}
}

static bool read_header(struct request *r, struct import *im, char **at)
{
	char *cells[16];
	int n = csv_record(at, cells, 16);

	for (int c = 0; c < C_COUNT; c++)
		im->at[c] = -1;
	for (int i = 0; i < n && i < 16; i++)
		for (int c = 0; c < C_COUNT; c++)
			if (strcmp(cells[i], column_names[c]) == 0)
				im->at[c] = i;
	if (im->at[C_ID] >= 0 &&
	    (im->at[C_GROUPS] >= 0 || im->at[C_LABEL] >= 0 || im->at[C_NOTES] >= 0))
		return true;
	respond_status(r, 422,
		       "the first line must name the columns: device_id, and one or more of groups "
		       "(separated "
		       "by ;), label, notes");
	return false;
}

static bool add_group(struct import *im, const char *name)
{
	if (im->group_count == im->group_cap) {
		size_t cap = im->group_cap ? im->group_cap * 2 : 256;
		const char **p = realloc(im->groups, cap * sizeof *p);
		if (!p)
			return false;
		im->groups = p;
		im->group_cap = cap;
	}
	im->groups[im->group_count++] = name;
	return true;
}

/* The groups of one cell; their place is known by index, for the array may still move. */
static const char *read_groups(struct import *im, struct device_edit *e, char *cell)
{
	size_t first = im->group_count;

	e->set_groups = true;
	for (char *save = NULL, *g = strtok_r(cell, "; ", &save); g;
	     g = strtok_r(NULL, "; ", &save)) {
		const char *wrong = name_version_error(g);
		if (wrong)
			return wrong;
		if (!add_group(im, g))
			return "out of memory";
	}
	e->group_count = im->group_count - first;
	return e->group_count > GROUPS_MAX ? "has more than 100 groups" : NULL;
}

static const char *read_line(struct import *im, char **cells, int n, struct device_edit *e)
{
	const char *wrong;

	memset(e, 0, sizeof *e);
	if (im->at[C_ID] >= n)
		return "has no device_id";
	e->device_id = cells[im->at[C_ID]];
	wrong = name_device_id_error(e->device_id);
	if (wrong)
		return wrong;
	if (im->at[C_GROUPS] >= 0 && im->at[C_GROUPS] < n &&
	    (wrong = read_groups(im, e, cells[im->at[C_GROUPS]])))
		return wrong;
	if (im->at[C_LABEL] >= 0 && im->at[C_LABEL] < n) {
		e->set_label = true;
		e->label = cells[im->at[C_LABEL]][0] ? cells[im->at[C_LABEL]] : NULL;
		if (e->label && field_text_length(e->label) > LABEL_MAX)
			return "has a label of more than 200 characters";
	}
	if (im->at[C_NOTES] >= 0 && im->at[C_NOTES] < n) {
		e->set_notes = true;
		e->notes = cells[im->at[C_NOTES]][0] ? cells[im->at[C_NOTES]] : NULL;
		if (e->notes && field_text_length(e->notes) > NOTES_MAX)
			return "has notes of more than 10000 characters";
	}
	return NULL;
}

/* What is wrong with line LINE goes into the collector, up to a number. */
static void line_error(struct request *r, int line, const char *wrong)
{
	if (r->errors.count < IMPORT_ERRORS)
		field_errors_add(&r->errors, "body", NULL, FIELD_TYPE_VALUE, "line %d: %s", line,
				 wrong);
}

static int compare_edits(const void *a, const void *b)
{
	return strcmp(((const struct device_edit *)a)->device_id,
		      ((const struct device_edit *)b)->device_id);
}

/* The device must be there, and only once. */
static void check_devices(struct request *r, struct import *im)
{
	char what[200];

	qsort(im->edits, im->count, sizeof *im->edits, compare_edits);
	for (size_t i = 0; i < im->count; i++) {
		const char *id = im->edits[i].device_id;
		if (i > 0 && strcmp(im->edits[i - 1].device_id, id) == 0) {
			snprintf(what, sizeof what, "device %s stands in several lines", id);
			field_errors_add(&r->errors, "body", NULL, FIELD_TYPE_VALUE, "%s", what);
		}
		const struct device *d = fleet_lock_device(r->server->fleet, id);
		if (d)
			fleet_unlock_device(r->server->fleet, d);
		else if (r->errors.count < IMPORT_ERRORS)
			field_errors_add(&r->errors, "body", NULL, FIELD_TYPE_VALUE,
					 "no device is called %s", id);
	}
}

static enum next after_import(struct request *r)
{
	if (r->command.code != OTA_OK)
		return respond_err(r, &r->command.err);
	struct buf *b = respond_begin(r, 200);
	json_str(b, "status", "ok");
	json_int(b, "updated", (int64_t)r->command.out.count);
	return respond_end(r);
}

static bool read_lines(struct request *r, struct import *im, char *at)
{
	char *cells[16];

	im->edits = calloc(IMPORT_MAX, sizeof *im->edits);
	if (!im->edits) {
		respond_error(r, OTA_ENOMEM, "out of memory");
		return false;
	}
	for (int line = 2; *at; line++) {
		int n = csv_record(&at, cells, 16);
		if (n == 1 && !cells[0][0])
			continue;
		if (im->count == IMPORT_MAX) {
			respond_status(r, 413, "at most %d devices at once", IMPORT_MAX);
			return false;
		}
		const char *wrong =
			n < 0 ? "a quote is not closed"
			      : read_line(im, cells, n < 16 ? n : 16, &im->edits[im->count]);
		if (wrong)
			line_error(r, line, wrong);
		else
			im->count++;
		if (n < 0)
			break;
	}
	return true;
}

enum next devices_import(struct request *r)
{
	struct import *im = calloc(1, sizeof *im);
	char *at = r->body.data;

	if (!im)
		return respond_error(r, OTA_ENOMEM, "out of memory");
	r->memory = im;
	r->release = release_import;
	if (!at || memchr(at, '\0', r->body.len) || !utf8_valid(at, r->body.len))
		return respond_status(
			r, 422, "send CSV text in UTF-8 with a first line that names the columns");
	if (strncmp(at, "\xEF\xBB\xBF", 3) == 0)
		at += 3; /* a spreadsheet's byte order mark */
	if (!read_header(r, im, &at) || !read_lines(r, im, at))
		return NEXT_ANSWER;
	size_t used = 0;
	for (size_t i = 0; i < im->count; i++) { /* lines are still in their order here */
		im->edits[i].groups = im->groups + used;
		used += im->edits[i].group_count;
	}
	check_devices(r, im);
	(void)request_reason(r);
	if (field_errors_any(&r->errors))
		return respond_fields(r);
	if (im->count == 0)
		return respond_status(r, 422, "there is no device in it");
	r->command.kind = COMMAND_DEVICE_EDIT;
	r->command.edit.edits = im->edits;
	r->command.edit.count = im->count;
	return request_submit(r, after_import);
}
