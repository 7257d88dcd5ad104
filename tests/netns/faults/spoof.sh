#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Forged VXLAN of every kind, sent on the wire and from a pod: none reaches a pod, each is counted under its reason, and
# honest packets in the same shape arrive.
. "$(dirname "$0")/lib.sh"
need nft

COUNT=20 # of each kind
SWITCH=''

# mac_of NODE INTERFACE
mac_of() { ip -n "$(node_ns "$1")" -j link show dev "$2" | jq -r '.[0].address'; }

# Packets of tw-fault that came to a pod. In the pod, because a rule on the node would switch the fast path off.
spy() { # NODE POD
	pod_exec "$1" "$2" nft -f - <<-END
		table inet spy {
			counter came { }
			chain in { type filter hook prerouting priority -300; udp dport 7777 counter name came; }
		}
	END
}
came() { pod_exec "$1" "$2" nft -j list counters | jq '[.nftables[].counter.packets // empty] | add'; }

# sent_from WHERE: runs tw-fault vxlan there with the arguments of an honest frame of node-c to pod-a1, but for the rest.
# A later argument replaces an earlier one.
sent_from() {
	local where=$1 arg
	shift
	declare -A args=()
	for arg in "${HONEST[@]}" "$@"; do args[${arg%%=*}]=${arg#*=}; done
	local words=()
	for arg in "${!args[@]}"; do words+=("$arg=${args[$arg]}"); done
	case $where in
	wire) nsenter --net="/run/netns/$SWITCH" "$FAULT" vxlan node-a "${words[@]}" count=$COUNT ;;
	pod) pod_exec node-a pod-a1 "$FAULT" vxlan eth0 "${words[@]}" count=$COUNT ;;
	esac
}

# dropped WHERE REASON NODE "NODE POD" ARGUMENTS...: all are dropped on NODE for that reason, none comes to the pod.
dropped() {
	local where=$1 reason=$2 node=$3 pod before came_before
	read -ra pod <<<"$4"
	shift 4
	before=$(drop_count "$node" "$reason") came_before=$(came "${pod[@]}")
	sent_from "$where" "$@" || return 1
	count_is() { same $((before + COUNT)) "$(drop_count "$node" "$reason")"; }
	wait_until "$(scaled 2)" count_is || { count_is; drops "$node"; return 1; }
	same "$came_before" "$(came "${pod[@]}")"
}

# No such frame comes to the pod; who refuses it is the kernel's matter.
refused() { # ARGUMENTS...
	local before
	before=$(came node-a pod-a1)
	sent_from wire "$@" && sleep 0.2 && same "$before" "$(came node-a pod-a1)"
}

arrives() { # ARGUMENTS...
	local before
	before=$(came node-a pod-a1)
	sent_from wire "$@" || return 1
	all_came() { same $((before + COUNT)) "$(came node-a pod-a1)"; }
	wait_until "$(scaled 2)" all_came || { all_came; drops node-a; return 1; }
}

# What no one may do, on the wire; also in two outer fragments, and behind what makes the programs leave it to the kernel.
on_the_wire() { # FAMILY
	local family=$1 way more reserved
	local b c unused
	b=$(pod_ip node-b pod-b1 "$family") c=$(pod_ip node-c pod-c1 "$family")
	unused=10.42.255.9
	[[ $family == 4 ]] || unused=fd00:42:0:ffff::9
	for way in plain fragments priority-tag broadcast extension; do
		more=()
		# The layer below is one for both families.
		[[ $family == 4 || ${TWILL_FULL:-} == 1 || $way != @(priority-tag|broadcast) ]] || continue
		case $way in
		fragments) more=(fragments=1 size=600) ;;
		priority-tag) more=(tag=0) ;;
		broadcast) more=(eth_dst=ff:ff:ff:ff:ff:ff) ;;
		extension) if [[ $family == 6 ]]; then more=(ext=60); else continue; fi ;;
		esac
		try() { check "IPv$family, $way: $1" dropped wire "$2" node-a "node-a pod-a1" "${more[@]}" "${@:3}"; }
		check "IPv$family, $way: an honest frame arrives" arrives "${more[@]}"
		try "an outer source that is no node" spoof_node "outer_src=${STRANGER[$family]}" inner_eth_src=02:00:5e:00:53:01
		try "an outer source that is no node, and an inner one of a known node" spoof_node "outer_src=${STRANGER[$family]}" \
			inner_eth_src=02:00:5e:00:53:01 "inner_src=$b"
		try "a node that speaks for another node's pod" spoof_pod "inner_src=$b"
		try "a node that speaks for a pod of the receiver" spoof_pod "inner_src=$(pod_ip node-a pod-a2 "$family")"
		try "a node that speaks for an address that nobody has" spoof_pod "inner_src=$unused"
		try "a node that speaks as another node" spoof_pod "outer_src=$(node_ip node-b "$family")"
		try "another VNI" bad_vni vni=2
		try "an inner destination MAC that is not the node's" bad_mac inner_eth_dst=02:00:5e:00:53:02
		try "a broadcast inner destination MAC" bad_mac inner_eth_dst=ff:ff:ff:ff:ff:ff
		for reserved in flags=0 flags=0x88 reserved=0x010000; do
			if [[ $way == plain ]]; then
				try "VXLAN header with $reserved" bad_vxlan "$reserved"
			else
				check "IPv$family, $way: VXLAN header with $reserved is refused" refused "${more[@]}" "$reserved"
			fi
		done
		check "IPv$family, $way: an honest frame of a pod arrives still" arrives "inner_src=$c" "${more[@]}"
	done
}

