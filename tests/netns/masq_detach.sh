#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# With masqueraded flows detach leaves the hooks that translate them, until the last is over; --now does not. And
# -iptables-forward-rules: a table of ours where a policy of nftables drops, advice where one of iptables does.
. "$(dirname "$0")/lib.sh"

lab_up "masq-detach-$$"
node_add node-a
lab_record_pid "$(node_exec router "$TRAFFIC" server :: 5001 --background)"
agent_start node-a -ip-masq
wait_ready node-a
pod_add node-a pod-a1 --style bridge

# --- the host's FORWARD policy
table() { node_exec node-a nft list table inet twill-forward 2>/dev/null || :; }
advises() { status_is node-a "[.warnings[] | select(test(\"policy drop\") and endswith(\"$1\"))] | length == 1"; }
advises_nothing() { status_is node-a '[.warnings[] | select(test("policy drop"))] == []'; }
check "no table where nothing drops" same "" "$(table)"
node_exec node-a nft "add table inet host; add chain inet host ahead { type filter hook forward priority 10; policy drop; }"
check "a policy of nftables that drops: our table" wait_until "$(scaled 10)" advises "nft insert rule inet host ahead ip6 daddr fd00:42::/48 accept"
check "it has two rules a family" same 4 "$(table | grep -c ' accept$')"
check "of these networks" same "10.42.0.0/16 10.42.0.0/16 fd00:42::/48 fd00:42::/48" "$(table | grep -oE '(10\.42|fd00)[^ ]*' | sort | xargs)"
node_exec node-a nft delete table inet host
no_table() { same "" "$(table)"; }
check "it goes when it is not needed" wait_until "$(scaled 10)" no_table
node_exec node-a iptables -P FORWARD DROP
check "a policy of iptables: the command" wait_until "$(scaled 10)" advises "iptables -I FORWARD -s 10.42.0.0/16 -j ACCEPT; iptables -I FORWARD -d 10.42.0.0/16 -j ACCEPT"
check "and no table, which could not overrule it" no_table
node_exec node-a iptables -I FORWARD -s 10.42.0.0/16 -j ACCEPT
node_exec node-a iptables -I FORWARD -d 10.42.0.0/16 -j ACCEPT
check "after the command nothing is said" wait_until "$(scaled 10)" advises_nothing
node_exec node-a nft "add table inet host; add chain inet host ahead { type filter hook forward priority 10; policy drop; }"
agent_restart node-a -ip-masq -iptables-forward-rules=false
check "-iptables-forward-rules=false: no table" no_table
node_exec node-a nft delete table inet host

# --- detach
agent_restart node-a -ip-masq
lab_spawn node-a-pod-a1 "$TRAFFIC" tcp-download 192.0.2.1 5001 --mbit 1 --until-signal --json >"$LAB_DIR/.lab/download"
download=$LAB_PID
connected() { [[ $(node_exec router ss -Hnt state established '( sport = :5001 )' | wc -l) == 1 ]]; }
kind=$(status node-a '.attachments[0].kind')
check "a masqueraded download" wait_until "$(scaled 10)" connected
check "detach says that it goes on" same "detached 1 masqueraded flows go on for at most 300 s; twillctl detach --now ends them" \
	"$(node_ctl node-a detach --yes | xargs)"
check "the agent is no more to be asked" wait_until "$(scaled 5)" not node_ctl node-a status
hooks() { find "$LAB_PINS/node-a" -path '*/links/*' -printf '%f\n' 2>/dev/null | sed 's/_[0-9]*$//' | sort | xargs; }
if [[ $kind == tcx ]]; then
	check "nothing but the hooks of the wire is left" same "tw_from_wire tw_to_wire" "$(hooks)"
fi
check "nor the overlay device" not node_exec node-a ip link show dev twill0
check "the process waits" agent_alive node-a
sent() { ip -n "twl-$LAB_NAME-router" -s -j link show seg1 | jq '.[0].stats64.tx.bytes'; }
has_sent() { (($(sent) > $1)); }
check "the download goes on" wait_until "$(scaled 5)" has_sent $(($(sent) + 30000))
kill -TERM "$download"
wait "$download" || :
check "it was whole" same ok "$(jq -r .result "$LAB_DIR/.lab/download")"
check "with the last flow the rest goes" wait_until "$(scaled 20)" not agent_alive node-a
check "nothing of it is left" same "" "$(find "$LAB_PINS/node-a" -mindepth 1 2>/dev/null)"

# --- an agent that starts meanwhile goes on with the flows; --now
agent_start node-a -ip-masq
wait_ready node-a
lab_spawn node-a-pod-a1 "$TRAFFIC" tcp-download 192.0.2.1 5001 --mbit 1 --until-signal --json >"$LAB_DIR/.lab/download"
download=$LAB_PID
check "another download" wait_until "$(scaled 10)" connected
node_ctl node-a detach --yes >/dev/null
wait_until "$(scaled 5)" not node_ctl node-a status
cp "$(node_dir node-a)/agent.pid" "$LAB_DIR/.lab/drains"
agent_start node-a -ip-masq
check "an agent started meanwhile is ready" wait_ready node-a
gone() {
	local pid start
	read -r pid start <"$LAB_DIR/.lab/drains"
	! _lab_alive "$pid" "$start"
}
check "the one that drained leaves it alone and ends" wait_until "$(scaled 10)" gone
check "the download goes on, still" wait_until "$(scaled 5)" has_sent $(($(sent) + 30000))
check "--now says what has ended" same "detached 1 masqueraded flows have ended" "$(node_ctl node-a detach --yes --now | xargs)"
kill -TERM "$download"
check "and nothing is left" wait_until "$(scaled 10)" not agent_alive node-a
check "no pins either" same "" "$(find "$LAB_PINS/node-a" -mindepth 1 2>/dev/null)"
finish
