#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What happens to a node's wire: it goes down and comes back, is deleted and made anew, gets another MTU, gateway and
# address. Each time pods reach each other again, and nothing of before is left in maps, attachments, routes and lease.
. "$(dirname "$0")/lib.sh"
need bpftool tc

NS='' SWITCH=''

# What a network configuration daemon does after the interface came (back).
wire_up() { # IPV4 [GATEWAY]
	ip -n "$NS" -batch - <<-END
		link set dev eth0 up
		addr replace $1/24 dev eth0
		addr replace $(node_ip node-a 6)/64 dev eth0 nodad
		route replace default via ${2:-192.0.2.1} dev eth0
		route replace default via 2001:db8:1::1 dev eth0
	END
}

paths_work() {
	reachable "node-a pod-a1" "node-b pod-b1" && reachable "node-a pod-a1" "node-c pod-c1" &&
		reachable "node-c pod-c1" "node-a pod-a1" && reachable "node-b pod-b1" "node-a pod-a1"
}

# All peers of node-a leave by eth0 as it is now, and the program is on it.
wire_is_used() {
	local index
	index=$(ifindex node-a eth0)
	same "[$index]" "$( (map_dump node-a tw_peers_v4 && map_dump node-a tw_peers_v6) | jq -sc 'map(.value.wire) | unique')" &&
		attached node-a tw_from_wire eth0 &&
		status_is node-a '.wires[0].ifindex == '"$index"
}

# Every attachment that is told, pinned or remembered is on an interface that exists.
nothing_stale() {
	local there told pinned owned
	there=$(ip -n "$NS" -j link show | jq -c 'map(.ifindex)')
	told=$(status node-a '[.attachments[].ifindex] | unique | tojson')
	pinned=$(find "$LAB_PINS/node-a/v1/links" -type f | sed 's/.*_//' | jq -sc unique)
	owned=$(map_dump node-a tw_owned | jq -sc 'map(.key)')
	same '[]' "$(jq -nc --argjson all "$told" --argjson there "$there" '$all - $there')" &&
		same '[]' "$(jq -nc --argjson all "$pinned" --argjson there "$there" '$all - $there')" &&
		same '[]' "$(jq -nc --argjson all "$owned" --argjson there "$there" '$all - $there')"
}

# Nobody in this lab announces a new MAC; so neighbours look again after a second, not after half a minute.
quick_neighbours() { # NAMESPACE
	nsenter --net="/run/netns/$1" bash -c 'for dev in /proc/sys/net/ipv[46]/neigh/{eth0,seg1,seg2}; do
		[[ -d $dev ]] || continue
		echo 1000 >"$dev/base_reachable_time_ms"
		echo 200 >"$dev/retrans_time_ms"
		echo 1 >"$dev/delay_first_probe_time"
	done'
}

is_right() { # WHAT
	check "$1: peers leave by the wire as it is, the program is on it" wait_until "$SOON" wire_is_used
	check "$1: pods reach each other" paths_work
	check "$1: nothing is left of before" wait_until "$SOON" nothing_stale
	check "$1: the agent is content" wait_until "$SOON" status_is node-a '.warnings == [] and .pending == []'
}

test_lab
NS=$(node_ns node-a) SWITCH=twl-$LAB_NAME-switch
lab_three_nodes
for ns in "$NS" "$(node_ns node-b)" "$(node_ns node-c)" "twl-$LAB_NAME-router"; do quick_neighbours "$ns"; done
pod_serve node-a pod-a2
pod_serve node-c pod-c1
is_right "at first"

# --- down and up
flood_start local "node-a pod-a1" "$(pod_ip node-a pod-a2 4)" 500
lab_spawn node-a-pod-a1 "$TRAFFIC" tcp-rr "$(pod_ip node-c pod-c1 4)" 5001 --until-signal \
	--timeout "$(scaled 30)" --json >"$LAB_DIR/.lab/tcp"
TCP=$LAB_PID
ip -n "$NS" link set dev eth0 down
check "wire down: no peer is programmed, and each says why" wait_until "$SOON" status_is node-a \
	'.peers.programmed == 0 and (.pending | length == 4 and all(.why | startswith("no route to ")))'
check "wire down: pods of the node reach each other" reachable "node-a pod-a1" "node-a pod-a2"
wire_up "$(node_ip node-a 4)"
is_right "wire up again"

# --- deleted and made anew
old=$(ifindex node-a eth0)
ip -n "$NS" link del eth0
check "wire deleted: the agent says so" wait_until "$SOON" said node-a "data plane is not as it should be"
check "wire deleted: pods of the node reach each other" reachable "node-a pod-a1" "node-a pod-a2"
ip -n "$NS" link add eth0 type veth peer name node-a netns "$SWITCH"
ip -n "$SWITCH" link set dev node-a master seg1 up
quick_neighbours "$NS"
wire_up "$(node_ip node-a 4)"
check "the new wire is another interface" not same "$old" "$(ifindex node-a eth0)"
is_right "wire made anew"
flood_end
check "between pods of the node nothing was lost meanwhile" same 0 "$LOST"
kill -TERM "$TCP"
wait "$TCP" || :
check "a connection over the wire lived through all of it" same ok "$(jq -r .result "$LAB_DIR/.lab/tcp")"

