# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# One cell of the mixed matrix: two twill nodes and two with real flanneld in one cluster; sourced by mixed.sh after peers/lib.sh and
# flanneld_lib.sh. t1, f1 are on segment 1, t2, f2 on segment 2, but with host-gw, where all are neighbours.
#
#   cell_up VERSIONS STORE FAMILY BACKEND   VERSIONS: new, old, both (f1 new, f2 old). STORE: etcd, kubernetes
#                                           FAMILY: 4, 6, 46. BACKEND: vxlan, direct, host-gw, other
#   cell_talks                              every pod to every pod and host, each host to each pod, bulk, full MTU
#   cell_down
# What the store holds is the measure: store_leases. follows NODE: the programs' maps of a twill node are what that makes of them.

TWILLS=(t1 t2) FLANNELS=(f1 f2) NODES=(t1 t2 f1 f2)
PREFIX=flannel.alpha.coreos.com/
STORE='' FAMILIES=() BACKEND='' VNI=1 VERSIONS='' CELL=0

# --- configuration ------------------------------------------------------------------------------------------------------------

cell_config() {
	local families='' backend
	[[ $1 == *4* ]] || families='"EnableIPv4": false, '
	[[ $1 != *4* ]] || families='"Network": "10.42.0.0/16", "SubnetLen": 24, "SubnetMax": "10.42.199.0", '
	[[ $1 != *6* ]] || families+='"EnableIPv6": true, "IPv6Network": "fd00:42::/48", "IPv6SubnetLen": 64, '
	case $2 in
	vxlan) backend='"Type": "vxlan"' ;;
	direct) backend='"Type": "vxlan", "DirectRouting": true' ;;
	other) backend='"Type": "vxlan", "VNI": 4096, "Port": 4789' ;;
	host-gw) backend='"Type": "host-gw"' ;;
	*) lab_die "backend $2" ;;
	esac
	echo "{$families\"Backend\": {$backend}}"
}

overlay_of() { if [[ $1 == 4 ]]; then echo "flannel.$VNI"; else echo "flannel-v6.$VNI"; fi; } # FAMILY
is_vxlan() { [[ $BACKEND != host-gw ]]; }
# on_link IP IP: with nothing between them.
on_link() { if [[ $1 == *.* ]]; then [[ ${1%.*} == "${2%.*}" ]]; else [[ ${1%::*} == "${2%::*}" ]]; fi; }
# mode_to FROM-IP TO-IP
mode_to() {
	case $BACKEND in
	host-gw) echo direct ;;
	direct) if on_link "$1" "$2"; then echo direct; else echo vxlan; fi ;;
	*) echo vxlan ;;
	esac
}

# --- daemons ------------------------------------------------------------------------------------------------------------------

daemon_flags() { # one word a line
	if [[ $STORE == etcd ]]; then
		etcd_flags
		echo "-etcd-prefix=$ETCD_PREFIX"
	else
		printf '%s\n' -kube-subnet-mgr "-kubeconfig-file=$(peers_dir)/flannel.kubeconfig" "-net-config-path=$(peers_dir)/net-conf.json"
	fi
}
is_old() { [[ $VERSIONS == old || ($VERSIONS == both && $1 == f2) ]]; }

