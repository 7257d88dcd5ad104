#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One fuzzer for 5 seconds, with TWILL_FULL=1 for 10 minutes: run.sh PROGRAM. What it finds is left in the directory
# that it names.
set -euo pipefail
program=$1 seconds=5
if [[ ! -x $program ]]; then
	echo "skipped: no $(basename "$program"): clang++ or libFuzzer is missing (Debian: clang, libclang-rt-14-dev)"
	exit 77
fi
[[ ${TWILL_FULL:-0} != 1 ]] || seconds=600
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=$(basename "$program")
name=${name#fuzz-}
found=$(mktemp -d)
mkdir "$found/corpus"
inputs=("$found/corpus")
[[ ! -d $here/seeds/$name ]] || inputs+=("$here/seeds/$name")
dictionary=()
[[ ! -e $here/$name.dict ]] || dictionary=("-dict=$here/$name.dict")
"$program" -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=1024 -timeout=10 -artifact_prefix="$found/" \
	-print_final_stats=1 "${dictionary[@]}" "${inputs[@]}" >"$found/log" 2>&1 || {
	tail -n 40 "$found/log"
	echo "failed: the input is in $found"
	exit 1
}
grep -aE 'stat::number_of_executed_units|DONE' "$found/log"
rm -r "$found"
