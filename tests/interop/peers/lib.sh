# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Real etcd, kube-apiserver and flanneld for a test; sourced after tests/support/lab.sh, with a lab up.
#
#   peers_need etcd|flannel|flannel-old|kube-apiserver...   skips the test (77) when one is absent
#   peers_at NODE|router IP       where etcd and the API server listen from now on; 127.0.0.1 is NODE's own
#   start_etcd [--tls] [--auth] [--cn-auth]
#   etcd_do ARGS...               etcdctl as root; etcd_flags: flanneld's and twilld's flags to reach it
#   etcd_agent NODE FLAGS...      agent_start, with that etcd for a store
#   etcd_backup FILE              of a running etcd; etcd_restore FILE: of a stopped one
#   start_apiserver               with etcd behind it, and $APISERVER_FLAGS; kube_do METHOD PATH [BODY [CONTENT-TYPE]] as admin
#   create_node NAME CIDR...
#   start_flanneld NODE [--old] FLAGS...
#   peer_stop NAME [SIGNAL]       NAME: etcd, apiserver, flanneld-NODE; start_* starts it again with its old data
#   patches_of NODE [USER]        what was patched into NODE's status, one JSON object a line
#
# Files are in $LAB_DIR/peers, logs too (NAME.log). What runs is in the lab's list: lab_down ends it.

. "$(dirname "${BASH_SOURCE[0]}")/paths.sh"
. "$(dirname "${BASH_SOURCE[0]}")/certs.sh"
ETCD_PREFIX=/coreos.com/network
FLANNEL_TOKEN=flannel-token-of-a-test ADMIN_TOKEN=admin-token-of-a-test
PEER_NS='' PEER_IP='' ETCD_SCHEME=http ETCD_USER=() KUBE_CURL=() APISERVER_FLAGS=()

peers_need() {
	local need tool tools
	for need; do
		case $need in
		etcd) tools=(etcd etcdctl openssl curl) ;;
		*) tools=(openssl curl) ;;
		esac
		for tool in "${tools[@]}"; do
			command -v "$tool" >/dev/null || {
				echo "missing: $tool"
				exit 77
			}
		done
		[[ $need != etcd ]] || continue
		[[ -n $PEERS_GO ]] || {
			echo "missing: go, which builds $need"
			exit 77
		}
		[[ -x $(peer_path "$need") ]] || {
			echo "missing: $need $(peer_version "$need"); ./dev peers builds it"
			exit 77
		}
	done
}

peers_dir() { echo "$LAB_DIR/peers"; }

peers_at() { # NODE|router IP
	PEER_NS=$1 PEER_IP=$2
	mkdir -p "$(peers_dir)"
	certs_make "$(peers_dir)" "$PEER_IP"
}

# --- processes ----------------------------------------------------------------------------------------------------------

# peer_run NAME NODE COMMAND...: in NODE's namespace.
peer_run() {
	local name=$1
	lab_spawn "$2" "${@:3}" >>"$(peers_dir)/$name.log" 2>&1 </dev/null 9>&-
	disown "$LAB_PID"
	tail -n 1 "$LAB_DIR/.lab/pids" >"$(peers_dir)/$name.pid"
}

peer_alive() {
	local pid start
	read -r pid start <"$(peers_dir)/$1.pid" && _lab_alive "$pid" "$start"
}

_peer_gone() { ! peer_alive "$1"; }

peer_stop() { # NAME [SIGNAL]
	local pid start
	read -r pid start <"$(peers_dir)/$1.pid"
	! _peer_gone "$1" || return 0
	kill "-${2:-TERM}" "$pid"
	wait_until "$(scaled 20)" _peer_gone "$1" || lab_die "$1 did not end within $(scaled 20) s of SIG${2:-TERM}"
}

_peer_settled() { ! peer_alive "$1" || "${@:2}"; } # NAME COMMAND...

# _peer_up NAME SECONDS COMMAND...: waits until the command succeeds, gives up at once when the peer has ended.
_peer_up() {
	local name=$1 seconds=$2
	wait_until "$(scaled "$seconds")" _peer_settled "$name" "${@:3}" && "${@:3}" >/dev/null 2>&1 && return
	tail -n 20 "$(peers_dir)/$name.log" >&2
	lab_die "$name did not come up within $(scaled "$seconds") s"
}

# --- etcd ---------------------------------------------------------------------------------------------------------------

etcd_url() { echo "$ETCD_SCHEME://$PEER_IP:2379"; }

etcd_do() {
	local tls=() dir
	dir=$(peers_dir)
	[[ $ETCD_SCHEME == http ]] || tls=(--cacert "$dir/ca.crt" --cert "$dir/root.crt" --key "$dir/root.key")
	nsenter --net="/run/netns/$(node_ns "$PEER_NS")" env ETCDCTL_API=3 etcdctl --command-timeout "$(scaled 30)s" \
		--dial-timeout "$(scaled 10)s" --endpoints "$(etcd_url)" "${tls[@]}" "${ETCD_USER[@]}" "$@"
}

