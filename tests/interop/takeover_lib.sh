# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The scene of takeover.sh; sourced after mixed_lib.sh and netns/snapshot.sh. a (taken over) and b have flanneld, c has twilld,
# out is a host behind the router. kube-proxy runs on a and b.
#
#   scene_up STORE FAMILIES BACKEND   etcd|kubernetes, 4|46, vxlan|direct: c is on a's segment
#   traffic_start, traffic_end     everything that has to live through the switches; one line for each switch says what it cost
#   switch NAME COMMAND...         COMMAND under traffic, with connections that wait for their server to speak after it
#   snapshot FILE, same_sets WHAT FILE
# shellcheck disable=SC2034 # for mixed_lib.sh
TWILLS=(c) FLANNELS=(a b) NODES=(a b c)
# Ports 30080 and up are NodePorts; the pods' server for floods is 5001, that for streams 5002, which takes what is left of the CPU.
declare -A VIP=([b4]=10.96.0.20 [a4]=10.96.0.21 [b6]=fd00:96::20 [a6]=fd00:96::21)
declare -A NODEPORT=([b4]=30080 [a4]=30081 [b6]=30082 [a6]=30083)
# shellcheck disable=SC2034 # for lib.sh of the peers
APISERVER_FLAGS=("--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112" --allow-privileged)

# --- up -----------------------------------------------------------------------------------------------------------------------

scene_up() { # STORE FAMILIES BACKEND
	local node
	STORE=$1 BACKEND=$3 VNI=1 VERSIONS=new
	mapfile -t FAMILIES < <(grep -o . <<<"$2")
	lab_up "takeover-$1-$$"
	STATE=$LAB_DIR/.lab
	node_add a --segment 1
	node_add b --segment 2
	node_add c --segment 1
	node_add out --segment 2
	peers_at router 192.0.2.1
	start_etcd
	start_apiserver
	etcd_do put "$ETCD_PREFIX/config" "$(cell_config "$2" "$3")" >/dev/null
	cell_config "$2" "$3" >"$(peers_dir)/net-conf.json"
	for node in "${NODES[@]}"; do node_create "$node"; done
	for node in "${FLANNELS[@]}"; do
		flannel_start "$node"
		wait_flanneld "$node"
	done
	twill_start c
	check "c: ready" wait_ready c "$(scaled 20)"
	for node in "${NODES[@]}"; do
		pod_add "$node" pod --style bridge
		pod_serve "$node" pod
		lab_record_pid "$(pod_exec "$node" pod nice -n 19 "$TRAFFIC" server :: 5002 --background)"
	done
	node_serve out ::
	for node in "${FLANNELS[@]}"; do check "$node: flanneld knows the others" wait_until "$(scaled 30)" flannel_follows "$node"; done
	services_up
}

# --- kube-proxy and what it serves ----------------------------------------------------------------------------------------------

services_up() {
	local node family
	kube_config "$(peers_dir)/kube-proxy.kubeconfig" "$ADMIN_TOKEN"
	for node in a b; do
		for family in "${FAMILIES[@]}"; do service_add "$node" "$family"; done
		kube_do PATCH "/api/v1/nodes/$node/status" "$(jq -nc --arg ip "$(node_ip "$node" 4)" \
			'{status: {addresses: [{type: "InternalIP", address: $ip}]}}')" application/strategic-merge-patch+json >"$STATE/address.json"
	done
	for node in a b; do kube_proxy_start "$node"; done
	for node in a b; do
		# It writes both families, whether there are services or not.
		for family in 4 6; do check "$node: kube-proxy has its chains, IPv$family" wait_until "$(scaled 30)" kube_proxy_chains "$node" "$family"; done
		for family in "${FAMILIES[@]}"; do
			check "$node: kube-proxy has its services, IPv$family" wait_until "$(scaled 30)" kube_proxy_rules "$node" "$family"
		done
	done
}

