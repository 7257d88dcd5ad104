#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ./dev demo: three nodes, pods on all of them, and the proof that BPF carries their packets.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lab.sh"
. "$LAB_SUPPORT/say.sh"

TRAFFIC=$TWILL_BIN/tw-traffic
PODS=("node-a pod-a1" "node-a pod-a2" "node-b pod-b1" "node-c pod-c1")
NODES=(node-a node-b node-c)
STARTED=$SECONDS
# How much goes over TCP for each pair: bytes, or, when set, for so many seconds.
BYTES=${TWILL_DEMO_BYTES:-64000000} LENGTH=${TWILL_DEMO_SECONDS:-}
KEEP='' OVERLAY=vxlan

usage() {
	cat <<-END
		usage: ./dev demo [--keep] [--overlay vxlan|veth]

		  --keep            leave the lab up and say how to look around in it
		  --overlay veth    without any vxlan device
	END
}

# A check failed: say which, show what the agents said, end.
fail() {
	local node
	say_failed "$*"
	for node in "${NODES[@]}"; do
		[[ ! -s $LAB_DIR/$node/log ]] || tail -n 5 "$LAB_DIR/$node/log" | sed "s/^/          $node: /"
	done
	exit 1
}

parse_args() {
	while [[ $# -gt 0 ]]; do
		case $1 in
		--keep) KEEP=1 ;;
		--overlay=*) OVERLAY=${1#*=} ;;
		--overlay) OVERLAY=${2:-} && shift ;;
		-h | --help) usage && exit 0 ;;
		*) usage >&2 && exit 2 ;;
		esac
		shift || :
	done
	[[ $OVERLAY == vxlan || $OVERLAY == veth ]] || { usage >&2 && exit 2; }
}

# --- steps ------------------------------------------------------------------------------------------------------

show_leases() {
	local node
	say_step "Leases"
	for node in "${NODES[@]}"; do
		node_ctl "$node" -o json status | jq -r --arg node "$node" '[$node,
			"pods " + (.lease.pods | join(" ")), "node address " + (.lease.public_ip | join(" ")),
			"MAC " + (.lease.vtep_mac | join(" "))] | join("  ")' | sed 's/^/  /'
	done
	say_note "overlay device $(node_ctl node-a -o json status |
		jq -r '"\(.overlay.name) (\(.overlay.kind)); programs attached by \([.attachments[].kind] | unique | join(" "))"')"
	[[ $OVERLAY == vxlan ]] || no_vxlan_device
}

no_vxlan_device() {
	local node
	for node in "${NODES[@]}"; do
		[[ -z $(node_exec "$node" ip -o link show type vxlan) ]] || fail "$node has a vxlan device with --overlay veth"
	done
	say_ok "no vxlan device on any node"
}

start_pods() {
	local pod rest
	say_step "Pods"
	for pod in "${PODS[@]}"; do
		read -ra rest <<<"$pod"
		pod_serve "${rest[@]}"
		say "${rest[1]} on ${rest[0]}  $(pod_ip "${rest[@]}" 4)  $(pod_ip "${rest[@]}" 6)"
	done
	lab_calm # what ARP asks again while the counters are compared would blur them
}

# The stack carries what is not known yet, and it is the stack that tells a pod the path MTU. So that it need not while
# its counters are compared: every pair once, until all pods are endpoints and nothing is counted any more.
warm_up() {
	local from to family last now=''
	for from in "${PODS[@]}"; do
		for to in "${PODS[@]}"; do
			for family in 4 6; do
				if [[ $from != "$to" ]]; then warm_up_pair "$from" "$to" "$family"; fi
			done
		done
	done
	for from in "${PODS[@]}"; do
		# shellcheck disable=SC2086 # node and pod
		for family in 4 6; do
			wait_until 5 is_endpoint $from "$family" || fail "${from#* } $(pod_ip $from "$family") is not known as an endpoint"
		done
	done
	for _ in {1..20}; do
		last=$now
		sleep 0.3
		now=$(kernel_counters)
		[[ $last != "$now" ]] || break
	done
	say_note "before anything is counted, every pair said a few words: neighbours and path MTUs are known"
}

warm_up_pair() { # FROM TO FAMILY
	local ip
	# shellcheck disable=SC2086 # node and pod
	ip=$(pod_ip $2 "$3")
	# shellcheck disable=SC2086
	wait_until 10 pod_exec $1 ping -c 1 -W 1 "$ip" || fail "${1#* } -> ${2#* } IPv$3: no ping"
	# shellcheck disable=SC2086
	pod_exec $1 "$TRAFFIC" tcp-client "$ip" 5001 --bytes 200000 --timeout "$(scaled 10)" >/dev/null || fail "${1#* } -> ${2#* } IPv$3: no TCP"
}

is_endpoint() { # NODE POD FAMILY
	node_ctl "$1" -o json endpoints | jq -e --arg ip "$(pod_ip "$1" "$2" "$3")" 'any(.items[]; .ip == $ip)'
}

