#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: tests/vm/pair.sh BUILD_DIR
# Two guests with virtio-net NICs (vagrant/pair), of 6.12; with TWILL_FULL=1 of every kernel, one after the other.
set -euo pipefail

build=${1:?usage: tests/vm/pair.sh BUILD_DIR}
vagrant=$(cd "$(dirname "$0")/../../vagrant" && pwd)
kernels=(6.12)
[[ ! ${TWILL_FULL:-} ]] || mapfile -t kernels < <(awk '!/^(#|$)/ { print $1 }' "$vagrant/kernels.txt")
failed=0 skipped=0
for kernel in "${kernels[@]}"; do
	code=0
	"$vagrant/pair" "$kernel" "$build" || code=$?
	case $code in
	0) ;;
	77) skipped=1 ;;
	*) failed=1 ;;
	esac
done
((failed == 0)) || exit 1
((skipped == 0)) || exit 77
