# shellcheck shell=bash disable=SC2034 # what is set here is used by who sources it
# SPDX-License-Identifier: Apache-2.0
# What the scripts share that build in a Debian 12 root made by mmdebstrap; sourced with LABEL set to the script's name. Such a
# script calls itself again, in namespaces of its own: the second time as `SCRIPT --inside ROOT`.

source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/twill

missing() {
	echo "$LABEL: missing: $*"
	exit 77
}

say() {
	echo "$LABEL: $* (${SECONDS} s)"
}

# debian_root FILE SOURCES OPTIONS...: a tarball with Debian 12 from these apt sources; 77 when it cannot be had.
debian_root() {
	mmdebstrap --quiet --format=tar --mode=root --variant=minbase "${@:3}" bookworm "$1.new" - <<<"$2" ||
		missing "bookworm's packages from the mirror"
	mv "$1.new" "$1"
}

# The compiler's cache of the host, for root in ROOT.
mount_ccache() { # ROOT
	mkdir -p "${CCACHE_DIR:-$HOME/.cache/ccache}" "$1/root/.cache/ccache"
	mount --bind "${CCACHE_DIR:-$HOME/.cache/ccache}" "$1/root/.cache/ccache"
}

# run_inside BUILD_DIR NAMESPACE...: this script again, in private namespaces (options of unshare) and with an empty directory for
# a root, which goes with it. Ends as that ends.
run_inside() {
	local build=$1 root inside code=0
	[[ $(id -u) == 0 ]] || missing "root (namespaces, chroot)"
	type -P mmdebstrap >/dev/null || missing "mmdebstrap (./dev deps vm)"
	mkdir -p "$cache" "$build/vm"
	root=$(mktemp -d "$build/vm/$LABEL.XXXXXX")
	chmod 755 "$root"
	# unshare itself ignores SIGTERM; killed, it takes everything inside with it.
	unshare "${@:2}" --fork --kill-child bash "$0" --inside "$root" &
	inside=$!
	# shellcheck disable=SC2064 # as they are now
	trap "kill -9 $inside 2>/dev/null || true; wait; rm -rf --one-file-system '$root'" EXIT
	trap 'exit 143' TERM INT
	wait "$inside" || code=$?
	exit "$code"
}
