# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The nodes of the differential test; sourced after lab.sh and flannel.sh. A world is one node in a namespace of its own:
# node a, which sends, or node b, which receives. It is made several times with the same addresses, MACs and interface names:
# by twill, by the kernel's vxlan. The other ends of its wire and its pods are interfaces of the namespace "bench", where the
# test program writes and reads frames: WORLD is the wire, WORLDp and WORLDq are the pods.
#
#   cluster   node  public address            pods         what it is
#             a     192.0.2.10                10.42.10     world
#             b     192.0.2.11                10.42.11     world; for a a flannel node on its L2
#             c     192.0.2.12                10.42.12     for a a twill node: it takes UDP checksum zero on IPv6
#             d     198.51.100.13, by router  10.42.13     for a a flannel node on another L2
# Addresses of IPv6 look alike; pods are .2 behind cni0 (p) and .3 point to point (q).

declare -A NODE_NUMBER=([a]=10 [b]=11 [c]=12 [d]=13)
public4() { [[ $1 == d ]] && echo 198.51.100.13 || echo "192.0.2.${NODE_NUMBER[$1]}"; }
public6() { [[ $1 == d ]] && echo 2001:db8:2::13 || echo "2001:db8:1::${NODE_NUMBER[$1]}"; }
pods4() { echo "10.42.${NODE_NUMBER[$1]}.0/24"; }
pods6() { echo "fd00:42:0:${NODE_NUMBER[$1]}::/64"; }
vtep_mac() { echo "0a:aa:00:00:00:${NODE_NUMBER[$1]}"; }

# Nothing in it answers: no addresses, no IPv6, no ARP.
bench_up() {
	local ns=twl-$LAB_NAME-bench
	_lab_netns "$ns"
	_lab_sysctl "$ns" ipv6/conf/all/disable_ipv6=1 ipv6/conf/default/disable_ipv6=1
	ip -n "$ns" link set dev lo up
}
bench_exec() { nsenter --net="/run/netns/twl-$LAB_NAME-bench" "$@"; }

# world_add WORLD a|b: node, cni0 and two pods, without an overlay.
world_add() {
	local world=$1 node=$2 number=${NODE_NUMBER[$2]} ns bench=twl-$LAB_NAME-bench dir dev
	ns=$(node_ns "$world")
	dir=$(node_dir "$world")
	mkdir -p "$dir/cni/networks/cbr0" "$dir/cni/results" "$dir/pods"
	public4 "$node" >"$dir/ip4"
	public6 "$node" >"$dir/ip6"
	_lab_netns "$ns"
	# As node_add(), and nothing that counts or waits: errors are not rate limited, an incomplete datagram stays one, and an
	# unknown neighbour is unknown at once.
	_lab_sysctl "$ns" ipv4/ip_forward=1 ipv6/conf/all/forwarding=1 ipv6/conf/default/forwarding=1 \
		ipv4/conf/all/rp_filter=1 ipv4/conf/default/rp_filter=1 \
		ipv6/conf/all/accept_dad=0 ipv6/conf/default/accept_dad=0 \
		ipv4/icmp_ratemask=0 ipv6/icmp/ratemask=255 ipv4/ipfrag_time=3600 ipv6/ip6frag_time=3600 \
		ipv4/ipfrag_high_thresh=268435456 ipv6/ip6frag_high_thresh=268435456 ipv4/ipfrag_max_dist=0 \
		netfilter/nf_conntrack_frag6_timeout=3600
	# 5.10 refuses it in a namespace.
	_lab_sysctl "$ns" netfilter/nf_conntrack_frag6_high_thresh=268435456 2>/dev/null || :
	_lab_bridge_nf "$ns" 1
	ip -n "$ns" -batch - <<-END
		link set dev lo up
		link add eth0 address 02:aa:00:00:01:$number type veth peer name $world address 02:ee:00:00:00:01 netns $bench
		link add cni0 mtu 1450 address 02:cc:00:00:00:$number type bridge mcast_snooping 0
		link add vethp mtu 1450 address 02:bb:00:00:12:$number type veth peer name ${world}p mtu 1450 address 02:bb:00:00:02:$number netns $bench
		link add vethq mtu 1500 address 02:bb:00:00:13:$number type veth peer name ${world}q mtu 1500 address 02:bb:00:00:03:$number netns $bench
		link set dev vethp master cni0
		link set dev vethp type bridge_slave hairpin on
		link set dev eth0 up
		link set dev cni0 up
		link set dev vethp up
		link set dev vethq up
		addr add $(public4 "$node")/24 dev eth0
		addr add $(public6 "$node")/64 dev eth0 nodad
		route add default via 192.0.2.1 dev eth0
		route add default via 2001:db8:1::1 dev eth0
		addr add 10.42.$number.1/24 brd + dev cni0
		addr add fd00:42:0:$number::1/64 dev cni0 nodad
		route add 10.42.$number.3/32 dev vethq scope link
		route add fd00:42:0:$number::3/128 dev vethq
		neigh add 10.42.$number.2 lladdr 02:bb:00:00:02:$number dev cni0 nud permanent
		neigh add fd00:42:0:$number::2 lladdr 02:bb:00:00:02:$number dev cni0 nud permanent
		neigh add 10.42.$number.3 lladdr 02:bb:00:00:03:$number dev vethq nud permanent
		neigh add fd00:42:0:$number::3 lladdr 02:bb:00:00:03:$number dev vethq nud permanent
	END
	bridge -n "$ns" fdb replace "02:bb:00:00:02:$number" dev vethp master static
	for dev in eth0 cni0 vethp vethq; do
		_lab_sysctl "$ns" "ipv4/neigh/$dev/mcast_solicit=0" "ipv6/neigh/$dev/mcast_solicit=0"
	done
	for dev in 1 10 11 12; do
		ip -n "$ns" neigh replace "192.0.2.$dev" lladdr "02:ee:00:00:00:$(printf %02d "$dev")" dev eth0 nud permanent
		ip -n "$ns" neigh replace "2001:db8:1::$dev" lladdr "02:ee:00:00:00:$(printf %02d "$dev")" dev eth0 nud permanent
	done
	for dev in "$world" "${world}p" "${world}q"; do ip -n "$bench" link set dev "$dev" arp off up; done
	_node_kube_proxy "$world"
}

