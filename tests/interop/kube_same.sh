#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The same Node on a real API server to flanneld and to twilld, and what comes of it compared byte for byte: the patches as the
# API server recorded them, the annotations and the condition left, subnet.env. Then: that twilld asked for nothing which
# flannel's role does not allow. Random MAC addresses and times are masked; the annotation PREFIX/twill is twill's alone.
#
# A row is a machine of its own: first all flannelds run at once, then all twillds. KUBE_ROWS=REGEX: rows whose name matches.
# KUBE_SHOW=1: print what flanneld did.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/peers/lib.sh"
peers_need etcd flannel kube-apiserver
. "$(dirname "$0")/kube_lib.sh"

lab_up "kube-same-$$"
DIR=$(peers_dir)
peers_at router 192.0.2.1
V4='"Network":"10.42.0.0/16"' V6='"EnableIPv6":true,"IPv6Network":"fd00:42::/48"'
CONF="{$V4,$V6,\"Backend\":{\"Type\":\"vxlan\"}}"
ROWS=()

# row NAME NET-CONF ANNOTATIONS CIDRS...: a machine, and a Node of that name. Flags and environment: how_to_start.
row() {
	[[ $1 =~ ${KUBE_ROWS:-.} ]] || return 0
	ROWS+=("$1")
	node_add "$1"
	echo "${2:-$CONF}" >"$(node_dir "$1")/net-conf.json"
	printf '%s\n' "${@:4}" >"$(node_dir "$1")/cidrs"
	echo "$3" >"$(node_dir "$1")/annotations"
	[[ $1 != chosen ]] || ip -n "$(node_ns chosen)" -batch - <<-STOP
		addr add 192.0.2.201/32 dev eth0
		addr add 2001:db8:1::201/128 dev eth0 nodad
	STOP
}
cidrs() { echo "10.42.$1.0/24" "fd00:42:0:$1::/64"; }

rows() {
	local p=flannel.alpha.coreos.com i=0
	next() { mapfile -t CIDRS < <(cidrs $((i += 1)) | tr ' ' '\n'); }
	next && row dual '' '{}' "${CIDRS[@]}"
	next && row ipv4 '{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan","VNI":42,"Port":4789,"MTU":1400}}' '{}' "${CIDRS[0]}"
	next && row ipv6 "{\"EnableIPv4\":false,$V6,\"Backend\":{\"Type\":\"vxlan\"}}" '{}' "${CIDRS[1]}"
	next && row prefix '' '{}' "${CIDRS[@]}"
	next && row quiet '' '{}' "${CIDRS[@]}"
	next && row overwrite '' "{\"$p/public-ip-overwrite\":\"203.0.113.7\",\"$p/public-ipv6-overwrite\":\"2001:db8:f::7\"}" "${CIDRS[@]}"
	next && row chosen '' "{\"$p/node-public-ip\":\"192.0.2.201\",\"$p/node-public-ipv6\":\"2001:db8:1::201\"}" "${CIDRS[@]}"
	next && row kept '' "$(jq -nc --arg p "$p" '{"\($p)/backend-data": "{\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:04\"}",
		"\($p)/backend-v6-data": "{\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:04\"}", "\($p)/backend-type": "vxlan",
		"\($p)/kube-subnet-manager": "true", "\($p)/public-ip": "192.0.2.99"}')" "${CIDRS[@]}"
	next && row bypod '' '{}' "${CIDRS[@]}"
	next && row inpod '' '{}' "${CIDRS[@]}"
	next && row apiurl '' '{}' "${CIDRS[@]}"
	next && row hostgw "{$V4,$V6,\"Backend\":{\"Type\":\"host-gw\"}}" '{}' "${CIDRS[@]}"
	next && row alloc '{"Network":"10.42.0.0/16","Backend":{"Type":"alloc"}}' '{}' "${CIDRS[0]}"
}

# Flags and environment of a row: FLAGS, VARS, IN_POD.
how_to_start() {
	VARS=("NODE_NAME=$1") IN_POD=()
	FLAGS=(-kube-subnet-mgr "-net-config-path=$(node_dir "$1")/net-conf.json")
	case $1 in
	inpod)
		in_pod "$DIR/account"
		VARS+=("KUBERNETES_SERVICE_HOST=$PEER_IP" KUBERNETES_SERVICE_PORT=6443)
		return
		;;
	bypod) VARS=(POD_NAMESPACE=default POD_NAME=flannel-of-bypod) ;;
	prefix) FLAGS+=(-kube-annotation-prefix=my.example.org/net) ;;
	quiet) FLAGS+=(-set-node-network-unavailable=false) ;;
	apiurl)
		FLAGS+=("-kubeconfig-file=$DIR/elsewhere.kubeconfig" "-kube-api-url=$(kube_url)")
		return
		;;
	esac
	FLAGS+=("-kubeconfig-file=$DIR/flannel.kubeconfig")
}

prefix_of() { if [[ $1 == prefix ]]; then echo my.example.org/net-; else echo flannel.alpha.coreos.com/; fi; }

