#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pod whose interface is shaped stays shaped within 10 %, whoever sends: another node, the same node, the pod itself; shaped
# before twilld came or later; and the shaping may go again.
. "$(dirname "$0")/lib.sh"
need tc bpftool

MBIT=20
SECONDS_MEASURED=$(size 2 5)

# rate "NODE POD" "NODE POD" 4|6: Mbit/s on the receiver's interface while the other sends by TCP. Frames count with their
# Ethernet header, as tbf counts them.
rate() {
	local to before after start end
	read -ra to <<<"$2"
	lab_spawn "${1/ /-}" "$TRAFFIC" tcp-client "$(pod_ip "${to[@]}" "$3")" 5001 --until-signal >/dev/null
	sleep 1 # the burst, and TCP's start
	start=${EPOCHREALTIME/./} before=$(received "${to[@]}")
	sleep "$SECONDS_MEASURED"
	after=$(received "${to[@]}") end=${EPOCHREALTIME/./}
	kill -KILL "$LAB_PID"
	wait "$LAB_PID" 2>/dev/null || :
	echo "$((after - before)) $((end - start))" | awk '{ printf "%.2f\n", $1 * 8 / $2 }'
}
received() { pod_exec "$1" "$2" awk '$1 == "eth0:" { print $2 }' /proc/net/dev; }

is_shaped() { # FROM TO FAMILY
	local mbit
	mbit=$(rate "$@")
	echo "$1 -> $2 IPv$3: $mbit Mbit/s" >>"$LAB_DIR/.lab/rates"
	awk -v got="$mbit" -v want=$MBIT 'BEGIN { exit !(got >= want * 0.9 && got <= want * 1.1) }' ||
		{ echo "$mbit Mbit/s, shaped to $MBIT"; return 1; }
}
# For the reader only: how fast is fast depends on the machine.
note_free() { echo "$1 -> $2 IPv$3: $(rate "$@") Mbit/s, not shaped" >>"$LAB_DIR/.lab/rates"; }

# As the CNI plugin bandwidth does it: tbf for what goes to the pod, an ifb with tbf for what comes from it.
shape_to() { node_exec node-a tc qdisc add dev "$(pod_host_if node-a "$1")" root tbf rate ${MBIT}mbit burst 16kb latency 50ms; }
shape_from() {
	local dev
	dev=$(pod_host_if node-a "$1")
	ip -n "$(node_ns node-a)" link set dev ifb0 up
	node_exec node-a tc qdisc add dev ifb0 root tbf rate ${MBIT}mbit burst 16kb latency 50ms
	node_exec node-a tc qdisc add dev "$dev" ingress
	node_exec node-a tc filter add dev "$dev" parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev ifb0
}
flagged() { # POD true|false: the map says whether it is shaped
	same "$2" "$(node_ctl node-a -o json endpoints | jq --arg dev "$(pod_host_if node-a "$1")" \
		'[.items[] | select(.interface == $dev) | .shaped] | unique | .[]')"
}

test_lab
lab_three_nodes
for pod in "node-a pod-a1" "node-a pod-a2" "node-c pod-c1"; do
	read -ra words <<<"$pod"
	pod_serve "${words[@]}"
	[[ $pod == "node-a pod-a1" ]] || reachable "node-a pod-a1" "$pod"
done

# --- later than twilld
check "not shaped: it is known" wait_until "$SOON" flagged pod-a1 false
note_free "node-c pod-c1" "node-a pod-a1" 4
shape_to pod-a1
check "shaped later: it is known" wait_until "$SOON" flagged pod-a1 true
check "shaped later: from the other node" is_shaped "node-c pod-c1" "node-a pod-a1" 4
check "shaped later: from the same node, IPv6" is_shaped "node-a pod-a2" "node-a pod-a1" 6
agent_kill node-a
check "without an agent it stays so" is_shaped "node-c pod-c1" "node-a pod-a1" 6
agent_start node-a
wait_ready node-a

# --- earlier than twilld: what it is while the agent starts, without anything that an earlier one left
node_ctl node-a detach --yes >/dev/null
agent_stop node-a
node_exec node-a tc qdisc del dev "$(pod_host_if node-a pod-a1)" root
shape_to pod-a2
agent_start node-a
wait_ready node-a
reachable "node-c pod-c1" "node-a pod-a2"
check "shaped earlier: it is known" wait_until "$SOON" flagged pod-a2 true
check "shaped earlier: from the other node" is_shaped "node-c pod-c1" "node-a pod-a2" 4
check "shaped earlier: from the same node" is_shaped "node-a pod-a1" "node-a pod-a2" 4
reachable "node-c pod-c1" "node-a pod-a1"
check "no longer shaped: it is known" wait_until "$SOON" flagged pod-a1 false
note_free "node-c pod-c1" "node-a pod-a1" 4

# --- what the pod sends
sending_side() {
	shape_from pod-a1
	check "shaped at its sending side: it is known" wait_until "$SOON" flagged pod-a1 true
	check "shaped at its sending side: to the other node" is_shaped "node-a pod-a1" "node-c pod-c1" 4
	check "shaped at its sending side: the pod is reached" reachable "node-c pod-c1" "node-a pod-a1"
}
if ip -n "$(node_ns node-a)" link add ifb0 type ifb 2>/dev/null; then
	sending_side
else
	echo "not run: what a pod sends is shaped with an ifb device, which this kernel has not"
fi
cat "$LAB_DIR/.lab/rates"
finish
