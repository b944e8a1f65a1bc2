#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Makes the release of tag GITHUB_REF_NAME of the packages in dist/: all of them for both architectures, or none. It becomes
# visible when everything is there. Run again it begins anew where it broke off; what was released is never replaced.
# GitHub's gh finds GH_TOKEN and GH_REPO in the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
	printf '::error::%s\n' "$1"
	exit 1
}
deploy/release/version.sh
tag=$GITHUB_REF_NAME
version=${tag#v}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for arch in amd64 arm64; do
	for package in paku-ota paku-device libpaku-device-dev; do
		file=dist/${package}_${version}_$arch.deb
		[ -s "$file" ] || fail "$file is missing"
		# shellcheck disable=SC2016
		is=$(dpkg-deb --showformat='${Package} ${Version} ${Architecture}' --show "$file") || fail "$file is no package"
		[ "$is" = "$package $version $arch" ] || fail "$file holds $is"
	done
done
(cd dist && sha256sum -- *.deb) >"$work/SHA256SUMS"

if draft=$(gh release view "$tag" --json isDraft --jq .isDraft 2>/dev/null); then
	if [ "$draft" = false ]; then
		gh release download "$tag" --pattern SHA256SUMS --dir "$work/released"
		cmp -s "$work/SHA256SUMS" "$work/released/SHA256SUMS" ||
			fail "$tag is released, with other bytes than these; a change is a new version"
		printf '%s is released, with these very bytes.\n' "$tag"
		exit 0
	fi
	gh release delete "$tag" --yes
fi
{
	sed -n '2,/^ --/{/^ --/d;s/^  //;p}' debian/changelog
	printf 'Debian 12, amd64 and arm64 (Raspberry Pi):\n\n    sha256sum -c --ignore-missing SHA256SUMS\n    apt install ./paku-ota_%s_*.deb\n' "$version"
} >"$work/notes"
gh release create "$tag" --verify-tag --draft --title "Paku OTA $version" --notes-file "$work/notes" dist/*.deb "$work/SHA256SUMS"
gh release edit "$tag" --draft=false
printf 'Released %s: %s files.\n' "$tag" "$(wc -l <"$work/SHA256SUMS")"
