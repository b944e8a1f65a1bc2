/* SPDX-License-Identifier: MIT */
/*
 * One HTTP request, from its first line to its last byte sent.  Shared by the files of this folder.
 *
 * A request lives on one HTTP worker.  When it needs the committer or a disk it is suspended and
 * its `resume` runs on the worker again when the outcome is there; the worker never waits.  In
 * between the committer or a job thread owns it.
 */
#pragma once

#include "base/buf.h"
#include "base/jobs.h"
#include "commit/committer.h"
#include "config.h"
#include "firmware/cache.h"
#include "firmware/mirror.h"
#include "http/connections.h"
#include "http/relay_images.h"
#include "json/field_errors.h"
#include "json/json_body.h"
#include "store/lease.h"
#include "http/parse/query_fields.h"

#include <microhttpd.h>
#include <stdatomic.h>

#define BODY_MAX (1024 * 1024)
#define IMAGE_TOO_LARGE                                                                            \
	"the image is too large: at most %lld bytes are taken (OTA_MAX_FIRMWARE_BYTES)"

/* Who did it, in the log: the one key that there is. */
#define ADMIN_NAME "api"
/* Characters of a reason that a person gives for the log. */
#define REASON_MAX 500

struct auth;

/* What handlers work with.  Constant after the start, but for what its members guard themselves. */
struct http_server {
	const struct config *cfg;
	struct fleet *fleet;
	struct store *store;
	struct committer *committer;
	struct blob_store *blobs;
	struct image_cache *cache;
	struct mirror *mirror;
	struct jobs *jobs;
	struct jobs *inspections; /* of uploads: they take long and stand back for devices */
	struct auth *auth;
	struct lease *lease; /* NULL: there is no other instance */
	struct connections *connections;
	struct etas *etas;                             /* rollout_plan.c: the last looks ahead */
	void (*mqtt_status)(void *ctx, struct buf *b); /* these as in struct http_parts */
	void (*mqtt_metrics)(void *ctx, struct buf *b, bool text);
	void (*mqtt_examine)(void *ctx, finding_fn *say, void *say_ctx);
	void *mqtt_ctx;
	struct workers *workers;
	int listen_fd;
	bool given;       /* it was: others go on listening on it */
	char own_url[64]; /* "http://127.0.0.1:8080": for requests without a Host */
	_Atomic int port; /* known once it listens, when workers already ask for it */
	int64_t started_mono_ms;
	_Atomic bool backing_up;
	_Atomic bool draining; /* new requests are told to come again */
	_Atomic bool closing;  /* no handler begins any more */
	_Atomic int64_t active_requests, active_downloads;
	_Atomic int64_t working;  /* requests from the start of their handler to its answer */
	_Atomic int64_t resuming; /* threads that are in request_resume() */
	uint64_t id_prefix;
	struct counts *counts;
	struct census *census;
	_Atomic int64_t census_ms; /* when it was last taken */
	/* metrics.c: what was counted, and when */
	_Atomic int64_t recent_updates, alerts_open[ALERT_KINDS], webhooks_waiting,
		webhooks_given_up, recent_updates_ms;
	_Atomic int64_t requests_total, server_errors_total, downloads_total, download_bytes_total;
};

struct request;

/* What a handler or continuation says. */
enum next {
	NEXT_ANSWER,    /* status and out (or response) are set */
	NEXT_SUSPENDED, /* request_submit(), request_job() or request_wait() was called */
};
typedef enum next handler_fn(struct request *r);

enum body_kind { BODY_NONE, BODY_JSON, BODY_TEXT, BODY_UPLOAD };

struct route {
	const char *method;
	const char *path; /* "/api/admin/devices/{id}/groups/{name}" */
	handler_fn *handler;
	bool admin;
	enum body_kind body;
	bool is_download;
};

struct upload;

struct request {
	struct http_server *server;
	struct worker *worker;
	struct MHD_Connection *connection;
	struct connection *tracked; /* connections.c */
	const struct route *route;
	const char *method;
	char *target;        /* as received */
	const char *args[4]; /* the {} of the route, decoded */
	uint64_t chance;     /* of this request alone */
	char id[40];
	char client[64]; /* address: of the peer, or what a trusted proxy tells */

