#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What real flanneld does with a network in etcd, held against what twill takes for granted about it: keys, values and TTLs.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/peers/lib.sh"
peers_need etcd flannel flannel-old
. "$(dirname "$0")/flanneld_lib.sh"

with_etcd() {
	local flags node
	lab_up "flanneld-etcd-$$"
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

with_etcd --tls
finish
