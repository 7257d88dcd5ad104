#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One fuzzer for 5 seconds, with TWILL_FULL=1 for 10 minutes: run.sh PROGRAM. What it finds is left in the directory
# that it names.
set -euo pipefail
program=$1 seconds=5
[[ ${TWILL_FULL:-0} != 1 ]] || seconds=600
found=$(mktemp -d)
"$program" -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=1024 -timeout=10 -artifact_prefix="$found/" \
	-print_final_stats=1 2>"$found/log" || {
	tail -n 40 "$found/log"
	echo "failed: the input is in $found"
	exit 1
}
grep -E 'stat::number_of_executed_units|DONE' "$found/log"
rm -r "$found"
