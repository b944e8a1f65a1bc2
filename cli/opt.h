/* SPDX-License-Identifier: MIT */
/*
 * Commands and options as tables: one table makes the parser, --help and the completion.
 *
 * Options may stand anywhere, also behind arguments; `--` ends them; `--name value` and
 * `--name=value` are the same.  Strings of the result point into argv.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>
#include <stdio.h>

#define OPTS_MAX 24

struct opt {
	const char *name; /* without the dashes; NULL ends a table */
	const char *arg;  /* what --help calls its value; NULL: a flag */
	const char *help;
	const char *const *choices; /* NULL-terminated; NULL: any */
	int64_t min, max;           /* a whole number in this range when max > min */
	bool is_file;               /* completion offers file names */
};

struct cli;
struct args;

struct cmd {
	const char *name;       /* NULL ends a table */
	const char *args;       /* "ID add|remove GROUP..." */
	const char *summary;    /* one line, lower case */
	const char *about;      /* paragraphs and examples under --help, may be NULL */
	const struct opt *opts; /* may be NULL */
	int min_args, max_args; /* max_args -1: any number */
	enum ota_code (*run)(struct cli *c, const struct args *a, struct ota_err *err);
	const struct cmd *subs; /* then run is NULL */
	const char *fallback;   /* the sub-command meant when none is named */
	bool takes_file;        /* completion offers file names for its arguments */
	bool is_local;          /* needs neither server nor key */
};

struct args {
	const struct cmd *cmd;
	char path[64];                 /* "rollout create" */
	const char *values[OPTS_MAX];  /* by index in cmd->opts */
	const char *globals[OPTS_MAX]; /* by index in the global table */
	const struct opt *global_opts;
	const char *program; /* the root command's name */
	const char **pos;    /* positional arguments, NULL-terminated */
	int npos;
};

/*
 * Takes argv apart.  OTA_EINVAL with a sentence when it makes no sense; then a->path still names
 * the command reached, for the hint.  With --help nothing is checked beyond the command's name.
 */
enum ota_code args_parse(const struct cmd *root, const struct opt *globals, int argc, char **argv,
			 struct args *a, struct ota_err *err);
void args_fini(struct args *a);

/* NAME must be in the command's table or the global one.  NULL when it was not given. */
const char *args_get(const struct args *a, const char *name);
bool args_flag(const struct args *a, const char *name);
int64_t args_int(const struct args *a, const char *name, int64_t fallback);

/* --help for the command that was reached. */
void args_help(const struct args *a, FILE *out);
