#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Somebody else takes our programs off, or our pins away: noticed within 5 s and put back, and no packet is lost meanwhile.
. "$(dirname "$0")/lib.sh"
need bpftool tc

PROGRAMS=("tw_from_pod pod" "tw_to_pod pod" "tw_from_wire eth0" "tw_from_overlay twill0" "tw_from_host twill0")
with_tcx() { [[ " ${TWILLD_FLAGS:-} " != *"tcx=off"* ]]; }
# PROGRAM: takes it off, each kind of user in its way.
unpin() { rm "$LAB_PINS/node-a/v1/links/$1_$(ifindex node-a "$2")"; }
detach_link() { bpftool link detach pinned "$LAB_PINS/node-a/v1/links/$1_$(ifindex node-a "$2")"; }
delete_filter() { node_exec node-a tc filter del dev "$2" "$(side_of "$1")" pref 49268; }
flush_filters() { node_exec node-a tc filter del dev "$2" "$(side_of "$1")"; }
delete_qdisc() { node_exec node-a tc qdisc del dev "$2" clsact; }

# It is back; how long that took, in ms, is noted.
comes_back() { # PROGRAM INTERFACE
	local start=$EPOCHREALTIME
	wait_until "$(scaled 5)" attached node-a "$1" "$2" || return 1
	echo $(((${EPOCHREALTIME/./} - ${start/./}) / 1000)) >>"$LAB_DIR/.lab/back"
}

# What the agent counts as attached, it has attached: nothing twice, nothing missing.
all_attached() {
	local program dev
	while read -r program dev; do
		attached node-a "$program" "$dev" || { echo "$program is not on $dev"; return 1; }
	done < <(status node-a '.attachments[] | .program + " " + .interface')
}

test_lab
lab_three_nodes
for pod in "node-a pod-a2" "node-c pod-c1"; do
	read -ra words <<<"$pod"
	pod_serve "${words[@]}"
done
reachable "node-a pod-a1" "node-c pod-c1"
POD_IF=$(pod_host_if node-a pod-a1)
check "everything is attached" all_attached
before=$(status node-a '.attachments | tojson')
if with_tcx; then ways=(unpin detach_link); else ways=(delete_filter flush_filters delete_qdisc); fi

flood_start vxlan "node-a pod-a1" "$(pod_ip node-c pod-c1 4)" 500
flood_start local "node-a pod-a1" "$(pod_ip node-a pod-a2 6)" 500
for entry in "${PROGRAMS[@]}"; do
	read -r program dev <<<"${entry/ pod/ $POD_IF}"
	for way in "${ways[@]}"; do
		# One is enough for what is the same code in the agent; --full asks all.
		[[ ${TWILL_FULL:-} == 1 || $program == tw_from_pod || $way == "${ways[0]}" ]] || continue
		check "$program, $way: it is off" "$way" "$program" "$dev"
		check "$program, $way: it is back within 5 s" comes_back "$program" "$dev"
	done
done
check "all are back" wait_until "$SOON" all_attached
flood_end
slowest=$(sort -n "$LAB_DIR/.lab/back" | tail -n 1)
echo "taken off $(wc -l <"$LAB_DIR/.lab/back") times, back after at most $slowest ms, sent $SENT, lost $LOST"
check "no packet between pods was lost" same 0 "$LOST"
check "the agent told of it" said node-a "program was taken off, attaching it again"
check "the attachments are those of before" same "$before" "$(status node-a '.attachments | tojson')"

# --- pins of maps: who reads them, twillctl and the next agent, must find those that the programs use
map_ids() { node_ctl node-a -o json maps | jq -c '[.items[] | [.name, .id]] | sort'; }
same_maps() { same "$maps" "$(map_ids)"; }
maps=$(map_ids)
rm "$LAB_PINS/node-a/v1/maps/tw_peers_v4" "$LAB_PINS/node-a/v1/maps/tw_reasons"
check "pins of two maps removed: the same maps are pinned again" wait_until "$(scaled 5)" same_maps
check "the agent told of it" said node-a "map was unpinned, pinning it again"
rm -r "$LAB_PINS/node-a/v1"
check "all pins removed: the same maps are pinned again" wait_until "$(scaled 5)" same_maps
check "all pins removed: all programs are attached again" wait_until "$(scaled 5)" all_attached
check "all pins removed: pods reach each other" reachable "node-a pod-a1" "node-c pod-c1"

# A new generation of the programs, right after the pins went, must not come with empty maps.
pin_change() {
	rm -r "$LAB_PINS/node-a/v1/maps"
	node_exec node-a bash -c 'echo "20000 30000" >/proc/sys/net/ipv4/ip_local_port_range'
	ip -n "$(node_ns node-a)" link del twill0
}
pin_change
check "pins removed as the programs are loaded anew: the same maps" wait_until "$(scaled 5)" same_maps
check "pins removed as the programs are loaded anew: pods reach each other" reachable "node-a pod-a1" "node-c pod-c1"
agent_kill node-a
agent_start node-a
check "the next agent is ready" wait_ready node-a
check "the next agent has the same maps" same_maps
check "the next agent has everything attached" all_attached
finish
