# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT
# What ./up and ./check share: saying what is being done, and installing Debian packages without starting
# their services. To be sourced with `set -euo pipefail`, script_args being the arguments.

say() { printf '%s\n' "$*"; }
die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# --- cleaning up: whatever way the script ends ---

work_dir=$(mktemp -d "${TMPDIR:-/tmp}/paku.XXXXXX")
step_pid=
may_kill=
policy_made=
cleanups=()
on_exit() {
	local status=$? what
	trap - EXIT
	trap '' INT TERM
	[ -z "$step_pid" ] || stop_tree "$step_pid"
	for what in "${cleanups[@]}"; do "$what" || true; done
	on_exit_clean
	[ ! -t 1 ] || printf '\033[?25h'
	exit "$status"
}
on_exit_clean() {
	policy_restore
	rm -rf "$work_dir"
}
# A process and all that it started; back when they have ended. What belongs to root (sudo) is left to end by itself.
stop_tree() {
	local pids="$1" more="$1" p waited=0
	while [ -n "$more" ]; do
		more=$(for p in $more; do cat "/proc/$p/task/"*/children 2>/dev/null || true; done)
		pids+=" $more"
	done
	for p in $pids; do kill -TERM "$p" 2>/dev/null || true; done
	for p in $pids; do
		while [ -d "/proc/$p" ] && ! grep -q '^State:.*zombie' "/proc/$p/status" 2>/dev/null; do
			[ $((waited++)) -ne 20 ] || say "waiting for what is still running to end ..."
			# Tests may be killed; an installation never.
			[ -z "$may_kill" ] || [ "$waited" -lt 50 ] || kill -KILL "$p" 2>/dev/null || true
			[ "$waited" -lt 1200 ] || return 0
			sleep 0.1
		done
	done
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- steps: a line for people, a moving one on a terminal, the whole output when it failed ---

# step TEXT COMMAND...: run COMMAND with its output in a file. On a terminal one line is redrawn with the
# time and what step_count finds in the output; elsewhere a line comes every five seconds.
# A failure shows the end of the output and returns the command's status.
step() {
	local text=$1 log=$work_dir/step.log start=$SECONDS said=0 status=0 frame=0 spin='-=+='
	shift
	: >"$log"
	"$@" >"$log" 2>&1 </dev/null &
	step_pid=$!
	[ -t 1 ] || say "$text ..."
	while kill -0 "$step_pid" 2>/dev/null; do
		local took=$((SECONDS - start))
		if [ -t 1 ]; then
			frame=$(((frame + 1) % 4))
			printf '\r\033[K%s %s %s' "${spin:frame:1}" "$text" "$(step_count "$log" "$took")"
		elif [ $((took - said)) -ge 5 ]; then
			said=$took
			say "  $(step_count "$log" "$took")"
		fi
		sleep 0.1
	done
	wait "$step_pid" || status=$?
	step_pid=
	if [ "$status" -ne 0 ]; then
		[ ! -t 1 ] || printf '\r\033[K'
		printf '%s: failed (exit code %s). The end of its output:\n\n' "$text" "$status" >&2
		tail -n 40 "$log" | sed 's/^/    /' >&2
		printf '\n' >&2
	elif [ -t 1 ]; then
		printf '\r\033[K+ %s (%s s)\n' "$text" "$((SECONDS - start))"
	else
		say "  done ($((SECONDS - start)) s)"
	fi
	return "$status"
}

# How far is it? ninja's own count, or the packages that apt has set up.
step_count() {
	local log=$1 took=$2 count
	count=$(tail -c 4000 "$log" | tr '\r' '\n' | grep -aoE '^\[[0-9]+/[0-9]+\]' | tail -n 1) || count=
	if [ -z "$count" ] && grep -aqE '^(Get:|Unpacking )' "$log"; then
		count="$(grep -acE '^Get:' "$log" || true) fetched, $(grep -acE '^Unpacking ' "$log" || true) unpacked, $(grep -acE '^Setting up ' "$log" || true) set up,"
	fi
	printf '%s %s s' "$count" "$took"
}

# --- packages ---

policy_file=/usr/sbin/policy-rc.d
policy_mark='# put here by Paku OTA while packages are installed'

# The command that makes us root, nothing when we are. Ends with a sentence when there is none.
need_root() {
	as_root=()
	[ "$(id -u)" -ne 0 ] || return 0
	command -v sudo >/dev/null ||
		die "$1 needs root, and there is no sudo here: run it as root (su -c '$0${script_args[*]:+ ${script_args[*]}}')"
	if ! sudo -n true 2>/dev/null; then
		[ -t 0 ] || die "$1 needs root: run it with sudo"
		say "$1 needs root; sudo asks for your password."
		sudo -v || die "$1 needs root, and sudo said no"
	fi
	as_root=(sudo)
}

# Installed packages must not start their services; one that exists already stays as it is, unless an earlier
# run that was killed left it.
policy_put() {
	if [ -e "$policy_file" ]; then
		! grep -qF "$policy_mark" "$policy_file" 2>/dev/null || policy_made=1
		return 0
	fi
	policy_made=1
	printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" |
		"${as_root[@]}" tee "$policy_file" >/dev/null
	"${as_root[@]}" chmod 755 "$policy_file"
}
policy_restore() {
	[ -n "$policy_made" ] || return 0
	"${as_root[@]}" rm -f "$policy_file"
	policy_made=
}

# Those of the packages named that are not installed, one a line. NAME:ARCHITECTURE is one of another architecture.
packages_missing() {
	local have p native
	native=$(dpkg --print-architecture 2>/dev/null) || true
	have=$(dpkg-query -W -f '${Package}:${Architecture} ${db:Status-Status}\n' "$@" 2>/dev/null) || true
	for p in "$@"; do
		case $p in
		*:*) grep -qx "$p installed" <<<"$have" ;;
		*) grep -qx -e "$p:$native installed" -e "$p:all installed" <<<"$have" ;;
		esac || printf '%s\n' "$p"
	done
}