# What the kernel counts where packets would pass that BPF does not carry.
kernel_counters() {
	local node
	for node in "${NODES[@]}"; do
		echo "$node: IPv4 packets forwarded by its stack|$(node_forwarded "$node" 4)"
		echo "$node: IPv6 packets forwarded by its stack|$(node_forwarded "$node" 6)"
		echo "$node: cni0 received, sent|$(link_packets "$node" cni0)"
		echo "$node: twill0 received, sent|$(link_packets "$node" twill0)"
	done
}

# Address and mode of each peer, asked once of each node.
read_paths() {
	local node
	for node in "${NODES[@]}"; do
		node_ctl "$node" -o json peers | jq -r '.items[] | "\(.node) \(.mode)"' >"$LAB_DIR/.lab/paths-$node"
	done
}

path_of() { # FROM-NODE TO-NODE FAMILY
	if [[ $1 == "$2" ]]; then echo local && return; fi
	awk -v node="$(node_ip "$2" "$3")" '$1 == node { print $2 }' "$LAB_DIR/.lab/paths-$1"
}

# measure "NODE POD" "NODE POD" FAMILY PATH: one line; pings and a checked TCP stream.
measure() {
	local from to ip ping tcp
	read -ra from <<<"$1"
	read -ra to <<<"$2"
	ip=$(pod_ip "${to[@]}" "$3")
	ping=$(pod_exec "${from[@]}" ping -q -c 20 -i 0.002 -W "$(scaled 1)" "$ip") || fail "${from[1]} -> ${to[1]} IPv$3: ping: $(grep loss <<<"$ping")"
	tcp=$(pod_exec "${from[@]}" "$TRAFFIC" tcp-client "$ip" 5001 --timeout "$(scaled 10)" "${AMOUNT[@]}" 2>&1) || fail "${from[1]} -> ${to[1]} IPv$3: $tcp"
	printf '  %sok%s      %-6s -> %-6s  IPv%s  %-6s  ping %8s us  tcp %6.0f Mbit/s\n' "$SAY_GREEN" "$SAY_PLAIN" "${from[1]}" "${to[1]}" \
		"$3" "$4" "$(sed -n 's|.*= [0-9.]*/\([0-9.]*\)/.*|\1|p' <<<"$ping" | awk '{ printf "%.1f", $1 * 1000 }')" \
		"${tcp##*mbit_s=}"
}

