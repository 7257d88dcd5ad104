# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What real flanneld does with a network, whatever the store: devices, routes, neighbours, forwarding entries, subnet.env. Sourced
# by flanneld_etcd.sh and flanneld_kube.sh. Two nodes: node-a with the newest release, node-b with the oldest one that ./dev peers
# builds.

command -v bridge >/dev/null || skip "missing: bridge"
# shellcheck disable=SC2034 # for who sources this
CONFIG='{
  "Network": "10.42.0.0/16", "SubnetLen": 24, "EnableIPv6": true, "IPv6Network": "fd00:42::/48", "IPv6SubnetLen": 64,
  "Backend": { "Type": "vxlan", "VNI": 1 }
}'

# --- what flanneld should have done, from the lab's addresses and the devices it made -----------------------------------------

env_of() { sed -n "s/^$2=//p" "$(node_dir "$1")/subnet.env"; } # NODE KEY
# NODE: a.b.c.0 and the like, without a length.
subnet4() { env_of "$1" FLANNEL_SUBNET | sed 's|\.1/24$|.0|'; }
subnet6() { env_of "$1" FLANNEL_IPV6_SUBNET | sed 's|::1/64$|::|'; }
mac_of() { node_exec "$1" ip -j link show dev "$2" | jq -r '.[0].address'; } # NODE DEVICE
data_of() { echo "{\"VNI\":1,\"VtepMAC\":\"$(mac_of "$1" "$2")\"}"; }

want_key() { echo "$ETCD_PREFIX/subnets/$(subnet4 "$1")-24&$(subnet6 "$1")-64"; }

want_value() {
	printf '{"PublicIP":"%s","PublicIPv6":"%s","BackendType":"vxlan","BackendData":%s,"BackendV6Data":%s}' \
		"$(node_ip "$1" 4)" "$(node_ip "$1" 6)" "$(data_of "$1" flannel.1)" "$(data_of "$1" flannel-v6.1)"
}

want_env() {
	printf '%s\n' FLANNEL_NETWORK=10.42.0.0/16 "FLANNEL_SUBNET=$(subnet4 "$1" | sed 's/\.0$/.1/')/24" \
		FLANNEL_IPV6_NETWORK=fd00:42::/48 "FLANNEL_IPV6_SUBNET=$(subnet6 "$1")1/64" FLANNEL_MTU=1450 FLANNEL_IPMASQ=false
}

# --- checks that hold with either store ---------------------------------------------------------------------------------------

device() { # NODE DEVICE: what flannel chooses of it
	node_exec "$1" ip -d -j link show dev "$2" | jq -c '.[0] | {mtu, up: (.flags | contains(["UP"])), kind: .linkinfo.info_kind} +
		(.linkinfo.info_data | {id, link, local: (.local // .local6), port, learning, ttl: (.ttl // 0)})'
}

want_device() { # NODE DEVICE FAMILY MTU
	echo "{\"mtu\":$4,\"up\":true,\"kind\":\"vxlan\",\"id\":1,\"link\":\"eth0\",\"local\":\"$(node_ip "$1" "$3")\"," \
		"\"port\":8472,\"learning\":false,\"ttl\":0}" | tr -d ' '
}

addresses() { node_exec "$1" ip -j addr show dev "$2" scope global | jq -r '.[].addr_info[]? | select(.local) | "\(.local)/\(.prefixlen)"' | xargs; }
route() { node_exec "$1" ip "-$2" route show "$3" | xargs; }           # NODE FAMILY PREFIX
neighbour() { node_exec "$1" ip "-$2" neigh show "$3" dev "$4" | xargs; } # NODE FAMILY ADDRESS DEVICE
fdb() { node_exec "$1" bridge fdb show dev "$2" | grep "^$3 " | xargs; }  # NODE DEVICE MAC

has_route() { [[ $(route "$@") ]]; }

devices_are_flannels() { # NODE
	check "$1: subnet.env" same "$(want_env "$1")" "$(cat "$(node_dir "$1")/subnet.env")"
	check "$1: flannel.1" same "$(want_device "$1" flannel.1 4 1450)" "$(device "$1" flannel.1)"
	check "$1: flannel-v6.1" same "$(want_device "$1" flannel-v6.1 6 1430)" "$(device "$1" flannel-v6.1)"
	check "$1: address of flannel.1" same "$(subnet4 "$1")/32" "$(addresses "$1" flannel.1)"
	check "$1: address of flannel-v6.1" same "$(subnet6 "$1")/128" "$(addresses "$1" flannel-v6.1)"
}

peer_is_programmed() { # NODE PEER
	local to4 to6 mac4 mac6
	to4=$(subnet4 "$2") to6=$(subnet6 "$2") mac4=$(mac_of "$2" flannel.1) mac6=$(mac_of "$2" flannel-v6.1)
	check "$1: learns of $2" wait_until "$(scaled 20)" has_route "$1" 4 "$to4/24"
	check "$1: and over IPv6" wait_until "$(scaled 20)" has_route "$1" 6 "$to6/64"
	check "$1: route to $2" same "$to4/24 via $to4 dev flannel.1 onlink" "$(route "$1" 4 "$to4/24")"
	check "$1: route to $2 over IPv6" same "$to6/64 via $to6 dev flannel-v6.1 metric 1024 onlink pref medium" "$(route "$1" 6 "$to6/64")"
	check "$1: neighbour for $2" same "$to4 lladdr $mac4 PERMANENT" "$(neighbour "$1" 4 "$to4" flannel.1)"
	check "$1: neighbour for $2 over IPv6" same "$to6 lladdr $mac6 PERMANENT" "$(neighbour "$1" 6 "$to6" flannel-v6.1)"
	check "$1: fdb entry for $2" same "$mac4 dst $(node_ip "$2" 4) self permanent" "$(fdb "$1" flannel.1 "$mac4")"
	check "$1: fdb entry for $2 over IPv6" same "$mac6 dst $(node_ip "$2" 6) self permanent" "$(fdb "$1" flannel-v6.1 "$mac6")"
}

# What the peers said, when something failed; then the lab goes.
end_lab() {
	[[ $FAILURES == 0 ]] || tail -n 30 "$(peers_dir)"/flanneld-*.log
	lab_down
}

