#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Asks the service whether it has VERSION for DEVICE_MODEL: then nothing is built.
# shellcheck source=deploy/workflow/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

found=$(api "looking for the release" --get --data-urlencode "device_model=$DEVICE_MODEL" \
	--data-urlencode "version=$VERSION" "$OTA_SERVICE_URL/api/admin/firmware/releases")
# The service takes v1.2.0 and 1.2.0 for one version; whatever it found is this release.
release=$(jq -r --arg model "$DEVICE_MODEL" '[.releases[] | select(.device_model == $model)][0].version // ""' <<<"$found") ||
	fail "what answers at OTA_SERVICE_URL is not the OTA service"
if [ -n "$release" ]; then
	output exists true
	output version "$release"
	printf 'The service has %s for %s already: nothing is built.\n' "$release" "$DEVICE_MODEL"
else
	output exists false
	output version "$VERSION"
	printf 'The service does not have %s for %s yet.\n' "$VERSION" "$DEVICE_MODEL"
fi
