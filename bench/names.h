/* SPDX-License-Identifier: MIT */
/* What the generated fleet is called: shared by what fills the database and what plays devices. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#define BENCH_MODELS       4
#define BENCH_ID_SIZE      32
#define BENCH_TOKEN_SIZE   14
#define BENCH_RUNS_VERSION "1.0.0"
#define BENCH_NEXT_VERSION "1.4.0" /* what the newest rollouts bring */
#define BENCH_SITE         "paku"

static const char *const bench_models[BENCH_MODELS] = {"esp32", "esp32-s3", "esp32-c3", "esp8266"};

static inline const char *bench_model(uint32_t i)
{
	return bench_models[i % BENCH_MODELS];
}

static inline void bench_device_id(uint32_t i, char out[BENCH_ID_SIZE])
{
	snprintf(out, BENCH_ID_SIZE, "bench-%07u", i);
}

/* As long as a real one, and told by the device's number. */
static inline void bench_token(uint32_t i, char out[BENCH_TOKEN_SIZE])
{
	uint64_t x = (uint64_t)(i + 1) * UINT64_C(0x9e3779b97f4a7c15);

	for (int k = 0; k < BENCH_TOKEN_SIZE - 1; k++) {
		out[k] = "abcdefghijklmnopqrstuvwxyz234567"[x & 31];
		x = x >> 5 | x << 59;
	}
	out[BENCH_TOKEN_SIZE - 1] = '\0';
}
