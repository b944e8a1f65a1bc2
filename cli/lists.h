/* SPDX-License-Identifier: MIT */
/* What all list commands share: --limit, --all, --json, the table. */
#pragma once

#include "cli/cli.h"
#include "cli/table.h"

#define LIST_DEFAULT 100
#define LIST_OPTS                                                                                  \
	{.name = "limit",                                                                          \
	 .arg = "N",                                                                               \
	 .help = "at most so many (100)",                                                          \
	 .min = 1,                                                                                 \
	 .max = 100000000},                                                                        \
	{                                                                                          \
		.name = "all", .help = "all there are"                                             \
	}

struct list {
	const char *key;  /* of the array in the answer */
	const char *none; /* said when it is empty */
	const struct col *cols;
	int ncols;
	void (*row)(const struct cli *c, struct table *t, const json_t *row); /* adds ncols cells */
};

extern const struct list list_updates;

/* Reads as many pages as the options want, and prints them.  Frees URL. */
enum ota_code list_run(struct cli *c, const struct args *a, const struct list *l, struct buf *url,
		       struct ota_err *err);
void list_update_row(const struct cli *c, struct table *t, const json_t *row);
