#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# twilld on a real API server that stops, is killed, forgets versions, refuses tokens, shows a certificate that expired: traffic
# between pods loses nothing meanwhile, and what changed meanwhile is right when it is back. Then what others write into Nodes:
# junk, annotations taken away, podCIDRs that come late. node-a has a kubeconfig with a token file, node-b is a pod.
#
# The API server keeps JSON in etcd, so that Nodes can change while it is down. TWILL_FULL=1: it is down for 5 minutes.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/peers/lib.sh"
peers_need etcd kube-apiserver
. "$(dirname "$0")/kube_lib.sh"
ANNOTATIONS=flannel.alpha.coreos.com/
DOWN=20
[[ ! ${TWILL_FULL:-} ]] || DOWN=300
MS=()

LAB_NET_CONF='{"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48","Backend":{"Type":"vxlan"}}'
lab_up "kube-cases-$$"
DIR=$(peers_dir)
APISERVER_FLAGS=(--storage-media-type=application/json)

# --- nodes ----------------------------------------------------------------------------------------------------------------

agent() { # NODE: VARS and IN_POD are set
	start_twilld "$1" -kube-subnet-mgr "-net-config-path=$LAB_DIR/store/config" "${@:2}"
}
agent_of() { # NODE
	VARS=("NODE_NAME=$1") IN_POD=()
	if [[ $1 == node-b ]]; then
		in_pod "$DIR/account"
		VARS+=("KUBERNETES_SERVICE_HOST=$PEER_IP" KUBERNETES_SERVICE_PORT=6443)
		agent "$1"
	else
		agent "$1" "-kubeconfig-file=$DIR/account/kubeconfig"
	fi
}

# annotated INDEX: a peer's annotations by hand.
annotated() {
	jq -nc --arg p "$ANNOTATIONS" --arg i "$1" '{"\($p)kube-subnet-manager": "true", "\($p)backend-type": "vxlan",
		"\($p)backend-data": "{\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:\($i)\"}", "\($p)public-ip": "198.51.100.\($i)"}'
}
by_hand() { # NAME INDEX
	create_node "$1" "10.42.$2.0/24"
	annotate "$1" "$(annotated "$2")"
}
is_peer() { items_are "$1" peers "any(.[]; .pods == \"$2\" and .node == \"$3\")"; } # NODE PODS ADDRESS
no_peer() { items_are "$1" peers "all(.[]; .pods != \"$2\")"; }
sees() { # WHAT NODE PODS ADDRESS
	local node
	for node in node-a node-b; do check "$node: $1" wait_until "$(scaled 10)" is_peer "$node" "$2" "$3"; done
}
is_healthy() { status_is "$1" .store.healthy; }
says() { [[ $(status "$1" .store.error) == *"$2"* ]] && status_is "$1" '.store.healthy | not'; } # NODE TEXT

# etcd_node NAME JQ [NEW-NAME]: changes a Node, or writes a changed copy of it, behind the API server's back.
etcd_node() {
	local key=/registry/minions
	etcd_do put "$key/${3:-$1}" "$(etcd_value "$key/$1" | jq -c "$2")" >/dev/null
}
own_is_back() { same "$OWN" "$(annotations_of node-b)"; } # as node-b wrote them first
compact() {
	etcd_do compact "$(etcd_do get / -w json | grep -o '"revision":[0-9]*' | cut -d : -f 2)" >/dev/null
}

# --- traffic ----------------------------------------------------------------------------------------------------------------

flood() { flow_start "$1" "$2" udp-flood "$3" --rate 300; } # NAME NODE-POD ADDRESS

# back WHAT COMMAND...: how long after the API server's return it holds.
back() {
	local start
	start=$(date +%s%3N)
	check "$1" wait_until "$(scaled 5)" "${@:2}"
	MS+=("$(($(date +%s%3N) - start))")
	echo "kube_cases: $1: ms_after_return=${MS[-1]}"
}

new_token() { # TOKEN: in the files of both nodes
	echo "$1" >"$DIR/account/token.new"
	mv "$DIR/account/token.new" "$DIR/account/token"
}

# --- up -----------------------------------------------------------------------------------------------------------------------

node_add node-a --segment 1
node_add node-b --segment 2
peers_at router 192.0.2.1
mkdir "$DIR/account"
cp "$DIR/ca.crt" "$DIR/account/ca.crt"
new_token "$FLANNEL_TOKEN"
start_etcd
start_apiserver
kube_config "$DIR/account/kubeconfig" none
sed -i 's/{token: .*/{tokenFile: token}}]/' "$DIR/account/kubeconfig"
create_node node-a 10.42.1.0/24 fd00:42:0:1::/64
create_node node-b 10.42.2.0/24 fd00:42:0:2::/64
by_hand node-y 21
by_hand node-z 22
for node in node-a node-b; do agent_of "$node"; done
for node in node-a node-b; do check "$node: ready" wait_ready "$node" "$(scaled 30)"; done
pod_add node-a pod-a --style bridge
pod_add node-b pod-b --style veth
pod_serve node-a pod-a
pod_serve node-b pod-b
check "pods reach each other" reachable "node-a pod-a" "node-b pod-b"
sees "a peer" 10.42.21.0/24 198.51.100.21
sees "another peer" 10.42.22.0/24 198.51.100.22
OWN=$(annotations_of node-b)
flood "IPv4 from node-a" node-a-pod-a "$(pod_ip node-b pod-b 4)"
flood "IPv6 from node-b" node-b-pod-b "$(pod_ip node-a pod-a 6)"

