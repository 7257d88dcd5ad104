#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The kernel loses netlink events of the agent (ENOBUFS): it is stopped, more events than its socket holds are made, and among
# them pods, bridge, wire and overlay device change. Continued, it reads everything again and is right.
. "$(dirname "$0")/lib.sh"
need bpftool tc

ROUNDS=$(size 3 30)
EVENTS=6000 # two addresses' coming and going; each event takes some 2 KB of a receive buffer of 2 MB

storm() { # NODE
	local i
	for ((i = 0; i < EVENTS / 4; i++)); do
		echo "addr add 203.0.113.$((i % 250 + 1))/32 dev lo"
		echo "addr del 203.0.113.$((i % 250 + 1))/32 dev lo"
	done | ip -n "$(node_ns "$1")" -batch -
}

agent_signal() { # NODE SIGNAL
	local pid start
	read -r pid start <"$(node_dir "$1")/agent.pid"
	_lab_alive "$pid" "$start" && kill "-$2" "$pid"
}

# As CNI's bridge plugin does it, or the kernel's neighbour entry would be the old pod's for half a minute.
announce() { # NODE POD
	pod_exec "$1" "$2" bash -c 'echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_notify; echo 1 >/proc/sys/net/ipv6/conf/eth0/ndisc_notify
		ip link set dev eth0 address "$1"' announce "$(pod_mac "$1" "$2")"
}

losses() { grep -c "netlink events were lost" "$(node_dir node-a)/log" || :; }
more_losses() { [[ $(losses) -gt $1 ]]; }

# Endpoints are on interfaces of pods that there are, with their MACs.
only_pods() {
	local pods
	pods=$(for dir in "$LAB_DIR"/node-a/pods/*/; do
		echo "$(<"$dir/ip4") $(<"$dir/host_if") $(<"$dir/mac")"
		echo "$(<"$dir/ip6") $(<"$dir/host_if") $(<"$dir/mac")"
	done | sort)
	same "$pods" "$(node_ctl node-a -o json endpoints | jq -r '.items[] | "\(.ip) \(.interface) \(.mac)"' | sort)"
}
attached_is_wanted() {
	local pod dev there told
	there=$(ip -n "$(node_ns node-a)" -j link show | jq -c 'map(.ifindex)')
	told=$(status node-a '[.attachments[].ifindex] | unique | tojson')
	same '[]' "$(jq -nc --argjson all "$told" --argjson there "$there" '$all - $there')" || return 1
	for pod in "$LAB_DIR"/node-a/pods/*/; do
		dev=$(<"$pod/host_if")
		if ! attached node-a tw_from_pod "$dev" || ! attached node-a tw_to_pod "$dev"; then
			echo "nothing on $dev"
			return 1
		fi
	done
	attached node-a tw_from_wire eth0 && attached node-a tw_from_host twill0 && attached node-a tw_from_overlay twill0
}

test_lab
lab_three_nodes
pod_serve node-a pod-a1
pod_serve node-c pod-c1
for pod in "node-a pod-a2" "node-b pod-b1" "node-c pod-c1"; do reachable "node-a pod-a1" "$pod"; done
flood_start vxlan "node-a pod-a1" "$(pod_ip node-c pod-c1 4)" 500
flood_start back "node-b pod-b1" "$(pod_ip node-a pod-a1 6)" 500

for ((round = 1; round <= ROUNDS; round++)); do
	before=$(losses)
	agent_signal node-a STOP
	storm node-a
	pod_del node-a pod-a2
	pod_add node-a pod-a2 --style bridge
	announce node-a pod-a2
	mtu=$((1400 + round % 50))
	ip -n "$(node_ns node-a)" link set dev eth0 mtu $mtu
	if ((round % 3 == 2)); then ip -n "$(node_ns node-a)" link del twill0; fi
	storm node-a
	agent_signal node-a CONT
	check "round $round: the loss is noticed" wait_until "$SOON" more_losses "$before"
	check "round $round: a pod that was replaced meanwhile is reached" reachable "node-c pod-c1" "node-a pod-a2"
	check "round $round: and reaches others" reachable "node-a pod-a2" "node-b pod-b1"
	check "round $round: endpoints are right" wait_until "$SOON" only_pods
	check "round $round: programs are where they should be" wait_until "$SOON" attached_is_wanted
	check "round $round: the wire's MTU is known" wait_until "$SOON" peer_field_is node-a "$(pods_of node-c)" mtu $((mtu - 50))
done

# Running, it keeps up with the same storm, and answers.
storm node-a
check "it answers after a storm" wait_until "$SOON" status_is node-a .ready
flood_end
echo "rounds $ROUNDS, events lost $(losses) times, sent $SENT, lost $LOST"
check "between pods that stayed nothing was lost" same 0 "$LOST"
check "the agent is content" wait_until "$SOON" status_is node-a '.warnings == [] and .pending == []'
finish
