#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Numbers of one node with a real etcd: from a lease in etcd to its peer in the map, from the start to ready, memory, and what
# other nodes' renewals cost. Only that it works is asserted; docs/measurements.md has what was measured.
. "$(dirname "$0")/../netns/faults/lib.sh"
. "$(dirname "$0")/peers/lib.sh"

BENCH=$TWILL_BIN/bench_etcd
[[ -x $BENCH ]] || skip "missing: $BENCH"
peers_need etcd
EVENTS=200 RENEWALS=$(size 833 5000) SECONDS_OF_RENEWALS=$(size 10 60)
CONFIG='{"Network":"10.0.0.0/8","SubnetLen":24,"SubnetMin":"10.255.0.0","Backend":{"Type":"vxlan","VNI":1}}'

bench() { node_exec router "$BENCH" "$(etcd_url)" "$@"; }
agent_pid() { cut -d' ' -f1 "$(node_dir "$1")/agent.pid"; }
peers_are() { status_is "$1" ".peers.programmed == $2 and .peers.pending == 0"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
ready() { [[ $(node_exec "$1" curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8081/readyz) == 200 ]]; }
rss_kb() { awk '/^VmRSS:/ { print $2 }' "/proc/$(agent_pid "$1")/status"; }
cpu_ns() { cut -d' ' -f1 "/proc/$(agent_pid "$1")/schedstat"; }
# percentile COLUMN PERCENT <LINES
percentile() { cut -d' ' -f"$1" | sort -n | awk -v p="$2" '{ v[NR] = $1 } END { print v[int((NR - 1) * p / 100 + 0.5) + 1] }'; }

# start_to_ready NODE LEASES: prints how long.
start_to_ready() {
	local start
	start=$(now_ms)
	etcd_agent "$1" -healthz-port=8081 -healthz-ip=127.0.0.1
	until ready "$1"; do
		[[ $(now_ms) -lt $((start + $(scaled 30000))) ]] || lab_die "$1 is not ready: $(tail -n 5 "$(node_dir "$1")/log")"
		sleep 0.01
	done
	echo "$2 leases in etcd, start to /readyz 200: $(($(now_ms) - start)) ms"
}

lab_up "etcd-speed-$$"
for node in n0 n1 n5; do node_add $node --segment 1; done
peers_at router 192.0.2.1
start_etcd
etcd_do put $ETCD_PREFIX/config "$CONFIG" >/dev/null
start_to_ready n0 0
agent_stop n0

bench fill 1 1000
start_to_ready n1 1000
check "1,000 peers are in the map" wait_until "$(scaled 10)" peers_are n1 1001
bench events 1001 $((1000 + EVENTS)) "$LAB_PINS/n1/v1/maps/tw_peers_v4" >"$LAB_DIR/events"
check "$EVENTS leases, one by one, are too" same "$EVENTS" "$(wc -l <"$LAB_DIR/events")"
for what in "1 etcd's answer" "2 sending it"; do
	echo "1,000 leases, a new one, from ${what#* } to its peer in the map: p50 $(percentile "${what%% *}" 50 <"$LAB_DIR/events") ms," \
		"p99 $(percentile "${what%% *}" 99 <"$LAB_DIR/events") ms, most $(percentile "${what%% *}" 100 <"$LAB_DIR/events") ms"
done
agent_stop n1

bench fill 1201 5000
start_to_ready n5 5000
check "5,000 peers are in the map" wait_until "$(scaled 10)" peers_are n5 5002
sleep 1.5 # what the start needed is given back
echo "5,000 leases, resident: $(rss_kb n5) kB"
before=$(cpu_ns n5)
bench renew 1 "$RENEWALS" "$SECONDS_OF_RENEWALS"
after=$(cpu_ns n5)
echo "$RENEWALS renewals of others in $SECONDS_OF_RENEWALS s: $(awk -v ns=$((after - before)) -v s="$SECONDS_OF_RENEWALS" \
	'BEGIN { printf "%.0f ms of CPU, %.2f %% of a core", ns / 1e6, ns / 1e7 / s }')"
check "5,000 peers are still in the map" peers_are n5 5002
finish
