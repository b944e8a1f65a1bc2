/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include <stddef.h>

int mbedtls_sha256(const unsigned char *input, size_t len, unsigned char *output, int is224);
