# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The nodes of the masquerade tests; sourced after lab.sh. A world is one node (10.42.10.0/24 of 10.42.0.0/16) in a namespace of
# its own, made several times with the same addresses, MACs and interface names. The other ends of its interfaces are in the
# namespace "bench", where the test program plays everybody else: WORLDp and WORLDq are pods, WORLD and WORLDw the wires.
#
#   eth0    192.0.2.10    default route by 192.0.2.1; 10.42.13.0/24 is routed to another node here; second address 198.18.0.10
#   eth1    198.51.100.10 10.42.14.0/24 is routed to another node here
#   overlay 10.42.10.0    10.42.11.0/24 on node 192.0.2.11
# Addresses of IPv6 look alike.

CLUSTER4=10.42.0.0/16 OWN4=10.42.10.0/24 CLUSTER6=fd00:42::/48 OWN6=fd00:42:0:10::/64

nat_bench_up() {
	local ns=twl-$LAB_NAME-bench
	_lab_netns "$ns"
	_lab_sysctl "$ns" ipv6/conf/all/disable_ipv6=1 ipv6/conf/default/disable_ipv6=1
	ip -n "$ns" link set dev lo up
}
nat_bench_exec() { nsenter --net="/run/netns/twl-$LAB_NAME-bench" "$@"; }

# nat_world WORLD: everything but the overlay device and the rules. No reverse path filter: other nodes' pods are routed by the
# wires here, for the rows about them, and twill gives their packets to the stack by the overlay device.
nat_world() {
	local world=$1 ns bench=twl-$LAB_NAME-bench dir dev tool
	ns=$(node_ns "$world")
	dir=$(node_dir "$world")
	mkdir -p "$dir"
	echo 192.0.2.10 >"$dir/ip4"
	echo 2001:db8:1::10 >"$dir/ip6"
	_lab_netns "$ns"
	_lab_sysctl "$ns" ipv4/ip_forward=1 ipv6/conf/all/forwarding=1 ipv6/conf/default/forwarding=1 \
		ipv4/conf/all/rp_filter=0 ipv4/conf/default/rp_filter=0 \
		ipv6/conf/all/accept_dad=0 ipv6/conf/default/accept_dad=0 \
		ipv4/icmp_ratemask=0 ipv6/icmp/ratemask=255 ipv4/icmp_msgs_per_sec=1000000 2>/dev/null || :
	ip -n "$ns" -batch - <<-END
		link set dev lo up
		link add eth0 address 02:aa:00:00:01:10 type veth peer name $world address 02:ee:00:00:00:01 netns $bench
		link add eth1 mtu 1400 address 02:aa:00:00:02:10 type veth peer name ${world}w address 02:ee:00:00:00:02 netns $bench
		link add vethp address 02:bb:00:00:12:10 type veth peer name ${world}p address 02:bb:00:00:02:10 netns $bench
		link add vethq address 02:bb:00:00:13:10 mtu 1400 type veth peer name ${world}q address 02:bb:00:00:03:10 netns $bench
		link set dev eth0 up
		link set dev eth1 up
		link set dev vethp up
		link set dev vethq up
		addr add 192.0.2.10/24 dev eth0
		addr add 198.18.0.10/24 dev eth0
		addr add 2001:db8:5::10/64 dev eth0 nodad
		addr add 2001:db8:1::10/64 dev eth0 nodad
		addr add 198.51.100.10/24 dev eth1
		addr add 2001:db8:2::10/64 dev eth1 nodad
		addr add 10.42.10.1/32 dev vethp
		addr add fd00:42:0:10::1/128 dev vethp nodad
		route add default via 192.0.2.1 dev eth0
		route add default via 2001:db8:1::1 dev eth0
		route add 224.0.0.0/4 dev eth0
		route add 10.42.10.2/32 dev vethp scope link
		route add 10.42.10.3/32 dev vethq scope link
		route add fd00:42:0:10::2/128 dev vethp
		route add fd00:42:0:10::3/128 dev vethq
		route add 10.42.13.0/24 via 192.0.2.13 dev eth0
		route add 10.42.14.0/24 via 198.51.100.14 dev eth1
		route add fd00:42:0:13::/64 via 2001:db8:1::13 dev eth0
		route add fd00:42:0:14::/64 via 2001:db8:2::14 dev eth1
		neigh add 10.42.10.2 lladdr 02:bb:00:00:02:10 dev vethp nud permanent
		neigh add 10.42.10.3 lladdr 02:bb:00:00:03:10 dev vethq nud permanent
		neigh add fd00:42:0:10::2 lladdr 02:bb:00:00:02:10 dev vethp nud permanent
		neigh add fd00:42:0:10::3 lladdr 02:bb:00:00:03:10 dev vethq nud permanent
	END
	for dev in 192.0.2.{1,11,13} 2001:db8:1::{1,11,13} 198.18.0.9 2001:db8:5::9; do
		ip -n "$ns" neigh replace "$dev" lladdr 02:ee:00:00:00:01 dev eth0 nud permanent
	done
	for dev in 198.51.100.{9,14} 2001:db8:2::{9,14}; do
		ip -n "$ns" neigh replace "$dev" lladdr 02:ee:00:00:00:01 dev eth1 nud permanent
	done
	for dev in "$world" "${world}w" "${world}p" "${world}q"; do ip -n "$bench" link set dev "$dev" arp off up; done
	for tool in iptables ip6tables; do
		node_exec "$world" "$tool" -w -t mangle -A PREROUTING -p tcp --dport 4000 -j MARK --set-mark 0x4000
		node_exec "$world" "$tool" -w -t mangle -A PREROUTING -p udp --dport 4000 -j MARK --set-mark 0x4000
		node_exec "$world" "$tool" -w -t mangle -A PREROUTING -p tcp --dport 4001 -j MARK --set-mark 0x4001
		node_exec "$world" "$tool" -w -t mangle -A PREROUTING -p udp --dport 4001 -j MARK --set-mark 0x4001
	done
}

