#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# maps/abi/*.h: each compiles alone as C11, as C++20 and for BPF, with no warning.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

clang=$(type -P clang-14 clang | head -n 1)
for file in $(files maps/abi h); do
	for how in "gcc -std=c11 -x c" "g++ -std=c++20 -x c++" "$clang --target=bpf -I/usr/include/$(gcc -print-multiarch) -x c"; do
		# shellcheck disable=SC2086 # a command line
		output=$($how -Wall -Wextra -Werror -Wno-pragma-once-outside-header -fsyntax-only -I"$tree" \
			-include "$tree/$file" /dev/null 2>&1) || violation "$file: $how: $(head -n 2 <<<"$output")"
	done
done
finish
