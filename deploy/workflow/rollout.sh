#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Creates the rollout of VERSION to DEVICE_MODEL by STRATEGY, or finds the one that an earlier run of this job made: its name
# says version, model and strategy, and for named devices which ones.
# shellcheck source=deploy/workflow/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=$VERSION-$DEVICE_MODEL-$STRATEGY
case $STRATEGY in
test)
	devices=$(jq -cnR --arg list "$TEST_DEVICES" '$list | split("[,\\s]+"; null) | map(select(. != "")) | unique')
	sum=$(sha256sum <<<"$devices")
	name+=-${sum:0:8}
	target=$(jq -cn --argjson ids "$devices" '{target_type: "specific", target_filter: {device_ids: $ids}}')
	;;
canary-*) target="{\"target_type\": \"canary\", \"rollout_percentage\": ${STRATEGY#canary-}}" ;;
guarded) target='{"target_type": "all", "strategy": "guarded"}' ;;
*) target='{"target_type": "all", "rollout_percentage": 100}' ;;
esac
body=$(jq -cn --arg name "$name" --arg version "$VERSION" --arg model "$DEVICE_MODEL" --argjson target "$target" \
	'{name: $name, firmware_version: $version, device_model: $model, is_active: true} + $target')
answer=$(api "the rollout" --header 'Content-Type: application/json' --data-binary "$body" \
	"$OTA_SERVICE_URL/api/admin/rollout/create")
id=$(jq -r .rollout_id <<<"$answer")
[[ $id =~ ^[0-9]+$ ]] || fail "the rollout: the service named no rollout_id"
output rollout_id "$id"
output rollout_name "$name"
printf 'Rollout %s: %s.\n' "$id" "$name"
