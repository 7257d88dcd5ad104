#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pods are made by others: the agent finds them, by CNI's files, by the kernel's tables, by their first packet; and what
# CNI's files say outranks what a packet claims.
. "$(dirname "$0")/lib.sh"

test_lab
node_add node-a --segment 1
node_add node-b --segment 1
agent_start node-a
agent_start node-b
wait_ready node-a
wait_ready node-b
pod_add node-b pod-b1 --style bridge
pod_serve node-b pod-b1

is_endpoint() { # NODE POD
	local family
	for family in 4 6; do
		items_are "$1" endpoints "map(select(.ip == \"$(pod_ip "$1" "$2" "$family")\" and .interface == \"$(pod_host_if "$1" "$2")\"
			and .mac == \"$(pod_mac "$1" "$2")\")) | length == 1" || return 1
	done
}
no_endpoint() { items_are "$1" endpoints "map(.ip) | contains([\"$2\"]) | not"; }
attached_to() { status_is "$1" "[.attachments[] | select(.interface == \"$2\") | .program] | length == 2"; }

for style in bridge veth; do
	pod_add node-a "pod-$style" --style "$style"
	check "$style: the programs are attached to the pod's interface at once" \
		wait_until 1 attached_to node-a "$(pod_host_if node-a "pod-$style")"
	check "$style: the pod is reached from another node" reachable "node-b pod-b1" "node-a pod-$style"
	check "$style: it is an endpoint with its interface and MAC, in both families" wait_until 1 is_endpoint node-a "pod-$style"
done

# Without CNI's files, its own first packet makes it known.
LAB_NO_CNI_STATE=1 pod_add node-a pod-silent --style bridge
ip4=$(pod_ip node-a pod-silent 4)
check "a pod that nobody wrote down and that says nothing is no endpoint" no_endpoint node-a "$ip4"
check "it reaches another node" reachable "node-a pod-silent" "node-b pod-b1"
check "its first packet made it an endpoint" wait_until 1 is_endpoint node-a pod-silent

# The first packet itself got through: the stack carried it. Its ARP request may meet an interface that is not up yet, and is
# repeated a second later.
LAB_NO_CNI_STATE=1 pod_add node-a pod-first --style bridge
check "the first packet of an unknown pod is carried" pod_exec node-a pod-first ping -c 1 -W 3 "$(pod_ip node-b pod-b1 4)"

# pod-silent claims an address that CNI gave to pod-bridge.
victim=$(pod_ip node-a pod-bridge 4)
before=$(node_ctl node-a -o json endpoints | jq -c ".items[] | select(.ip == \"$victim\") | [.mac, .interface]")
conflicts=$(status node-a .addr_conflict)
pod_exec node-a pod-silent ip addr add "$victim/32" dev eth0
pod_exec node-a pod-silent ping -q -c 3 -i 0.05 -W 1 -I "$victim" "$(pod_ip node-b pod-b1 4)" >/dev/null || :
check "a claim to another pod's address is counted" wait_until 2 status_is node-a ".addr_conflict > $conflicts"
check "and shown with both interfaces" status_is node-a "[.conflicts[] | select(.ip == \"$victim\" and .owner_ifindex != .claimed_by_ifindex)] | length >= 1"
check "and changes nothing" same "$before" "$(node_ctl node-a -o json endpoints | jq -c ".items[] | select(.ip == \"$victim\") | [.mac, .interface]")"
pod_exec node-a pod-silent ip addr del "$victim/32" dev eth0
check "the owner is reached as before" reachable "node-b pod-b1" "node-a pod-bridge"

# A pod goes.
gone=$(pod_ip node-a pod-veth 4)
pod_del node-a pod-veth
check "a pod that is deleted is no endpoint" wait_until 2 no_endpoint node-a "$gone"
pod_add node-a pod-again --style bridge
check "its address, given to a new pod, is that pod's" same "$gone" "$(pod_ip node-a pod-again 4)"
check "and the new pod is reached" reachable "node-b pod-b1" "node-a pod-again"
check "by its own interface" wait_until 1 is_endpoint node-a pod-again

# A pod whose interface stays although it says nothing for long: ageing takes no endpoint away.
node_exec node-a ip neigh flush all nud all 2>/dev/null || :
sleep 0.3
check "flushed neighbours take no endpoint away" is_endpoint node-a pod-again
finish
