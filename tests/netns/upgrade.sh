#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# twilld of another map schema takes over, and back again, under 10,000 packets a second and open streams: nothing is lost
# and nothing of the other version stays, also when it is killed in the middle. TWILL_FULL=1: 200 swaps.
. "$(dirname "$0")/lib.sh"

declare -A BIN=([this]=$TWILL_BIN [next]=$TWILL_BIN/../next) SCHEMA=()
PATH=$PATH:/usr/sbin:/sbin
for tool in bpftool tc "${BIN[next]}/twilld" "${BIN[next]}/twillctl"; do
	command -v "$tool" >/dev/null || skip "missing: $tool"
done
NODES=(node-a node-b node-c)
# All nodes change together EVERYWHERE times; from then on node-a alone, which every path of the traffic touches.
SWAPS=40 EVERYWHERE=8 KILLS=8
[[ ${TWILL_FULL:-} != 1 ]] || SWAPS=200 EVERYWHERE=40 KILLS=40
STATE=
TCX=true
if [[ " ${TWILLD_FLAGS:-} " == *" tcx=off "* ]]; then TCX=false; fi

# --- traffic ----------------------------------------------------------------------------------------------------------

PIDS=() NAMES=()
start() { # NAME NODE-POD command...
	lab_spawn "$2" "${@:3}" --until-signal --json >"$STATE/$1"
	PIDS+=("$LAB_PID")
	NAMES+=("$1")
}
flood() { start "$1" "$2" "$TRAFFIC" udp-flood "$3" 5001 --rate "$4"; }
# Streams take what is left of the CPU, at both ends: the floods are what must not starve.
stream() { start "$1" "$2" nice -n 19 "$TRAFFIC" "$3" "$4" "${5:-5002}"; }
stream_server() { # NODE POD
	lab_record_pid "$(pod_exec "$1" "$2" nice -n 19 "$TRAFFIC" server :: 5002 --background)"
}

start_traffic() {
	flood "VXLAN IPv4" node-a-pod-a1 "$(pod_ip node-c pod-c1 4)" 3000
	flood "VXLAN IPv6" node-c-pod-c1 "$(pod_ip node-a pod-a1 6)" 2500
	flood "direct IPv4" node-b-pod-b1 "$(pod_ip node-a pod-a1 4)" 2500
	flood "local IPv6" node-a-pod-a1 "$(pod_ip node-a pod-a2 6)" 2000
	stream "TCP over VXLAN IPv4" node-c-pod-c1 tcp-client "$(pod_ip node-a pod-a2 4)"
	stream "TCP over VXLAN IPv6" node-a-pod-a2 tcp-rr "$(pod_ip node-c pod-c1 6)"
	stream "TCP direct IPv6" node-a-pod-a2 tcp-rr "$(pod_ip node-b pod-b1 6)"
	stream "TCP to a service over VXLAN" node-a-pod-a1 tcp-rr 10.96.0.10 80
	stream "TCP to a service directly" node-b-pod-b1 tcp-rr fd00:96::11 80
}

end_traffic() {
	local i result sent=0 lost=0
	kill -TERM "${PIDS[@]}"
	for i in "${!PIDS[@]}"; do
		wait "${PIDS[i]}" || :
		result=$(<"$STATE/${NAMES[i]}")
		echo "${NAMES[i]}: $result"
		check "${NAMES[i]}: all of it arrived" same ok "$(jq -r .result <<<"$result")"
		[[ ${NAMES[i]} != TCP* ]] || continue
		sent=$((sent + $(jq .sent <<<"$result"))) lost=$((lost + $(jq '.lost + .send_errors' <<<"$result")))
	done
	check "nothing was lost" same 0 "$lost"
	echo "swaps $DONE, sent $sent, lost $lost"
}

# --- agents -----------------------------------------------------------------------------------------------------------

use() { TWILL_BIN=${BIN[$1]}; }
other() { if [[ $1 == this ]]; then echo next; else echo this; fi; }

# run VERSION [flags]: on all nodes, ready.
run() {
	local node
	use "$1"
	for node in "${NODES[@]}"; do agent_start "$node" "${@:2}"; done
	for node in "${NODES[@]}"; do wait_ready "$node"; done
}

end_all() { # HOW: stop or kill
	local node
	for node in "${NODES[@]}"; do "agent_$1" "$node"; done
}

# ids NODE: of its pinned maps, of every version, one a line.
ids() {
	local version
	for version in this next; do
		use "$version"
		# One that was killed early has made none.
		node_ctl "$1" -o json maps 2>/dev/null | jq '.items[].id' || :
	done | sort
}

# One counter a line, "what packets"; by the running version's twillctl, which needs no agent.
counters() {
	node_ctl node-a -o json peers | jq -r '.items[] | "tx \(.pods) \(.tx_packets)", "rx \(.pods) \(.rx_packets)"'
	node_ctl node-a -o json drops | jq -r '.items[] | "\(.reason) \(.packets)"'
}