# nat_offload WORLD on|off: segmentation and checksums on the wires.
nat_offload() {
	local dev
	for dev in eth0 eth1; do
		node_exec "$1" ethtool -K "$dev" tx "$2" tso "$2" gso "$2" tx-udp-segmentation "$2" >/dev/null
	done
}

# nat_kernel WORLD iptables|nft|keep: flannel's device, and its rules.
nat_kernel() {
	nat_world "$1"
	flannel_device "$1" "$OWN4" "$OWN6" 0a:aa:00:00:00:10 udp6zerocsumtx udp6zerocsumrx
	flannel_peer "$1" 10.42.11.0/24 fd00:42:0:11::/64 192.0.2.11 2001:db8:1::11 0a:aa:00:00:00:11
	case $2 in
	iptables) nat_iptables "$1" --random-fully ;;
	keep) nat_iptables "$1" '' ;;
	nft) nat_nft "$1" ;;
	esac
}

# Flannel's rules as iptables has them (pkg/trafficmngr/iptables), in both families.
nat_iptables() { # WORLD FLAG
	local tool cluster own group
	for tool in iptables ip6tables; do
		cluster=$CLUSTER4 own=$OWN4 group=224.0.0.0/4
		[[ $tool == iptables ]] || cluster=$CLUSTER6 own=$OWN6 group=ff00::/8
		node_exec "$1" "$tool-restore" -w --noflush <<-END
			*nat
			:FLANNEL-POSTRTG - [0:0]
			-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
			-A FLANNEL-POSTRTG -s $own -d $cluster -j RETURN
			-A FLANNEL-POSTRTG -s $cluster -d $own -j RETURN
			-A FLANNEL-POSTRTG ! -s $cluster -d $own -j RETURN
			-A FLANNEL-POSTRTG -s $cluster ! -d $group -j MASQUERADE $2
			-A FLANNEL-POSTRTG ! -s $cluster -d $cluster -j MASQUERADE $2
			-A POSTROUTING -j FLANNEL-POSTRTG
			COMMIT
		END
	done
}

# And as nft has them (pkg/trafficmngr/nftables).
nat_nft() { # WORLD
	local family cluster own group
	for family in ip ip6; do
		cluster=$CLUSTER4 own=$OWN4 group=224.0.0.0/4
		[[ $family == ip ]] || cluster=$CLUSTER6 own=$OWN6 group=ff00::/8
		node_exec "$1" nft -f - <<-END
			table $family flannel-$family {
				chain postrtg {
					type nat hook postrouting priority srcnat; policy accept;
					meta mark 0x4000 return
					$family saddr $own $family daddr $cluster return
					$family saddr $cluster $family daddr $own return
					$family saddr != $own $family daddr $cluster return
					$family saddr $cluster $family daddr != $group masquerade fully-random
					$family saddr != $cluster $family daddr $cluster masquerade fully-random
				}
			}
		END
	done
}

# nat_twill WORLD [conntrack]: the overlay device; programs are the test's to attach. `conntrack`: it follows connections.
nat_twill() {
	local ns tool dev
	nat_world "$1"
	ns=$(node_ns "$1")
	ip -n "$ns" -batch - <<-END
		link add twill0 address 0a:aa:00:00:00:10 mtu 1430 type vxlan external dstport 8472 udp6zerocsumtx udp6zerocsumrx
		addr add 10.42.10.0/32 dev twill0
		addr add fd00:42:0:10::/128 dev twill0 nodad
		link set dev twill0 up
		neigh add 169.254.77.77 lladdr 02:74:77:00:00:01 dev twill0 nud permanent
		neigh add fe80::77 lladdr 02:74:77:00:00:01 dev twill0 nud permanent
		route add 10.42.0.0/16 via 169.254.77.77 dev twill0 onlink
		route add fd00:42::/48 via fe80::77 dev twill0
	END
	for dev in eth0 eth1 twill0; do tc -n "$ns" qdisc add dev "$dev" clsact; done
	[[ ${2:-} != conntrack ]] || for tool in iptables ip6tables; do
		node_exec "$1" "$tool" -w -A FORWARD -m conntrack --ctstate INVALID
	done
	# A flow that netfilter translates, for those about whose port is whose.
	[[ ${2:-} != conntrack ]] || {
		node_exec "$1" iptables -w -t nat -A POSTROUTING -s 10.42.10.3 -p udp --dport 5300 -j SNAT --to-source 192.0.2.10:2500
		node_exec "$1" ip6tables -w -t nat -A POSTROUTING -s fd00:42:0:10::3 -p udp --dport 5300 -j SNAT \
			--to-source "[2001:db8:1::10]:2500"
	}
}

# The seven worlds of the differential suite: k by the kernel, t by twill.
nat_worlds() {
	nat_bench_up
	nat_kernel ki iptables
	nat_kernel kn nft
	nat_kernel kk keep
	nat_twill ti conntrack
	nat_twill tn conntrack
	nat_twill tk conntrack
	nat_twill tc
}