	/* the body */
	bool begun, body_done;
	bool discard; /* the answer is made; what still comes is thrown away */
	size_t body_seen, body_discarded;
	struct buf body;
	json_t *json;
	struct upload *upload;

	/* the work */
	handler_fn *resume;
	struct job job;
	void (*job_fn)(struct request *r);
	bool job_submits; /* the job ends in a command */
	enum ota_code job_code;
	struct field_errors errors;
	void *memory;                       /* a handler's own, free()d at the end ... */
	void (*release)(struct request *r); /* ... after this, if set, let go what it holds */
	bool file_loose;  /* the image of command.release.sha256 may belong to no release */
	bool have_answer; /* made already, unless the committer says otherwise */
	int tries;

	/* the answer */
	int status;
	struct buf out;
	const char *content_type;
	char allow[64];
	int retry_after_s;
	struct MHD_Response *response;          /* instead of out: a download */
	char sent_token[ATTEMPT_TOKEN_LEN + 1]; /* of the attempt whose image this answer ends */
	bool answered, counted_work, counted_download, counted_address;
	int64_t begun_ms; /* clock_coarse_ms() */

	/* From here on nothing is cleared at the beginning but COMMAND_CLEARED. */
	struct command command;
	struct ota_err job_err; /* where job_code is not OTA_OK */
	struct query query;     /* query_parse() */
};
/* So much of it is cleared: memory that is wiped for nothing was 3 % of a check-in. */
#define REQUEST_CLEARED (offsetof(struct request, command) + COMMAND_CLEARED)

/* --- what libmicrohttpd calls (request.c); their shapes are its --- */
void *request_begin(void *server, const char *uri, struct MHD_Connection *connection);
enum MHD_Result request_proceed(void *server, struct MHD_Connection *connection, const char *url,
				const char *method, const char *version, const char *upload_data,
				size_t *upload_size, void **request);
void request_end(void *server, struct MHD_Connection *connection, void **request,
		 enum MHD_RequestTerminationCode why);

/* A turn of a worker is over: the committer gets what its requests have for it. */
void request_turn(void *server);

/* --- suspending (request.c) --- */

/* Hands r->command to the committer; RESUME runs on the worker with its outcome. */
enum next request_submit(struct request *r, handler_fn *resume);
/* Runs FN on a job thread, then RESUME on the worker. */
enum next request_job(struct request *r, void (*fn)(struct request *r), handler_fn *resume);
/* The same for work that takes a processor for long: the inspection of an upload. */
enum next request_inspection(struct request *r, void (*fn)(struct request *r), handler_fn *resume);
/* Suspends the request until RESUME is called for by request_resume(), from any thread. */
enum next request_wait(struct request *r, handler_fn *resume);
void request_resume(struct request *r);
/* A job that ends in a command: called at the end of request_job's FN, instead of resuming. */
void request_job_submit(struct request *r);

/* --- answering (respond.c) --- */

/* Begins a JSON object in r->out; end with respond_end(). */
struct buf *respond_begin(struct request *r, int status);
enum next respond_end(struct request *r);
/* {"detail": sentence} with the status that the code stands for. */
enum next respond_error(struct request *r, enum ota_code code, const char *fmt, ...)
	OTA_PRINTF(3, 4);
enum next respond_err(struct request *r, const struct ota_err *err);
enum next respond_status(struct request *r, int status, const char *fmt, ...) OTA_PRINTF(3, 4);
/* 422 with what r->errors collected. */
enum next respond_fields(struct request *r);
/* {"status":"ok","message":...} and nothing else. */
enum next respond_ok(struct request *r, const char *fmt, ...) OTA_PRINTF(2, 3);
int status_of(enum ota_code code);

/* --- common ways of reading (reading.c) --- */

/* The body as a JSON object into r->json; false: the answer is made. */
bool request_json(struct request *r);
/* The same where a request may come without a body. */
bool request_json_if_any(struct request *r);
/* The whole number at {id} of the path; false: the answer is made. */
bool request_rollout_id(struct request *r, int64_t *id);
/* Checks a device id of the path; false: the answer is made. */
bool request_device_id(struct request *r, const char *id);
/* A list query with limit and id cursor, kept in r->memory; NULL: the answer is made. */
struct list_query *request_list(struct request *r);
/* A page being written: rows go into b until limit; one more row than that says there is another
 * page. */
