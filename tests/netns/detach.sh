#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `twillctl detach` leaves the node as it was before twilld: links, routes, addresses, neighbours, qdiscs, filters, rules,
# sysctls and pins, as sets of full entries.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/snapshot.sh"

snapshot() { # NODE FILE
	node_entries "$1" '^net\.' | sort -u >"$LAB_DIR/.lab/$2"
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