# --- MTU
mtu_is() { # WIRE: and all that follows from it
	local pods_b pods_c
	pods_b=$(pods_of node-b) pods_c=$(pods_of node-c)
	same $(($1 - 50)) "$(ip -n "$NS" -j link show dev twill0 | jq '.[0].mtu')" &&
		same $(($1 - 50)) "$(ip -n "$NS" -j route show 10.42.0.0/16 | jq '.[0].metrics[0].mtu')" &&
		same $(($1 - 70)) "$(ip -n "$NS" -6 -j route show fd00:42::/48 | jq '.[0].metrics[0].mtu')" &&
		same "FLANNEL_MTU=$(($1 - 50))" "$(grep FLANNEL_MTU "$(node_dir node-a)/subnet.env")" &&
		peer_field_is node-a "$pods_b" mtu "$1" && peer_field_is node-a "$pods_c" mtu $(($1 - 50))
}
fits() { pod_exec node-a pod-a1 ping -q -c 1 -W 1 -M "do" -s $(($1 - 28)) "$(pod_ip node-c pod-c1 4)"; } # IPv4 length
flood_start mtu "node-a pod-a1" "$(pod_ip node-c pod-c1 4)" 500
ip -n "$NS" link set dev eth0 mtu 1400
check "a smaller MTU: device, routes, subnet.env and peers follow" wait_until "$SOON" mtu_is 1400
check "what fits, passes" wait_until "$SOON" fits 1350
check "what does not, is refused with the MTU" not fits 1351
check "TCP learns it" traffic "node-a pod-a1" tcp-client "$(pod_ip node-c pod-c1 4)" --bytes 4000000
ip -n "$NS" link set dev eth0 mtu 1500
check "back to 1500: all follow" wait_until "$SOON" mtu_is 1500
flood_end
check "small packets are not lost when the MTU changes" same 0 "$LOST"

# --- a peer's MAC
flood_start peer-mac "node-a pod-a1" "$(pod_ip node-c pod-c1 4)" 500
ip -n "$(node_ns node-b)" link set dev eth0 address 02:00:5e:00:53:0b
check "a peer has another MAC on the wire: pods reach each other" paths_work
learnt() { ip -n "$NS" neigh show "$(node_ip node-b 4)" dev eth0 | grep -i 02:00:5e:00:53:0b; }
check "the kernel's neighbour entry has it, nobody else keeps one" learnt
flood_end
check "other peers' packets are not lost meanwhile" same 0 "$LOST"

# --- another gateway
ip -n "twl-$LAB_NAME-router" addr add 192.0.2.254/24 dev seg1
wire_up "$(node_ip node-a 4)" 192.0.2.254
check "another gateway: the peer behind it has it as next hop" wait_until "$SOON" peer_field_is node-a "$(pods_of node-c)" \
	nexthop.low '[192,0,2,254]'
check "another gateway: pods reach each other" paths_work

# --- another address: the lease is renewed with it, as after a restart of flanneld
published() { jq -r 'select(.Node == "node-a") | .PublicIP + " " + .PublicIPv6' "$LAB_DIR"/store/leases/*.json; }
pods_a=$(pods_of node-a)
no_node() { # NODE ADDRESS: nobody answers for it any more
	same "" "$(map_dump "$1" tw_nodes | jq -c --argjson low "[${2//./,}]" 'select(.key.low == $low)')"
}
ip -n "$NS" -batch - <<-END
	addr del $(node_ip node-a 4)/24 dev eth0
	addr del $(node_ip node-a 6)/64 dev eth0
	addr add 192.0.2.110/24 dev eth0
	addr add 2001:db8:1::110/64 dev eth0 nodad
	route replace default via 192.0.2.1 dev eth0
	route replace default via 2001:db8:1::1 dev eth0
END
old=$(node_ip node-a 4)
echo 192.0.2.110 >"$(node_dir node-a)/ip4"
echo 2001:db8:1::110 >"$(node_dir node-a)/ip6"
lease_has() { same "192.0.2.110 2001:db8:1::110" "$(published)"; }
check "another address: it is published" wait_until "$SOON" lease_has
check "another address: the pod CIDR stays" same "$pods_a" "$(pods_of node-a)"
for node in node-b node-c; do
	check "another address: $node sends there" wait_until "$SOON" peer_field_is "$node" "$pods_a" node.low '[192,0,2,110]'
	check "another address: $node takes nothing from the old one" wait_until "$SOON" no_node "$node" "$old"
done
is_right "another address"
# --- a peer that was installed anew: same pods, another VtepMAC
old_mac=$(status node-c .overlay.mac)
pods_c=$(pods_of node-c)
node_ctl node-c detach --yes >/dev/null
agent_stop node-c
grep -l '"Node":"node-c"' "$LAB_DIR"/store/leases/*.json | xargs -d '\n' rm
agent_start node-c
wait_ready node-c
mac=$(status node-c .overlay.mac)
check "a peer made anew: it has another MAC and the same pods" test "$mac" != "$old_mac" -a "$pods_c" == "$(pods_of node-c)"
mac_is_sent() {
	same "$mac" "$(peer_field node-a "$pods_c" vtep_mac | jq -r '.[]' | xargs printf '%02x:%02x:%02x:%02x:%02x:%02x')"
}
check "a peer made anew: packets carry its MAC" wait_until "$SOON" mac_is_sent
check "a peer made anew: pods reach each other" paths_work

check "no packet was dropped as spoofed" same 0 "$(drop_count node-c spoof_node)"
finish
