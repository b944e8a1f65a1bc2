/* SPDX-License-Identifier: MIT */
/* As much of the SDK's header as the examples use, for a compiler that is to check them. */
#pragma once

#include "Arduino.h"

#include <functional>

class PubSubClient
{
      public:
	PubSubClient(Client &client);
	PubSubClient &setServer(const char *host, uint16_t port);
	PubSubClient &setCallback(std::function<void(char *, uint8_t *, unsigned int)> callback);
	bool setBufferSize(uint16_t size);
	bool connect(const char *id, const char *user, const char *password, const char *will_topic,
		     uint8_t will_qos, bool will_retain, const char *will_message,
		     bool clean_session);
	bool publish(const char *topic, const char *payload, bool retained);
	bool subscribe(const char *topic, uint8_t qos);
	bool loop();
	bool connected();
};
