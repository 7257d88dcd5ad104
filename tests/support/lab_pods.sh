# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Pods and services of the lab; sourced by lab.sh.
# shellcheck disable=SC2016 # awk programs are not for the shell to expand

LAB_NET4=10.42.0.0/16
LAB_NET6=fd00:42::/48

pod_ns() { echo "twl-$LAB_NAME-$1-$2"; }
pod_exec() { nsenter --net="/run/netns/twl-$LAB_NAME-$1-$2" "${@:3}"; }
pod_ip() { cat "$LAB_DIR/$1/pods/$2/ip$3"; } # NODE POD 4|6
pod_host_if() { cat "$LAB_DIR/$1/pods/$2/host_if"; }
pod_mac() { cat "$LAB_DIR/$1/pods/$2/mac"; }

# pod_add NODE POD --style bridge|veth. bridge: as flannel's CNI plugin delegates it. veth: a routed point-to-point link.
# With LAB_NO_CNI_STATE=1 nothing is written to the CNI state folder, as with an IPAM plugin that nobody knows.
pod_add() {
	local node=$1 pod=$2 style=bridge dir hash last=2
	local FLANNEL_SUBNET='' FLANNEL_IPV6_SUBNET='' FLANNEL_MTU=''
	[[ ${3:-} == --style ]] && style=$4
	[[ -s $LAB_DIR/$node/subnet.env ]] || lab_die "$node has no subnet.env yet: start its agent first"
	# shellcheck disable=SC1090,SC1091 # written by the agent
	. "$LAB_DIR/$node/subnet.env"
	dir=$LAB_DIR/$node/pods/$pod
	mkdir -p "$dir"
	hash=$(echo "$LAB_NAME $node $pod $RANDOM" | sha256sum)
	while grep -qsxF "$last" "$LAB_DIR/$node"/pods/*/last; do last=$((last + 1)); done
	echo "$last" >"$dir/last"
	echo "${hash%% *}" >"$dir/id"
	echo "veth${hash:0:8}" >"$dir/host_if"
	echo "02:${hash:8:2}:${hash:10:2}:${hash:12:2}:${hash:14:2}:01" >"$dir/mac"
	echo "02:${hash:8:2}:${hash:10:2}:${hash:12:2}:${hash:14:2}:02" >"$dir/host_mac"
	[[ -z $FLANNEL_SUBNET ]] || echo "${FLANNEL_SUBNET%.*}.$last" >"$dir/ip4"
	[[ -z $FLANNEL_IPV6_SUBNET ]] || printf '%s%x\n' "${FLANNEL_IPV6_SUBNET%1/*}" "$last" >"$dir/ip6"
	[[ ${LAB_NO_CNI_STATE:-} ]] || _pod_allocate "$node" "$dir"
	_lab_netns "$(pod_ns "$node" "$pod")"
	_lab_sysctl "$(pod_ns "$node" "$pod")" ipv6/conf/all/accept_dad=0 ipv6/conf/default/accept_dad=0 \
		ipv6/conf/default/accept_ra=0
	"_pod_$style" "$node" "$pod" "$dir"
	[[ ${LAB_NO_CNI_STATE:-} ]] || _pod_result "$node" "$dir" "$style" "$(pod_ns "$node" "$pod")"
}

# host-local's files: who owns an address.
_pod_allocate() {
	local net=$LAB_DIR/$1/cni/networks/cbr0 family
	: >>"$net/lock"
	for family in 4 6; do
		[[ -e $2/ip$family ]] || continue
		printf '%s\r\neth0' "$(<"$2/id")" >"$net/$(<"$2/ip$family")"
		printf '%s' "$(<"$2/ip$family")" >"$net/last_reserved_ip.$((family / 2 - 2))"
	done
}

_pod_bridge() {
	local node=$1 dir=$3 ns peer
	ns=$(node_ns "$node")
	peer=$(pod_ns "$node" "$2")
	ip -n "$ns" link show cni0 >/dev/null 2>&1 || _node_cni0 "$node"
	ip -n "$ns" -batch - <<-END
		link add $(<"$dir/host_if") mtu $FLANNEL_MTU address $(<"$dir/host_mac") type veth peer name eth0 mtu $FLANNEL_MTU address $(<"$dir/mac") netns $peer
		link set dev $(<"$dir/host_if") master cni0
		link set dev $(<"$dir/host_if") type bridge_slave hairpin on
		link set dev $(<"$dir/host_if") up
	END
	{
		echo "link set dev lo up"
		echo "link set dev eth0 up"
		if [[ $FLANNEL_SUBNET ]]; then
			echo "addr add $(<"$dir/ip4")/24 dev eth0"
			echo "route add default via ${FLANNEL_SUBNET%/*}"
			echo "route add $LAB_NET4 via ${FLANNEL_SUBNET%/*}"
		fi
		if [[ $FLANNEL_IPV6_SUBNET ]]; then
			echo "addr add $(<"$dir/ip6")/64 dev eth0 nodad"
			echo "route add default via ${FLANNEL_IPV6_SUBNET%/*}"
			echo "route add $LAB_NET6 via ${FLANNEL_IPV6_SUBNET%/*}"
		fi
	} | ip -n "$peer" -batch -
}

# The bridge plugin gives the bridge a fixed address of its own, so that it does not change with its ports.
_node_cni0() {
	local ns mac
	ns=$(node_ns "$1")
	mac=$(echo "$LAB_NAME $1 cni0" | sha256sum)
	{
		echo "link add cni0 mtu $FLANNEL_MTU address 02:${mac:0:2}:${mac:2:2}:${mac:4:2}:${mac:6:2}:00 type bridge"
		echo "link set dev cni0 up"
		[[ -z $FLANNEL_SUBNET ]] || echo "addr add $FLANNEL_SUBNET brd + dev cni0"
		[[ -z $FLANNEL_IPV6_SUBNET ]] || echo "addr add $FLANNEL_IPV6_SUBNET dev cni0 nodad"
	} | ip -n "$ns" -batch -
}

_pod_veth() {
	local node=$1 dir=$3 ns peer host_if
	ns=$(node_ns "$node")
	peer=$(pod_ns "$node" "$2")
	host_if=$(<"$dir/host_if")
	{
		echo "link add $host_if mtu $FLANNEL_MTU address $(<"$dir/host_mac") type veth peer name eth0 mtu $FLANNEL_MTU address $(<"$dir/mac") netns $peer"
		echo "link set dev $host_if up"
	} | ip -n "$ns" -batch -
	{
		echo "link set dev lo up"
		echo "link set dev eth0 up"
		if [[ $FLANNEL_SUBNET ]]; then
			echo "addr add $(<"$dir/ip4")/32 dev eth0"
			echo "neigh add 169.254.1.1 lladdr $(<"$dir/host_mac") dev eth0 nud permanent"
			echo "route add default via 169.254.1.1 dev eth0 onlink"
		fi
		if [[ $FLANNEL_IPV6_SUBNET ]]; then
			echo "addr add $(<"$dir/ip6")/128 dev eth0 nodad"
			# Without the router flag the IPv6 route collector forgets, twice a minute, the path MTUs learnt through it.
			echo "neigh add fe80::1 lladdr $(<"$dir/host_mac") dev eth0 router nud permanent"
			echo "route add default via fe80::1 dev eth0 onlink"
		fi
	} | ip -n "$peer" -batch -
	{
		[[ -z $FLANNEL_SUBNET ]] || echo "route add $(<"$dir/ip4")/32 dev $host_if scope link"
		[[ -z $FLANNEL_IPV6_SUBNET ]] || echo "route add $(<"$dir/ip6")/128 dev $host_if"
	} | ip -n "$ns" -batch -
}

# libcni's cache of what the plugins answered: which interface belongs to which address.
_pod_result() {
	local node=$1 dir=$2 style=$3 netns=/run/netns/$4 id ips='' bridge='' index=1
	id=$(<"$dir/id")
	if [[ $style == bridge ]]; then
		index=2
		bridge='{"name":"cni0"},'
	fi
	[[ ! -e $dir/ip4 ]] || ips="{\"version\":\"4\",\"interface\":$index,\"address\":\"$(<"$dir/ip4")/24\",\"gateway\":\"${FLANNEL_SUBNET%/*}\"}"
	[[ ! -e $dir/ip6 ]] || ips="${ips:+$ips,}{\"version\":\"6\",\"interface\":$index,\"address\":\"$(<"$dir/ip6")/64\",\"gateway\":\"${FLANNEL_IPV6_SUBNET%/*}\"}"
	cat >"$LAB_DIR/$node/cni/results/cbr0-$id-eth0" <<-END
		{"kind":"cniCacheV1","containerId":"$id","ifName":"eth0","networkName":"cbr0","netns":"$netns","result":{"cniVersion":"0.3.1","interfaces":[$bridge{"name":"$(<"$dir/host_if")","mac":"$(<"$dir/host_mac")"},{"name":"eth0","mac":"$(<"$dir/mac")","sandbox":"$netns"}],"ips":[$ips],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}}
	END
}

# pod_del NODE POD: what CNI DEL does.
pod_del() {
	local dir=$LAB_DIR/$1/pods/$2 family
	for family in 4 6; do
		if [[ -e $dir/ip$family ]]; then rm -f "$LAB_DIR/$1/cni/networks/cbr0/$(<"$dir/ip$family")"; fi
	done
	rm -f "$LAB_DIR/$1/cni/results/cbr0-$(<"$dir/id")-eth0"
	ip -n "$(node_ns "$1")" link del "$(<"$dir/host_if")"
	ip netns del "$(pod_ns "$1" "$2")"
	rm -rf "$dir"
}

# pod_serve NODE POD [PORT]: a traffic server for both families in the pod.
pod_serve() {
	pod_exec "$1" "$2" "$TWILL_BIN/tw-traffic" server :: "${3:-5001}" --background >"$LAB_DIR/$1/pods/$2/server.pid"
	lab_record_pid "$(<"$LAB_DIR/$1/pods/$2/server.pid")"
}

# node_serve NODE ADDRESS [PORT]: the same in the node itself, on one address.
node_serve() {
	local pid
	pid=$(node_exec "$1" "$TWILL_BIN/tw-traffic" server "$2" "${3:-5001}" --background)
	lab_record_pid "$pid"
}

# clusterip_add NODE VIP PORT BACKEND_IP BACKEND_PORT: the rules that kube-proxy makes for a service with one backend.
# Sources outside the cluster network, and the backend itself, are masqueraded.
clusterip_add() {
	local node=$1 vip=$2 port=$3 backend=$4 backend_port=$5 family=ip cluster=$LAB_NET4 target
	target=$backend:$backend_port
	if [[ $vip == *:* ]]; then
		family=ip6
		cluster=$LAB_NET6
		target="[$backend]:$backend_port"
	fi
	node_exec "$node" nft list table "$family" kube-proxy-lab >/dev/null 2>&1 || node_exec "$node" nft -f - <<-END
		table $family kube-proxy-lab {
			chain services { }
			chain prerouting { type nat hook prerouting priority dstnat; jump services; }
			chain output { type nat hook output priority -100; jump services; }
			chain postrouting {
				type nat hook postrouting priority srcnat;
				meta mark & 0x4000 != 0x4000 return
				meta mark set meta mark ^ 0x4000
				masquerade fully-random
			}
		}
	END
	node_exec "$node" nft -f - <<-END
		add rule $family kube-proxy-lab services $family daddr $vip meta l4proto { tcp, udp } th dport $port $family saddr != $cluster meta mark set meta mark | 0x4000
		add rule $family kube-proxy-lab services $family daddr $vip meta l4proto { tcp, udp } th dport $port $family saddr $backend meta mark set meta mark | 0x4000
		add rule $family kube-proxy-lab services $family daddr $vip tcp dport $port dnat to $target
		add rule $family kube-proxy-lab services $family daddr $vip udp dport $port dnat to $target
	END
}

# lab_calm: on every node and pod of now, neighbours that are known stay known: no probe is sent for an hour.
lab_calm() {
	local ns
	while read -r ns; do
		# shellcheck disable=SC2016 # expands in the inner shell
		nsenter --net="/run/netns/$ns" bash -c 'for dev in /proc/sys/net/ipv[46]/neigh/*; do
			echo 3600000 >"$dev/base_reachable_time_ms"
			echo 3600 >"$dev/gc_stale_time"
			echo 3600 >"$dev/delay_first_probe_time"
		done'
	done < <(grep -v -e "-switch\$" -e "-router\$" "$LAB_DIR/.lab/netns")
}

# --- what the kernel says ------------------------------------------------------------------------------------------

# node_forwarded NODE 4|6: IP packets that the node's own stack forwarded since boot.
node_forwarded() {
	if [[ $2 == 4 ]]; then
		node_exec "$1" awk '/^Ip:/ { if (c) { print $c; exit } for (i = 1; i <= NF; i++) if ($i == "ForwDatagrams") c = i }' \
			/proc/net/snmp
	else
		node_exec "$1" awk '$1 == "Ip6OutForwDatagrams" { print $2 }' /proc/net/snmp6
	fi
}

# link_packets NODE INTERFACE: "rx tx", packets; "- -" when there is no such interface.
link_packets() {
	node_exec "$1" awk -v dev="$2:" '$1 == dev { print $3, $11; found = 1 } END { if (!found) print "- -" }' /proc/net/dev
}
