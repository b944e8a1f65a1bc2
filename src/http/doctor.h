/* SPDX-License-Identifier: MIT */
/* The checks of /doctor: each says what it finds.  On a job thread; they may wait for disks. */
#pragma once

#include "base/finding.h"
#include "http/request.h"

void doctor_service(struct http_server *s, finding_fn *say, void *ctx);
void doctor_store(struct http_server *s, finding_fn *say, void *ctx);
void doctor_disks(struct http_server *s, finding_fn *say, void *ctx);
void doctor_images(struct http_server *s, finding_fn *say, void *ctx);
/* Says nothing where images are in the folder alone. */
void doctor_bucket(struct http_server *s, finding_fn *say, void *ctx);
void doctor_clock(struct http_server *s, finding_fn *say, void *ctx);
void doctor_devices(struct http_server *s, finding_fn *say, void *ctx);
void doctor_alerts(struct http_server *s, finding_fn *say, void *ctx);
void doctor_rejected(struct http_server *s, finding_fn *say, void *ctx);
