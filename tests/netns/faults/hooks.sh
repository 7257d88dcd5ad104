#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Programs of somebody else on our hooks: tc filters and TCX programs, there before twilld or put there later, ahead of ours
# or behind. Those ahead see every packet; those behind see what we leave to the stack. All of it stays so when the agent is
# restarted, and when it takes its own programs off.
. "$(dirname "$0")/lib.sh"
need bpftool tc

OBJECT=$TWILL_BIN/user_prog.bpf.o
[[ -e $OBJECT ]] || skip "missing: $OBJECT"
with_tcx() { [[ " ${TWILLD_FLAGS:-} " != *"tcx=off"* ]]; }

# user_load NAME: a counter of its own.
user_load() {
	mkdir -p "$LAB_PINS/user/$1"
	bpftool prog load "$OBJECT" "$LAB_PINS/user/$1/prog" type classifier pinmaps "$LAB_PINS/user/$1"
}
user_count() { bpftool -j map dump pinned "$LAB_PINS/user/$1/user_count" | jq '.[0] | (.formatted // .).value'; }

# user_filter NAME INTERFACE SIDE PREF / user_tcx NAME INTERFACE SIDE first|last
user_filter() {
	user_load "$1"
	node_exec node-a tc qdisc add dev "$2" clsact 2>/dev/null || :
	node_exec node-a tc filter add dev "$2" "$3" pref "$4" protocol all bpf da object-pinned "$LAB_PINS/user/$1/prog"
	NAMES+=("$1")
}
user_tcx() {
	user_load "$1"
	node_exec node-a "$FAULT" tcx-attach "$2" "$3" "$4" "$LAB_PINS/user/$1/prog" "$LAB_PINS/user/$1/link"
	NAMES+=("$1")
}

# counted WHAT COMMAND...: prints "NAME packets" for each user's program, of what the command sends.
counted() {
	local name
	declare -A before=()
	for name in "${NAMES[@]}"; do before[$name]=$(user_count "$name"); done
	"$@" >/dev/null || return 1
	for name in "${NAMES[@]}"; do echo "$name $(($(user_count "$name") - before[$name]))"; done
}
# sees NAME...: each of these, and of the users' programs only these, counts 20 pings; ARP and the like may add a few.
sees() { # COMMAND -- NAME...
	local command=() name packets result
	while [[ $1 != -- ]]; do
		command+=("$1")
		shift
	done
	shift
	result=$(counted "${command[@]}") || return 1
	while read -r name packets; do
		if [[ " $* " == *" $name "* ]]; then
			((packets >= 20)) || { echo "$name saw $packets of 20"; return 1; }
		else
			((packets < 20)) || { echo "$name saw $packets"; return 1; }
		fi
	done <<<"$result"
}

pings() { pod_exec node-a pod-a1 ping -q -c 20 -i 0.002 -W 1 "$1"; }
to_pod() { pings "$(pod_ip node-c pod-c1 4)"; }  # fast, out and in
to_node() { pings "$(node_ip node-b 4)"; }        # by the stack, out and in

NAMES=()
test_lab
lab_three_nodes
reachable "node-a pod-a1" "node-c pod-c1"
check "a pod reaches a node by the stack" wait_until "$SOON" to_node
POD_IF=$(pod_host_if node-a pod-a1)

# --- there before twilld
check "twilld is taken off the node" node_ctl node-a detach --yes
agent_stop node-a
user_filter early-in "$POD_IF" ingress 7
user_filter early-out "$POD_IF" egress 7
user_filter early-wire eth0 ingress 7
if with_tcx; then
	user_tcx early-tcx-in "$POD_IF" ingress last
	user_tcx early-tcx-wire eth0 ingress last
fi
agent_start node-a
wait_ready node-a
reachable "node-a pod-a1" "node-c pod-c1"
# --- put there later
user_filter late-in "$POD_IF" ingress 60000
user_filter late-wire eth0 ingress 60000
if with_tcx; then
	user_tcx late-tcx-in "$POD_IF" ingress last
	user_tcx first-tcx-in "$POD_IF" ingress first
	user_tcx late-tcx-out "$POD_IF" egress last
fi

# What a program ahead of ours sees of the fast path, and everybody of the stack's packets. With TCX every tc filter is
# behind us.
if with_tcx; then
	ahead=(early-tcx-in early-tcx-wire first-tcx-in)
else
	ahead=(early-in early-wire)
fi
judge() { # WHEN
	check "$1: who is ahead of ours sees fast packets too, nobody else does" sees to_pod -- "${ahead[@]}"
	check "$1: all see what the stack carries" sees to_node -- "${NAMES[@]}"
	check "$1: pods reach each other" reachable "node-a pod-a1" "node-c pod-c1"
}
judge "first"
agent_kill node-a
judge "without an agent"
agent_start node-a
wait_ready node-a
judge "restarted"
if with_tcx; then
	order() { node_exec node-a "$FAULT" tcx "$POD_IF" ingress | tr '\n' ' '; }
	check "the order is that of before" same "user_prog user_prog tw_from_pod user_prog " "$(order)"
fi

# Traffic control that says no is obeyed where it is ahead of ours.
if ! with_tcx; then
	node_exec node-a tc filter add dev "$POD_IF" ingress pref 5 protocol ip bpf da bytecode '1,6 0 0 2,' # TC_ACT_SHOT
	check "a user's filter ahead of ours drops" not to_pod
	node_exec node-a tc filter del dev "$POD_IF" ingress pref 5
	check "and no longer" wait_until "$SOON" to_pod
fi

check "twilld is taken off again" node_ctl node-a detach --yes
agent_stop node-a
check "the users' programs are there still and count" sees to_node -- "${NAMES[@]}"
finish
