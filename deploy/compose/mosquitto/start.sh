#!/bin/sh
# SPDX-License-Identifier: MIT
# The password of the one account is the environment's: its file is made anew at each start, in memory.
set -eu
umask 077
mosquitto_passwd -b -c /run/mosquitto/passwords "$MQTT_USER" "$MQTT_PASSWORD"
exec mosquitto -c /mosquitto/config/mosquitto.conf