# None of the counters of file $1 is lower, or gone, in file $2.
grown() {
	awk 'NR == FNR { before[$1 (NF > 2 ? $2 : "")] = $NF; next } { now[$1 (NF > 2 ? $2 : "")] = $NF }
		END { for (i in before) if (before[i] > 0 && now[i] + 0 < before[i]) { print i, before[i], "->", now[i]; bad = 1 }; exit bad }' "$1" "$2"
}

# --- what is there ----------------------------------------------------------------------------------------------------

# $ours: the programs that count in this node's map; $hooks: what of ours sits on its interfaces without TCX.
FAULTS='
	def differs($what; $want; $is): if $want == $is then empty else "\($what): want \($want), there is \($is)" end;
	($maps[0].items | map(select(.name == "tw_reasons").id)[0]) as $reasons
	| [$programs[0][] | select(.map_ids // [] | index($reasons))] as $ours
	| [$links[0][] | select(.prog_id | IN($ours[].id))] as $links
	| [$net[0][].tc[] | select(.name | startswith("tw_")) | select(.kind | startswith("clsact")) | "\(.name | split(":")[0])_\(.ifindex)"] as $hooks
	| [$status[0].attachments[] | "\(.program)_\(.ifindex)"] as $attached
	| differs("schemas"; $schema; $schemas),
	differs("maps"; $names | split(" "); [$maps[0].items[].name] | sort),
	differs("maps of before that are in the kernel"; []; [$kernel[0][].id] - ([$kernel[0][].id] - $old)),
	differs("programs"; ["tw_from_host", "tw_from_overlay", "tw_from_pod", "tw_from_wire", "tw_to_pod", "tw_to_wire"]; [$ours[].name] | sort),
	differs("attached"; true; $attached | length > 4),
	differs("link pins"; if $tcx then $attached | sort else [] end; $pins | split(" ") | sort),
	differs("links"; if $tcx then $attached | length else 0 end; $links | length),
	differs("filters"; if $tcx then [] else $attached | sort end; $hooks | sort),
	differs("warnings"; []; $status[0].warnings | map(select(test("version"))))'

# settled VERSION NODE: only that version's pins, maps and programs, one program on each hook. Uses what look() saw.
settled() {
	local schema=${SCHEMA[$1]} node=$2 faults
	use "$1"
	[[ -e "$STATE/old $node" ]] || echo '[]' >"$STATE/old $node"
	node_ctl "$node" -o json maps >"$STATE/maps $node"
	node_ctl "$node" -o json status >"$STATE/status"
	node_exec "$node" bpftool -j net show >"$STATE/net"
	faults=$(jq -nr --argjson tcx "$TCX" --arg schema "$schema" --arg names "$MAPS" --arg schemas "$(words_of "$LAB_PINS/$node")" \
		--arg pins "$(words_of "$LAB_PINS/$node/$schema/links")" --argjson old "$(jq -sc . "$STATE/old $node" | jq -c flatten)" \
		--slurpfile maps "$STATE/maps $node" --slurpfile status "$STATE/status" --slurpfile net "$STATE/net" \
		--slurpfile kernel "$STATE/kernel" --slurpfile programs "$STATE/programs" --slurpfile links "$STATE/links" "$FAULTS")
	[[ -z $faults ]] || { echo "$node: $faults"; return 1; }
}
words_of() { find "$1" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | xargs; }
look() {
	bpftool -j map list >"$STATE/kernel"
	bpftool -j prog list >"$STATE/programs"
	bpftool -j link list >"$STATE/links"
}

# all_settled VERSION NODE...; programs and maps end a moment after their last user.
all_settled() {
	local tries=$(($(scaled 5) * 10))
	until are_settled "$@" >"$STATE/faults"; do
		((tries--)) || { cat "$STATE/faults"; return 1; }
		sleep 0.1
	done
}
are_settled() {
	local node
	look
	for node in "${@:2}"; do settled "$1" "$node" || return 1; done
}

# --- swaps ------------------------------------------------------------------------------------------------------------

DONE=0
# swap VERSION [flags]: from the other one; SIGTERM and SIGKILL end it in turn.
swap() {
	local node how="stop"
	((DONE % 2)) || how="kill"
	end_all "$how"
	for node in "${NODES[@]}"; do jq '.items[].id' "$STATE/maps $node" >"$STATE/old $node"; done
	counters >"$STATE/counters before"
	run "$@"
	DONE=$((DONE + 1))
	counters >"$STATE/counters after"
	check "swap $DONE to ${SCHEMA[$1]}: it alone is there" all_settled "$1" "${NODES[@]}"
	check "swap $DONE: no counter fell" grown "$STATE/counters before" "$STATE/counters after"
}

# The moment of a start on node-a at which to kill it.
await() { # MOMENT VERSION
	local tries=$(($(scaled 5) * 2000)) new=$LAB_PINS/node-a/${SCHEMA[$2]} old links
	old=$LAB_PINS/node-a/${SCHEMA[$(other "$2")]}
	links=("$old"/links/*)
	case $1 in
	maps) while [[ ! -e $new/maps/tw_endpoints ]] && ((tries--)); do :; done ;;
	filled) while [[ ! -d $new/links ]] && ((tries--)); do :; done ;;
	moved) while [[ -e ${links[0]} && -e ${links[-1]} ]] && ((tries--)); do :; done ;;
	*) sleep "0.$1" ;;
	esac
}

# killed MOMENT OLD NEW: node-a's agent of OLD ends, that of NEW is killed at that moment, then one of either version runs.
killed() {
	local moment=$1 old=$2 new=$3 last schemas
	agent_stop node-a
	use "$new"
	agent_start node-a
	await "$moment" "$new"
	agent_kill node-a
	schemas=$(words_of "$LAB_PINS/node-a")
	[[ $schemas != *" "* ]] || BETWEEN=$((BETWEEN + 1))
	ids node-a >"$STATE/ids"
	sleep 0.2 # what the agents left carries traffic
	last=$new
	((RANDOM % 2)) || last=$old
	use "$last"
	agent_start node-a
	check "killed at $moment on the way to ${SCHEMA[$new]} ($schemas left), ${SCHEMA[$last]} comes up" wait_ready node-a
	# What is pinned no more must be gone.
	ids node-a | comm -23 "$STATE/ids" - >"$STATE/old node-a"
	check "and it alone is there" all_settled "$last" node-a
	VERSION=$last
}

# ----------------------------------------------------------------------------------------------------------------------

test_lab
STATE=$LAB_DIR/.lab
lab_three_nodes
SCHEMA[this]=$(words_of "$LAB_PINS/node-a")
SCHEMA[next]=v$((${SCHEMA[this]#v} + 1))
MAPS=$(words_of "$LAB_PINS/node-a/${SCHEMA[this]}/maps")
for pod in "node-a pod-a1" "node-a pod-a2" "node-b pod-b1" "node-c pod-c1"; do
	read -ra words <<<"$pod"
	pod_serve "${words[@]}"
	stream_server "${words[@]}"
	[[ $pod == "node-a pod-a1" ]] || check "pod-a1 -> ${words[1]}: reachable" reachable "node-a pod-a1" "$pod"
done
for node in "${NODES[@]}"; do
	clusterip_add "$node" 10.96.0.10 80 "$(pod_ip node-c pod-c1 4)" 5002
	clusterip_add "$node" fd00:96::11 80 "$(pod_ip node-a pod-a2 6)" 5002
done
# A pod that only the endpoint map knows: no CNI state, no neighbour, and it keeps quiet.
LAB_NO_CNI_STATE=1 pod_add node-a pod-quiet --style bridge
check "a pod without CNI state is reachable" reachable "node-a pod-quiet" "node-c pod-c1"
quiet="map(.ip) | contains([\"$(pod_ip node-a pod-quiet 4)\"])"
check "and becomes an endpoint" wait_until 5 items_are node-a endpoints "$quiet"
node_exec node-a ip neigh flush dev cni0

start_traffic
VERSION=this
check "before the first swap every hook has one program" all_settled this "${NODES[@]}"
swap next
check "the pod that only the map knew is still an endpoint" items_are node-a endpoints "$quiet"
swap this
while ((DONE < SWAPS)); do
	((DONE < EVERYWHERE)) || NODES=(node-a)
	# Other constants in the programs, too.
	swap next -anti-spoof=strict
	swap this
done

BETWEEN=0
moments=(maps filled)
if $TCX; then moments+=(moved moved); fi
while ((${#moments[@]} < KILLS)); do moments+=("$(printf %03d $((RANDOM % 400)))"); done
for moment in "${moments[@]}"; do killed "$moment" "$VERSION" "$(other "$VERSION")"; done
check "of $KILLS kills some left two versions ($BETWEEN)" test "$BETWEEN" -ge 2

# The same schema with other constants: other programs, the same maps.
program_ids() { jq --slurpfile maps "$STATE/maps node-a" '($maps[0].items | map(select(.name == "tw_reasons").id)[0]) as $id
	| .[] | select(.map_ids // [] | index($id)).id' "$STATE/programs" | sort; }
use "$VERSION"
ids node-a >"$STATE/ids"
program_ids >"$STATE/ids of programs"
use "$VERSION"
agent_restart node-a -anti-spoof=strict
check "a restart of the same schema keeps the maps" same "$(<"$STATE/ids")" "$(ids node-a)"
check "and replaces the programs" all_settled "$VERSION" node-a
check "every one" same "" "$(program_ids | comm -12 "$STATE/ids of programs" -)"
end_traffic

use "$VERSION"
check "node-a: the programs dropped nothing" same "{}" "$(drops node-a)"
use this
for node in node-b node-c; do check "$node: the programs dropped nothing" same "{}" "$(drops "$node")"; done

# Taken away by the version that did not get to run.
agent_stop node-a
use "$(other "$VERSION")"
agent_start node-a
await filled "$(other "$VERSION")"
agent_kill node-a
use "$VERSION"
check "detach after a kill in the middle ends well" node_ctl node-a detach --yes
check "and leaves nothing pinned" not test -e "$LAB_PINS/node-a"
check "nor attached" same "" "$(node_exec node-a tc qdisc show | grep clsact || :)"
finish
