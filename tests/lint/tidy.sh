#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: tidy.sh [TREE [BUILD_DIR [--full | FILE...]]]
# clang-tidy on the given files of the tree, or on all of agent/, maps/ and include/ with --full or TWILL_FULL=1: that takes
# many minutes. Otherwise only that .clang-tidy is valid and names checks that exist. Exit 77: BUILD_DIR has no compile
# database.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

build=${2:-$tree/build/dev}
tidy=$(type -P clang-tidy-14 clang-tidy | head -n 1)
if [[ -z $tidy || -z $(type -P jq) || ! -e $build/compile_commands.json ]]; then
	echo "tidy: missing: clang-tidy, jq or $build/compile_commands.json"
	exit 77
fi
# Each file once: the tests compile some again, with other headers.
database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
jq 'unique_by(.file)' "$build/compile_commands.json" >"$database/compile_commands.json" || exit 1
cd "$tree" || exit 1
sources=("${@:3}")
if [[ ${#sources[@]} -eq 0 && ${TWILL_FULL:-0} == 1 ]]; then sources=(--full); fi
if [[ ${#sources[@]} -eq 0 ]]; then
	checks=$("$tidy" --list-checks 2>&1) || violation ".clang-tidy: $checks"
	if ! grep -q bugprone- <<<"$checks"; then violation ".clang-tidy switches no check of bugprone on"; fi
	echo "tidy: configuration only; the code is checked with --full"
	finish
fi
if [[ ${sources[0]} == --full ]]; then
	mapfile -t sources < <(files "agent maps include" cpp | while read -r file; do
		if grep -qF "\"$tree/$file\"" "$database/compile_commands.json"; then echo "$file"; fi
	done)
fi

check() {
	local output code findings
	output=$("$tidy" --quiet -p "$database" "$1" 2>&1)
	code=$?
	findings=$(grep -E '(error|warning):' <<<"$output")
	if [[ -n $findings ]]; then
		echo "$findings"
	elif [[ $code != 0 ]]; then
		echo "$1: clang-tidy ends $code"
	fi
}

echo "tidy: ${#sources[@]} file(s)"
violations_from < <({
	for file in "${sources[@]}"; do
		check "$file" &
		while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
	done
	wait
} | sort -u)
finish
