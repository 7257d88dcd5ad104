#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ./dev bench runs over every path, says what it measured in the form that others read, and leaves nothing behind. How fast
# anything was is of no interest here.
. "$(dirname "$0")/lib.sh"
for tool in iptables iptables-restore bridge bpftool "$TWILL_BIN/tw-bench-load"; do
	PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || skip "missing: $tool"
done
BENCH=$(cd "$(dirname "$0")/../bench" && pwd)
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT

# run ARGS...: in the background, so that its lab's name is known: bench-PID.
run() {
	"$BENCH/paths" "$@" >"$OUT/table" 2>"$OUT/log" &
	BENCH_PID=$! LAB_DIR=$LAB_ROOT/bench-$! CODE=0
}
ended_with() { same "$1" "$CODE" || { cat "$OUT/log"; return 1; }; }
holds() { [[ $(jq "$2" "$1") == true ]] || { jq -c "${3:-.}" "$1"; return 1; }; }
refused() { # TEXT ARGS...
	local code=0
	"$BENCH/paths" "${@:2}" >"$OUT/refused" 2>&1 || code=$?
	same 2 "$code"
	grep -F -- "$1" "$OUT/refused" >/dev/null || { cat "$OUT/refused"; return 1; }
}
namespaces() { ip netns list | grep -c "^twl-bench-$BENCH_PID-" || :; }
is_up() { [[ $(namespaces) -ge $1 ]]; }
nothing_left() {
	same 0 "$(namespaces)"
	same "" "$(ls -d "$LAB_DIR" "$LAB_BPFFS/twill-lab/bench-$BENCH_PID" 2>/dev/null)"
}

run --rounds 1 --seconds 0.1 --json "$OUT/results.json" tcp_rr_p50 udp64
wait "$BENCH_PID" || CODE=$?
check "a round over all paths" ended_with 0
check "leaves nothing behind" nothing_left
check "the kernel carried none of twill's packets" not grep warning "$OUT/log"
check "every path in each scenario, in order" same \
	"raw host-gw kernel-vxlan twill-vxlan twill-direct local-bridge twill-local" \
	"$(jq -r '[.rows[] | select(.scenario == "udp64") | .path] | join(" ")' "$OUT/results.json")"
check "two scenarios" holds "$OUT/results.json" '[.rows[].scenario] | length == 14 and unique == ["tcp_rr_p50", "udp64"]'
check "each row has what was measured" holds "$OUT/results.json" \
	'all(.rows[]; .median > 0 and .min <= .median and .median <= .max and .n == 1 and (.unit | length) > 0)'
check "ratios to the wire and to the kernel's vxlan" holds "$OUT/results.json" '[.rows[] | select(.path | test("local") | not)] |
	length == 10 and all(.vs_raw > 0 and .vs_kernel_vxlan > 0 and .vs_local_bridge == null) and
	all(.[] | select(.path == "raw"); .vs_raw == 1) and all(.[] | select(.path == "kernel-vxlan"); .vs_kernel_vxlan == 1)'
check "within a node to the bridge" holds "$OUT/results.json" '[.rows[] | select(.path | test("local"))] |
	length == 4 and all(.vs_raw == null and .vs_kernel_vxlan == null and .vs_local_bridge > 0)'
check "the machine is named" holds "$OUT/results.json" '.host | [.date, .kernel, .commit, .cpu] | all(length > 0)'

cp "$OUT/table" "$OUT/measured"
check "the same from the file, with a picture" "$BENCH/paths" --from "$OUT/results.json" --plot "$OUT/ratios.svg"
check "which is whole" same "</svg>" "$(tail -n 1 "$OUT/ratios.svg")"
check "the table names every path" same 2 "$(grep -c '^  twill-direct  *[0-9]' "$OUT/measured")"

run --paths twill-vxlan,raw --rounds 50 --seconds 1 tcp_crr
check "a benchmark is under way" wait_until "$(scaled 20)" is_up 7
kill -TERM "$BENCH_PID"
wait "$BENCH_PID" || CODE=$?
check "ends when it is told to" ended_with 143
check "and leaves nothing behind" nothing_left

check "an unknown scenario is named" refused "no such scenario: 'tcp_rr'" tcp_rr
check "so are those that there are" refused "tcp_rr_p50 tcp_rr_p99" tcp_rr
check "an unknown path is named" refused "no such path: 'wire'" --paths raw,wire
check "an unknown option is named" refused "no such option: '--fast'" --fast
check "no number of rounds" refused "--rounds 'x'" --rounds x
check "a value is missing" refused "--json needs a value" --json
finish
