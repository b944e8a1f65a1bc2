/* SPDX-License-Identifier: MIT */
/*
 * What the devices saw, held against what the service has recorded, over its admin API.
 *
 * Blocks while it asks; after the run, or between two turns.
 */
#pragma once

#include "cli/api.h"
#include "fleet-sim/fleet.h"

#define DIFFERENCES_SHOWN 20

struct differences {
	int64_t count;
	int64_t devices, attempts; /* of this fleet, in the service's record */
	char first[DIFFERENCES_SHOWN][300];
};

/* SINCE_US: the service's time when the run began; what it recorded before is not looked at. */
enum ota_code verify(struct fleet *f, struct cli *c, int64_t since_us, struct differences *out,
		     struct ota_err *err);