patches_since() { # NODE AUDIT-LINE TWILL'S-ANNOTATION
	tail -n "+$2" "$DIR/audit.log" | jq -c --arg node "$1" --arg own "$3" 'select(.verb == "patch" and .objectRef.name == $node and
		.user.username == "flannel") | {subresource: .objectRef.subresource, code: .responseStatus.code, patch: .requestObject} |
		del(.patch.metadata.annotations[$own]?) | (.patch.status.conditions[]? | .lastHeartbeatTime, .lastTransitionTime) |= "TIME" |
		select(.patch != {metadata: {annotations: {}}})'
}

effect() { # NODE AUDIT-LINE
	local ANNOTATIONS
	ANNOTATIONS=$(prefix_of "$1")
	{
		annotations_of "$1" | grep -v "^${ANNOTATIONS}twill "
		condition_of "$1"
		patches_since "$1" "$2" "${ANNOTATIONS}twill"
		echo "subnet.env, mode $(stat -c %a "$(node_dir "$1")/subnet.env"):"
		cat "$(node_dir "$1")/subnet.env"
	} >"$(node_dir "$1")/now"
	# The MAC address of the row "kept" is given.
	[[ $1 == kept ]] || sed -Ei 's/(VtepMAC[\\":]+)[0-9a-f:]{17}/\1MAC/g' "$(node_dir "$1")/now"
}

settled() { # NODE
	[[ -s $(node_dir "$1")/subnet.env ]] || return
	[[ $1 == quiet ]] || [[ $(condition_of "$1") ]]
}

phase() { # flanneld|twilld
	local row from cidrs
	from=$(($(wc -l <"$DIR/audit.log") + 1))
	for row in "${ROWS[@]}"; do
		mapfile -t cidrs <"$(node_dir "$row")/cidrs"
		create_node "$row" "${cidrs[@]}"
		annotate "$row" "$(<"$(node_dir "$row")/annotations")"
	done
	for row in "${ROWS[@]}"; do
		how_to_start "$row"
		if [[ $1 == twilld ]]; then
			start_twilld "$row" "${FLAGS[@]}"
		else
			peer_run "flanneld-$row" "$row" env "${VARS[@]}" "${IN_POD[@]}" "$(peer_path flannel)" \
				-subnet-file "$(node_dir "$row")/subnet.env" -v=2 "${FLAGS[@]}"
		fi
	done
	for row in "${ROWS[@]}"; do
		check "$row: $1 comes up" wait_until "$(scaled 30)" settled "$row"
		effect "$row" "$from" || :
		mv "$(node_dir "$row")/now" "$(node_dir "$row")/$1"
	done
}

end_of_flanneld() {
	local row device
	for row in "${ROWS[@]}"; do peer_stop "flanneld-$row" KILL; done
	for row in "${ROWS[@]}"; do
		for device in $(node_exec "$row" ip -j link | jq -r '.[].ifname | select(startswith("flannel"))'); do
			ip -n "$(node_ns "$row")" link del "$device"
		done
		rm "$(node_dir "$row")/subnet.env"
		kube_do DELETE "/api/v1/nodes/$row" >"$DIR/deleted"
	done
}

same_effect() {
	local dir
	dir=$(node_dir "$1")
	[[ ! ${KUBE_SHOW:-} ]] || cat "$dir/flanneld" >&2
	[[ $(wc -l <"$dir/flanneld") -gt 4 ]] || { echo "flanneld did too little:" && cat "$dir/flanneld" && return 1; }
	diff -u --label flanneld --label twilld "$dir/flanneld" "$dir/twilld"
}

rows
start_etcd
start_apiserver
kube_config "$DIR/elsewhere.kubeconfig" "$FLANNEL_TOKEN"
sed -i 's|https://[^"]*|https://192.0.2.1:1|' "$DIR/elsewhere.kubeconfig"
mkdir "$DIR/account"
cp "$DIR/ca.crt" "$DIR/account/ca.crt"
echo "$FLANNEL_TOKEN" >"$DIR/account/token"
has_namespace() { kube_do GET /api/v1/namespaces/default; }
check "the API server has its namespaces" wait_until "$(scaled 20)" has_namespace
kube_do POST /api/v1/namespaces/default/pods '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"flannel-of-bypod"},
	"spec":{"nodeName":"bypod","hostNetwork":true,"containers":[{"name":"x","image":"x"}]}}' >"$DIR/pod.json"

phase flanneld
end_of_flanneld
check "no request of flanneld's was refused" same "" "$(refused_of)"
FROM=$(wc -l <"$DIR/audit.log")
phase twilld
for row in "${ROWS[@]}"; do check "$row: patches, annotations, condition and subnet.env" same_effect "$row"; done
check "no request of twilld's was refused" same "" "$(refused_of)"
check "twilld's requests were seen" test "$(tail -n "+$FROM" "$DIR/audit.log" | grep -c '"username":"flannel"')" -gt $((3 * ${#ROWS[@]}))
[[ $FAILURES == 0 ]] || tail -n 5 "$DIR"/flanneld-*.log | cut -c1-300
finish
