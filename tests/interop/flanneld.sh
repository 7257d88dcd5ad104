#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What real flanneld does with a network in etcd and in Kubernetes, held against what twill takes for granted about it: keys,
# values and TTLs, annotations and patches, devices, routes, neighbours, forwarding entries, subnet.env. Two nodes: node-a with the
# newest release, node-b with the oldest one that ./dev peers builds.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/peers/lib.sh"

peers_need etcd flannel flannel-old kube-apiserver
command -v bridge >/dev/null || skip "missing: bridge"
CONFIG='{
  "Network": "10.42.0.0/16", "SubnetLen": 24, "EnableIPv6": true, "IPv6Network": "fd00:42::/48", "IPv6SubnetLen": 64,
  "Backend": { "Type": "vxlan", "VNI": 1 }
}'
ANNOTATIONS=flannel.alpha.coreos.com

# --- what flanneld should have done, from the lab's addresses and the devices it made -----------------------------------------

env_of() { sed -n "s/^$2=//p" "$(node_dir "$1")/subnet.env"; } # NODE KEY
# NODE: a.b.c.0 and the like, without a length.
subnet4() { env_of "$1" FLANNEL_SUBNET | sed 's|\.1/24$|.0|'; }
subnet6() { env_of "$1" FLANNEL_IPV6_SUBNET | sed 's|::1/64$|::|'; }
mac_of() { node_exec "$1" cat "/sys/class/net/$2/address"; } # NODE DEVICE
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

want_annotations() {
	jq -ncS --arg p "$ANNOTATIONS" --arg d4 "$(data_of "$1" flannel.1)" --arg d6 "$(data_of "$1" flannel-v6.1)" \
		--arg ip4 "$(node_ip "$1" 4)" --arg ip6 "$(node_ip "$1" 6)" '{"\($p)/backend-data": $d4, "\($p)/backend-v6-data": $d6,
		"\($p)/backend-type": "vxlan", "\($p)/kube-subnet-manager": "true", "\($p)/public-ip": $ip4, "\($p)/public-ipv6": $ip6}'
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

addresses() { node_exec "$1" ip -j addr show dev "$2" scope global | jq -r '.[].addr_info[]? | "\(.local)/\(.prefixlen)"' | xargs; }
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

# --- etcd -----------------------------------------------------------------------------------------------------------------------

with_etcd() {
	local flags node
	lab_up "$(basename "$0" .sh)-e-$$"
	node_add node-a
	node_add node-b
	peers_at router 192.0.2.1
	start_etcd "$@"
	etcd_do put "$ETCD_PREFIX/config" "$CONFIG" >/dev/null
	mapfile -t flags < <(etcd_flags)
	start_flanneld node-a "${flags[@]}"
	start_flanneld node-b --old "${flags[@]}"
	for node in node-a node-b; do
		wait_flanneld "$node"
		devices_are_flannels "$node"
		check "etcd: key of $node" same "$(want_key "$node")" "$(etcd_keys "$ETCD_PREFIX/subnets/$(subnet4 "$node")")"
		check "etcd: value of $node" same "$(want_value "$node")" "$(etcd_value "$(want_key "$node")")"
		check "etcd: TTL of $node" same 86400 "$(etcd_ttl "$(want_key "$node")")"
	done
	check "etcd: nothing else is written" same 3 "$(etcd_keys | wc -l)"
	peer_is_programmed node-a node-b
	peer_is_programmed node-b node-a
	peer_stop flanneld-node-a
	check "node-a: a stopped flanneld leaves its lease" same "$(want_value node-a)" "$(etcd_value "$(want_key node-a)")"
	check "node-a: and its device" mac_of node-a flannel.1
	end_lab
}

# --- Kubernetes -------------------------------------------------------------------------------------------------------------------

annotations() {
	node_object "$1" ".metadata.annotations // {} | with_entries(select(.key | startswith(\"$ANNOTATIONS/\"))) | tojson" | jq -cS .
}
condition() {
	node_object "$1" '.status.conditions[]? | select(.type == "NetworkUnavailable") | "\(.status) \(.reason) \(.message)"'
}
condition_is_set() { [[ $(condition "$1") ]]; }
# The patches but for the condition's times.
patches() { patches_of "$1" | jq -cS 'del(.patch.status.conditions[]?.lastHeartbeatTime, .patch.status.conditions[]?.lastTransitionTime)'; }

want_patches() {
	jq -ncS --argjson annotations "$(want_annotations "$1")" '{subresource: "status", code: 200, patch: {metadata: {$annotations}}}'
	jq -ncS '{subresource: "status", code: 200, patch: {status: {conditions: [{type: "NetworkUnavailable", status: "False",
		reason: "FlannelIsUp", message: "Flannel is running on this node"}]}}}'
}

with_kubernetes() {
	local node flags dir
	lab_up "$(basename "$0" .sh)-k-$$"
	dir=$(peers_dir)
	node_add node-a
	node_add node-b
	peers_at router 192.0.2.1
	start_etcd
	start_apiserver
	create_node node-a 10.42.1.0/24 fd00:42:0:1::/64
	create_node node-b 10.42.2.0/24 fd00:42:0:2::/64
	echo "$CONFIG" >"$dir/net-conf.json"
	flags=(-kube-subnet-mgr "-kubeconfig-file=$dir/flannel.kubeconfig" "-net-config-path=$dir/net-conf.json")
	start_flanneld node-a "${flags[@]}"
	start_flanneld node-b --old "${flags[@]}"
	for node in node-a node-b; do
		wait_flanneld "$node"
		devices_are_flannels "$node"
		check "$node: its subnet is the podCIDR" same "$(node_object "$node" .spec.podCIDR)" "$(subnet4 "$node")/24"
		check "$node: the condition is patched" wait_until "$(scaled 20)" condition_is_set "$node"
		check "$node: condition" same "False FlannelIsUp Flannel is running on this node" "$(condition "$node")"
		check "$node: annotations" same "$(want_annotations "$node")" "$(annotations "$node")"
		check "$node: patches, all of them" same "$(want_patches "$node")" "$(patches "$node")"
	done
	peer_is_programmed node-a node-b
	peer_is_programmed node-b node-a
	end_lab
}

with_etcd --tls
with_kubernetes
finish
