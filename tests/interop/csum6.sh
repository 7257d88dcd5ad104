#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# UDP checksums of VXLAN over IPv6, from a twill node s, as they are on the wire with its offloads off. To a flannel node (k, the
# kernel's vxlan as flannel makes it) every one is there and right, whatever is inside, and the programs write those that headers
# tell: TCP, UDP and ICMPv6 in packets of their own. To a twill node (t), which says in its marker
# that it takes zero, every one is zero, and the programs encapsulate everything: the overlay device sends nothing.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/flannel.sh"

WIRE=$TWILL_BIN/tw-interop-wire
for tool in bridge ethtool "$WIRE"; do command -v "$tool" >/dev/null || skip "missing: $tool"; done
! overlay_is veth || skip "-overlay=veth has no device that could make checksums"

KERNEL_MAC=0a:aa:00:00:02:00
export LAB_NET_CONF='{
  "Network": "10.42.0.0/16", "SubnetLen": 24, "SubnetMax": "10.42.199.0",
  "EnableIPv6": true, "IPv6Network": "fd00:42::/48", "IPv6SubnetLen": 64, "IPv6SubnetMax": "fd00:42:0:c0::",
  "Backend": { "Type": "vxlan" }
}'

lease_of() { jq -r "select(.Node == \"$1\") | .$2" "$LAB_DIR"/store/leases/*.json; } # NODE FIELD
flannel_side() { # k, and what it knows of the others
	local node
	flannel_node k 200 "$KERNEL_MAC" "$KERNEL_MAC"
	for node in s t; do
		flannel_peer k "$(lease_of "$node" Subnet)" "$(lease_of "$node" IPv6Subnet)" "$(node_ip "$node" 4)" "$(node_ip "$node" 6)" \
			"$(lease_of "$node" BackendData.VtepMAC)"
	done
}

counters() {
	node_ctl s -o json drops | jq -r '.items[] | .reason as $r | .hooks | to_entries[] | select(.value > 0) | "\(.key).\($r) \(.value)"'
	echo "device $(link_packets s twill0 | cut -d ' ' -f 2)"
}
added() { awk 'NR == FNR { before[$1] = $2; next } $2 > before[$1] { print $1, $2 - before[$1] }' "$1" "$2"; } # BEFORE AFTER
count_of() { awk -v name="$1" '$1 == name { n = $2 } END { print n + 0 }' "$LAB_DIR/.lab/way"; }
sums_of() { awk -v to="$(node_ip "$1" 6)" -v inside="$2" '$1 == to && $2 == inside { print $3, $4, $5 }' "$LAB_DIR/.lab/sums"; } # NODE INSIDE
only() { # zero|valid LINE: sums of that kind, and no other
	[[ $2 =~ ^zero=([0-9]+)\ valid=([0-9]+)\ wrong=0$ ]] || { echo "sums: ${2:-none}"; return 1; }
	if [[ $1 == zero ]]; then ((BASH_REMATCH[1] > 0 && BASH_REMATCH[2] == 0)); else ((BASH_REMATCH[2] > 0 && BASH_REMATCH[1] == 0)); fi ||
		{ echo "sums: $2"; return 1; }
}

talk() { # NODE [PLAIN]
	local to
	to=$(pod_ip "$1" pod 6)
	check "s to $1: TCP" pod_exec s pod "$TRAFFIC" tcp-client "$to" 5001 --bytes 2000000 --timeout "$(scaled 20)"
	[[ ${2:-} ]] || check "s to $1: UDP super-packets" \
		pod_exec s pod "$TRAFFIC" udp-gso "$to" 5001 --bytes 300000 --size 1200 --timeout "$(scaled 20)"
	check "s to $1: UDP" pod_exec s pod "$TRAFFIC" ping-storm "$to" 5001 --seconds 0.2 --size 333
	check "s to $1: ICMPv6" ping_pod "s pod" "$to"
	check "s to $1: odd lengths" ping_pod "s pod" "$to" -s 1001
	check "s to $1: fragments" ping_pod "s pod" "$to" -s 4001
	check "s to $1: another protocol and an option header" pod_exec s pod "$WIRE" --send "$to"
	check "the node s itself to $1" node_exec s ping -q -c 3 -i 0.01 -W 1 "$to"
	check "s to $1: TCP of the node itself" node_exec s "$TRAFFIC" tcp-client "$to" 5001 --bytes 1000000 --timeout "$(scaled 20)"
}
phase() { # NODE zero|valid [PLAIN]
	local kind wire
	lab_spawn s "$WIRE" eth0 >"$LAB_DIR/.lab/sums" 2>&1
	wire=$LAB_PID
	wait_until "$(scaled 10)" grep ready "$LAB_DIR/.lab/sums" || lab_die "$(<"$LAB_DIR/.lab/sums")"
	counters >"$LAB_DIR/.lab/before"
	talk "$1" "${3:-}"
	counters >"$LAB_DIR/.lab/after"
	kill -TERM "$wire"
	wait "$wire" || :
	added "$LAB_DIR/.lab/before" "$LAB_DIR/.lab/after" >"$LAB_DIR/.lab/way"
	for kind in tcp udp icmp6 fragment other options; do
		check "s to $1: sums of $kind are all $2" only "$2" "$(sums_of "$1" "$kind")"
		echo "interop.csum6: to $1, $kind: $(sums_of "$1" "$kind")"
	done
	echo "interop.csum6: to $1: $(sort "$LAB_DIR/.lab/way" | xargs)"
}

test_lab
for node in s t k; do node_add "$node" --segment 1; done
for node in s t; do agent_start "$node"; done
for node in s t; do wait_ready "$node"; done
flannel_side
for node in s t k; do
	pod_add "$node" pod --style bridge
	pod_serve "$node" pod
done
node_exec s ethtool -K eth0 tx off tso off gso off tx-udp-segmentation off tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off >/dev/null
for node in t k; do check "s reaches $node" wait_until "$(scaled 15)" ping_pod "s pod" "$(pod_ip "$node" pod 6)"; done
check "t is marked" items_are s peers "any(.[]; .node == \"$(node_ip t 6)\" and .zero_csum6)"
check "k is not" items_are s peers "any(.[]; .node == \"$(node_ip k 6)\" and (.zero_csum6 | not))"
by_programs() { # every packet that could, and that is most of what pod and node sent
	check "to k: the programs encapsulate what pods send in single packets" test "$(count_of from_pod.to_vxlan)" -gt "$1"
	check "to k: and what the stack sends" test "$(count_of from_host.to_vxlan)" -gt 0
}
phase k valid
by_programs 0
check "to k: super-packets went through the overlay device" test "$(count_of from_pod.kernel_encap)" -gt 0
# Segmented and summed up by the pod itself, 2 MB of TCP are more than a thousand packets.
pod_exec s pod ethtool -K eth0 tx off tso off gso off >/dev/null
phase k valid plain
by_programs 1000
check "to k: nothing that the pod summed up itself needed the overlay device" same 0 "$(count_of from_pod.kernel_encap)"
pod_exec s pod ethtool -K eth0 tx on tso on gso on >/dev/null
check "to k: the peer's counters tell of it" items_are s peers "any(.[]; .node == \"$(node_ip k 6)\" and .tx_packets > 0)"
phase t zero
check "to t: the programs encapsulate what pods send" test "$(count_of from_pod.to_vxlan)" -gt 0
check "to t: and what the stack sends" test "$(count_of from_host.to_vxlan)" -gt 0
for name in from_pod.kernel_encap from_host.kernel_encap from_pod.encapsulated from_host.encapsulated device; do
	check "to t: no $name" same 0 "$(count_of $name)"
done
check "to t: the peer's counters tell of it" items_are s peers "any(.[]; .node == \"$(node_ip t 6)\" and .tx_packets > 0)"
for node in s t; do check "$node: the programs dropped nothing" same "{}" "$(drops "$node")"; done
finish