struct page {
	struct buf *b;
	int limit, count;
	int64_t last_id;
};
/* Whether the row with this id still belongs to the page. */
static inline bool page_takes(struct page *p, int64_t id)
{
	if (p->count++ == p->limit)
		return false;
	p->last_id = id;
	return true;
}
/* The continuation of a list: what the job wrote, or its error. */
handler_fn request_list_done;
/* One attempt as lists show it (updates.c). */
void add_update_row(struct buf *b, const struct row_update *row);
/* "next_cursor": LAST_ID when there are more rows, else null. */
void respond_cursor(struct request *r, bool more, int64_t last_id);
/* A query parameter; NULL when it is absent or empty. */
const char *request_filter(struct request *r, const char *name);
/* Query parameter `reason`: why somebody does it, for the log.  False: the errors say what is wrong
 * with this or what was looked at before. */
bool request_reason(struct request *r);
/* The same of a name or version: a '+' meant a '+', and would find nothing; it goes into errors. */
const char *request_name_filter(struct request *r, const char *name);
/* "http://host:port", from OTA_PUBLIC_URL, Host, or the own address. */
void request_base_url(struct request *r, char *out, size_t size);
/* What a trusted proxy says in HEADER (X-Forwarded-...); NULL: nothing, or it is no such proxy. */
const char *request_forwarded(struct request *r, const char *header);
const char *request_header(struct request *r, const char *name);

/* --- the resources --- */
handler_fn device_check, device_report;
handler_fn firmware_download;
handler_fn firmware_upload, releases_list, release_delete;
handler_fn rollout_create, rollout_plan, rollout_replay, rollout_report, rollouts_list,
	rollout_show;
/* What a rollout would do, as the answer; on a job thread (rollout_plan.c). */
void rollout_write_plan(struct request *r, const struct rollout_new *n);
/* "eta": when one that walks will be through, or null.  Not with the plan held. */
struct progress;
struct etas *etas_new(void); /* NULL: out of memory */
void etas_free(struct etas **e);
void rollout_add_eta(struct request *r, struct buf *b, int64_t id);
/* How many devices are how far; not older than some times what counting takes.  The same. */
void rollout_count(struct request *r, int64_t id, struct progress *out);
/* How it is watched: as the body says, and what was seen (with the plan held). */
void rollout_read_guard(struct request *r, const struct json_fields *f);
/* The parameters of a gate that the object O names; the others stay. */
void rollout_read_gate(struct request *r, const json_t *o, struct gate_params *p);
void rollout_add_gate(struct request *r, struct buf *b, const struct rollout *o);
handler_fn rollout_activate, rollout_deactivate, rollout_pause, rollout_resume, rollout_promote,
	rollout_approve, rollout_abort, rollout_rollback;
handler_fn devices_list, device_show, device_delete, device_explain, device_retry;
handler_fn groups_put, groups_delete, group_put, group_delete, label_put, label_delete, notes_put,
	notes_delete, devices_import;
handler_fn updates_list, events_list, rejected_list;
handler_fn all_stop, all_resume;
handler_fn group_windows_list, group_window_put, group_window_delete;
/* "window_now": whether updates may begin, and until when that is so. */
void add_window_now(struct buf *b, const struct window *w, int64_t now_us);
handler_fn alerts_list, alert_acknowledge;
handler_fn health_show, metrics_show;
handler_fn backup_make, doctor_show;

/* "stopped": why and since when an operator stopped everything, or null (stop.c). */
void add_stop(struct fleet *f, struct buf *b);

/* --- uploads (upload.c) --- */
enum ota_code upload_begin(struct request *r, struct ota_err *err);
enum ota_code upload_feed(struct request *r, const void *data, size_t len, struct ota_err *err);
void upload_free(struct upload **u);
/* Removes the image of command.release, unless a release names it. */
void request_forget_image(struct request *r);
/* --- routes.c --- */
extern const struct route routes[];
extern const size_t route_count;
/* The route of method and path; else NULL with *allow filled when the path is known ("" if not). */
const struct route *route_find(struct request *r, char *allow, size_t size);
