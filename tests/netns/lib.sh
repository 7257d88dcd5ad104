# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the scripts of this folder share; sourced. A script names what it promises with `check`, and ends with `finish`.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../support/lab.sh"
TRAFFIC=$TWILL_BIN/tw-traffic
CHECKS=0 FAILURES=0

skip() {
	echo "$*"
	exit 77
}

[[ $EUID == 0 ]] || skip "needs root: makes network namespaces and loads BPF programs"
for tool in ip nft jq nsenter "$TWILL_BIN/twilld" "$TWILL_BIN/twillctl" "$TRAFFIC"; do
	command -v "$tool" >/dev/null || skip "missing: $tool"
done

test_lab() { lab_up "$(basename "$0" .sh)-$$"; }

overlay_is() { [[ " ${TWILLD_FLAGS:-} " == *" -overlay=$1 "* ]]; }

# Of the four variants the one that also runs what does not depend on them.
main_variant() { [[ " ${TWILLD_FLAGS:-} " != *"tcx=off"* ]] && ! overlay_is veth; }

# check "what is promised" command...: runs it; what it prints is shown when it fails.
check() {
	local what=$1 out
	shift
	CHECKS=$((CHECKS + 1))
	if out=$("$@" 2>&1); then
		echo "ok: $what"
	else
		FAILURES=$((FAILURES + 1))
		echo "FAILED: $what"
		printf '    command: %s\n' "$*"
		[[ -z $out ]] || printf '    %s\n' "$out"
	fi
}

# The negation, for check.
not() { ! "$@"; }

# same EXPECTED ACTUAL
same() {
	[[ $1 == "$2" ]] && return
	echo "expected '$1', got '$2'"
	return 1
}

# status NODE JQ-FILTER
# A degraded node ends 1 and has told all the same.
status() { { node_ctl "$1" -o json status || :; } | jq -r "$2"; }

# status_is NODE JQ-EXPRESSION: it is true now.
status_is() { [[ $(node_ctl "$1" -o json status | jq "$2") == true ]]; }
# items_are NODE SUBCOMMAND JQ-EXPRESSION over the list: it is true now.
items_are() { [[ $(node_ctl "$1" -o json "$2" | jq ".items | $3") == true ]]; }

# traffic "NODE POD" COMMAND ADDRESS [options]
traffic() {
	local from
	read -ra from <<<"$1"
	pod_exec "${from[@]}" "$TRAFFIC" "$2" "$3" "${PORT:-5001}" "${@:4}"
}

# ping_pod "NODE POD" ADDRESS [options]
ping_pod() {
	local from
	read -ra from <<<"$1"
	pod_exec "${from[@]}" ping -q -c 3 -i 0.01 -W 1 "${@:3}" "$2"
}

# --- traffic that lasts: floods of datagrams and, with a name that begins with TCP, connections

FLOWS=() FLOW_PIDS=()
# flow_start NAME NODE[-POD] COMMAND ADDRESS [options of tw-traffic]
flow_start() {
	lab_spawn "$2" "$TRAFFIC" "$3" "$4" 5001 --until-signal --json "${@:5}" >"$LAB_DIR/.lab/$1"
	FLOW_PIDS+=("$LAB_PID")
	FLOWS+=("$1")
}

# flows_end LEAST [lossy]: every connection lived; every flood sent more than LEAST datagrams, and none was lost, or lossy,
# more than LEAST arrived.
flows_end() {
	local i result
	kill -TERM "${FLOW_PIDS[@]}" || :
	for i in "${!FLOWS[@]}"; do
		wait "${FLOW_PIDS[i]}" || :
		result=$(<"$LAB_DIR/.lab/${FLOWS[i]}")
		echo "${FLOWS[i]}: $result"
		if [[ ${FLOWS[i]} == TCP* ]]; then
			check "${FLOWS[i]}: the connection lived" same ok "$(jq -r .result <<<"$result")"
		elif [[ ${2:-} == lossy ]]; then
			check "${FLOWS[i]}: it goes on" same true "$(jq ".received > $1" <<<"$result")"
		else
			check "${FLOWS[i]}: nothing was lost" same 0 "$(jq .lost <<<"$result")"
			check "${FLOWS[i]}: the flood ran" same true "$(jq ".sent > $1" <<<"$result")"
		fi
	done
}

# reachable "NODE POD" "NODE POD": within 5 s, in both families.
reachable() {
	local to
	read -ra to <<<"$2"
	wait_until 5 ping_pod "$1" "$(pod_ip "${to[@]}" 4)" || { echo "no ping over IPv4"; return 1; }
	wait_until 5 ping_pod "$1" "$(pod_ip "${to[@]}" 6)" || { echo "no ping over IPv6"; return 1; }
}

# drops NODE: packets that the programs dropped, by reason; "{}" when none. The kernel's own multicast on twill0 (MLD) has
# nowhere to go and is no loss.
drops() { node_ctl "$1" -o json drops | jq -c '[.items[] | select(.class == "drop" and .reason != "multicast" and .packets > 0) | {(.reason): .packets}] | add // {}'; }

finish() {
	local node
	if [[ $FAILURES != 0 ]]; then
		for node in $(lab_nodes); do
			echo "--- log of $node"
			tail -n 30 "$(node_dir "$node")/log" 2>/dev/null || :
		done
	fi
	echo "$CHECKS checks, $FAILURES failed"
	[[ $FAILURES == 0 ]]
}
