#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# twilld on a node that flannel ran: node a has what flanneld made, by hand (flannel.sh), and pods that talk all the time: with k,
# which stays like that, and with t, a twill node. twilld takes a's devices over, keeps what flannel wrote there right, and
# gives all of it back. The same with the real flanneld and kube-proxy is takeover.sh.
#
# ADOPT=vxlan, direct (DirectRouting: routes by the wire beside the devices) or host-gw (such routes, and no device).
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/flannel.sh"
for tool in bridge setpriv; do command -v "$tool" >/dev/null || skip "missing: $tool"; done
! overlay_is veth || skip "with -overlay=veth flannel's devices are not taken over"

export LAB_NET_CONF='{
  "Network": "10.42.0.0/16", "SubnetLen": 24, "SubnetMax": "10.42.199.0",
  "EnableIPv6": true, "IPv6Network": "fd00:42::/48", "IPv6SubnetLen": 64, "IPv6SubnetMax": "fd00:42:0:c0::",
  "Backend": BACKEND
}'
MODE=${ADOPT:-vxlan}
declare -A BACKENDS=([vxlan]='{ "Type": "vxlan" }' [direct]='{ "Type": "vxlan", "DirectRouting": true }' [host-gw]='{ "Type": "host-gw" }')
LAB_NET_CONF=${LAB_NET_CONF/BACKEND/${BACKENDS[$MODE]}}
has_device() { [[ $MODE != host-gw ]]; }
is_direct() { [[ $MODE != vxlan ]]; }
declare -A NUMBER=([a]=20 [k]=21) MAC4=([a]=0a:aa:00:00:02:00 [k]=0a:aa:00:00:02:01) MAC6=([a]=0a:aa:00:00:06:00 [k]=0a:aa:00:00:06:01)

lease_put() { flannel_lease "$@" "$(has_device && echo vxlan || echo host-gw)"; } # NUMBER NODE IPV4 IPV6 MAC4 MAC6
knows() { # NODE POD-CIDR4 POD-CIDR6 NODE-OF-THEM MAC4 MAC6
	if is_direct; then
		ip -n "$(node_ns "$1")" route replace "$2" via "$(node_ip "$4" 4)"
		ip -n "$(node_ns "$1")" route replace "$3" via "$(node_ip "$4" 6)"
	else
		flannel_peer "$1" "$2" "$3" "$(node_ip "$4" 4)" "$(node_ip "$4" 6)" "$5" "$6"
	fi
}

# What flannel has on a: devices, addresses, routes, neighbours, fdb. host-gw has no device, and twill0 of its own there.
entries() { all_entries | grep -v -e twill0 -e 'proto 116'; }
all_entries() {
	local ns
	ns=$(node_ns a)
	ip -n "$ns" -o -d link show type vxlan | sed 's/ qlen [0-9]*//; s/[a-z_]*_timer *[0-9.]*//g'
	ip -n "$ns" -o addr show | sed 's/ valid_lft.*//' | grep flannel || :
	ip -n "$ns" route show table all
	ip -n "$ns" -6 route show table all
	ip -n "$ns" neigh show nud permanent
	ip -n "$ns" -6 neigh show nud permanent
	bridge -n "$ns" fdb show | grep self | grep flannel || :
}
has() { entries | grep -F -- "$1" >/dev/null; }
has_not() { ! has "$1"; }
is_as_before() { diff <(sort "$LAB_DIR/.lab/before") <(entries | sort); }
carried_by() { status_is a ".data_plane.kind == \"$1\""; }
is_adopted() {
	if ! has_device; then
		status_is a '.overlay.name == "twill0"' && grep "flannel's routes are taken over" "$(node_dir a)/log" >/dev/null && return
		echo "not on flannel's routes"
		return 1
	fi
	status_is a '.overlay.name == "flannel.1" and .overlay.kind == "flannel" and .overlay6.name == "flannel-v6.1"' || { status a '.overlay, .overlay6'; return 1; }
	same "${MAC4[a]} ${MAC6[a]}" "$(status a '"\(.overlay.mac) \(.overlay6.mac)"')" || return
	same "${MAC4[a]} ${MAC6[a]}" "$(jq -r '"\(.BackendData.VtepMAC) \(.BackendV6Data.VtepMAC)"' "$(flannel_lease_file "${NUMBER[a]}")")" || return
	not find_device twill0
}
find_device() { ip -n "$(node_ns a)" link show "$1" >/dev/null 2>&1; }
counted() { node_ctl a -o json drops | jq -e ".items[] | select(.reason == \"$2\") | .hooks.$1 > 0" >/dev/null; } # HOOK REASON
talk() { # all ways, whole packets and fragments
	local peer family
	for peer in k t; do
		reachable "a pod" "$peer pod" && reachable "$peer pod" "a pod" || return
		for family in 4 6; do
			traffic "a pod" tcp-client "$(pod_ip $peer pod $family)" --bytes 1000000 || return
			traffic "$peer pod" tcp-client "$(pod_ip a pod $family)" --bytes 1000000 || return
			traffic "$peer pod" udp-gso "$(pod_ip a pod $family)" --bytes 300000 --size 1200 || return
			traffic "a pod" udp-gso "$(pod_ip $peer pod $family)" --bytes 300000 --size 1200 || return
			ping_pod "a pod" "$(pod_ip $peer pod $family)" -s 4000 || { echo "fragments to $peer, IPv$family"; return 1; }
			node_exec a ping -q -c 2 -i 0.05 -W 1 "$(pod_ip $peer pod $family)" || { echo "node a to $peer's pod, IPv$family"; return 1; }
			node_exec $peer ping -q -c 2 -i 0.05 -W 1 "$(pod_ip a pod $family)" || { echo "node $peer to a's pod, IPv$family"; return 1; }
		done
		ping_pod "$peer pod" "10.42.${NUMBER[a]}.$(has_device && echo 0 || echo 1)" || { echo "$peer's pod to node a"; return 1; }
		ping_pod "$peer pod" "fd00:42:0:$(printf %x "${NUMBER[a]}")::1" || { echo "$peer's pod to node a, IPv6"; return 1; }
	done
}