flannel_start() { # NODE
	local flags old=()
	mapfile -t flags < <(daemon_flags)
	! is_old "$1" || old=(--old)
	start_flanneld "$1" "${old[@]}" -ip-masq "${flags[@]}"
}
flannel_restart() { # NODE [COMMAND...]: COMMAND between stop and start
	peer_stop "flanneld-$1"
	[[ $# == 1 ]] || "${@:2}"
	flannel_start "$1"
}
twill_start() { # NODE [FLAGS...]
	local flags
	mapfile -t flags < <(daemon_flags)
	if [[ $STORE == etcd ]]; then
		agent_start "$1" -store= "${flags[@]}" "${@:2}"
	else
		# shellcheck disable=SC2034 # for kube_lib.sh
		VARS=("NODE_NAME=$1") IN_POD=()
		start_twilld "$1" "${flags[@]}" "${@:2}"
	fi
}

# --- what the store holds -------------------------------------------------------------------------------------------------------

# A JSON list of {type, "4": {pods, ip, mac}, "6": {...}}.
store_leases() {
	if [[ $STORE == etcd ]]; then
		etcd_do get --prefix "$ETCD_PREFIX/subnets/" -w json | jq -c '[.kvs[]? | (.value | @base64d | fromjson) as $v |
			(.key | @base64d | split("/") | last | split("&") | map(sub("-(?<n>[0-9]+)$"; "/\(.n)"))) as $pods |
			{type: $v.BackendType, "4": {pods: $pods[0], ip: $v.PublicIP, mac: $v.BackendData.VtepMAC},
			"6": {pods: $pods[1], ip: $v.PublicIPv6, mac: $v.BackendV6Data.VtepMAC}}]'
	else
		kube_do GET /api/v1/nodes | jq -c --arg p "$PREFIX" 'def data: (. // "null" | fromjson).VtepMAC;
			[.items[] | .spec.podCIDRs as $pods | (.metadata.annotations // {} | with_entries(.key |= ltrimstr($p))) |
			select(."kube-subnet-manager" == "true") | {type: ."backend-type",
			"4": {pods: ([$pods[] | select(contains(":") | not)] | first), ip: ."public-ip", mac: (."backend-data" | data)},
			"6": {pods: ([$pods[] | select(contains(":"))] | first), ip: ."public-ipv6", mac: (."backend-v6-data" | data)}}]'
	fi
}
# lease_rows FAMILY NODE: the leases of the others, "pods ip mac" a line. Of $LEASES, where somebody asked for them once.
lease_rows() {
	{ if [[ ${LEASES:-} ]]; then echo "$LEASES"; else store_leases; fi; } | jq -r --arg f "$1" --arg own "$(node_ip "$2" "$1")" '.[] | .[$f] | select(.ip and .ip != $own and .pods) |
		"\(.pods) \(.ip) \(.mac // "00:00:00:00:00:00")"'
}
# lease_field NODE FAMILY pods|ip|mac: of the lease at that node's address.
lease_field() {
	store_leases | jq -r --arg f "$2" --arg own "$(node_ip "$1" "$2")" ".[] | .[\$f] | select(.ip == \$own) | .$3 // \"\""
}
lease_is() { [[ $(lease_field "$1" "$2" "$3") == "$4" ]]; }
lease_is_not() { [[ $(lease_field "$1" "$2" "$3") != "$4" ]]; }

delete_lease() { # NODE
	if [[ $STORE == etcd ]]; then etcd_do del "$(key_of "$1")"; else kube_do DELETE "/api/v1/nodes/$1"; fi >/dev/null
}
key_of() { # NODE
	local four six
	four=$(subnet4 "$1") six=$(subnet6 "$1")
	echo "$ETCD_PREFIX/subnets/${four:-0.0.0.0}-$([[ $four ]] && echo 24 || echo 0)${six:+&$six-64}"
}
# The Node comes back as Kubernetes makes it; with etcd there is nothing to do.
restore_node() {
	[[ $STORE != etcd ]] || return 0
	node_create "$1"
}
node_create() {
	local cidrs=() i
	for i in "${!NODES[@]}"; do [[ ${NODES[i]} == "$1" ]] && break; done
	[[ ${FAMILIES[*]} != *4* ]] || cidrs+=("10.42.$((i + 1)).0/24")
	[[ ${FAMILIES[*]} != *6* ]] || cidrs+=("fd00:42:0:$((i + 1))::/64")
	create_node "$1" "${cidrs[@]}"
}

# --- what the nodes make of it --------------------------------------------------------------------------------------------------

wanted_peers() { # NODE: "pods node mode mac", sorted
	local family pods ip mac LEASES
	LEASES=$(store_leases)
	for family in "${FAMILIES[@]}"; do
		while read -r pods ip mac; do echo "$pods $ip $(mode_to "$(node_ip "$1" "$family")" "$ip") $mac"; done < <(lease_rows "$family" "$1")
	done | sort
}
peers_of() { node_ctl "$1" -o json peers | jq -r '.items[] | "\(.pods) \(.node) \(.mode) \(.vtep_mac)"' | sort; }
has_peers() { same "$2" "$(peers_of "$1")"; } # NODE ROWS

# What it publishes and tells the CNI plugin: NODE
twill_published() {
	local family type=vxlan mac='' overhead=50 leases
	leases=$(store_leases)
	if is_vxlan; then mac=$(mac_of "$1" twill0); else type=host-gw overhead=0; fi
	for family in "${FAMILIES[@]}"; do
		same "$(subnet_of "$1" "$family") $(node_ip "$1" "$family") $mac $type" \
			"$(jq -r --arg f "$family" --arg own "$(node_ip "$1" "$family")" \
				'.[] | .type as $type | .[$f] | select(.ip == $own) | "\(.pods) \(.ip) \(.mac // "") \($type)"' <<<"$leases")" || return
	done
	same $((1500 - overhead)) "$(env_of "$1" FLANNEL_MTU)"
}
subnet_of() { if [[ $2 == 4 ]]; then echo "$(subnet4 "$1")/24"; else echo "$(subnet6 "$1")/64"; fi; }

# flannel_follows NODE: routes, neighbours and forwarding entries for every lease are there. More than these may be.
flannel_follows() {
	local family pods ip mac own first dev routes neighbours entries LEASES
	LEASES=$(store_leases)
	for family in "${FAMILIES[@]}"; do
		own=$(node_ip "$1" "$family")
		dev=$(overlay_of "$family")
		routes=$'\n'$(node_exec "$1" ip "-$family" route)
		neighbours=$'\n'$(node_exec "$1" ip "-$family" neigh show nud permanent)
		! is_vxlan || entries=$'\n'$(node_exec "$1" bridge fdb show dev "$dev")
		while read -r pods ip mac; do
			first=${pods%/*}
			if [[ $(mode_to "$own" "$ip") == direct ]]; then
				[[ $routes == *$'\n'"$pods via $ip dev eth0"* ]] || { echo "$1: no route to $pods by $ip"; return 1; }
				continue
			fi
			[[ $routes == *$'\n'"$pods via $first dev $dev"* ]] || { echo "$1: no route to $pods"; return 1; }
			[[ $neighbours == *$'\n'"$first dev $dev lladdr $mac PERMANENT"* ]] || { echo "$1: no neighbour $first $mac"; return 1; }
			[[ $entries == *$'\n'"$mac dst $ip "* ]] || { echo "$1: no fdb entry $mac $ip"; return 1; }
		done < <(lease_rows "$family" "$1")
	done
}

# --- up and down ----------------------------------------------------------------------------------------------------------------

cell_up() {
	local node i
	VERSIONS=$1 STORE=$2 BACKEND=$4 VNI=1
	[[ $4 != other ]] || VNI=4096
	mapfile -t FAMILIES < <(grep -o . <<<"$3")
	CELL=$((CELL + 1))
	ETCD_PREFIX=/twill.test/$CELL
	for node in "${NODES[@]}"; do
		if [[ $node == ?2 && $BACKEND != host-gw ]]; then node_add "$node" --segment 2; else node_add "$node" --segment 1; fi
	done
	if [[ $STORE == etcd ]]; then
		etcd_do put "$ETCD_PREFIX/config" "$(cell_config "$3" "$4")" >/dev/null
	else
		cell_config "$3" "$4" >"$(peers_dir)/net-conf.json"
		for node in "${NODES[@]}"; do node_create "$node"; done
	fi
	# The first of each kind first: each finds leases of the other, and sees some come.
	for i in 0 1; do
		flannel_start "${FLANNELS[i]}"
		twill_start "${TWILLS[i]}"
	done
	for node in "${FLANNELS[@]}"; do wait_flanneld "$node"; done
	for node in "${TWILLS[@]}"; do check "$node: ready" wait_ready "$node" "$(scaled 20)"; done
	for node in "${NODES[@]}"; do
		pod_add "$node" pod --style "$([[ $node == t2 ]] && echo veth || echo bridge)"
		pod_serve "$node" pod
	done
	for node in "${TWILLS[@]}"; do
		check "$node: published" wait_until "$(scaled 2)" twill_published "$node"
		check "$node: peers are what the store holds" wait_until "$(scaled 2)" has_peers "$node" "$(wanted_peers "$node")"
		check "$node: all of them" same $((3 * ${#FAMILIES[@]})) "$(peers_of "$node" | wc -l)"
	done
	for node in "${FLANNELS[@]}"; do
		check "$node: knows the others" wait_until "$(scaled 30)" flannel_follows "$node"
		check "$node: speaks $(version_of "$node")" grep "$(version_of "$node")" <(node_exec "$node" "$(peer_of "$node")" -version 2>&1)
	done
}
peer_of() { if is_old "$1"; then peer_path flannel-old; else peer_path flannel; fi; }
version_of() { if is_old "$1"; then peer_version flannel-old; else peer_version flannel; fi; }

cell_down() {
	local node ns
	for node in "${FLANNELS[@]}"; do peer_stop "flanneld-$node" KILL; done
	for node in "${TWILLS[@]}"; do
		check "$node: the programs dropped nothing" same "{}" "$(drops "$node")"
		agent_kill "$node"
	done
	if [[ $FAILURES != 0 ]]; then
		for node in "${NODES[@]}"; do tail -n 15 "$(node_dir "$node")/log" "$(peers_dir)/flanneld-$node.log" 2>/dev/null || :; done
	fi
	for node in "${NODES[@]}"; do
		[[ $STORE == etcd ]] || kube_do DELETE "/api/v1/nodes/$node" >/dev/null
		# The kernel takes its time to end a namespace, and the port's name is wanted.
		ip -n "twl-$LAB_NAME-switch" link del "$node"
		for ns in "$(pod_ns "$node" pod)" "$(node_ns "$node")"; do ns_end "$ns"; done
		rm -rf "$(node_dir "$node")" "${LAB_PINS:?}/$node"
	done
}
ns_end() {
	local pid
	for pid in $(ip netns pids "$1"); do kill -KILL "$pid" 2>/dev/null || :; done
	ip netns del "$1"
	sed -i "/^$1\$/d" "$LAB_DIR/.lab/netns"
}

# --- traffic --------------------------------------------------------------------------------------------------------------------

# Addresses of a node in the overlay: of its pod, and its own. Not that of flannel-v6.1: it is also cni0's subnet-router anycast
# address, and a kernel where that came first answers from another one.
pods_and_hosts() { # NODE FAMILY
	local subnet
	subnet=$(subnet_of "$1" "$2")
	subnet=${subnet%/*}
	pod_ip "$1" pod "$2"
	if [[ $1 == t* ]] || { is_vxlan && [[ $2 == 4 ]]; }; then echo "$subnet"; fi
	if [[ $1 == f* ]]; then
		if [[ $2 == 4 ]]; then echo "${subnet%.0}.1"; else echo "${subnet}1"; fi
	fi
}
# ping_all NODE|NODE-POD ADDRESS...: those that do not answer. All at once.
ping_all() {
	# shellcheck disable=SC2016 # expands in the inner shell
	nsenter --net="/run/netns/twl-$LAB_NAME-$1" bash -c 'for to; do (ping -q -c 2 -i 0.01 -W 1 "$to" >/dev/null 2>&1 || echo "$0 to $to") & done; wait' \
		"$1" "${@:2}"
}
mesh() {
	local family node other pods all out
	out=$(for family in "${FAMILIES[@]}"; do
		for node in "${NODES[@]}"; do
			pods=() all=()
			for other in "${NODES[@]}"; do
				[[ $other != "$node" ]] || continue
				pods+=("$(pod_ip "$other" pod "$family")")
				mapfile -t -O "${#all[@]}" all < <(pods_and_hosts "$other" "$family")
				# A pod of flannel's reaches every node by its own address: masqueraded.
				[[ $node != f* ]] || all+=("$(node_ip "$other" "$family")")
			done
			ping_all "$node-pod" "${all[@]}" &
			ping_all "$node" "${pods[@]}" &
		done
	done; wait)
	[[ ! $out ]] || { echo "$out"; return 1; }
}
meets() { check "$1: every pod reaches every pod and node, every node every pod" _meets; }
_meets() {
	local end=$((SECONDS + $(scaled 10)))
	until mesh >/dev/null; do ((SECONDS < end)) || break; done
	mesh
}

stream() { # FROM TO FAMILY KIND BYTES
	local extra=()
	[[ $4 != udp-gso ]] || extra=(--size 1200)
	pod_exec "$1" pod "$TRAFFIC" "$4" "$(pod_ip "$2" pod "$3")" 5001 --bytes "$5" --timeout "$(scaled 20)" "${extra[@]}"
}
# path_mtu FROM TO FAMILY: of pods, whose interfaces have FLANNEL_MTU.
path_mtu() {
	local mtu
	mtu=$(env_of "$1" FLANNEL_MTU)
	[[ $3 == 4 || $(mode_to "$(node_ip "$1" "$3")" "$(node_ip "$2" "$3")") == direct ]] || mtu=1430
	echo "$mtu"
}
full_mtu() { # FROM TO FAMILY
	local mtu header=28
	mtu=$(path_mtu "$@")
	[[ $3 == 4 ]] || header=48
	pod_exec "$1" pod ping -q -c 2 -i 0.01 -W "$(scaled 2)" -M "do" -s $((mtu - header)) "$(pod_ip "$2" pod "$3")"
}
# One byte more is answered with that MTU, on whichever link it does not fit.
more_than_mtu() {
	local mtu header=28 out
	mtu=$(path_mtu "$@")
	[[ $3 == 4 ]] || header=48
	out=$(LC_ALL=C pod_exec "$1" pod ping -c 2 -i 0.1 -W 1 -M "do" -s $((mtu - header + 1)) "$(pod_ip "$2" pod "$3")" 2>&1) && { echo "$out"; return 1; }
	grep -E "mtu[:=] ?$mtu" >/dev/null <<<"$out" || { echo "$out"; return 1; }
}

cell_talks() {
	local family from to kind
	meets "at first"
	for from in "${NODES[@]}"; do
		for to in "${NODES[@]}"; do
			[[ $from != "$to" && $from$to == *t* ]] || continue
			for family in "${FAMILIES[@]}"; do
				for kind in tcp-client udp-gso; do
					check "$kind $from to $to IPv$family" stream "$from" "$to" "$family" $kind "$([[ $kind == tcp* ]] && echo 2000000 || echo 300000)"
				done
				check "full MTU $from to $to IPv$family" full_mtu "$from" "$to" "$family"
				check "one byte more $from to $to IPv$family" more_than_mtu "$from" "$to" "$family"
			done
		done
	done
}
