# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The kernel's vxlan as flannel makes it: devices, and what flannel adds for each peer; sourced after lab.sh. From flannel
# v0.28.9: backend/vxlan/device.go and vxlan_network.go.

# Node number NUMBER's pods.
flannel_pods4() { echo "10.42.$1.0/24"; }
flannel_pods6() { printf 'fd00:42:0:%x::/64\n' "$1"; }

# flannel_lease NUMBER NODE IPV4 IPV6 VTEP-MAC IPV6-VTEP-MAC [vxlan|host-gw]: its lease in the lab's store, atomically.
flannel_lease() {
	mkdir -p "$LAB_DIR/store/leases"
	jq -n --arg backend "${7:-vxlan}" --arg pods4 "$(flannel_pods4 "$1")" --arg pods6 "$(flannel_pods6 "$1")" --arg node "$2" --arg v4 "$3" --arg v6 "$4" \
		--arg mac4 "$5" --arg mac6 "$6" '{PublicIP: $v4, PublicIPv6: $v6, BackendType: $backend} +
		if $backend == "vxlan" then {BackendData: {VNI: 1, VtepMAC: $mac4}, BackendV6Data: {VNI: 1, VtepMAC: $mac6}} else {} end +
		{Subnet: $pods4, IPv6Subnet: $pods6, Expiration: "2099-01-01T00:00:00Z", Node: $node}' >"$LAB_DIR/store/new"
	mv "$LAB_DIR/store/new" "$(flannel_lease_file "$1")"
}
flannel_lease_file() { echo "$LAB_DIR/store/leases/10.42.$1.0-24&$(flannel_pods6 "$1" | tr / -).json"; } # NUMBER

# flannel_node NODE NUMBER VTEP-MAC IPV6-VTEP-MAC [vxlan|host-gw]: lease, subnet.env, and with vxlan its devices.
flannel_node() {
	flannel_lease "$2" "$1" "$(node_ip "$1" 4)" "$(node_ip "$1" 6)" "${@:3}"
	printf '%s\n' FLANNEL_NETWORK=10.42.0.0/16 "FLANNEL_SUBNET=10.42.$2.1/24" FLANNEL_IPV6_NETWORK=fd00:42::/48 \
		"FLANNEL_IPV6_SUBNET=fd00:42:0:$(printf %x "$2")::1/64" FLANNEL_MTU=1450 FLANNEL_IPMASQ=false >"$LAB_DIR/$1/subnet.env"
	[[ ${5:-vxlan} == vxlan ]] || return 0
	flannel_device "$1" "$(flannel_pods4 "$2")" "$(flannel_pods6 "$2")" "$3"
	[[ $3 == "$4" ]] || ip -n "$(node_ns "$1")" link set dev flannel-v6.1 address "$4"
}

# flannel_device NODE POD-SUBNET4/24 POD-SUBNET6/64 VTEP-MAC [vxlan options of the IPv6 device]
# VNI 1, port 8472, the device's MTU below the wire's by 50 and 70; the address is the subnet's first.
flannel_device() {
	local node=$1 first4=${2%/*} first6=${3%/*} mac=$4
	ip -n "$(node_ns "$node")" -batch - <<-END
		link add flannel.1 mtu 1450 address $mac type vxlan id 1 dev eth0 local $(node_ip "$node" 4) dstport 8472 nolearning ttl 0 tos 0
		link add flannel-v6.1 mtu 1430 address $mac type vxlan id 1 dev eth0 local $(node_ip "$node" 6) dstport 8472 nolearning ttl 0 tos 0 ${*:5}
		addr add $first4/32 dev flannel.1
		link set dev flannel.1 up
		addr add $first6/128 dev flannel-v6.1 nodad
		link set dev flannel-v6.1 up
	END
	_lab_sysctl "$(node_ns "$node")" ipv6/conf/flannel.1/accept_ra=0 ipv6/conf/flannel-v6.1/accept_ra=0
}

# flannel_peer NODE POD-SUBNET4/24 POD-SUBNET6/64 PUBLIC-IP4 PUBLIC-IP6 VTEP-MAC [IPV6-VTEP-MAC]: one neighbour, one fdb entry
# and one route a family, as for an added lease.
flannel_peer() {
	local ns first4=${2%/*} first6=${3%/*} mac6=${7:-$6}
	ns=$(node_ns "$1")
	ip -n "$ns" -batch - <<-END
		neigh replace $first4 lladdr $6 dev flannel.1 nud permanent
		route replace $2 via $first4 dev flannel.1 onlink
		neigh replace $first6 lladdr $mac6 dev flannel-v6.1 nud permanent
		route replace $3 via $first6 dev flannel-v6.1 onlink
	END
	bridge -n "$ns" fdb replace "$6" dev flannel.1 dst "$4" self permanent
	bridge -n "$ns" fdb replace "$mac6" dev flannel-v6.1 dst "$5" self permanent
}
