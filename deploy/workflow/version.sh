#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Names the version of the firmware in FIRMWARE_DIR, a git checkout: the semver tag on the commit (the highest, when there
# are several; a leading v is dropped), else {hash7}-{YYYYMMDD-HHMMSS}. The time is the commit's, in UTC: the same commit is
# the same version when the job runs again. VERSION, where it is given, wins.
# shellcheck source=deploy/workflow/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

semver='^v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$'
version=${VERSION:-}
if [ -z "$version" ]; then
	git -C "$FIRMWARE_DIR" rev-parse --verify --quiet HEAD >/dev/null ||
		fail "$FIRMWARE_DIR is no git checkout with a commit; check the firmware's repository out there, or name a version"
	# git's order of versions puts 1.0.0-rc1 before 1.0.0 when told that a dash begins such a suffix.
	version=$(git -C "$FIRMWARE_DIR" -c versionsort.suffix=- tag --points-at HEAD --sort=v:refname | grep -E "$semver" |
		tail -n 1) || true
fi
if [ -z "$version" ]; then
	version=$(TZ=UTC git -C "$FIRMWARE_DIR" log -1 --abbrev=7 --date=format-local:%Y%m%d-%H%M%S --format=%H-%cd)
	version=${version:0:7}-${version#*-}
elif [[ $version =~ ^v[0-9] ]]; then
	version=${version#v}
fi
[[ $version =~ ^[A-Za-z0-9._+-]{1,128}$ ]] || fail "the version has to be 1 to 128 letters, digits and . _ + -"
output version "$version"
printf 'Version %s.\n' "$version"
