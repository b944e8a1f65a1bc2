/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include "Arduino.h"

class Preferences
{
      public:
	bool begin(const char *name, bool read_only = false);
	size_t putString(const char *key, const String &value);
	String getString(const char *key, const String &otherwise);
	bool remove(const char *key);
};
