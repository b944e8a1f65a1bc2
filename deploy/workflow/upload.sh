#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Uploads IMAGE as VERSION for DEVICE_MODEL, with RELEASE_NOTES.
# shellcheck source=deploy/workflow/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Fields, not a query: notes are long, and a plus sign means itself. --form-string: an @ at the beginning is no file's name.
fields=(--form-string "version=$VERSION" --form-string "device_model=$DEVICE_MODEL" --form-string is_signed=false)
[ -z "${RELEASE_NOTES:-}" ] || fields+=(--form-string "release_notes=$RELEASE_NOTES")
quoted=${IMAGE//\\/\\\\}
quoted=${quoted//\"/\\\"}
answer=$(api "the upload" "${fields[@]}" --form "file=@\"$quoted\";filename=firmware.bin" \
	"$OTA_SERVICE_URL/api/admin/firmware/upload")
sum=$(sha256sum <"$IMAGE")
[ "$(jq -r .checksum_sha256 <<<"$answer")" = "${sum%% *}" ] || fail "the upload: the service has other bytes than were sent"
jq -r '"Uploaded \(.version): \(.file_size) bytes, sha256 \(.checksum_sha256)."' <<<"$answer"
