#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: build.sh [PEER...]
# Builds what is missing of the peers that tests talk to: a folder here with a go.mod is one. The binaries go to
# ${XDG_CACHE_HOME:-$HOME/.cache}/twill/peers, named by version, Go version and what they were built from. Exit status 77: no Go.
#
# Each is a module of its own: flanneld and kube-apiserver want different versions of the same libraries. Versions stand in the
# go.mod files: change one there, then `go get -tool MODULE@VERSION`. The `replace` lines of kube-apiserver and kube-proxy are those
# of Kubernetes' own go.mod with the version instead of the folder.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/paths.sh"

build() { # PEER
	local peer=$1 start=$SECONDS target flags
	target=$(peer_path "$peer")
	if [[ -x $target ]]; then
		printf '%-15s %-9s %s\n' "$peer" "$(peer_version "$peer")" "$target"
		return
	fi
	echo "$peer $(peer_version "$peer"): building with $(peer_go_version), several minutes"
	flags="-s -w $(peer_ldflags "$peer")"
	mkdir -p "$PEERS_CACHE"
	# Beside its place and then renamed: a build that was stopped half way leaves nothing that looks like a peer.
	(cd "$HERE/$peer" && "$PEERS_GO" build -trimpath -buildvcs=false -mod=readonly -ldflags "$flags" -o "$target.$$" "$(peer_package "$peer")")
	mv "$target.$$" "$target"
	printf '%-15s %-9s %s, %d MB in %d s\n' "$peer" "$(peer_version "$peer")" "$target" $(($(stat -c %s "$target") >> 20)) $((SECONDS - start))
}

if [[ -z $PEERS_GO ]]; then
	echo "missing: go, which builds flanneld, kube-apiserver and kube-proxy"
	exit 77
fi
[[ $# -gt 0 ]] || set -- "${PEERS[@]}"
for peer; do
	[[ -e $HERE/$peer/go.mod && " ${PEERS[*]} " == *" $peer "* ]] || {
		echo "$peer: no such peer; there are: ${PEERS[*]}" >&2
		exit 2
	}
done
for peer; do build "$peer"; done
