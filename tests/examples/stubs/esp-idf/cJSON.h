/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include <stddef.h>

typedef struct cJSON cJSON;

cJSON *cJSON_ParseWithLength(const char *value, size_t length);
cJSON *cJSON_GetObjectItem(const cJSON *object, const char *name);
char *cJSON_GetStringValue(const cJSON *item);
void cJSON_Delete(cJSON *item);