# A pod makes VXLAN for a node: for another one, for its own.
from_a_pod() { # FAMILY
	local family=$1 own c
	own=$(node_ip node-a "$family") c=$(node_ip node-c "$family")
	local pod=("eth_dst=$GATEWAY" "eth_src=$(pod_mac node-a pod-a1)" "outer_src=$(pod_ip node-a pod-a1 "$family")")
	local to_c=("outer_dst=$c" "inner_eth_dst=$VTEP_C" "inner_dst=$(pod_ip node-c pod-c1 "$family")"
		"inner_src=$(pod_ip node-b pod-b1 "$family")")
	local to_own=("inner_dst=$(pod_ip node-a pod-a2 "$family")")
	try() { check "IPv$family, from a pod: $1" dropped pod forged node-a "$2" "${pod[@]}" "${@:3}"; }
	try "for another node" "node-c pod-c1" "${to_c[@]}"
	try "for another node, with a node's address" "node-c pod-c1" "${to_c[@]}" "outer_src=$(node_ip node-b "$family")"
	try "for the own node" "node-a pod-a2" "${to_own[@]}" "outer_dst=$own"
	try "for the own node, with a node's address" "node-a pod-a2" "${to_own[@]}" "outer_dst=$own" "outer_src=$c"
	try "for the gateway's address" "node-a pod-a2" "${to_own[@]}" "outer_dst=$(gateway_ip "$family")"
	try "behind a priority tag" "node-c pod-c1" "${to_c[@]}" tag=0
	[[ $family == 4 ]] || try "behind an extension header" "node-c pod-c1" "${to_c[@]}" ext=60
	# The first fragment is dropped; the second has no use without it.
	try "in fragments" "node-c pod-c1" "${to_c[@]}" fragments=1 size=600
}

gateway_ip() {
	if [[ $1 == 4 ]]; then sed -n 's/^FLANNEL_SUBNET=\(.*\)\/.*/\1/p' "$(node_dir node-a)/subnet.env"; else
		sed -n 's/^FLANNEL_IPV6_SUBNET=\(.*\)\/.*/\1/p' "$(node_dir node-a)/subnet.env"; fi
}

test_lab
SWITCH=twl-$LAB_NAME-switch
lab_three_nodes
for pod in "node-a pod-a2" "node-b pod-b1" "node-c pod-c1"; do reachable "node-a pod-a1" "$pod"; done
for pod in "node-a pod-a1" "node-a pod-a2" "node-c pod-c1"; do
	read -ra words <<<"$pod"
	spy "${words[@]}"
done
declare -A STRANGER=([4]=198.51.100.99 [6]=2001:db8:2::99)
VTEP_A=$(status node-a .overlay.mac) VTEP_C=$(status node-c .overlay.mac)
GATEWAY=$(mac_of node-a cni0)

honest() { # FAMILY
	HONEST=("eth_dst=$(mac_of node-a eth0)" "eth_src=02:00:5e:00:53:fe"
		"outer_src=$(node_ip node-c "$1")" "outer_dst=$(node_ip node-a "$1")"
		"inner_eth_dst=$VTEP_A" "inner_eth_src=$VTEP_C"
		"inner_src=$(pod_ip node-c pod-c1 "$1")" "inner_dst=$(pod_ip node-a pod-a1 "$1")")
}
for family in 4 6; do
	honest $family
	on_the_wire $family
	from_a_pod $family
done

# strict: an unknown outer source is refused also with the right inner MAC. loose, as until here, takes it: flannel nodes
# behind a NAT have no other proof.
agent_stop node-a
agent_start node-a -anti-spoof=strict
wait_ready node-a
for family in 4 6; do
	honest $family
	check "strict, IPv$family: an honest frame arrives" wait_until "$SOON" arrives
	check "strict, IPv$family: an unknown outer source with the right inner MAC" dropped wire spoof_node node-a "node-a pod-a1" \
		"outer_src=${STRANGER[$family]}"
done
echo "$CHECKS kinds, $COUNT frames each"
finish
