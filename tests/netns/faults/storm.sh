#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The agent is killed with -9 and started again, over and over, under 10,000 packets per second on every kind of path: no
# packet is lost. Every third time the next one is killed too, at some moment of its start.
. "$(dirname "$0")/lib.sh"

CYCLES=$(size 100 1000)
RATE=2500 # of each of four floods

test_lab
lab_three_nodes
for pod in "node-a pod-a1" "node-a pod-a2" "node-b pod-b1" "node-c pod-c1"; do
	read -ra words <<<"$pod"
	pod_serve "${words[@]}"
	[[ $pod == "node-a pod-a1" ]] || check "pod-a1 -> ${words[1]}: reachable" reachable "node-a pod-a1" "$pod"
done
lab_calm

endpoints() { node_ctl "$1" -o json endpoints | jq -c '[.items[].ip] | sort'; }
maps() { node_ctl node-a -o json maps | jq -c '[.items[].id]'; }
overlay() { ifindex node-a twill0; }
check "all pods of node-a are endpoints" wait_until "$SOON" items_are node-a endpoints 'length == 4'
before="$(maps) $(overlay) $(status node-a .lease.key) $(endpoints node-a)"

flood_start "VXLAN-IPv4" "node-a pod-a1" "$(pod_ip node-c pod-c1 4)" "$RATE"
flood_start "VXLAN-IPv6" "node-c pod-c1" "$(pod_ip node-a pod-a1 6)" "$RATE"
flood_start "direct-IPv4" "node-b pod-b1" "$(pod_ip node-a pod-a1 4)" "$RATE"
flood_start "local-IPv6" "node-a pod-a1" "$(pod_ip node-a pod-a2 6)" "$RATE"

# The seed is printed: a cycle that loses something can be run again.
RANDOM=${TWILL_SEED:=$$}
echo "seed $TWILL_SEED"
start=$EPOCHREALTIME
unready=0 early=0
for ((i = 1; i <= CYCLES; i++)); do
	agent_kill node-a
	agent_start node-a
	if ((i % 3 == 0)); then
		sleep "0.$(printf '%03d' $((RANDOM % 250)))"
		agent_kill node-a
		agent_start node-a
		early=$((early + 1))
	fi
	wait_ready node-a "$(scaled 15)" || unready=$((unready + 1))
done
end=$EPOCHREALTIME
echo "$((CYCLES + early)) kills in $(((${end/./} - ${start/./}) / 1000)) ms"
check "each agent became ready" same 0 "$unready"
flood_end
echo "cycles $CYCLES, killed while starting $early, sent $SENT, lost $LOST"
check "nothing was lost" same 0 "$LOST"
for name in VXLAN-IPv4 VXLAN-IPv6 direct-IPv4 local-IPv6; do
	check "$name: the flood ran" same true "$(flood "$name" ".sent > $((CYCLES * 10)) and .received > 0")"
done
check "maps, overlay device, lease and endpoints are those of before" same "$before" \
	"$(maps) $(overlay) $(status node-a .lease.key) $(endpoints node-a)"
check "no packet was dropped by the programs" same '{}' "$(drops node-a)"
finish
