#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Super-packets of every kind, to everything that may receive them on a twill node, from a twill node and from a node with
# the kernel's vxlan: the payload arrives intact, the kernel does not warn, and the counters tell which way it went.
#
#   tcp     a TCP stream, in super-packets over the wire
#   udp     UDP_SEGMENT super-packets over the wire
#   merged  a TCP stream that the sending wire cuts into segments and the receiving wire merges again (GRO)
#
# TWILL_FULL=1: more data in each cell. INTEROP_CELLS=REGEX: only the cells whose name ("tcp to vxlan from s IPv6") matches.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/flannel.sh"

TAP=$TWILL_BIN/tw-interop-tap
for tool in bridge ethtool dmesg "$TAP"; do
	command -v "$tool" >/dev/null || skip "missing: $tool"
done
[[ -c /dev/net/tun ]] || skip "missing: /dev/net/tun"
if [[ ! -w /dev/kmsg ]] || ! dmesg >/dev/null 2>&1; then skip "missing: the kernel's log"; fi

BYTES=$([[ ${TWILL_FULL:-} ]] && echo 30000000 || echo 2000000)
WARN_ONCE=/sys/kernel/debug/clear_warn_once
# Not lab.sh's fd00:42::/48: there the addresses of two pods and the length of some packet can sum up to zero, and the kernel
# (skb_postpull_rcsum() with a sum of 0) then calls a good checksum of the pod's own VXLAN a "hw csum failure".
KERNEL4=10.42.200.0/24 KERNEL6=fd00:1042:0:c8::/64 KERNEL_MAC=0a:aa:00:00:02:00
export LAB_NET_CONF='{
  "Network": "10.42.0.0/16", "SubnetLen": 24, "SubnetMax": "10.42.199.0",
  "EnableIPv6": true, "IPv6Network": "fd00:1042::/48", "IPv6SubnetLen": 64, "IPv6SubnetMax": "fd00:1042:0:c0::",
  "Backend": { "Type": "vxlan", "VNI": 1 }
}'

# --- the nodes: t receives, s sends with twill, k sends with the kernel's vxlan ----------------------------------------

