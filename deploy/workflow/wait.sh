#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Waits up to WAIT_MINUTES for rollout ROLLOUT_ID to end (0: looks once), and puts a picture of it on the page of the run.
# Fails when it was halted or aborted. One that goes on when the time is over goes on by itself: that is no failure.
# shellcheck source=deploy/workflow/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ends=$((SECONDS + WAIT_MINUTES * 60))
before=
while :; do
	rollout=$(api "looking at the rollout" "$OTA_SERVICE_URL/api/admin/rollouts/$ROLLOUT_ID")
	state=$(jq -r .state <<<"$rollout")
	now=$(jq -r '"\(.state), stage \(.stage.index) of \(.stage.of): \(.counts.success) updated, \(.counts.failed +
		.counts.rolled_back) failed, of \(.targeted); \(.next.sentence)"' <<<"$rollout")
	[ "$now" = "$before" ] || printf '%s  %s\n' "$(date -u +%H:%M:%S)" "$(one_line "$now")"
	before=$now
	case $state in completed | halted | aborted) break ;; esac
	[ "$SECONDS" -lt "$ends" ] || break
	sleep "${OTA_POLL_S:-10}"
done
output state "$state"

# Mermaid draws nothing of a pie without a slice.
jq -r '. as $r
	| (.counts | {"updated": .success, "updating": (.downloading + .downloaded + .installing), "told": .pending,
		"failed": (.failed + .rolled_back)}) as $n
	| ($n + {"not yet": ([0, .targeted - ($n | add)] | max)} | to_entries | map(select(.value > 0))) as $slices
	| "### \(.firmware_version) on \(.device_model): \(.state)\n",
	(if .reason then "> \(.reason | gsub("[\r\n]+"; " ") | gsub("(?<c>[\\\\`*_<>\\[\\]|])"; "\\\(.c)"))\n" else empty end),
	(if $slices == [] then "No device is in this rollout yet.\n" else
		"```mermaid\npie showData title Rollout \($r.id)", ($slices[] | "  \"\(.key)\" : \(.value)"), "```\n" end),
	"| rollout | strategy | stage | devices | updated | failed |", "|---|---|---|---|---|---|",
	"| \(.id) | \($ENV.STRATEGY) | \(.stage.index) of \(.stage.of), \(.stage.percent) % | \(.targeted) | \($n.updated) | \($n.failed) |\n",
	(.next.sentence // empty)' <<<"$rollout" | summary

case $state in
halted | aborted) fail "rollout $ROLLOUT_ID was $state: $(jq -r '.reason // "no reason was given"' <<<"$rollout")" ;;
completed) printf 'Rollout %s is completed.\n' "$ROLLOUT_ID" ;;
*) [ "$WAIT_MINUTES" -eq 0 ] || printf '::warning::rollout %s is still %s after %s minutes; it goes on by itself\n' \
	"$ROLLOUT_ID" "$state" "$WAIT_MINUTES" ;;
esac
