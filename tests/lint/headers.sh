#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: headers.sh [TREE [BUILD_DIR]]
# Every .hpp compiles alone: what it uses it includes. A header with a .cpp of its name is the first include there, so the
# build proves it; the others are compiled here. BUILD_DIR has the BPF skeleton, for the headers that name it.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

build=${2:-$tree/build/dev}
read -ra flags < <(pkg-config --cflags libnl-3.0 libnl-route-3.0 libbpf libuv libmicrohttpd 2>/dev/null)
if [[ ! -e $build/bpf/include/twill_dp.skel.h ]]; then build=; fi

check() {
	local file=$1 output first
	if [[ -e $tree/${file%.hpp}.cpp ]]; then
		first=$(grep -m 1 -E '^#include' "$tree/${file%.hpp}.cpp")
		[[ $first == "#include \"${file#include/}\"" || $first == "#include \"${file##*/}\"" ]] ||
			echo "${file%.hpp}.cpp: does not include its own header first"
		return
	fi
	if [[ -z $build ]] && grep -q '_\(dp\|plain\)\.skel\.h' "$tree/$file"; then return; fi
	output=$(g++ -std=c++20 -fsyntax-only -Wall -Wextra -Werror -I"$tree" -I"$tree/include" ${build:+-isystem "$build/bpf/include"} \
		"${flags[@]}" -include "$tree/$file" -x c++ /dev/null 2>&1) || echo "$file: $(grep -m 1 error <<<"$output")"
}

violations_from < <(
	for file in $(files "" hpp); do
		check "$file" &
		while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
	done
	wait
)
finish
