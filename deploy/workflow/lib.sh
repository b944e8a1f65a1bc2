# SPDX-License-Identifier: MIT
# What the steps of action.yml share. Each step is a script that reads its inputs from the environment, says what it did,
# and leaves what later steps need in $GITHUB_OUTPUT. The API key is in OTA_API_KEY alone: never an argument (other users
# of the machine see those), never in a URL, never printed.
# shellcheck shell=bash
set -euo pipefail

OTA_SERVICE_URL=${OTA_SERVICE_URL:-}
OTA_SERVICE_URL=${OTA_SERVICE_URL%/}
# Seconds of one try of a call, uploads included: 16 MiB at a slow 64 KiB/s.
call_s=300

# What others wrote may hold line breaks, and a line of its own could be a command to GitHub's runner.
one_line() { printf '%s' "${1//[$'\r\n']/ }"; }
# fail SENTENCE: GitHub shows it beside the job.
fail() {
	printf '::error::%s\n' "$(one_line "$1")"
	exit 1
}
output() { printf '%s=%s\n' "$1" "$2" >>"${GITHUB_OUTPUT:-/dev/stdout}"; }
# summary: standard input goes to the page of the run.
summary() { cat >>"${GITHUB_STEP_SUMMARY:-/dev/stdout}"; }

# What a refusal says, in one line: {"detail": "..."} or FastAPI's list of what is wrong with each parameter.
said() {
	jq -r '.detail | if type == "array" then map("\(.loc[-1]): \(.msg)") | join("; ") else . end' "$1" 2>/dev/null ||
		head -c 300 "$1" | tr '\n\r' '  '
}

# api WHAT CURL-ARGUMENT...: the answer's body is on standard output when the service said yes; else the job ends with what
# it said. Every call here may be made twice (an upload of the same bytes and a rollout as before are found again), so
# what broke on the way is tried again.
api() {
	local what=$1 code status=0 body
	shift
	body=$(mktemp)
	code=$(curl --silent --show-error --output "$body" --write-out '%{http_code}' --max-time "$call_s" \
		--retry "${OTA_RETRIES:-5}" --retry-connrefused --retry-all-errors \
		--config <(printf 'header = "X-API-Key: %s"\n' "$OTA_API_KEY") "$@" 2>"$body.err") || status=$?
	if [ "$status" -ne 0 ]; then
		fail "$what: OTA_SERVICE_URL was not reached: $(tail -n 1 "$body.err")" >&2
	elif [[ $code != 2?? ]]; then
		fail "$what: the service answered $code: $(said "$body")" >&2
	fi
	cat "$body"
	rm -f "$body" "$body.err"
}
