/* SPDX-License-Identifier: MIT */
/*
 * paku-fleet's commands: what they are given, and what they answer.
 *
 * Exit codes: 0 consistent, 1 differences, 2 usage, 3 service or broker cannot be reached (or
 * refuses), 130 ended by a signal before there was anything to compare.
 */
#pragma once

#include "cli/cli.h"

enum ota_code cmd_run(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code cmd_replay(struct cli *c, const struct args *a, struct ota_err *err);

extern const struct opt run_opts[], replay_opts[];
