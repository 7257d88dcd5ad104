# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the fault scripts share; sourced. In --full size TWILL_FULL is 1.

. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

FAULT=$TWILL_BIN/tw-fault
[[ -x $FAULT ]] || skip "missing: $FAULT"

# need COMMAND...: also those of sbin, which is not in everybody's PATH.
need() {
	local tool
	PATH=$PATH:/usr/sbin:/sbin
	for tool in "$@"; do
		command -v "$tool" >/dev/null || skip "missing: $tool"
	done
}

# Is this the size for CI, or that of ./dev test --full? size CI FULL
size() { if [[ ${TWILL_FULL:-} == 1 ]]; then echo "$2"; else echo "$1"; fi; }

# Seconds for the data plane to follow a fault.
# shellcheck disable=SC2034 # for the scripts
SOON=$(scaled 10)

# twillctl ends 1 when the node is degraded, which is what faults make it: only what it says counts here.
status() { { node_ctl "$1" -o json status || :; } | jq -r "$2"; }

# --- floods ---------------------------------------------------------------------------------------------------------

FLOODS=()
declare -A FLOOD_PID=()

# flood_start NAME "NODE POD" ADDRESS RATE: numbered datagrams, echoed, until flood_end.
flood_start() {
	lab_spawn "${2/ /-}" "$TRAFFIC" udp-flood "$3" "${PORT:-5001}" --rate "$4" --until-signal --json >"$LAB_DIR/.lab/flood-$1"
	FLOODS+=("$1")
	FLOOD_PID[$1]=$LAB_PID
}

# Ends all floods. Each one's result is printed and kept in $LAB_DIR/.lab/flood-NAME; their sums in SENT and LOST.
flood_end() {
	local name
	SENT=0 LOST=0
	for name in "${FLOODS[@]}"; do kill -TERM "${FLOOD_PID[$name]}"; done
	for name in "${FLOODS[@]}"; do
		wait "${FLOOD_PID[$name]}" || :
		echo "$name: $(flood "$name" '"sent \(.sent) lost \(.lost) send_errors \(.send_errors) longest_gap_ms \(.longest_gap_ms)"')"
		SENT=$((SENT + $(flood "$name" .sent))) LOST=$((LOST + $(flood "$name" '.lost + .send_errors')))
	done
	FLOODS=() FLOOD_PID=()
}

# flood NAME JQ-FILTER: of an ended one's result.
flood() { jq -r "$2" "$LAB_DIR/.lab/flood-$1"; }

# --- the programs' maps ---------------------------------------------------------------------------------------------

# map_dump NODE MAP: entries as JSON lines, named fields.
map_dump() { bpftool -j map dump pinned "$LAB_PINS/$1/v1/maps/$2" | jq -cS '.[] | .formatted // .'; }

# peer_field NODE IPV4-PODS FIELD: of the peer's entry, as JSON; nothing when there is no such peer.
peer_field() {
	local bits=${2#*/} addr=${2%/*}
	map_dump "$1" tw_peers_v4 | jq -c --argjson bits "$bits" --arg addr "$addr" \
		"select(.key.bits == \$bits and (.key.addr | map(tostring) | join(\".\")) == \$addr) | .value.$3"
}
peer_field_is() { same "$4" "$(peer_field "$1" "$2" "$3")"; }

# pods_of NODE: its IPv4 pod CIDR.
pods_of() { status "$1" '.lease.pods[0]'; }

ifindex() { # NODE INTERFACE
	ip -n "$(node_ns "$1")" -o link show dev "$2" | cut -d: -f1
}

# attached NODE PROGRAM INTERFACE: the kernel has it, by whichever mechanism.
attached() {
	case " ${TWILLD_FLAGS:-} " in
	*"tcx=off"*) node_exec "$1" tc filter show dev "$3" "$(side_of "$2")" | grep -w "$2" >/dev/null ;;
	*) node_exec "$1" "$FAULT" tcx "$3" "$(side_of "$2")" | grep -x "$2" >/dev/null ;;
	esac
}
side_of() { case $1 in tw_to_pod | tw_from_host) echo egress ;; *) echo ingress ;; esac; }

# drop_count NODE REASON: packets dropped for it since the pins were made.
drop_count() { node_ctl "$1" -o json drops | jq "[.items[] | select(.class == \"drop\" and .reason == \"$2\") | .packets] | add // 0"; }

# said NODE TEXT: the agent's log has it.
said() { grep -F "$2" "$(node_dir "$1")/log" >/dev/null; }
