/* SPDX-License-Identifier: MIT */
/*
 * The HTTP door: libmicrohttpd's workers, and the life of a request.  main.c starts and stops it.
 */
#pragma once

#include "commit/committer.h"
#include "config.h"
#include "firmware/cache.h"

struct http_server;
struct auth;

struct http_parts {
	const struct config *cfg;
	struct fleet *fleet;
	struct store *store;
	struct committer *committer;
	struct blob_store *blobs;
	struct image_cache *cache;
	struct auth *auth;
};

/* All parts stay the caller's and outlive the server. */
enum ota_code http_start(const struct http_parts *parts, struct http_server **out,
			 struct ota_err *err);
int http_port(const struct http_server *s);
/*
 * Answers new requests with 503, lets short ones that have begun end within 5 s and downloads
 * within drain_s (which main may cut short through *hurry), then closes what is left.
 */
void http_stop(struct http_server **s, int64_t drain_s, const volatile int *hurry);
