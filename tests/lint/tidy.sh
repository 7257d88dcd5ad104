#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: tidy.sh [TREE [BUILD_DIR [--full]]]
# clang-tidy on all of agent/, maps/ and include/ with --full or TWILL_FULL=1: that takes many minutes. Otherwise only that
# .clang-tidy is valid and names checks that exist. Exit 77: BUILD_DIR has no compile database.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

build=${2:-$tree/build/dev}
tidy=$(type -P clang-tidy-14 clang-tidy | head -n 1)
if [[ -z $tidy || ! -e $build/compile_commands.json ]]; then
	echo "tidy: missing: clang-tidy or $build/compile_commands.json"
	exit 77
fi
cd "$tree" || exit 1
if [[ ${3:-} != --full && ${TWILL_FULL:-0} != 1 ]]; then
	checks=$("$tidy" --list-checks 2>&1) || violation ".clang-tidy: $checks"
	if ! grep -q bugprone- <<<"$checks"; then violation ".clang-tidy switches no check of bugprone on"; fi
	echo "tidy: configuration only; the code is checked with --full"
	finish
fi
mapfile -t sources < <(files "agent maps include" cpp)
mapfile -t sources < <(for file in "${sources[@]}"; do
	if grep -qF "$tree/$file\"" "$build/compile_commands.json"; then echo "$file"; fi
done)
echo "tidy: ${#sources[@]} file(s)"
if [[ ${#sources[@]} -gt 0 ]]; then
	violations_from < <(printf '%s\n' "${sources[@]}" |
		xargs -P "$(nproc)" -n 1 "$tidy" --quiet -p "$build" 2>/dev/null | grep -E '(error|warning):' | sort -u)
fi
finish
