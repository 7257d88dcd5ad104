#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The agent may die, be killed, be stopped for long: no packet is lost, and the next one takes over what it finds.
. "$(dirname "$0")/lib.sh"

test_lab
lab_three_nodes
for pod in "node-a pod-a1" "node-a pod-a2" "node-b pod-b1" "node-c pod-c1"; do
	read -ra words <<<"$pod"
	pod_serve "${words[@]}"
	[[ $pod == "node-a pod-a1" ]] || check "pod-a1 -> ${words[1]}: reachable" reachable "node-a pod-a1" "$pod"
done

flow_start "VXLAN IPv4" node-a-pod-a1 udp-flood "$(pod_ip node-c pod-c1 4)" --rate 2000
flow_start "VXLAN IPv6" node-c-pod-c1 udp-flood "$(pod_ip node-a pod-a1 6)" --rate 500
flow_start "direct IPv4" node-b-pod-b1 udp-flood "$(pod_ip node-a pod-a1 4)" --rate 500
flow_start "local IPv6" node-a-pod-a1 udp-flood "$(pod_ip node-a pod-a2 6)" --rate 500
flow_start "TCP over VXLAN" node-c-pod-c1 tcp-rr "$(pod_ip node-a pod-a2 4)"

sleep 0.3
ids() { node_exec node-a ip -o link show dev twill0 | cut -d: -f1; node_ctl node-a -o json maps | jq -c '[.items[].id]'; }
before=$(ids)
lease=$(status node-a .lease.key)
agent_kill node-a
sleep 0.7
agent_start node-a
check "after kill -9 the next agent of node-a is ready" wait_ready node-a
check "it kept the maps and the overlay device" same "$before" "$(ids)"
check "it kept the lease" same "$lease" "$(status node-a .lease.key)"
agent_kill node-c
agent_start node-c
check "the same on node-c, at once" wait_ready node-c
agent_stop node-a
check "SIGTERM ends the agent" not agent_alive node-a
sleep 0.7
pod_add node-a pod-late --style bridge
check "without an agent a new pod has its network" reachable "node-a pod-late" "node-c pod-c1"
agent_start node-a
check "started again, ready" wait_ready node-a
check "the pod made meanwhile becomes an endpoint" wait_until 3 items_are node-a endpoints "map(.ip) | contains([\"$(pod_ip node-a pod-late 4)\"])"
sleep 0.3

flows_end 800
finish
