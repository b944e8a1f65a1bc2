/* SPDX-License-Identifier: MIT */
/* The table of contents of the HTTP door: every resource, its method, who may, and what body it
 * takes. */
#include "http/request.h"

#include <stdio.h>
#include <string.h>

const struct route routes[] = {
	/* devices speak */
	{"GET", "/api/firmware/check", device_check, false, BODY_NONE, false},
	{"GET", "/api/firmware/download/{version}", firmware_download, false, BODY_NONE, true},
	{"POST", "/api/device/{device_id}/update-status", device_report, false, BODY_JSON, false},
	/* anyone looks */
	{"GET", "/health", health_show, false, BODY_NONE, false},
	{"GET", "/metrics", metrics_show, false, BODY_NONE, false},
	/* operators and CI */
	{"POST", "/api/admin/firmware/upload", firmware_upload, true, BODY_UPLOAD, false},
	{"GET", "/api/admin/firmware/releases", releases_list, true, BODY_NONE, false},
	{"DELETE", "/api/admin/firmware/releases/{version}", release_delete, true, BODY_NONE,
	 false},
	{"POST", "/api/admin/rollout/create", rollout_create, true, BODY_JSON, false},
	{"POST", "/api/admin/rollout/plan", rollout_plan, true, BODY_JSON, false},
	{"POST", "/api/admin/rollout/{id}/activate", rollout_activate, true, BODY_NONE, false},
	{"POST", "/api/admin/rollout/{id}/deactivate", rollout_deactivate, true, BODY_NONE, false},
	{"POST", "/api/admin/rollout/{id}/pause", rollout_pause, true, BODY_JSON, false},
	{"POST", "/api/admin/rollout/{id}/resume", rollout_resume, true, BODY_JSON, false},
	{"POST", "/api/admin/rollout/{id}/promote", rollout_promote, true, BODY_JSON, false},
	{"POST", "/api/admin/rollout/{id}/approve", rollout_approve, true, BODY_JSON, false},
	{"POST", "/api/admin/rollout/{id}/abort", rollout_abort, true, BODY_JSON, false},
	{"POST", "/api/admin/rollout/{id}/rollback", rollout_rollback, true, BODY_JSON, false},
	{"GET", "/api/admin/rollouts", rollouts_list, true, BODY_NONE, false},
	{"GET", "/api/admin/rollouts/{id}", rollout_show, true, BODY_NONE, false},
	{"POST", "/api/admin/rollouts/{id}/replay", rollout_replay, true, BODY_JSON, false},
	{"GET", "/api/admin/rollouts/{id}/report", rollout_report, true, BODY_NONE, false},
	{"GET", "/api/admin/devices", devices_list, true, BODY_NONE, false},
	{"POST", "/api/admin/devices/import", devices_import, true, BODY_TEXT, false},
	{"GET", "/api/admin/devices/{id}", device_show, true, BODY_NONE, false},
	{"DELETE", "/api/admin/devices/{id}", device_delete, true, BODY_NONE, false},
	{"GET", "/api/admin/devices/{id}/explain", device_explain, true, BODY_NONE, false},
	{"POST", "/api/admin/devices/{id}/retry", device_retry, true, BODY_NONE, false},
	{"PUT", "/api/admin/devices/{id}/groups", groups_put, true, BODY_JSON, false},
	{"DELETE", "/api/admin/devices/{id}/groups", groups_delete, true, BODY_NONE, false},
	{"PUT", "/api/admin/devices/{id}/groups/{group}", group_put, true, BODY_NONE, false},
	{"DELETE", "/api/admin/devices/{id}/groups/{group}", group_delete, true, BODY_NONE, false},
	{"PUT", "/api/admin/devices/{id}/label", label_put, true, BODY_JSON, false},
	{"DELETE", "/api/admin/devices/{id}/label", label_delete, true, BODY_NONE, false},
	{"PUT", "/api/admin/devices/{id}/notes", notes_put, true, BODY_JSON, false},
	{"DELETE", "/api/admin/devices/{id}/notes", notes_delete, true, BODY_NONE, false},
	{"GET", "/api/admin/windows", group_windows_list, true, BODY_NONE, false},
	{"PUT", "/api/admin/groups/{group}/window", group_window_put, true, BODY_JSON, false},
	{"DELETE", "/api/admin/groups/{group}/window", group_window_delete, true, BODY_NONE, false},
	{"POST", "/api/admin/stop-all", all_stop, true, BODY_JSON, false},
	{"POST", "/api/admin/resume-all", all_resume, true, BODY_NONE, false},
	{"GET", "/api/admin/update-status", updates_list, true, BODY_NONE, false},
	{"GET", "/api/admin/events", events_list, true, BODY_NONE, false},
	{"GET", "/api/admin/rejected", rejected_list, true, BODY_NONE, false},
	{"GET", "/api/admin/doctor", doctor_show, true, BODY_NONE, false},
	{"GET", "/api/admin/backup", backup_make, true, BODY_NONE, false},
	{"GET", "/api/admin/alerts", alerts_list, true, BODY_NONE, false},
	{"POST", "/api/admin/alerts/{id}/acknowledge", alert_acknowledge, true, BODY_JSON, false},
};
const size_t route_count = sizeof routes / sizeof routes[0];

/* Compares the pattern with the decoded segments; fills ARGS with what stands at its {}. */
static bool matches(const char *pattern, const struct query *q, const char *args[4])
{
	size_t n = 0, arg = 0;

	while (*pattern == '/') {
		const char *word = pattern + 1;
		size_t len = strcspn(word, "/");
		if (n == q->segment_count)
			return false;
		const char *have = q->segments[n++];
		if (word[0] == '{')
			args[arg++] = have;
		else if (strncmp(have, word, len) != 0 || have[len] != '\0')
			return false;
		pattern = word + len;
	}
	return n == q->segment_count;
}

static bool same_method(const char *asked, const char *offered)
{
	return strcmp(asked, offered) == 0 ||
	       (strcmp(asked, "HEAD") == 0 && strcmp(offered, "GET") == 0);
}

const struct route *route_find(struct request *r, char *allow, size_t size)
{
	const char *args[4] = {NULL};

	allow[0] = '\0';
	for (size_t i = 0; i < route_count; i++) {
		if (!matches(routes[i].path, &r->query, args))
			continue;
		if (same_method(r->method, routes[i].method)) {
			memcpy(r->args, args, sizeof args);
			return &routes[i];
		}
		size_t used = strlen(allow);
		bool get = strcmp(routes[i].method, "GET") == 0;
		snprintf(allow + used, size - used, "%s%s", used ? ", " : "",
			 get ? "GET, HEAD" : routes[i].method);
	}
	return NULL;
}
