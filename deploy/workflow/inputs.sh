#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Looks at everything that was asked for before anything is built: OTA_SERVICE_URL, OTA_API_KEY, STRATEGY, DEVICE_MODEL,
# TEST_DEVICES, WAIT_MINUTES.
# shellcheck source=deploy/workflow/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

key=${OTA_API_KEY:-}
[ -z "$key" ] || printf '::add-mask::%s\n' "$key"
[ -n "$OTA_SERVICE_URL" ] || fail "OTA_SERVICE_URL is not set: add it to the repository's secrets (http://server:8080)"
[[ $OTA_SERVICE_URL =~ ^https?://[^/?#@[:space:]]+(/[^?#[:space:]]*)?$ ]] ||
	fail "OTA_SERVICE_URL has to be http://host:port or https://host, without user, query and fragment"
[ -n "$key" ] || fail "OTA_API_KEY is not set: add it to the repository's secrets"
[[ $key =~ ^[!-~]+$ && $key != *[\"\\]* ]] || fail "OTA_API_KEY has a blank, a quote, a backslash or a line break in it"
[[ $DEVICE_MODEL =~ ^[A-Za-z0-9._+-]{1,128}$ ]] ||
	fail "the device model has to be 1 to 128 letters, digits and . _ + -, as the environment in platformio.ini is called"
[[ $WAIT_MINUTES =~ ^[0-9]{1,4}$ ]] || fail "the minutes to wait have to be a whole number, 0 for not at all"

case $STRATEGY in
canary-10 | canary-25 | canary-50 | full | guarded)
	[ -z "${TEST_DEVICES//[[:space:],]/}" ] ||
		fail "test devices are named, and the strategy is $STRATEGY, which chooses devices by itself; take 'test', or name none"
	;;
test)
	[ -n "${TEST_DEVICES//[[:space:],]/}" ] || fail "the strategy 'test' needs the ids of the devices, separated by commas"
	;;
*) fail "the strategy has to be test, canary-10, canary-25, canary-50, full or guarded" ;;
esac
printf 'Strategy %s for %s.\n' "$STRATEGY" "$DEVICE_MODEL"
