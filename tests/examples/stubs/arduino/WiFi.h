/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include "Arduino.h"

enum wl_status_t { WL_IDLE_STATUS = 0, WL_CONNECTED = 3 };

class WiFiClient : public Client
{
};

class WiFiClass
{
      public:
	wl_status_t begin(const char *ssid, const char *password);
	wl_status_t status();
};
extern WiFiClass WiFi;
