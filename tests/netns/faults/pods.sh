#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pods and their bridge are replaced behind the agent's back: the bridge is made anew, a pod comes back as another one with
# the same address, while the agent runs or not. Nobody becomes unreachable, and no entry of the old ones stays.
. "$(dirname "$0")/lib.sh"
need bpftool tc

# endpoint_is NODE POD: the map has the pod's interface, its MAC and the gateway's, in both families; nothing else of it.
endpoint_is() {
	local family mac gateway index want
	index=$(ifindex "$1" "$(pod_host_if "$1" "$2")")
	mac=$(pod_mac "$1" "$2")
	gateway=$(ip -n "$(node_ns "$1")" -j link show dev "$(pod_gateway "$1" "$2")" | jq -r '.[0].address')
	for family in 4 6; do
		want="$index $mac $gateway"
		same "$want" "$(node_ctl "$1" -o json endpoints | jq -r --arg ip "$(pod_ip "$1" "$2" $family)" \
			'.items[] | select(.ip == $ip) | "\(.ifindex) \(.mac) \(.host_mac)"')" || return 1
	done
}
# Whose MAC the pod sees: the bridge's for a port.
pod_gateway() {
	local master
	master=$(ip -n "$(node_ns "$1")" -j link show dev "$(pod_host_if "$1" "$2")" | jq -r '.[0].master // empty')
	echo "${master:-$(pod_host_if "$1" "$2")}"
}

# No endpoint is on an interface that is no pod's. (A pod that is silent since may be none yet.)
only_pods() { # NODE
	local pods
	pods=$(for dir in "$LAB_DIR/$1"/pods/*/; do
		echo "$(<"$dir/ip4") $(<"$dir/host_if") $(<"$dir/mac")"
		echo "$(<"$dir/ip6") $(<"$dir/host_if") $(<"$dir/mac")"
	done)
	same "" "$(node_ctl "$1" -o json endpoints | jq -r '.items[] | "\(.ip) \(.interface) \(.mac)"' | grep -vxF "$pods")"
}

# pod_is NODE POD: it is reached from both sides, then it is an endpoint, and the fast path carries to it.
pod_is() {
	check "$3: reached from the other node" reachable "node-c pod-c1" "$1 $2"
	check "$3: reaches the other node" reachable "$1 $2" "node-c pod-c1"
	[[ $1 != node-a || $2 == pod-a1 ]] || check "$3: reached from the same node" reachable "node-a pod-a1" "$1 $2"
	check "$3: it is the endpoint now" wait_until "$SOON" endpoint_is "$1" "$2"
	check "$3: no other endpoint is left" wait_until "$SOON" only_pods "$1"
	check "$3: packets to it do not take the stack" takes_no_stack "$1" "$2"
}
# to_pod counts what the stack hands to pods.
takes_no_stack() {
	local before
	before=$(stack_to_pods "$1")
	ping_pod "node-c pod-c1" "$(pod_ip "$1" "$2" 4)" && same "$before" "$(stack_to_pods "$1")"
}
stack_to_pods() { node_exec "$1" nft -j list counter netdev spy pings | jq '.nftables[] | .counter? // empty | .packets'; }
# Echo requests to a pod that come by its interface's egress: redirected packets do not.
spy() { # NODE POD
	node_exec "$1" nft delete table netdev spy 2>/dev/null || :
	node_exec "$1" nft -f - <<-END
		table netdev spy {
			counter pings { }
			chain out { type filter hook egress device "$(pod_host_if "$1" "$2")" priority 0; icmp type echo-request counter name pings; }
		}
	END
}

new_bridge() { # NODE MAC POD...: the same address, ports as before
	# shellcheck disable=SC2034 # of subnet.env, for _node_cni0
	local FLANNEL_SUBNET='' FLANNEL_IPV6_SUBNET='' FLANNEL_MTU='' node=$1 mac=$2 pod
	. "$(node_dir "$node")/subnet.env"
	ip -n "$(node_ns "$node")" link del cni0
	_node_cni0 "$node"
	[[ -z $mac ]] || ip -n "$(node_ns "$node")" link set dev cni0 address "$mac"
	for pod in "${@:3}"; do
		ip -n "$(node_ns "$node")" link set dev "$(pod_host_if "$node" "$pod")" master cni0
		ip -n "$(node_ns "$node")" link set dev "$(pod_host_if "$node" "$pod")" type bridge_slave hairpin on
	done
}

# Another pod with the same address; how it is made is what pod_add takes.
replace_pod() { # NODE POD ...
	local ip4
	ip4=$(pod_ip "$1" "$2" 4)
	pod_del "$1" "$2"
	pod_add "$@"
	same "$ip4" "$(pod_ip "$1" "$2" 4)"
}

test_lab
lab_three_nodes
for pod in "node-a pod-a2" "node-b pod-b1" "node-c pod-c1"; do reachable "node-a pod-a1" "$pod"; done

# --- the bridge
spy node-a pod-a1
pod_serve node-c pod-c1
flood_start bystander "node-b pod-b1" "$(pod_ip node-c pod-c1 4)" 500
new_bridge node-a '' pod-a1 pod-a2
pod_is node-a pod-a1 "bridge made anew"
new_bridge node-a 02:00:5e:00:53:c0 pod-a1 pod-a2
pod_is node-a pod-a1 "bridge made anew with another MAC"
ip -n "$(node_ns node-a)" link set dev cni0 address 02:00:5e:00:53:c1
pod_is node-a pod-a1 "bridge with a new MAC"

# --- a pod, under the agent's eyes and without
spy node-a pod-a2
check "the new pod has the old one's address" replace_pod node-a pod-a2 --style bridge
spy node-a pod-a2
pod_is node-a pod-a2 "replaced"
agent_kill node-a
replace_pod node-a pod-a2 --style bridge
check "replaced without an agent: reached from the other node" reachable "node-c pod-c1" "node-a pod-a2"
check "replaced without an agent: reached from the same node" reachable "node-a pod-a1" "node-a pod-a2"
agent_start node-a
wait_ready node-a
spy node-a pod-a2
pod_is node-a pod-a2 "replaced without an agent, then with one"

flood_end
check "between pods that stayed nothing was lost" same 0 "$LOST"

# A routed one; then one of which no IPAM that we know tells: packets and the kernel's tables have to.
for what in "routed" "routed, unknown IPAM" "bridged, unknown IPAM"; do
	[[ $what != *IPAM ]] || export LAB_NO_CNI_STATE=1
	agent_kill node-b
	replace_pod node-b pod-b1 --style "$([[ $what == bridged* ]] && echo bridge || echo veth)"
	check "replaced, $what, without an agent: reached from the other node" reachable "node-c pod-c1" "node-b pod-b1"
	agent_start node-b
	wait_ready node-b
	spy node-b pod-b1
	pod_is node-b pod-b1 "replaced, $what, then with an agent"
done

# Gone while nobody looked: nothing of it stays.
agent_kill node-a
pod_del node-a pod-a2
agent_start node-a
wait_ready node-a
check "gone without an agent: no endpoint is left" wait_until "$SOON" only_pods node-a
finish