# world_kernel WORLD a|b [vxlan options of the IPv6 device]
world_kernel() {
	local peer
	world_add "$1" "$2"
	flannel_device "$1" "$(pods4 "$2")" "$(pods6 "$2")" "$(vtep_mac "$2")" "${@:3}"
	for peer in a b c d; do
		[[ $peer != "$2" ]] || continue
		flannel_peer "$1" "$(pods4 "$peer")" "$(pods6 "$peer")" "$(public4 "$peer")" "$(public6 "$peer")" "$(vtep_mac "$peer")"
	done
}

# world_twill WORLD a|b: twilld with a store of its own, which holds all leases, its own too.
world_twill() {
	local world=$1 store=$LAB_DIR/$1/store node key data
	world_add "$world" "$2"
	mkdir -p "$store/leases" "$store/twill"
	cp "$LAB_DIR/store/config" "$store/config"
	for node in a b c d; do
		key="10.42.${NODE_NUMBER[$node]}.0-24&fd00:42:0:${NODE_NUMBER[$node]}::-64"
		data="{\"VNI\":1,\"VtepMAC\":\"$(vtep_mac "$node")\"}"
		cat >"$store/leases/$key.json" <<-END
			{
				"PublicIP": "$(public4 "$node")", "PublicIPv6": "$(public6 "$node")", "BackendType": "vxlan",
				"BackendData": $data, "BackendV6Data": $data,
				"Subnet": "$(pods4 "$node")", "IPv6Subnet": "$(pods6 "$node")", "Node": "$node"
			}
		END
		[[ $node != c ]] || echo '{"v":1,"zeroCsum6":true}' >"$store/twill/$key.json"
	done
	agent_start "$world" -node "$2" -store "file://$store"
	wait_ready "$world"
	wait_until "$(scaled 15)" _world_is_known "$world"
}

# All peers and both pods in both families.
_world_is_known() {
	[[ $(node_ctl "$1" -o json peers | jq '.items | length') == 6 && $(node_ctl "$1" -o json endpoints | jq '.items | length') == 4 ]]
}

# world_offload WORLD on|off: segmentation and checksums on the wire.
world_offload() {
	node_exec "$1" ethtool -K eth0 tx "$2" tso "$2" gso "$2" tx-udp-segmentation "$2" tx-udp_tnl-segmentation "$2" \
		tx-udp_tnl-csum-segmentation "$2" >/dev/null
}

# world_invalid WORLD drop|pass: what kube-proxy's rule does with what conntrack finds invalid. Conntrack sees all either way.
world_invalid() {
	local tool target=()
	[[ $2 == pass ]] || target=(-j DROP)
	for tool in iptables ip6tables; do
		node_exec "$1" "$tool" -w -F KUBE-FORWARD
		node_exec "$1" "$tool" -w -A KUBE-FORWARD -m conntrack --ctstate INVALID "${target[@]}"
	done
}
