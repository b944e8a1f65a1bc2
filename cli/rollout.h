/* SPDX-License-Identifier: MIT */
/* The commands below `rollout` that have a file of their own. */
#pragma once

#include "cli/cli.h"

extern const struct opt rollout_create_opts[];
enum ota_code rollout_create(struct cli *c, const struct args *a, struct ota_err *err);