# What flanneld and twilld need to reach it, one word a line.
etcd_flags() {
	local dir
	dir=$(peers_dir)
	echo "-etcd-endpoints=$(etcd_url)"
	[[ $ETCD_SCHEME == http ]] ||
		printf '%s\n' "-etcd-cafile=$dir/ca.crt" "-etcd-certfile=$dir/flannel.crt" "-etcd-keyfile=$dir/flannel.key"
	[[ ${#ETCD_USER[@]} == 0 ]] || printf '%s\n' -etcd-username=flannel -etcd-password=flannel-password
}

etcd_agent() {
	local flags
	mapfile -t flags < <(etcd_flags)
	agent_start "$1" -store= "${flags[@]}" "${@:2}"
}

etcd_backup() { etcd_do snapshot save "$1" >"$(peers_dir)/backup.log" 2>&1; }
etcd_restore() {
	rm -rf "$(peers_dir)/etcd"
	ETCDCTL_API=3 etcdctl snapshot restore "$1" --data-dir "$(peers_dir)/etcd" --name twill --initial-cluster "twill=http://$PEER_IP:2380" \
		--initial-advertise-peer-urls "http://$PEER_IP:2380" >"$(peers_dir)/restore.log" 2>&1
}

# --tls: only clients with a certificate of ours. --auth: users and passwords. --cn-auth: --tls, and the certificate's CN is
# the user. User flannel may read and write below the prefix, no more.
start_etcd() {
	local dir tls=() mode='' arg
	dir=$(peers_dir)
	for arg; do
		case $arg in
		--tls) ETCD_SCHEME=https ;;
		--cn-auth) ETCD_SCHEME=https mode=cn ;;
		--auth) mode=password ;;
		*) lab_die "start_etcd $arg" ;;
		esac
	done
	[[ $ETCD_SCHEME == http ]] ||
		tls=(--cert-file "$dir/server.crt" --key-file "$dir/server.key" --trusted-ca-file "$dir/ca.crt" --client-cert-auth)
	peer_run etcd "$PEER_NS" etcd --name twill --data-dir "$dir/etcd" --logger zap --log-outputs stderr \
		--listen-client-urls "$(etcd_url)" --advertise-client-urls "$(etcd_url)" \
		--listen-peer-urls "http://$PEER_IP:2380" --initial-advertise-peer-urls "http://$PEER_IP:2380" \
		--initial-cluster "twill=http://$PEER_IP:2380" "${tls[@]}"
	_peer_up etcd 30 etcd_do endpoint health
	if [[ $mode && ${#ETCD_USER[@]} == 0 ]]; then _etcd_users "$mode"; fi
}

_etcd_users() { # cn|password
	local root=(root:root-password) flannel=(flannel:flannel-password)
	[[ $1 == password ]] || root=(root --no-password) flannel=(flannel --no-password)
	{
		etcd_do user add "${root[@]}"
		etcd_do user grant-role root root
		etcd_do role add flannel
		etcd_do role grant-permission flannel --prefix=true readwrite "$ETCD_PREFIX"
		etcd_do user add "${flannel[@]}"
		etcd_do user grant-role flannel flannel
		etcd_do auth enable
	} >>"$(peers_dir)/etcd-users.log" 2>&1 || lab_die "etcd: users: $(tail -n 3 "$(peers_dir)/etcd-users.log")"
	[[ $1 == cn ]] || ETCD_USER=(--user root:root-password)
}

# Keys of the network, sorted, one a line.
etcd_keys() { etcd_do get --prefix "${1:-$ETCD_PREFIX}" --keys-only | sed '/^$/d'; }
# Value of one key, to the byte.
etcd_value() { etcd_do get "$1" -w json | jq -rj '.kvs[0].value // "" | @base64d'; }
# TTL in seconds that a key's lease was granted with; 0: no lease.
etcd_ttl() {
	local lease
	lease=$(etcd_do get "$1" -w json | grep -o '"lease":[0-9]*' | cut -d : -f 2) || :
	[[ ${lease:-0} != 0 ]] || { echo 0; return; }
	# jq would round an id of 63 bits.
	etcd_do lease timetolive "$(printf %x "$lease")" -w json | jq '."granted-ttl"'
}

# --- kube-apiserver -----------------------------------------------------------------------------------------------------

kube_url() { echo "https://$PEER_IP:6443"; }

kube_do() { # METHOD PATH [BODY [CONTENT-TYPE]]
	local body=()
	[[ $# -lt 3 ]] || body=(-H "Content-Type: ${4:-application/json}" --data-binary "$3")
	nsenter --net="/run/netns/$(node_ns "$PEER_NS")" curl -sS --fail-with-body --noproxy '*' --max-time "$(scaled 20)" \
		"${KUBE_CURL[@]}" --cacert "$(peers_dir)/ca.crt" -H "Authorization: Bearer $ADMIN_TOKEN" -X "$1" "${body[@]}" "$(kube_url)$2"
}

# Token file and RBAC, no admission that would want more than a Node and a Pod. All requests that change something are in
# audit.log with their bodies.
start_apiserver() {
	local dir etcd_tls=()
	dir=$(peers_dir)
	printf '%s\n' "$ADMIN_TOKEN,admin,1,\"system:masters\"" "$FLANNEL_TOKEN,flannel,2" >"$dir/tokens.csv"
	cat >"$dir/audit-policy.yaml" <<-END
		apiVersion: audit.k8s.io/v1
		kind: Policy
		omitStages: [RequestReceived]
		rules:
		- {level: RequestResponse, verbs: [create, update, patch, delete], resources: [{group: "", resources: [nodes, nodes/status, pods]}]}
		- {level: Metadata, users: [flannel]}
		- {level: None}
	END
	[[ $ETCD_SCHEME == http ]] ||
		etcd_tls=(--etcd-cafile "$dir/ca.crt" --etcd-certfile "$dir/root.crt" --etcd-keyfile "$dir/root.key")
	peer_run apiserver "$PEER_NS" "$(peer_path kube-apiserver)" --etcd-servers "$(etcd_url)" "${etcd_tls[@]}" \
		--bind-address "$PEER_IP" --secure-port 6443 --advertise-address 192.0.2.1 --endpoint-reconciler-type none \
		--tls-cert-file "$dir/server.crt" --tls-private-key-file "$dir/server.key" --client-ca-file "$dir/ca.crt" \
		--service-account-issuer https://kubernetes.default.svc --service-account-key-file "$dir/ca.crt" \
		--service-account-signing-key-file "$dir/ca.key" --service-cluster-ip-range 10.96.0.0/16 \
		--token-auth-file "$dir/tokens.csv" --authorization-mode RBAC --disable-admission-plugins ServiceAccount \
		--audit-policy-file "$dir/audit-policy.yaml" --audit-log-path "$dir/audit.log" "${APISERVER_FLAGS[@]}"
	_peer_up apiserver 120 kube_do GET /readyz
	_kube_role
	kube_config "$dir/flannel.kubeconfig" "$FLANNEL_TOKEN"
}

# What flannel's manifest lets its service account do, for the user of our token.
_kube_role() {
	local rbac=/apis/rbac.authorization.k8s.io/v1
	[[ ! -e $(peers_dir)/role ]] || return 0
	kube_do POST $rbac/clusterroles '{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"flannel"},
		"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]},
			{"apiGroups":[""],"resources":["nodes"],"verbs":["get","list","watch"]},
			{"apiGroups":[""],"resources":["nodes/status"],"verbs":["patch"]}]}' >"$(peers_dir)/role.log"
	kube_do POST $rbac/clusterrolebindings '{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding",
		"metadata":{"name":"flannel"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"flannel"},
		"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"flannel"}]}' >>"$(peers_dir)/role.log"
	touch "$(peers_dir)/role"
}

kube_config() { # FILE TOKEN
	cat >"$1" <<-END
		apiVersion: v1
		kind: Config
		current-context: test
		contexts: [{name: test, context: {cluster: test, user: test}}]
		clusters: [{name: test, cluster: {server: "$(kube_url)", certificate-authority: "$(peers_dir)/ca.crt"}}]
		users: [{name: test, user: {token: "$2"}}]
	END
}

# create_node NAME CIDR...: as Kubernetes' controllers leave it: with its podCIDRs and nothing of flannel's, but not without any
# annotation, which ends flanneld with "assignment to entry in nil map".
create_node() {
	local cidrs
	cidrs=$(jq -nc '$ARGS.positional' --args "${@:2}")
	kube_do POST /api/v1/nodes "$(jq -nc --arg name "$1" --argjson cidrs "$cidrs" \
		'{apiVersion: "v1", kind: "Node", metadata: {$name, annotations: {"node.alpha.kubernetes.io/ttl": "0"}},
			spec: (if $cidrs == [] then {} else {podCIDR: $cidrs[0], podCIDRs: $cidrs} end)}')" >"$(peers_dir)/node-$1.json"
}

# node_object NODE JQ-FILTER
node_object() { kube_do GET "/api/v1/nodes/$1" | jq -r "$2"; }

patches_of() { # NODE [USER]
	jq -c --arg node "$1" --arg user "${2:-flannel}" 'select(.verb == "patch" and .objectRef.resource == "nodes" and
		.objectRef.name == $node and .user.username == $user) | {subresource: .objectRef.subresource,
		code: .responseStatus.code, patch: .requestObject}' "$(peers_dir)/audit.log"
}

# --- flanneld -----------------------------------------------------------------------------------------------------------

# start_flanneld NODE [--old] FLAGS...: knows its node by NODE_NAME; subnet.env where the lab's pods look for it.
start_flanneld() {
	local node=$1 peer=flannel
	shift
	if [[ ${1:-} == --old ]]; then
		peer="flannel-old"
		shift
	fi
	peer_run "flanneld-$node" "$node" env NODE_NAME="$node" "$(peer_path $peer)" -subnet-file "$(node_dir "$node")/subnet.env" -v=2 "$@"
}

# Its peers are programmed a moment after this.
wait_flanneld() { _peer_up "flanneld-$1" 60 test -s "$(node_dir "$1")/subnet.env"; }