# --- the API server goes away -----------------------------------------------------------------------------------------------

# It would wait a minute for open watches; a second SIGTERM ends it.
read -r pid _ <"$DIR/apiserver.pid"
kill -TERM "$pid"
refuses() { not node_exec node-a curl -sk --noproxy '*' --max-time 1 "$(kube_url)/livez"; }
check "the API server ends on SIGTERM" wait_until "$(scaled 10)" refuses
peer_stop apiserver
etcd_node node-y ".metadata.annotations[\"${ANNOTATIONS}public-ip\"] = \"198.51.100.121\""
etcd_node node-y '.metadata.name = "node-x" | .metadata.uid = "0b5a2c5e-0000-4000-8000-000000000001" | .spec.podCIDR = "10.42.23.0/24" |
	.spec.podCIDRs = [.spec.podCIDR] | .metadata.annotations += '"$(annotated 23)" node-x
etcd_do del /registry/minions/node-z >/dev/null
compact
check "node-a: says that the API server is away" wait_until "$(scaled 10)" says node-a 192.0.2.1
check "node-b: too" wait_until "$(scaled 10)" says node-b 192.0.2.1
sleep "$DOWN"
check "node-a: keeps its peers meanwhile" is_peer node-a 10.42.22.0/24 198.51.100.22
start_apiserver
back "after $DOWN s: another address meanwhile" is_peer node-a 10.42.21.0/24 198.51.100.121
back "after $DOWN s: a node added meanwhile" is_peer node-a 10.42.23.0/24 198.51.100.23
back "after $DOWN s: a node deleted meanwhile" no_peer node-a 10.42.22.0/24
back "node-b: the same" is_peer node-b 10.42.23.0/24 198.51.100.23
back "node-b: well again" is_healthy node-b

peer_stop apiserver KILL
etcd_node node-y ".metadata.annotations[\"${ANNOTATIONS}public-ip\"] = \"198.51.100.122\""
start_apiserver
back "after kill -9: another address meanwhile" is_peer node-a 10.42.21.0/24 198.51.100.122

# Nothing happens for longer than twilld keeps a watch that is silent: bookmarks keep it.
watches_begun() { jq -r 'select(.user.username == "flannel" and .verb == "watch" and .stage == "ResponseStarted") | .auditID' "$DIR/audit.log" | wc -l; }
if [[ ${TWILL_FULL:-} ]]; then
	# The API server sends none on a watch that has had no event.
	version=$(kube_do GET /api/v1/nodes?limit=1 | jq -r .metadata.resourceVersion)
	KUBE_CURL=(--max-time 170)
	kube_do GET "/api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=$version&timeoutSeconds=165" >"$DIR/quiet.log" &
	quiet=$!
	KUBE_CURL=()
	annotate node-y "{\"${ANNOTATIONS}public-ip\": \"198.51.100.120\"}"
	sees "after kill -9: what changes" 10.42.21.0/24 198.51.100.120
	begun=$(watches_begun)
	wait "$quiet" || :
	echo "kube_cases: 165 s of a quiet watch: $(grep -c '"type":"BOOKMARK"' "$DIR/quiet.log") bookmarks"
	check "the API server sent bookmarks" grep '"type":"BOOKMARK"' "$DIR/quiet.log"
	check "and the watches lasted" same "$begun" "$(watches_begun)"
fi

# A token that nobody takes any more, until the file has the next one.
peer_stop apiserver KILL
FLANNEL_TOKEN=another-token-of-a-test
start_apiserver
for node in node-a node-b; do
	check "$node: says that its token is refused, not the token" wait_until "$(scaled 20)" says "$node" "answers 401"
	check "$node: no token in its status" not grep token-of-a-test <(status "$node" .)
done
annotate node-y "{\"${ANNOTATIONS}public-ip\": \"198.51.100.123\"}"
new_token "$FLANNEL_TOKEN"
sees "with the new token: what changed" 10.42.21.0/24 198.51.100.123

