/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include "WiFi.h"

#include <functional>

enum t_httpUpdate_return { HTTP_UPDATE_FAILED, HTTP_UPDATE_NO_UPDATES, HTTP_UPDATE_OK };

class HTTPUpdate
{
      public:
	void rebootOnUpdate(bool reboot);
	void onProgress(std::function<void(int, int)> callback);
	t_httpUpdate_return update(WiFiClient &client, const String &url,
				   const String &current_version = "");
};
extern HTTPUpdate httpUpdate;
