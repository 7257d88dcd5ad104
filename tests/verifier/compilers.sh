#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The programs as other releases of clang make them: every one loads, within the same bound as those that are built in, and with
# TWILL_FULL=1 does the same to packets.
# usage: compilers.sh [--keep] [VERSION...]
# --keep leaves the objects in compilers/ beside the tests, whence guests get them: TWILL_VM_ONLY=compilers vagrant/run KERNEL
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
bin=${TWILL_BIN:-$source/build/dev/bin}
if [[ ${1:-} == --keep ]]; then
	shift
	objects=$bin/compilers
	rm -rf "$objects"
else
	objects=$(mktemp -d)
	trap 'rm -rf "$objects"' EXIT
fi
[[ $# -gt 0 ]] || set -- 16 19

[[ $EUID -eq 0 ]] || { echo "SKIP: needs root" && exit 77; }
mapfile -t flags <"$bin/../bpf/flags"

compile() { # VERSION DIR
	local unit
	mkdir -p "$2"
	for unit in twill twill_plain; do
		"$here/clang" "$1" "${flags[@]}" -c "$source/bpf/$unit.bpf.c" -o "$2/$unit.bpf.o" || return
	done
}

missing=
for version in "$@"; do
	out=$objects/clang-$version code=0
	compile "$version" "$out" || code=$?
	case $code in
	0) ;;
	77) rm -rf "$out" && missing+=" clang-$version" && continue ;;
	*) echo "clang-$version does not compile the programs" && exit 1 ;;
	esac
	echo "clang-$version:"
	TWILL_BPF_OBJECTS=$out "$bin/verifier_tests"
	if [[ ${TWILL_FULL:-} ]]; then TWILL_BPF_OBJECTS=$out "$bin/packet_tests"; fi
done
[[ ! $missing ]] || { echo "SKIP: missing:$missing" && exit 77; }
