#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds the environment DEVICE_MODEL of the PlatformIO project in FIRMWARE_DIR, unless IMAGE names an image that is built.
# VERSION is in the environment of the build as FIRMWARE_VERSION: a project that wants to can compile it in.
# shellcheck source=deploy/workflow/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

image=${IMAGE:-}
if [ -z "$image" ]; then
	[ -f "$FIRMWARE_DIR/platformio.ini" ] || fail "$FIRMWARE_DIR has no platformio.ini"
	grep -qF "[env:$DEVICE_MODEL]" "$FIRMWARE_DIR/platformio.ini" ||
		fail "platformio.ini has no [env:$DEVICE_MODEL]; the device model has to be the name of one of its environments"
	command -v platformio >/dev/null || python3 -m pip install --quiet platformio || fail "PlatformIO could not be installed"
	(cd "$FIRMWARE_DIR" && FIRMWARE_VERSION=$VERSION platformio run --environment "$DEVICE_MODEL") ||
		fail "the build of $DEVICE_MODEL failed; platformio's words are above"
	image=$FIRMWARE_DIR/.pio/build/$DEVICE_MODEL/firmware.bin
fi
[ -s "$image" ] || fail "there is no image at $image"
output image "$image"
printf 'The image: %s, %s bytes.\n' "$image" "$(stat -c %s "$image")"
