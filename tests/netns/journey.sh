#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Three nodes, dual stack: everything that pods say to each other, to nodes and to services arrives, in one piece.
. "$(dirname "$0")/lib.sh"

PODS=("node-a pod-a1" "node-a pod-a2" "node-b pod-b1" "node-c pod-c1")

# Without a vxlan device nobody decapsulates UDP super-packets: they are lost on VXLAN paths, as docs/design/packet-path.md
# and status say.
super_packets() { # FROM-POD TO-POD: it is promised that they arrive
	! overlay_is veth || [[ ${1#* } != pod-c1 && ${2#* } != pod-c1 ]]
}

test_lab
node_add node-x --segment 1 # has no agent, and so no rule of one
lab_three_nodes
for pod in "${PODS[@]}"; do
	read -ra words <<<"$pod"
	pod_serve "${words[@]}"
done

pairs() {
	local from to family ip words
	for from in "${PODS[@]}"; do
		for to in "${PODS[@]}"; do
			[[ $from != "$to" ]] || continue
			check "${from#* } -> ${to#* }: reachable" reachable "$from" "$to"
			read -ra words <<<"$to"
			for family in 4 6; do
				ip=$(pod_ip "${words[@]}" "$family")
				check "${from#* } -> ${to#* } IPv$family: TCP arrives intact" traffic "$from" tcp-client "$ip" --bytes 3000000
				super_packets "$from" "$to" || continue
				check "${from#* } -> ${to#* } IPv$family: UDP super-packets arrive whole" traffic "$from" udp-gso "$ip" --bytes 300000 --size 1200
			done
		done
	done
}

# The first address of a node's pod CIDR is the node itself, as other nodes' pods see it.
overlay_address() { # NODE 4|6
	node_exec "$1" ip "-$2" -o addr show dev twill0 scope global | awk '{ sub(/\/.*/, "", $4); print $4; exit }' || :
}

nodes_and_pods() {
	local family to words ip
	for family in 4 6; do
		for to in "${PODS[@]}"; do
			read -ra words <<<"$to"
			check "node-a -> ${words[1]} IPv$family: TCP arrives intact" \
				node_exec node-a "$TRAFFIC" tcp-client "$(pod_ip "${words[@]}" "$family")" 5001 --bytes 2000000
		done
		for to in node-b node-c; do
			ip=$(overlay_address "$to" "$family")
			node_serve "$to" "$ip"
			check "pod-a1 -> overlay address of $to IPv$family: TCP arrives intact" traffic "node-a pod-a1" tcp-client "$ip" --bytes 2000000
			check "node-a -> overlay address of $to IPv$family: TCP arrives intact" \
				node_exec node-a "$TRAFFIC" tcp-client "$ip" 5001 --bytes 2000000
		done
		ip=$(node_ip node-a "$family")
		node_serve node-a "$ip"
		check "pod-a1 -> its own node IPv$family: TCP arrives intact" traffic "node-a pod-a1" tcp-client "$ip" --bytes 2000000
		# node-b's pods come without outer headers, and are not masqueraded: the way back is not the wire.
		check "pod-b1 -> node-a's public address IPv$family: TCP arrives intact" traffic "node-b pod-b1" tcp-client "$ip" --bytes 2000000
		check "pod-b1 -> node-a's public address IPv$family: fragments arrive" ping_pod "node-b pod-b1" "$ip" -s 6000
	done
}

service() { # NAME VIP4 VIP6 BACKEND-NODE BACKEND-POD
	local node from vip
	for node in node-a node-b node-c; do
		clusterip_add "$node" "$2" 80 "$(pod_ip "$4" "$5" 4)" 5001
		clusterip_add "$node" "$3" 80 "$(pod_ip "$4" "$5" 6)" 5001
	done
	for vip in "$2" "$3"; do
		for from in "${PODS[@]}"; do
			PORT=80 check "${from#* } -> service $1 ($vip): TCP arrives intact" traffic "$from" tcp-client "$vip" --bytes 2000000 --timeout 4
		done
		PORT=80 check "pod-a1 -> service $1 ($vip): UDP comes back" traffic "node-a pod-a1" udp-flood "$vip" --rate 500 --seconds 0.3
		check "node-a -> service $1 ($vip): TCP arrives intact" \
			node_exec node-a "$TRAFFIC" tcp-client "$vip" 80 --bytes 2000000 --timeout 4
	done
}

sizes() {
	local family ip
	for family in 4 6; do
		ip=$(pod_ip node-c pod-c1 "$family")
		check "IPv$family: fragments of a 6,000-byte ping arrive over VXLAN" ping_pod "node-a pod-a1" "$ip" -s 6000
		check "IPv$family: fragments of a 6,000-byte ping arrive directly" ping_pod "node-a pod-a1" "$(pod_ip node-b pod-b1 "$family")" -s 6000
		check "IPv$family: fragmented UDP arrives over VXLAN" traffic "node-a pod-a1" udp-flood "$ip" --rate 200 --seconds 0.3 --size 5000
	done
	check "IPv4: a packet of the pods' MTU fits into VXLAN" ping_pod "node-a pod-a1" "$(pod_ip node-c pod-c1 4)" -s 1422 -M "do"
	# 70 bytes of overhead on IPv6: the pod's 1,450 are 20 too many; the node tells it.
	check "IPv6: a full-size packet is answered with packet too big" not ping_pod "node-a pod-a2" "$(pod_ip node-c pod-c1 6)" -s 1402 -M "do"
	check "IPv6: the pod then knows the path MTU" same "mtu 1430" \
		"$(pod_exec node-a pod-a2 ip -6 route get "$(pod_ip node-c pod-c1 6)" | grep -o 'mtu [0-9]*')"
	check "IPv6: what fits the path arrives" ping_pod "node-a pod-a2" "$(pod_ip node-c pod-c1 6)" -s 1382 -M "do"
}

# A narrow path between the nodes cuts the outer packets apart: the overlay device puts them together again.
outer_fragments() {
	ip -n "twl-$LAB_NAME-router" route change 198.51.100.0/24 dev seg2 src 198.51.100.1 mtu 1400
	ip -n "twl-$LAB_NAME-router" route change 192.0.2.0/24 dev seg1 src 192.0.2.1 mtu 1400
	check "IPv4: outer fragments are put together and decapsulated" ping_pod "node-a pod-a1" "$(pod_ip node-c pod-c1 4)" -s 1400
	check "IPv4: TCP through a path that fragments arrives intact" traffic "node-a pod-a1" tcp-client "$(pod_ip node-c pod-c1 4)" --bytes 500000
}

# The wire shows VXLAN as everybody decodes it.
capture() {
	local file=$LAB_DIR/.lab/wire.pcap pid family text
	lab_spawn router tcpdump -Z root -U --immediate-mode -i seg2 -w "$file" udp port 8472 2>"$LAB_DIR/.lab/tcpdump"
	pid=$LAB_PID
	wait_until 5 grep -q listening "$LAB_DIR/.lab/tcpdump"
	for family in 4 6; do ping_pod "node-a pod-a1" "$(pod_ip node-c pod-c1 "$family")" >/dev/null; done
	wait_until 5 captured "$file"
	kill -TERM "$pid"
	wait "$pid" || :
	text=$(tcpdump -nn -v -T vxlan -r "$file" 2>/dev/null)
	for family in 4 6; do
		check "IPv$family: tcpdump decodes the request on the wire" \
			grep -qE "$(pod_ip node-a pod-a1 "$family") > $(pod_ip node-c pod-c1 "$family"): .*echo request" <<<"$text"
	done
	check "the header is plain VXLAN with the VNI" same 12 "$(grep -cF 'VXLAN, flags [I] (0x08), vni 1' <<<"$text")"
	check "no outer checksum is wrong" not grep -qE 'bad (udp )?cksum|bad cksum' <<<"$text"
}
captured() { [[ $(tcpdump -nn -r "$1" 2>/dev/null | wc -l) -ge 12 ]]; }

rules() { # NODE
	local tool
	for tool in iptables ip6tables; do
		if command -v "$tool-save" >/dev/null; then node_exec "$1" "$tool-save"; fi
	done
	node_exec "$1" nft list ruleset
}
rules_of() { rules "$1" | sed -E 's/^#.*//; s/\[[0-9]+:[0-9]+\]//; s/packets [0-9]+ bytes [0-9]+//'; }

# Killed, it leaves the programs at work: the stack forwards nothing.
without_agent() {
	local family to before
	agent_kill node-a
	before="$(node_forwarded node-a 4) $(node_forwarded node-a 6)"
	for to in "node-a pod-a2" "node-b pod-b1" "node-c pod-c1"; do
		for family in 4 6; do
			# shellcheck disable=SC2086 # node and pod
			check "without an agent, pod-a1 -> ${to#* } IPv$family: TCP arrives intact" \
				traffic "node-a pod-a1" tcp-client "$(pod_ip $to "$family")" --bytes 2000000
		done
	done
	check "none of it went through node-a's stack" same "$before" "$(node_forwarded node-a 4) $(node_forwarded node-a 6)"
	agent_start node-a
	check "the next agent is ready" wait_ready node-a
}

lost_without_device() {
	check "UDP super-packets on a VXLAN path are lost without a vxlan device" \
		not traffic "node-a pod-a1" udp-gso "$(pod_ip node-c pod-c1 4)" --bytes 100000 --size 1200 --timeout 1
	check "and counted" same no_device "$(drops node-c | jq -r 'keys | join(" ")')"
	check "status names what is lost" status_is node-c '[.warnings[], .features[].effect] | any(test("vxlan"))'
}

check "node-a has no netfilter rule more than a node without twill" same "$(rules_of node-x)" "$(rules_of node-a)"
pairs
nodes_and_pods
service remote 10.96.0.10 fd00:96::10 node-c pod-c1
service local 10.96.0.11 fd00:96::11 node-a pod-a2
sizes
capture
without_agent
if main_variant; then
	check "the maps are as docs/maps.md has them, after traffic" "$LAB_SUPPORT/check_maps_doc.sh" "$LAB_PINS/node-a"
fi
for node in node-a node-b node-c; do check "$node: the programs dropped nothing" same "{}" "$(drops "$node")"; done
if overlay_is veth; then lost_without_device; else outer_fragments; fi
finish
