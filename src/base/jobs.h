/* SPDX-License-Identifier: MIT */
/*
 * A few threads for work that may wait for a disk: list queries, reading images, inspecting
 * uploads. Jobs run in the order of submission, as many at a time as there are threads.  Any thread
 * may submit.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>

/* Embedded in what the job is about; FN gets it back. */
struct job {
	void (*fn)(struct job *job);
	struct job *next;
};

struct jobs;

/* NICE: 0, or how much the threads stand back for others (Linux keeps it by thread). */
enum ota_code jobs_start(int threads, int nice, struct jobs **out, struct ota_err *err);
/* Runs what waits, ends the threads. */
void jobs_stop(struct jobs **j);
/* Cannot fail: the job brings its own memory.  Not after jobs_stop(). */
void jobs_submit(struct jobs *j, struct job *job);
size_t jobs_waiting(struct jobs *j);
