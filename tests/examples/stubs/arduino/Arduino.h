/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>

using std::min;

#define HEX 16

class String
{
      public:
	String(const char *text = "");
	String(unsigned long value, unsigned char base);
	String &operator=(const char *text);
	unsigned int length() const;
	const char *c_str() const;
	bool equalsIgnoreCase(const String &other) const;
	bool operator==(const char *other) const;
	bool operator!=(const char *other) const;
};
String operator+(const String &a, const char *b);

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
