#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `twillctl detach` leaves the node as it was before twilld: links, routes, addresses, neighbours, qdiscs, filters, rules,
# sysctls and pins, as sets of full entries.
. "$(dirname "$0")/lib.sh"

# Everything that twilld could have touched, one entry a line. Counters, ages and what the kernel learns by itself
# (reachable neighbours, multicast routes of the kernel come and go with links) are taken out.
snapshot() { # NODE FILE
	entries "$1" | sort -u >"$LAB_DIR/.lab/$2"
}

entries() {
	local ns dev
	set +e # in a subshell; sysctl and tc find things that they cannot read
	ns=$(node_ns "$1")
	ip -n "$ns" -o -d link show | sed 's/[a-z_]*_timer *[0-9.]*//g; s/^/link /'
	ip -n "$ns" -o addr show | sed 's/^/addr /; s/valid_lft .*//'
	ip -n "$ns" -4 route show table all | sed 's/^/route4 /'
	ip -n "$ns" -6 route show table all | sed 's/^/route6 /; s/ expires [0-9]*sec//'
	ip -n "$ns" rule show | sed 's/^/rule4 /'
	ip -n "$ns" -6 rule show | sed 's/^/rule6 /'
	ip -n "$ns" neigh show nud permanent | sed 's/^/neigh /'
	ip -n "$ns" -6 neigh show nud permanent | sed 's/^/neigh6 /'
	node_exec "$1" bridge -o fdb show | grep permanent | sed 's/^/fdb /'
	node_exec "$1" tc qdisc show | sed 's/^/qdisc /'
	for dev in $(ip -n "$ns" -o link show | awk -F'[ :@]+' '{ print $2 }'); do
		node_exec "$1" tc filter show dev "$dev" ingress 2>/dev/null | sed "s/^/filter $dev ingress /"
		node_exec "$1" tc filter show dev "$dev" egress 2>/dev/null | sed "s/^/filter $dev egress /"
	done
	node_exec "$1" nft list ruleset 2>/dev/null | sed 's/packets [0-9]* bytes [0-9]*//; s/^/nft /'
	node_exec "$1" sysctl -a --pattern '^net\.' 2>/dev/null |
		grep -vE 'nf_conntrack_count|fib_sync_mem|\.(stable_secret|retrans_time|base_reachable_time) |route\.flush|inet_peer' | sed 's/^/sysctl /'
	find "$LAB_PINS/$1" -mindepth 1 2>/dev/null | sed 's/^/pin /'
	return 0
}

# The node is as the snapshot `clean` has it.
is_clean() {
	snapshot node-a now
	diff "$LAB_DIR/.lab/clean" "$LAB_DIR/.lab/now"
}

test_lab
node_add node-a --segment 1
node_add node-b --segment 1
agent_start node-b
wait_ready node-b
pod_add node-b pod-b1 --style bridge

# The first agent gives node-a its subnet, so that it can have pods; then it goes.
agent_start node-a
wait_ready node-a
before=$(node_ctl node-a -o json status | jq -r '.attachments | length')
check "the agent attaches programs" same true "$([[ $before -gt 0 ]] && echo true)"
check "without --yes and terminal, detach asks in vain: exit 2" same 2 "$(node_ctl node-a detach </dev/null >/dev/null 2>&1; echo $?)"
check "detach ends well" node_ctl node-a detach --yes
agent_stop node-a
pod_add node-a pod-a1 --style bridge
pod_add node-a pod-a2 --style veth
# Another user's objects on the same hooks must survive: a clsact qdisc with a filter (that matches nothing).
node_exec node-a tc qdisc add dev "$(pod_host_if node-a pod-a1)" clsact
node_exec node-a tc filter add dev "$(pod_host_if node-a pod-a1)" ingress pref 7 protocol all bpf bytecode '1,6 0 0 0,'
sleep 1.2 # multicast listeners and the bridge settle
snapshot node-a clean

agent_start node-a
wait_ready node-a
check "with twill, pods reach each other" reachable "node-a pod-a1" "node-b pod-b1"
check "there is something to take away" not is_clean
check "detach --dry-run changes nothing" node_ctl node-a detach --dry-run
check "and the agent is still ready" status_is node-a .ready
check "detach ends well, again" node_ctl node-a detach --yes
agent_stop node-a
check "detach leaves the node as it was" is_clean

# An agent that was killed: twillctl does it without one.
agent_start node-a
wait_ready node-a
agent_kill node-a
check "detach without an agent ends well" node_ctl node-a detach --yes
check "and leaves the node as it was" is_clean
finish
