#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A tag that is to be released names the version that the tree has, everywhere it stands. GITHUB_REF_NAME is the tag.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
	printf '::error::%s\n' "$1"
	exit 1
}
tag=$GITHUB_REF_NAME
[[ $tag =~ ^v[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "the tag is $tag; a release is called v1.2.3"
built=$(sed -n "s/^ *version: '\(.*\)',$/\1/p" meson.build)
[ "v$built" = "$tag" ] || fail "the tag is $tag, and meson.build has the version $built"
packaged=$(sed -n '1s/^paku-ota (\(.*\)) .*/\1/p' debian/changelog)
[ "v$packaged" = "$tag" ] || fail "the tag is $tag, and debian/changelog begins with $packaged"
printf 'Version %s.\n' "$built"
