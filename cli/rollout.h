/* SPDX-License-Identifier: MIT */
/* The commands below `rollout` that have a file of their own. */
#pragma once

#include "cli/cli.h"

extern const struct opt rollout_create_opts[];
/* The same without what watches it. */
#define ROLLOUT_PLAN_OPTS (&rollout_create_opts[2])
/* What the service is asked for, by the options that both words take; NULL: they make no sense. */
json_t *rollout_body(struct cli *c, const struct args *a, struct ota_err *err);
extern const struct opt rollout_report_opts[];
enum ota_code rollout_report(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code rollout_plan(struct cli *c, const struct args *a, struct ota_err *err);
enum ota_code rollout_create(struct cli *c, const struct args *a, struct ota_err *err);