# An expired certificate, then one that is good: the API server reads the files anew by itself.
peer_stop apiserver KILL
cert_issue "$DIR" server /O=twill-test "subjectAltName=IP:$PEER_IP" serverAuth,clientAuth -days -1
KUBE_CURL=(--insecure)
start_apiserver
annotate node-y "{\"${ANNOTATIONS}public-ip\": \"198.51.100.124\"}"
for node in node-a node-b; do check "$node: says that the certificate expired" wait_until "$(scaled 20)" says "$node" certificate; done
check "node-a: believes nothing of it" is_peer node-a 10.42.21.0/24 198.51.100.123
cert_issue "$DIR" server /O=twill-test "subjectAltName=IP:$PEER_IP" serverAuth,clientAuth
KUBE_CURL=()
valid() { kube_do GET /readyz; }
check "the API server shows the next certificate" wait_until "$(scaled 90)" valid
back "with the next certificate: what changed" is_peer node-a 10.42.21.0/24 198.51.100.124

# An old backup: a node that came since is gone, and what node-b wrote is not all there. The API server's own writes have passed
# the last version by when it is up.
etcd_backup "$LAB_DIR/early.db"
by_hand node-v 25
sees "a late node" 10.42.25.0/24 198.51.100.25
peer_stop apiserver KILL
peer_stop etcd KILL
etcd_restore "$LAB_DIR/early.db"
start_etcd
etcd_node node-b "del(.metadata.annotations[\"${ANNOTATIONS}backend-data\"])"
etcd_node node-y ".metadata.annotations[\"${ANNOTATIONS}public-ip\"] = \"198.51.100.125\""
start_apiserver
back "old backup: a node that it does not know goes" no_peer node-a 10.42.25.0/24
back "old backup: what changed with it" is_peer node-a 10.42.21.0/24 198.51.100.125
back "old backup: node-b writes what is missing" own_is_back
back "old backup: node-b well again" is_healthy node-b
annotate node-y "{\"${ANNOTATIONS}public-ip\": \"198.51.100.126\"}"
sees "old backup: the watch goes on" 10.42.21.0/24 198.51.100.126

compact
annotate node-y "{\"${ANNOTATIONS}public-ip\": \"198.51.100.125\"}"
sees "after etcd was compacted behind a running API server: what changes" 10.42.21.0/24 198.51.100.125
flows_end 4000

# --- what others write --------------------------------------------------------------------------------------------------------

annotate node-y "{\"${ANNOTATIONS}kube-subnet-manager\": null}"
check "without flannel's mark a node is no peer" wait_until "$(scaled 10)" no_peer node-a 10.42.21.0/24
annotate node-y "{\"${ANNOTATIONS}kube-subnet-manager\": \"true\"}"
sees "and is one with it" 10.42.21.0/24 198.51.100.125
for name in public-ip backend-data kube-subnet-manager twill; do
	annotate node-b "{\"$ANNOTATIONS$name\": null}"
	check "node-b writes $name again" wait_until "$(scaled 10)" own_is_back
done
check "and is reachable" reachable "node-a pod-a" "node-b pod-b"

LONG=$(head -c 5000 /dev/zero | tr '\0' x)
for name in public-ip backend-data; do
	for junk in '' '{' $'\x01\n"' "$LONG" 255.255.255.255.255 null '[]' '{"VtepMAC":7}' ff:ff:ff:ff:ff:ff; do
		annotate node-y "$(jq -nc --arg name "$ANNOTATIONS$name" --arg junk "$junk" '{($name): $junk}')"
	done
	check "junk in $name costs the node" wait_until "$(scaled 10)" no_peer node-a 10.42.21.0/24
	check "and is named in the status" wait_until "$(scaled 5)" status_is node-a \
		"any(.bad_leases[]; .key == \"node/node-y\" and (.why | contains(\"$name\")))"
	check "and in the log" grep -E "lease cannot be read.*node/node-y.*$name" "$(node_dir node-a)/log"
	annotate node-y "$(annotated 21)"
	sees "it heals" 10.42.21.0/24 198.51.100.21
done
annotate node-y "{\"${ANNOTATIONS}twill\": \"{\"}"
check "others are not touched" reachable "node-b pod-b" "node-a pod-a"
check "junk for a marker costs nothing" is_peer node-a 10.42.21.0/24 198.51.100.21

node_add node-c --segment 1
create_node node-c
agent_of node-c
check "a node without podCIDR says so" wait_until "$(scaled 10)" grep "spec.podCIDR absent" "$(node_dir node-c)/log"
check "and has no subnet.env" not test -e "$(node_dir node-c)/subnet.env"
kube_do PATCH /api/v1/nodes/node-c '{"spec":{"podCIDR":"10.42.3.0/24","podCIDRs":["10.42.3.0/24","fd00:42:0:3::/64"]}}' \
	application/merge-patch+json >"$DIR/podcidr.json"
check "it is ready once it has one" wait_ready node-c "$(scaled 15)"
pod_add node-c pod-c --style bridge
check "with its pods" reachable "node-c pod-c" "node-b pod-b"
echo "kube_cases: down_s=$DOWN ms_after_return=$(IFS=, && echo "${MS[*]}")"
finish
