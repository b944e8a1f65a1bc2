/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include "Arduino.h"

class JsonVariant
{
      public:
	const char *operator|(const char *otherwise) const;
};

class JsonDocument
{
      public:
	JsonVariant operator[](const char *name);
};

class DeserializationError
{
      public:
	explicit operator bool() const;
};

DeserializationError deserializeJson(JsonDocument &doc, const uint8_t *input, size_t size);
