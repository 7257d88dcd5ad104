#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What real flanneld does with a network in Kubernetes, held against what twill takes for granted about it: annotations, patches,
# the node's condition.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/peers/lib.sh"
peers_need etcd flannel flannel-old kube-apiserver
. "$(dirname "$0")/flanneld_lib.sh"
ANNOTATIONS=flannel.alpha.coreos.com

want_annotations() {
	jq -ncS --arg p "$ANNOTATIONS" --arg d4 "$(data_of "$1" flannel.1)" --arg d6 "$(data_of "$1" flannel-v6.1)" \
		--arg ip4 "$(node_ip "$1" 4)" --arg ip6 "$(node_ip "$1" 6)" '{"\($p)/backend-data": $d4, "\($p)/backend-v6-data": $d6,
		"\($p)/backend-type": "vxlan", "\($p)/kube-subnet-manager": "true", "\($p)/public-ip": $ip4, "\($p)/public-ipv6": $ip6}'
}

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
	lab_up "flanneld-kube-$$"
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

with_kubernetes
finish
