/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include <stddef.h>

typedef struct {
	unsigned state[8];
} mbedtls_sha256_context;

void mbedtls_sha256_init(mbedtls_sha256_context *ctx);
void mbedtls_sha256_free(mbedtls_sha256_context *ctx);
int mbedtls_sha256_starts(mbedtls_sha256_context *ctx, int is224);
int mbedtls_sha256_update(mbedtls_sha256_context *ctx, const unsigned char *input, size_t len);
int mbedtls_sha256_finish(mbedtls_sha256_context *ctx, unsigned char *output);
