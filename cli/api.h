/* SPDX-License-Identifier: MIT */
/*
 * The service's API: requests that carry the key, answers as JSON, refusals as one sentence.
 *
 * Errors: OTA_EIO when the service cannot be reached or what answers is not one, OTA_EAUTH for the
 * key, any other code for what the service refused, with its own words.
 */
#pragma once

#include "cli/cli.h"
#include "cli/http.h"

/* The service's address as the beginning of a URL: PATH is appended as it stands. */
void api_url(const struct cli *c, struct buf *url, const char *path);
/*
 * Sends q (its url is taken from URL, its key from c) and gives the answer's JSON in *OUT; the
 * caller json_decref()s it.  OUT may be NULL.  Frees URL.
 */
enum ota_code api_send(struct cli *c, struct buf *url, struct http_request *q, json_t **out,
		       struct ota_err *err);
/* What is no JSON, as it is; the caller frees OUT. */
enum ota_code api_get_text(struct cli *c, struct buf *url, struct buf *out, struct ota_err *err);
enum ota_code api_get(struct cli *c, struct buf *url, json_t **out, struct ota_err *err);
/* BODY may be NULL; takes it. */
enum ota_code api_call(struct cli *c, const char *method, struct buf *url, json_t *body,
		       json_t **out, struct ota_err *err);

/* As many rows of a list as MAX (0: all), over its pages: {"LIST":[...],"next_cursor":...}. */
enum ota_code api_list(struct cli *c, struct buf *url, const char *list, int64_t max, json_t **out,
		       struct ota_err *err);

/* The id of a rollout given by id or by name. */
enum ota_code api_rollout_id(struct cli *c, const char *word, int64_t *id, struct ota_err *err);

/* One of FastAPI's mistakes, {"loc":["query","limit"],"msg":"..."}: "limit: ...". */
void api_mistake(const json_t *item, struct buf *out);
/* --json's output. */
enum ota_code api_print_json(const json_t *json, struct ota_err *err);
/* A member's string, or NULL. */
const char *api_str(const json_t *object, const char *key);
int64_t api_int(const json_t *object, const char *key, int64_t fallback);
bool api_true(const json_t *object, const char *key);