lease_of() { # NODE FIELD
	jq -r "select(.Node == \"$1\") | .$2" "$LAB_DIR"/store/leases/*.json
}

kernel_node() {
	local node data="{\"VNI\":1,\"VtepMAC\":\"$KERNEL_MAC\"}"
	cat >"$LAB_DIR/store/leases/10.42.200.0-24&fd00:1042:0:c8::-64.json" <<-END
		{
			"PublicIP": "$(node_ip k 4)", "PublicIPv6": "$(node_ip k 6)", "BackendType": "vxlan",
			"BackendData": $data, "BackendV6Data": $data, "Subnet": "$KERNEL4", "IPv6Subnet": "$KERNEL6", "Node": "k"
		}
	END
	cat >"$LAB_DIR/k/subnet.env" <<-END
		FLANNEL_NETWORK=10.42.0.0/16
		FLANNEL_SUBNET=${KERNEL4%0/24}1/24
		FLANNEL_IPV6_NETWORK=fd00:1042::/48
		FLANNEL_IPV6_SUBNET=${KERNEL6%/64}1/64
		FLANNEL_MTU=1450
		FLANNEL_IPMASQ=false
	END
	flannel_device k "$KERNEL4" "$KERNEL6" "$KERNEL_MAC"
	for node in t s; do
		flannel_peer k "$(lease_of "$node" Subnet)" "$(lease_of "$node" IPv6Subnet)" "$(node_ip "$node" 4)" "$(node_ip "$node" 6)" \
			"$(lease_of "$node" BackendData.VtepMAC)"
	done
}

# Ports of the pod on t that forwards: 5101 to the pod on s, 5102 to the one on k, 5201 and 5202 to the virtual machines.
router_pod() {
	local family tool
	_lab_sysctl "$(pod_ns t pod)" ipv4/ip_forward=1 ipv6/conf/all/forwarding=1
	for family in 4 6; do
		tool=ip
		[[ $family == 4 ]] || tool=ip6
		pod_exec t pod nft -f - <<-END
			table $tool forward {
				chain prerouting {
					type nat hook prerouting priority dstnat;
					meta l4proto { tcp, udp } th dport 5101 dnat to $(target "$family" "$(pod_ip s pod "$family")")
					meta l4proto { tcp, udp } th dport 5102 dnat to $(target "$family" "$(pod_ip k pod "$family")")
					meta l4proto { tcp, udp } th dport 5201 dnat to $(target "$family" "$(machine_ip 1 "$family")")
					meta l4proto { tcp, udp } th dport 5202 dnat to $(target "$family" "$(machine_ip 2 "$family")")
				}
				chain postrouting {
					type nat hook postrouting priority srcnat;
					oifname eth0 ct status dnat masquerade
				}
			}
		END
	done
}
target() { [[ $1 == 4 ]] && echo "$2:5001" || echo "[$2]:5001"; }
machine_ip() { [[ $2 == 4 ]] && echo "10.99.$1.2" || echo "fd99:$1::2"; }

# machine NUMBER [--offload]: a virtual machine behind a tap of the pod on t.
machine() {
	local ns=twl-$LAB_NAME-machine$1 pod out=$LAB_DIR/.lab/tap$1
	pod=$(pod_ns t pod)
	_lab_netns "$ns"
	_lab_sysctl "$ns" ipv6/conf/all/accept_dad=0 ipv6/conf/default/accept_dad=0
	lab_spawn t-pod "$TAP" "/run/netns/$ns" "tap$1" "${@:2}" >"$out" 2>"$out.err"
	TAP_PIDS+=("$LAB_PID")
	wait_until "$(scaled 10)" grep ready "$out" || lab_die "tap $1: $(<"$out.err")"
	ip -n "$pod" -batch - <<-END
		link set dev tap$1 mtu 1450 up
		addr add 10.99.$1.1/24 dev tap$1
		addr add fd99:$1::1/64 dev tap$1 nodad
	END
	ip -n "$ns" -batch - <<-END
		link set dev lo up
		link set dev tap$1 mtu 1450 up
		addr add 10.99.$1.2/24 dev tap$1
		addr add fd99:$1::2/64 dev tap$1 nodad
		route add default via 10.99.$1.1
		route add default via fd99:$1::1
	END
	lab_record_pid "$(nsenter --net="/run/netns/$ns" "$TRAFFIC" server :: 5001 --background)"
}

# A vxlan of the pods' own, between the pod on t and those on s and k: one device for each pair and family.
nested() { # SENDER NUMBER
	local family id from to inner
	for family in 4 6; do
		id=$((family * 10 + $2))
		from=$(pod_ip "$1" pod "$family")
		to=$(pod_ip t pod "$family")
		inner="$(nested_ip "$2" "$family" x)"
		ip -n "$(pod_ns "$1" pod)" -batch - <<-END
			link add vx$id type vxlan id $id local $from remote $to dstport 4789 dev eth0
			link set dev vx$id mtu $((family == 4 ? 1400 : 1360)) up
			addr add ${inner/x/1} dev vx$id
		END
		ip -n "$(pod_ns t pod)" -batch - <<-END
			link add vx$id type vxlan id $id local $to remote $from dstport 4789 dev eth0
			link set dev vx$id mtu $((family == 4 ? 1400 : 1360)) up
			addr add ${inner/x/2} dev vx$id
		END
	done
}
nested_ip() { [[ $2 == 4 ]] && echo "10.98.$1.$3/24" || echo "fd98:$1::$3/64"; } # NUMBER FAMILY HOST

# --- one cell ----------------------------------------------------------------------------------------------------------

# offloads NODE on|off, merging NODE on|off
offloads() {
	node_exec "$1" ethtool -K eth0 tx "$2" tso "$2" gso "$2" tx-udp-segmentation "$2" tx-udp_tnl-segmentation "$2" \
		tx-udp_tnl-csum-segmentation "$2" >/dev/null
}
# A veth merges only what comes from a peer that cannot send super-packets.
merging() {
	node_exec "$1" ethtool -K eth0 gro "$2" >/dev/null
	nsenter --net="/run/netns/twl-$LAB_NAME-switch" ethtool -K "$1" tso "$([[ $2 == on ]] && echo off || echo on)" >/dev/null
}

# Packets of a node by hook and reason, "from_wire.to_local 12" a line; the wire's received frames as "wire 34".
counters() {
	node_ctl "$1" -o json drops | jq -r '.items[] | .reason as $r | .hooks | to_entries[] | select(.value > 0) | "\(.key).\($r) \(.value)"'
	node_exec "$1" awk '$1 == "eth0:" { print "wire", $3 }' /proc/net/dev
}
# What was added since, the most first.
added() { # BEFORE AFTER
	awk 'NR == FNR { before[$1] = $2; next } $2 > before[$1] { print $1, $2 - before[$1] }' "$1" "$2" | sort -k2,2nr
}
count_of() { awk -v name="$1" '$1 == name { n = $2 } END { print n + 0 }' "$2"; } # NAME FILE
way() { awk '$1 != "wire" && $1 !~ /^to_pod/ && n++ < 3 { printf "%s%s %d", sep, $1, $2; sep = ", " }' "$1"; }

warnings() { dmesg | awk -v mark="$1" 'index($0, mark) { seen = 1; next } seen' |
	grep -E 'WARNING:|BUG:|Oops|Call Trace|skb_warn_bad_offload|hw csum failure|bad gso|refused to change' || :; }

# cell KIND RECEIVER SENDER 4|6
CELLS=0
cell() {
	local kind=$1 receiver=$2 sender=$3 family=$4 name="$1 to $2 from $3 IPv$4" command=tcp-client size=() address port=5001
	local before=$LAB_DIR/.lab/before after=$LAB_DIR/.lab/after mark
	[[ $name =~ ${INTEROP_CELLS:-} ]] || return 0
	[[ $kind != udp ]] || command=udp-gso size=(--size 1200)
	case $receiver in
	pod | cut) address=$(pod_ip t pod "$family") ;;
	host) address=$(node_exec t ip "-$family" -o addr show dev twill0 scope global | awk '{ sub(/\/.*/, "", $4); print $4; exit }') ;;
	router) address=$(pod_ip t pod "$family") port=$([[ $sender == s ]] && echo 5102 || echo 5101) ;;
	tap) address=$(pod_ip t pod "$family") port=5201 ;;
	tap-offload) address=$(pod_ip t pod "$family") port=5202 ;;
	vxlan) address=$(nested_ip "$([[ $sender == s ]] && echo 1 || echo 2)" "$family" 2) address=${address%/*} ;;
	esac
	CELLS=$((CELLS + 1))
	mark="twill interop $LAB_NAME $CELLS"
	echo "$mark" >/dev/kmsg
	# Most warnings are given once in the life of a kernel, unless it can be told otherwise.
	{ echo 1 >"$WARN_ONCE"; } 2>/dev/null || :
	counters t >"$before"
	[[ $sender != s ]] || counters s >"$before.s"
	check "$name: intact" pod_exec "$sender" pod "$TRAFFIC" "$command" "$address" "$port" --bytes "$BYTES" "${size[@]}" --timeout "$(scaled 20)"
	counters t >"$after"
	added "$before" "$after" >"$after.t"
	: >"$after.s"
	if [[ $sender == s ]]; then
		counters s >"$after.n"
		added "$before.s" "$after.n" >"$after.s"
	fi
	check "$name: the kernel is content" same "" "$(warnings "$mark")"
	check "$name: the way" expected_way "$kind" "$receiver" "$sender" "$family" "$after.t" "$after.s"
	printf '  %-6s %-11s from %s IPv%s: %6d frames; t: %s%s\n' "$kind" "$receiver" "$sender" "$family" "$(count_of wire "$after.t")" \
		"$(way "$after.t")" "$([[ $sender != s ]] || echo "; s: $(way "$after.s")")"
}

# Which counters must tell of a cell.
expected_way() {
	local kind=$1 receiver=$2 sender=$3 on_t=$5 on_s=$6 wanted=() name frames taken
	frames=$(count_of wire "$on_t")
	case $kind.$receiver in
	udp.cut | *.vxlan) wanted=(from_wire.to_local) ;; # segments; nobody can carry a tunnel in a tunnel whole
	udp.host) wanted=(from_wire.kernel_decap from_overlay.to_stack) ;;
	udp.*) wanted=(from_wire.kernel_decap from_overlay.to_local) ;; # no helper takes the tunnel's GSO type off
	*.host) wanted=(from_wire.to_stack) ;;
	*) wanted=(from_wire.to_local) ;;
	esac
	for name in "${wanted[@]}"; do
		[[ $(count_of "$name" "$on_t") -gt 0 ]] || { echo "t counted no $name: $(way "$on_t")"; return 1; }
	done
	taken=$(($(count_of from_wire.to_local "$on_t") + $(count_of from_wire.to_stack "$on_t") + $(count_of from_wire.kernel_decap "$on_t")))
	if [[ $kind == merged && ! $receiver =~ ^(cut|vxlan)$ && $taken -ge $frames ]]; then
		echo "nothing was merged: $frames frames, $(way "$on_t")"
		return 1
	fi
	# Super-packets crossed the wire whole: no frame for each 1,400 bytes. What a router sends on comes back to its wire as answers.
	if [[ $kind != merged && ! $receiver =~ ^(cut|vxlan|router)$ && $frames -gt $((BYTES / 2100)) ]]; then
		echo "$frames frames on the wire for $BYTES bytes"
		return 1
	fi
	if [[ $sender == s ]]; then
		name=from_pod.to_vxlan
		[[ $receiver != vxlan ]] || name=from_pod.encapsulated
		[[ $(count_of "$name" "$on_s") -gt 0 ]] || { echo "s counted no $name: $(way "$on_s")"; return 1; }
	fi
}

# --- the matrix --------------------------------------------------------------------------------------------------------

test_lab
for node in t s k; do node_add "$node" --segment 1; done
for node in t s; do agent_start "$node"; done
for node in t s; do wait_ready "$node"; done
kernel_node
for node in t s k; do
	pod_add "$node" pod --style bridge
	pod_serve "$node" pod
done
TAP_PIDS=()
machine 1
machine 2 --offload
router_pod
nested s 1
nested k 2
node_serve t ::
for node in s k; do
	for family in 4 6; do
		check "the pod on $node reaches the one on t over IPv$family" wait_until "$(scaled 15)" \
			ping_pod "$node pod" "$(pod_ip t pod "$family")"
	done
done

for sender in s k; do
	for kind in tcp udp merged; do
		for receiver in pod host router tap tap-offload vxlan cut; do
			# merged: cut by the sender, merged by t. cut: nobody's wire cuts or merges.
			offloads "$sender" "$([[ $kind == merged || $receiver == cut ]] && echo off || echo on)"
			offloads t "$([[ $receiver == cut ]] && echo off || echo on)"
			merging t "$([[ $kind == merged ]] && echo on || echo off)"
			for family in 4 6; do cell "$kind" "$receiver" "$sender" "$family"; done
		done
	done
done
for number in 1 2; do
	kill -TERM "${TAP_PIDS[number - 1]}"
	ended=0
	wait "${TAP_PIDS[number - 1]}" || ended=$?
	check "every frame that machine $number got was whole" same 0 "$ended"
	echo "  machine $number: $(tail -n1 "$LAB_DIR/.lab/tap$number") $(head -c 2000 "$LAB_DIR/.lab/tap$number.err")"
done
[[ ${INTEROP_CELLS:-} ]] || check "super-packets reached the machine that takes them" grep -E "supers=[1-9]" "$LAB_DIR/.lab/tap2"
for node in t s; do check "$node: the programs dropped nothing" same "{}" "$(drops "$node")"; done
echo "interop.gso: $CELLS cells"
finish
