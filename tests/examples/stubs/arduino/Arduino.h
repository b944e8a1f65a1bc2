/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>

using std::max;

class String
{
      public:
	String(const char *text = "");
	String &operator=(const char *text);
	unsigned int length() const;
	const char *c_str() const;
	bool equalsIgnoreCase(const String &other) const;
	bool operator==(const char *other) const;
	bool operator!=(const char *other) const;
};

class Client
{
};

class EspClass
{
      public:
	void restart();
};
extern EspClass ESP;

unsigned long millis();
void delay(uint32_t ms);
extern "C" uint32_t esp_random();