# service_add NODE FAMILY: a Service with a NodePort, and NODE's pod as what is behind it.
service_add() {
	local name="$1$2" api=/api/v1/namespaces/default/services family=IPv$2
	kube_do POST "$api" "$(jq -nc --arg name "$name" --arg family "$family" --arg vip "${VIP[$name]}" --argjson port "${NODEPORT[$name]}" \
		'{apiVersion: "v1", kind: "Service", metadata: {$name}, spec: {type: "NodePort", clusterIP: $vip, ipFamilies: [$family],
			ipFamilyPolicy: "SingleStack", ports: [{name: "tcp", protocol: "TCP", port: 80, targetPort: 5002, nodePort: $port},
			{name: "udp", protocol: "UDP", port: 80, targetPort: 5001, nodePort: $port}]}}')" >"$STATE/service-$name.json"
	kube_do POST /apis/discovery.k8s.io/v1/namespaces/default/endpointslices "$(jq -nc --arg name "$name" --arg family "$family" \
		--arg ip "$(pod_ip "$1" pod "$2")" --arg node "$1" '{apiVersion: "discovery.k8s.io/v1", kind: "EndpointSlice",
			metadata: {$name, labels: {"kubernetes.io/service-name": $name}}, addressType: $family,
			ports: [{name: "tcp", protocol: "TCP", port: 5002}, {name: "udp", protocol: "UDP", port: 5001}],
			endpoints: [{addresses: [$ip], nodeName: $node, conditions: {ready: true}}]}')" >"$STATE/slice-$name.json"
}

# Conntrack's limits are the machine's, not a namespace's: they stay as they are.
kube_proxy_start() {
	local clusters=10.42.0.0/16
	[[ ${FAMILIES[*]} == 4 ]] || clusters+=,fd00:42::/48
	peer_run "kube-proxy-$1" "$1" "$(peer_path kube-proxy)" --kubeconfig "$(peers_dir)/kube-proxy.kubeconfig" \
		--hostname-override "$1" --bind-address "$(node_ip "$1" 4)" --proxy-mode iptables --detect-local-mode ClusterCIDR --cluster-cidr "$clusters" \
		--conntrack-max-per-core 0 --conntrack-min 0 --conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0 \
		--iptables-localhost-nodeports=false
}
kube_proxy_rules() { # NODE FAMILY
	local rules
	rules=$(node_exec "$1" "$(iptables_of "$2")-save" -t nat)
	[[ $rules == *"${VIP[a$2]}/"* && $rules == *"${VIP[b$2]}/"* && $rules == *"--dport ${NODEPORT[a$2]} "* ]]
}
kube_proxy_chains() {
	local rules
	rules=$(node_exec "$1" "$(iptables_of "$2")-save")
	[[ $rules == *"-A KUBE-SERVICES "*"-j KUBE-NODEPORTS"* && $rules == *"-A KUBE-FORWARD "*"ctstate INVALID -m nfacct "* ]] &&
		same 3 "$(grep -c '^:KUBE-PROXY-CANARY' <<<"$rules")"
}
iptables_of() { if [[ $1 == 4 ]]; then echo iptables; else echo ip6tables; fi; }

# --- traffic --------------------------------------------------------------------------------------------------------------------

PIDS=() NAMES=()
flow() { # NAME NODE-POD|NODE COMMAND ADDRESS PORT [options]: until a signal
	lab_spawn "$2" nice -n "${NICE:-0}" "$TRAFFIC" "$3" "$4" "$5" --until-signal --json --timeout "$(scaled 20)" "${@:6}" >"$STATE/flow $1" 2>&1
	PIDS+=("$LAB_PID")
	NAMES+=("$1")
}
flood() { flow "$1" "$2" udp-flood "$3" "$4" --rate "$5"; }