transfers() {
	local i j family from to before after paths=()
	say_step "Every pair: path, ping, TCP with checksum, $AMOUNT_TEXT each"
	read_paths
	for ((i = 0; i < ${#PODS[@]}; i++)); do
		for ((j = 0; j < ${#PODS[@]}; j++)); do
			for family in 4 6; do
				read -ra from <<<"${PODS[i]}"
				read -ra to <<<"${PODS[j]}"
				paths[i * 100 + j * 10 + family]=$(path_of "${from[0]}" "${to[0]}" "$family")
			done
		done
	done
	[[ ${paths[24]} == direct && ${paths[26]} == direct ]] || fail "node-a -> node-b is '${paths[24]}', '${paths[26]}' and not direct"
	[[ ${paths[34]} == vxlan && ${paths[36]} == vxlan ]] || fail "node-a -> node-c is '${paths[34]}', '${paths[36]}' and not vxlan"
	before=$(kernel_counters)
	for ((i = 0; i < ${#PODS[@]}; i++)); do
		for ((j = 0; j < ${#PODS[@]}; j++)); do
			for family in 4 6; do
				[[ $i == "$j" ]] || measure "${PODS[i]}" "${PODS[j]}" "$family" "${paths[i * 100 + j * 10 + family]}"
			done
		done
	done
	after=$(kernel_counters)
	proof "$before" "$after"
}

proof() {
	local what was is changed=''
	say_step "The kernel's own counters before and after these transfers"
	while IFS='|' read -r what was; do
		is=$(grep -F "$what|" <<<"$2")
		is=${is#*|}
		[[ $was != "- -" ]] || continue
		if [[ $was == "$is" ]]; then
			say_ok "$what: $was -> $is, unchanged"
		else
			say_failed "$what: $was -> $is"
			changed=1
		fi
	done <<<"$1"
	[[ ! $changed ]] || fail "packets went through the kernel's stack"
	rules
}

# Nothing of ours in netfilter.
rules() {
	local node
	for node in "${NODES[@]}"; do
		if node_exec "$node" nft list ruleset 2>/dev/null | grep -i twill >/dev/null; then fail "$node has an nftables rule of twill"; fi
	done
	say_ok "no netfilter rule of twill on any node"
}

cluster_ip() {
	local node vip out from bytes=$((BYTES / 8))
	say_step "ClusterIP: DNAT rules as kube-proxy makes them, one service backed by pod-c1"
	for node in "${NODES[@]}"; do
		clusterip_add "$node" 10.96.0.10 80 "$(pod_ip node-c pod-c1 4)" 5001
		clusterip_add "$node" fd00:96::10 80 "$(pod_ip node-c pod-c1 6)" 5001
	done
	for vip in 10.96.0.10 fd00:96::10; do
		for from in "node-a pod-a1" "node-b pod-b1" "node-c pod-c1"; do
			# shellcheck disable=SC2086 # node and pod
			out=$(pod_exec $from "$TRAFFIC" tcp-client "$vip" 80 --bytes "$bytes" --timeout "$(scaled 5)" 2>&1) || fail "${from#* } -> $vip port 80: $out"
			say_ok "${from#* } -> $vip port 80: $(printf '%.0f' "${out##*mbit_s=}") Mbit/s"
		done
		out=$(node_exec node-a "$TRAFFIC" tcp-client "$vip" 80 --bytes "$bytes" --timeout "$(scaled 5)" 2>&1) || fail "node-a -> $vip port 80: $out"
		say_ok "node-a -> $vip port 80: $(printf '%.0f' "${out##*mbit_s=}") Mbit/s"
	done
}

flood_start() { # FROM-NODE FROM-POD TO-NODE TO-POD FAMILY OUTPUT
	lab_spawn "$1-$2" "$TRAFFIC" udp-flood "$(pod_ip "$3" "$4" "$5")" 5001 --rate "$RATE" --timeout "$(scaled 10)" --until-signal --json >"$LAB_DIR/.lab/$6"
}

kill_agent() {
	local pids=() file result
	say_step "kill -9 of node-a's agent under traffic"
	flood_start node-a pod-a1 node-c pod-c1 4 vxlan-IPv4 && pids+=("$LAB_PID")
	flood_start node-b pod-b1 node-a pod-a2 6 direct-IPv6 && pids+=("$LAB_PID")
	sleep 0.5
	agent_kill node-a
	if agent_alive node-a; then fail "node-a's agent survived kill -9"; fi
	sleep 1
	say "the agent is dead, traffic goes on; a new one starts"
	agent_start node-a
	wait_ready node-a || fail "the new agent of node-a is not ready"
	sleep 0.5
	kill -TERM "${pids[@]}"
	for file in vxlan-IPv4 direct-IPv6; do wait "${pids[0]}" || :; pids=("${pids[@]:1}"); done
	for file in vxlan-IPv4 direct-IPv6; do
		result=$(jq -r '"sent \(.sent), lost \(.lost), longest gap \(.longest_gap_ms) ms"' "$LAB_DIR/.lab/$file")
		[[ $(jq --argjson least "$RATE" ".lost == 0 and .sent > \$least" "$LAB_DIR/.lab/$file") == true ]] || fail "${file/-/ }: $result"
		say_ok "${file/-/ }: $result"
	done
}

look_around() {
	local maps=$LAB_PINS/node-a/v1/maps
	say_step "The lab stays up. Look around, as root:"
	cat <<-END
		  ./dev lab list
		  ./dev lab ctl node-a status              and: peers endpoints drops maps
		  ./dev lab shell node-a                   or a pod: ./dev lab shell node-a/pod-a1
		  nsenter --net=/run/netns/$(node_ns node-a) ip route
		  bpftool map dump pinned $maps/tw_peers_v4
		  ./dev lab exec node-a/pod-a1 ping $(pod_ip node-c pod-c1 4)
		  ./dev lab exec node-a tcpdump -ni eth0 udp port 8472
		  tail -f $LAB_DIR/node-a/log
		  ./dev lab down $LAB_NAME
	END
	trap - EXIT INT TERM HUP PIPE
}

main() {
	parse_args "$@"
	AMOUNT=(--bytes "$BYTES") AMOUNT_TEXT="$((BYTES / 1000000)) MB"
	if [[ $LENGTH ]]; then AMOUNT=(--seconds "$LENGTH") AMOUNT_TEXT="$LENGTH s"; fi
	RATE=$((${TWILL_TIME_SCALE:-1} > 1 ? 200 : 1000)) # datagrams a second
	export TWILLD_FLAGS="${TWILLD_FLAGS:-} -overlay=$OVERLAY"
	say_step "Three nodes, IPv4 and IPv6: node-a and node-b on one L2, node-c behind a router"
	if [[ $KEEP ]]; then lab_up demo; else lab_up "demo-$$"; fi
	lab_three_nodes
	for node in "${NODES[@]}"; do say "$node  $(node_ip "$node" 4)  $(node_ip "$node" 6)  twilld is ready"; done
	show_leases
	start_pods
	warm_up
	transfers
	cluster_ip
	kill_agent
	if [[ $KEEP ]]; then look_around; fi
	printf '\n%sAll checks passed%s in %d s.\n' "$SAY_GREEN" "$SAY_PLAIN" $((SECONDS - STARTED))
}

main "$@"