apt_do() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
		apt-get -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@"
}
apt_repair() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive dpkg --configure -a; }
apt_refresh() { apt_do -o APT::Update::Error-Mode=any update; }

# packages_install PACKAGE...: install what is missing, without recommendations, without starting anything, and without
# removing what is there.
packages_install() {
	local missing count log=$work_dir/step.log
	mapfile -t missing < <(packages_missing "$@")
	count=${#missing[@]}
	[ "$count" -gt 0 ] || return 0
	command -v apt-get >/dev/null ||
		die "these packages are missing, and there is no apt-get to install them: ${missing[*]}"
	need_root "Installing $count package$([ "$count" -eq 1 ] || echo s)"
	policy_put
	if [ -n "$(dpkg --audit 2>/dev/null)" ]; then
		step "Finishing an installation that was interrupted" apt_repair ||
			die "dpkg --configure -a fails: repair the package system first"
	fi
	if ! step "Reading Debian's package lists" apt_refresh; then
		packages_install_failed "$log" "the package lists cannot be read"
	fi
	if ! step "Installing $count package$([ "$count" -eq 1 ] || echo s)" \
		apt_do install -y --no-install-recommends --no-remove "${missing[@]}"; then
		packages_install_failed "$log" "apt-get cannot install: ${missing[*]}"
	fi
	policy_restore
	# Ours to start, with a configuration of ours: Debian's own would take the port at the next start of the machine.
	[[ " ${missing[*]} " != *' mosquitto '* ]] ||
		"${as_root[@]}" deb-systemd-helper disable mosquitto.service >/dev/null 2>&1 || true
	mapfile -t missing < <(packages_missing "${missing[@]}")
	[ ${#missing[@]} -eq 0 ] || die "apt-get said yes, but these are not installed: ${missing[*]}"
}
packages_install_failed() {
	if grep -qE 'Could not resolve|Temporary failure resolving|Could not connect|Network is unreachable|Unable to connect' "$1"; then
		die "$2: the package servers cannot be reached; is there a network?"
	elif grep -qE 'Could not get lock|is held by process' "$1"; then
		die "$2: another program is installing packages; wait for it to end, then run this again"
	elif grep -qE 'Unable to locate package|has no installation candidate' "$1"; then
		die "$2: this system does not have them; Paku OTA is made for Debian 12"
	elif grep -q 'remove is disabled' "$1"; then
		die "$2: others, which are installed, would have to go (see above)"
	elif grep -qE 'No space left|enough free space' "$1"; then
		die "$2: the disk is full"
	fi
	die "$2 (see above)"
}