STREAMS=20 PPS=10000
traffic_start() {
	local i family n=${#FAMILIES[@]} from to NICE
	PIDS=() NAMES=() STARTS=() LABELS=()
	for family in "${FAMILIES[@]}"; do
		flood "UDP a>b IPv$family" a-pod "$(pod_ip b pod "$family")" 5001 $((PPS * 3 / 10 / n))
		flood "UDP b>a IPv$family" b-pod "$(pod_ip a pod "$family")" 5001 $((PPS * 3 / 10 / n))
		flood "UDP c>a IPv$family" c-pod "$(pod_ip a pod "$family")" 5001 $((PPS / 10 / n))
		flood "UDP host a>b IPv$family" a "$(pod_ip b pod "$family")" 5001 $((PPS / 10 / n))
		flood "UDP a>ClusterIP IPv$family" a-pod "${VIP[b$family]}" 80 $((PPS / 10 / n))
		flood "UDP b>ClusterIP IPv$family" b-pod "${VIP[a$family]}" 80 $((PPS / 10 / n))
	done
	NICE=19
	for ((i = 0; i < STREAMS; i++)); do
		family=${FAMILIES[i / 2 % n]} from=a to=b
		((i % 2)) || from=b to=a
		flow "TCP $i $from>$to IPv$family" "$from-pod" tcp-upload "$(pod_ip $to pod "$family")" 5002 --mbit 3 --seed "$i"
	done
	for family in "${FAMILIES[@]}"; do
		flow "NodePort of b at a IPv$family" out tcp-download "$(node_ip a "$family")" "${NODEPORT[b$family]}" --mbit 5
		flow "NodePort of a at a IPv$family" out tcp-download "$(node_ip a "$family")" "${NODEPORT[a$family]}" --mbit 5
		flow "masqueraded a>out IPv$family" a-pod tcp-download "$(node_ip out "$family")" 5001 --mbit 5
		flow "ClusterIP a>b IPv$family" a-pod tcp-download "${VIP[b$family]}" 80 --mbit 2
		flow "TCP c>a IPv$family" c-pod tcp-upload "$(pod_ip a pod "$family")" 5002 --mbit 3
		flow "TCP a>c IPv$family" a-pod tcp-upload "$(pod_ip c pod "$family")" 5002 --mbit 3
		flow "host a>b IPv$family" a tcp-download "$(pod_ip b pod "$family")" 5002 --mbit 2
	done
	for i in "${!NAMES[@]}"; do check "${NAMES[i]}: it runs" flow_runs "$i"; done
}
flow_runs() {
	if ! kill -0 "${PIDS[$1]}" || [[ -s "$STATE/flow ${NAMES[$1]}" ]]; then
		cat "$STATE/flow ${NAMES[$1]}"
		return 1
	fi
}

# Each loss belongs to the switch that had begun last when the packet was sent; number 0 is before the first.
losses_by_switch() { # RESULT
	jq -c --argjson starts "$(jq -nc '$ARGS.positional | map(tonumber)' --args "${STARTS[@]}")" '[.lost_at_ms[] as $t | [$starts[] | select(. <= $t)] | length] as $at
		| [range(0; 1 + ($starts | length)) as $n | [$at[] | select(. == $n)] | length]' <<<"$1"
}

traffic_end() {
	local i result rows='' sent=0 lost=0
	for i in "${!NAMES[@]}"; do kill -TERM "${PIDS[i]}" 2>/dev/null || :; done
	for i in "${!NAMES[@]}"; do
		wait "${PIDS[i]}" 2>/dev/null || :
		result=$(<"$STATE/flow ${NAMES[i]}")
		if [[ $result != "{"* ]]; then
			check "${NAMES[i]}: it lived" same "a report" "$result"
		elif [[ ${NAMES[i]} == UDP* ]]; then
			sent=$((sent + $(jq .sent <<<"$result"))) lost=$((lost + $(jq .lost <<<"$result")))
			rows+=$(jq -c --arg name "${NAMES[i]}" '{name: $name, by_switch: .}' <<<"$(losses_by_switch "$result")")$'\n'
			check "${NAMES[i]}: nothing is damaged, every packet could be sent" same "0 0" "$(jq -r '"\(.damaged) \(.send_errors)"' <<<"$result")"
			echo "    $(jq -r '"sent \(.sent), lost \(.lost), longest gap \(.longest_gap_ms) ms"' <<<"$result")"
		else
			check "${NAMES[i]}: its SHA-256 is the same at both ends" same "$(jq -r .sha256 <<<"$result")" "$(jq -r .sha256_there <<<"$result")"
			echo "    $(jq -r '"\(.bytes) bytes in \(.seconds) s, longest gap \(.longest_gap_ms) ms"' <<<"$result")"
		fi
	done
	LABELS=("before the first switch" "${LABELS[@]}")
	for i in "${!LABELS[@]}"; do
		echo "takeover: ${LABELS[i]}: lost $(jq -rs "map(\"\(.name) \(.by_switch[$i])\") | join(\", \")" <<<"$rows")"
		check "${LABELS[i]}: at most one packet lost of each flow" test "$(jq -s "map(.by_switch[$i]) | max" <<<"$rows")" -le $((i > 0))
	done
	echo "takeover: store=$STORE families=${FAMILIES[*]} switches=${#STARTS[@]} flows=${#NAMES[@]} sent=$sent lost=$lost"
}

# --- switches --------------------------------------------------------------------------------------------------------------------

# Connections on which nobody speaks; the server does first once it is woken, from its own pod. Their pids are in QUIET.
QUIET=()
quiet_start() {
	local family
	QUIET=()
	for family in "${FAMILIES[@]}"; do
		quiet "a>b IPv$family" a-pod "${VIP[b$family]}" 80
		quiet "b>a IPv$family" b-pod "${VIP[a$family]}" 80
		quiet "out>b IPv$family" out "$(node_ip a "$family")" "${NODEPORT[b$family]}"
		quiet "a>out IPv$family" a-pod "$(node_ip out "$family")" 5001
	done
}
quiet() { # NAME NODE-POD ADDRESS PORT
	lab_spawn "$2" "$TRAFFIC" tcp-quiet "$3" "$4" --json --timeout "$(scaled 60)" >"$STATE/quiet $1" 2>&1
	QUIET+=("$LAB_PID $1")
	check "idle $1: connected" wait_until "$(scaled 5)" is_connected "$LAB_PID" "$2"
}
# One socket of that process is established, and its first byte is acknowledged.
is_connected() { # PID NODE-POD
	[[ $(nsenter --net="/run/netns/twl-$LAB_NAME-$2" ss -Htnip state established 2>/dev/null) == *"pid=$1,"* ]]
}
quiet_end() { # WHAT
	local row pid
	for row in a b; do pod_exec "$row" pod "$TRAFFIC" tcp-wake ::1 5002 >"$STATE/wake" || :; done
	node_exec out "$TRAFFIC" tcp-wake ::1 5001 >"$STATE/wake" || :
	for row in "${QUIET[@]}"; do
		pid=${row%% *} row=${row#* }
		wait "$pid" || :
		check "$1: idle $row: the server speaks first" same ok "$(jq -r .result "$STATE/quiet $row" 2>/dev/null || cat "$STATE/quiet $row")"
	done
}

STARTS=() LABELS=()
switch() { # NAME COMMAND...
	local start
	quiet_start
	start=$(ms)
	STARTS+=("$start") LABELS+=("switch $((${#STARTS[@]})), $1")
	"${@:2}"
	echo "takeover: ${LABELS[-1]}: $(($(ms) - start)) ms"
	quiet_end "${LABELS[-1]}"
}

# --- what is right ----------------------------------------------------------------------------------------------------------------

# peers_are_exact NODE: routes, permanent neighbours and forwarding entries of flannel's devices, and routes by nodes, are those of
# the leases, no more.
peers_are_exact() {
	local family dev LEASES
	LEASES=$(store_leases)
	for family in "${FAMILIES[@]}"; do
		dev=$(overlay_of "$family")
		same "$(lease_rows "$family" "$1" | while read -r pods ip mac; do
			if [[ $(mode_to "$(node_ip "$1" "$family")" "$ip") == direct ]]; then
				echo "direct $pods via $ip"
			else
				printf '%s\n' "route $pods via ${pods%/*}" "neighbour ${pods%/*} $mac" "fdb $mac $ip"
			fi
		done | sort)" "$({
			node_exec "$1" ip "-$family" route show dev eth0 | sed -n 's/^\([^ ]* via [^ ]*\).*/direct \1/p' | grep -v default || :
			node_exec "$1" ip "-$family" route show dev "$dev" | sed -n 's/^\([^ ]* via [^ ]*\) .*/route \1/p'
			node_exec "$1" ip "-$family" neigh show dev "$dev" nud permanent | awk '{ print "neighbour", $1, $3 }'
			node_exec "$1" bridge fdb show dev "$dev" | awk '$2 == "dst" { print "fdb", $1, $3 }'
		} | sort)" || return
	done
}

# hand_lease NUMBER MAC-END HOST-END: of a node that is only in the store; again: changed. Addresses behind the router; pods
# where flanneld, which picks at random from the start of each network, has none.
hand_lease() {
	local pods=("10.42.2$1.0/24") mac=0a:00:00:00:00:$2 four=198.51.100.$3 six=null
	[[ ${FAMILIES[*]} == 4 ]] || pods+=("fd00:42:0:f2$1::/64") six="\"2001:db8:2::$3\""
	if [[ $STORE == etcd ]]; then
		etcd_do put "$(hand_key "$1")" "$(jq -nc --arg four "$four" --argjson six "$six" --argjson data "{\"VNI\":1,\"VtepMAC\":\"$mac\"}" \
			'{PublicIP: $four, PublicIPv6: $six, BackendType: "vxlan", BackendData: $data} + if $six then {BackendV6Data: $data} else {} end')" >/dev/null
	else
		kube_do GET "/api/v1/nodes/hand-$1" >"$STATE/hand" 2>&1 || create_node "hand-$1" "${pods[@]}"
		annotate "hand-$1" "$(jq -nc --arg p "$PREFIX" --arg four "$four" --argjson six "$six" --arg data "{\"VNI\":1,\"VtepMAC\":\"$mac\"}" \
			'{"\($p)kube-subnet-manager": "true", "\($p)backend-type": "vxlan", "\($p)backend-data": $data, "\($p)public-ip": $four}
			+ if $six then {"\($p)backend-v6-data": $data, "\($p)public-ipv6": $six} else {} end')"
	fi
}
hand_gone() {
	if [[ $STORE == etcd ]]; then etcd_do del "$(hand_key "$1")"; else kube_do DELETE "/api/v1/nodes/hand-$1"; fi >"$STATE/hand"
}
hand_key() {
	if [[ ${FAMILIES[*]} == 4 ]]; then echo "$ETCD_PREFIX/subnets/10.42.2$1.0-24"; else echo "$ETCD_PREFIX/subnets/10.42.2$1.0-24&fd00:42:0:f2$1::-64"; fi
}

# What the store says of a, marks of twill's included.
own_in_store() {
	if [[ $STORE == etcd ]]; then
		echo "$(etcd_value "$(key_of a)")" "$(etcd_keys | grep "/twill/.*$(subnet4 a)" || :)"
	else
		annotations_of a
	fi
}

# --- sets ------------------------------------------------------------------------------------------------------------------------

snapshot() { node_entries a '^net\.ipv[46]\.' >"$STATE/$1.new" && sort -u "$STATE/$1.new" >"$STATE/$1"; } # FILE

same_sets() { # WHAT FILE
	snapshot now
	check "$1: links, addresses, routes, rules, neighbours, fdb, firewall, sysctls, qdiscs and pins are as before" diff "$STATE/$2" "$STATE/now"
}