test_lab
for node in a k t; do node_add "$node" --segment 1; done
for node in a k; do
	flannel_node "$node" "${NUMBER[$node]}" "${MAC4[$node]}" "${MAC6[$node]}" "$(has_device && echo vxlan || echo host-gw)"
done
agent_start t # its subnet is another: these are taken
wait_ready t
knows a "$(flannel_pods4 "${NUMBER[k]}")" "$(flannel_pods6 "${NUMBER[k]}")" k "${MAC4[k]}" "${MAC6[k]}"
knows k "$(flannel_pods4 "${NUMBER[a]}")" "$(flannel_pods6 "${NUMBER[a]}")" a "${MAC4[a]}" "${MAC6[a]}"
lease_of_t() { jq -r "select(.Node == \"t\") | .$1" "$LAB_DIR"/store/leases/*.json; }
for node in a k; do
	knows "$node" "$(lease_of_t Subnet)" "$(lease_of_t IPv6Subnet)" t "$(lease_of_t BackendData.VtepMAC)" "$(lease_of_t BackendV6Data.VtepMAC)"
done
for node in a k t; do
	pod_add "$node" pod --style bridge
	pod_serve "$node" pod
	_lab_sysctl "$(node_ns "$node")" ipv4/conf/all/rp_filter=1 ipv4/conf/default/rp_filter=1
done
if has_device; then for node in a k; do _lab_sysctl "$(node_ns "$node")" ipv4/conf/flannel.1/rp_filter=1; done; fi
check "flannel's node a reaches k" reachable "a pod" "k pod"
check "and t" reachable "a pod" "t pod"
check "flannel's node a talks with both" talk
# What is not flannel's: a route of somebody's inside the network, a way round a peer, and another tunnel on flannel's port.
if ! is_direct; then
	for node in a k; do ip -n "$(node_ns "$node")" link add vx-user type vxlan id 100 dev eth0 local "$(node_ip "$node" 4)" \
		remote "$(node_ip "$([[ $node == a ]] && echo k || echo a)" 4)" dstport 8472 nolearning; done
	ip -n "$(node_ns a)" addr add 172.31.0.1/24 dev vx-user
	ip -n "$(node_ns k)" addr add 172.31.0.2/24 dev vx-user
	for node in a k; do ip -n "$(node_ns "$node")" link set vx-user up; done
	ip -n "$(node_ns a)" route add 10.42.150.0/24 via 192.0.2.1
	ip -n "$(node_ns a)" -6 route add fd00:42:0:96::/64 via 2001:db8:1::1
fi
ip -n "$(node_ns a)" route add "$(flannel_pods4 "${NUMBER[k]}")" via 192.0.2.1 metric 500
user_tunnel() { node_exec a ping -q -c 3 -i 0.05 -W 1 172.31.0.2; }
is_direct || check "a user's tunnel on flannel's port works" wait_until 5 user_tunnel
entries >"$LAB_DIR/.lab/before"

flow_start "to a flannel node, IPv4" a-pod udp-flood "$(pod_ip k pod 4)" --rate 1000
flow_start "from a flannel node, IPv4" k-pod udp-flood "$(pod_ip a pod 4)" --rate 1000
flow_start "to a twill node, IPv6" a-pod udp-flood "$(pod_ip t pod 6)" --rate 500
flow_start "from a twill node, IPv6" t-pod udp-flood "$(pod_ip a pod 6)" --rate 500
flow_start "from the node itself" a udp-flood "$(pod_ip k pod 4)" --rate 500
flow_start "TCP, IPv4" a-pod tcp-rr "$(pod_ip k pod 4)"
flow_start "TCP, IPv6" k-pod tcp-rr "$(pod_ip a pod 6)"
flow_start "TCP of the node itself" a tcp-rr "$(pod_ip k pod 4)"

# What flanneld leaves when it was away: a node that went, and one that got another MAC.
if is_direct; then
	ip -n "$(node_ns a)" route add 10.42.210.0/24 via 192.0.2.210
	ip -n "$(node_ns a)" route add fd00:42:0:d2::/64 via 2001:db8:1::210
else
	ip -n "$(node_ns a)" -batch - <<-END
		neigh replace 10.42.210.0 lladdr 0a:aa:00:00:02:10 dev flannel.1 nud permanent
		route add 10.42.210.0/24 via 10.42.210.0 dev flannel.1 onlink
		neigh replace fd00:42:0:d3:: lladdr 0a:aa:00:00:02:11 dev flannel-v6.1 nud permanent
	END
	bridge -n "$(node_ns a)" fdb replace 0a:aa:00:00:02:10 dev flannel.1 dst 203.0.113.10 self permanent
	bridge -n "$(node_ns a)" fdb replace 0a:aa:00:00:02:12 dev flannel-v6.1 dst 2001:db8:9::12 self permanent
fi

# --- taken over
agent_start a
check "twilld is ready" wait_ready a
check "flannel's devices are its overlay devices, with their MACs" is_adopted
check "programs carry the node" carried_by programs
if has_device; then
	check "it takes no zero checksums while flannel's device is there" same false "$(jq .zeroCsum6 "$LAB_DIR/store/twill/$(basename "$(flannel_lease_file "${NUMBER[a]}")")")"
fi
check "what flannel left of nodes that went is gone, all else is as it was" wait_until 2 is_as_before
check "everything is carried" talk
if is_direct; then
	check "what pods send is routed by a program" counted from_pod to_direct
else
	check "what pods send is encapsulated by a program" counted from_pod to_vxlan
	check "fragments come through flannel's device" counted from_overlay to_local
fi
check "what comes for pods is delivered by one" counted from_wire to_local
check "nothing was dropped" same "{}" "$(drops a)"

is_direct || check "a user's tunnel on flannel's port works on" user_tunnel

if ! is_direct; then
	# --- flannel's device listens on all addresses of the node: a pod must not reach it by another one
	ip -n "$(node_ns a)" addr add 192.0.2.66/32 dev eth0
	forged() { drops a | jq -e '.forged > 0' >/dev/null; }
	# shellcheck disable=SC2016 # expands in the inner shell
	pod_exec a pod bash -c 'printf 0123456789 >"/dev/udp/$0/8472"' 192.0.2.66
	check "a pod's VXLAN for another address of the node is dropped" wait_until 2 forged
	ip -n "$(node_ns a)" addr del 192.0.2.66/32 dev eth0
fi

# --- kept right while adopted
as_with_new() { diff <(sort "$LAB_DIR/.lab/with-new") <(entries | sort); }
if is_direct; then
	lease_put 211 new 192.0.2.211 2001:db8:1::211 0e:00:00:00:02:01 0e:00:00:00:06:01
	check "a new node gets a route" wait_until 2 has "10.42.211.0/24 via 192.0.2.211 dev eth0"
	lease_put 211 new 192.0.2.212 2001:db8:1::211 0e:00:00:00:02:01 0e:00:00:00:06:01
	check "its other address is taken over" wait_until 2 has "10.42.211.0/24 via 192.0.2.212 dev eth0"
	check "and nothing of the one before is left" wait_until 2 has_not 192.0.2.211
	entries >"$LAB_DIR/.lab/with-new"
	ip -n "$(node_ns a)" route replace fd00:42:0:d3::/64 via 2001:db8:1::77
else
	lease_put 211 new 203.0.113.1 2001:db8:9::1 0e:00:00:00:02:01 0e:00:00:00:06:01
	check "a new node gets a route" wait_until 2 has "10.42.211.0/24 via 10.42.211.0 dev flannel.1 onlink"
	check "a neighbour" wait_until 2 has "fd00:42:0:d3:: dev flannel-v6.1 lladdr 0e:00:00:00:06:01 PERMANENT"
	check "an fdb entry" wait_until 2 has "0e:00:00:00:02:01 dev flannel.1 dst 203.0.113.1"
	lease_put 211 new 203.0.113.2 2001:db8:9::1 0e:00:00:00:02:01 0e:00:00:00:06:02
	check "its other address is taken over" wait_until 2 has "0e:00:00:00:02:01 dev flannel.1 dst 203.0.113.2"
	check "its other MAC, too" wait_until 2 has "0e:00:00:00:06:02 dev flannel-v6.1 dst 2001:db8:9::1"
	check "and nothing of the MAC before is left" wait_until 2 has_not 0e:00:00:00:06:01
	entries >"$LAB_DIR/.lab/with-new"
	bridge -n "$(node_ns a)" fdb del 0e:00:00:00:02:01 dev flannel.1 self
	bridge -n "$(node_ns a)" fdb add 0e:00:00:00:00:77 dev flannel.1 dst 203.0.113.77 self permanent
	ip -n "$(node_ns a)" -6 neigh replace fd00:42:0:d3:: lladdr 0e:00:00:00:00:66 dev flannel-v6.1 nud permanent
fi
ip -n "$(node_ns a)" route del 10.42.211.0/24
check "what somebody spoils is put right" wait_until 5 as_with_new
rm "$(flannel_lease_file 211)"
check "a node that goes takes all of it along" wait_until 5 is_as_before

# --- restarts
agent_kill a
agent_start a
check "after kill -9 it is ready" wait_ready a
check "still on flannel's devices" is_adopted
check "which are as they were" is_as_before

# --- given back
check "detach ends well" node_ctl a detach --yes
check "flannel's things are as they were" is_as_before
check "no program is left" same "" "$(find "$LAB_PINS/a" -mindepth 1 2>/dev/null)"
check "the kernel alone carries everything" talk

# --- again, and without programs
agent_start a
check "twilld takes it over again" wait_ready a
check "on flannel's devices" is_adopted
sleep 0.3
agent_restart a -fast-path=off
check "-fast-path=off: the kernel carries the node, on flannel's devices" carried_by "kernel overlay"
check "as they were" is_as_before
check "everything is carried, without programs" talk
agent_restart a
check "and programs carry it again" wait_until 5 carried_by programs

flows_end 3000

if has_device; then
	# --- the wire and the device change
	mtus() { ip -n "$(node_ns a)" -j link show type vxlan | jq -r '[.[] | select(.ifname | test("flannel")) | .mtu] | join(" ")'; }
	mtus_are() { same "$1" "$(mtus)"; }
	ip -n "$(node_ns a)" link set eth0 mtu 1400
	check "a smaller wire makes the devices smaller" wait_until 5 mtus_are "1350 1330"
	ip -n "$(node_ns a)" link set eth0 mtu 1500
	check "and a larger one larger" wait_until 5 mtus_are "1450 1430"
	ip -n "$(node_ns a)" link set flannel.1 address 0a:aa:00:00:07:77
	check "the device's MAC stays the published one" wait_until 5 has "link/ether ${MAC4[a]}"

	# --- somebody deletes the device: nobody's traffic then, but it comes back
	ip -n "$(node_ns a)" link del flannel.1
	check "a device that is deleted is made anew, with MAC, address, routes, neighbours and fdb" wait_until 5 is_adopted
	check "everything is carried again" talk
	check "no trouble stays" status_is a '.data_plane.kind == "programs" and (.warnings | length == 1)'
fi
finish
