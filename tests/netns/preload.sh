#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Programs that cannot ask conntrack (kernels before 5.18; here -feature ct_lookup=off) come to a node on which connections
# to services live already: those live on, and plain flows are carried by the programs.
. "$(dirname "$0")/lib.sh"

PODS=("node-a pod-a1" "node-a pod-a2")
VIPS=(10.96.0.10 fd00:96::10)

test_lab
node_add node-a --segment 1
node_add node-b --segment 2
for node in node-a node-b; do agent_start "$node"; done
for node in node-a node-b; do wait_ready "$node" "$(scaled 15)"; done
for pod in pod-a1 pod-a2; do pod_add node-a "$pod" --style bridge && pod_serve node-a "$pod"; done
pod_add node-b pod-b1 --style bridge
pod_serve node-b pod-b1
# As on a node that twilld has never seen: nothing of it is left.
check "detach" node_ctl node-a detach --yes
agent_stop node-a
for family in 4 6; do
	clusterip_add node-a "${VIPS[family / 2 - 2]}" 80 "$(pod_ip node-a pod-a2 "$family")" 5001
done

# start CLIENT-COMMAND VIP NAME [options]: in the background; NAME.pid, NAME.out
start() {
	lab_spawn node-a-pod-a1 "$TRAFFIC" "$1" "$2" 80 --timeout "$(scaled 30)" "${@:4}" >"$LAB_DIR/.lab/$3.out" 2>&1
	echo "$LAB_PID" >"$LAB_DIR/.lab/$3.pid"
}
# end NAME: waits for it (a check is a subshell, which cannot); its exit code is in CODE.
end() {
	CODE=0
	wait "$(<"$LAB_DIR/.lab/$1.pid")" || CODE=$?
}
established() { # COUNT: connections to services from pod-a1
	[[ $(pod_exec node-a pod-a1 ss -Htn state established dport = :80 | wc -l) == "$1" ]]
}

for family in 4 6; do
	vip=${VIPS[family / 2 - 2]}
	start tcp-quiet "$vip" "quiet$family"
	start tcp-rr "$vip" "busy$family" --until-signal
done
check "four connections to services live" wait_until "$(scaled 5)" established 4

agent_start node-a -feature ct_lookup=off
check "node-a is ready" wait_ready node-a "$(scaled 15)"
is_endpoint() { items_are node-a endpoints "any(.[]; .ip == \"$1\")"; }
for pod in "${PODS[@]}"; do
	for family in 4 6; do
		# shellcheck disable=SC2086 # node and pod
		check "${pod#* } is known, IPv$family" wait_until "$(scaled 5)" is_endpoint "$(pod_ip $pod "$family")"
	done
done
check "the log tells of the connections that were left to the stack" grep -q '"\?connections"\?[=:] \?[1-9]' "$(node_dir node-a)/log"

for family in 4 6; do
	check "the backend is woken, IPv$family" traffic "node-a pod-a2" tcp-wake "$(pod_ip node-a pod-a2 "$family")"
done
for family in 4 6; do
	end "quiet$family"
	check "IPv$family: on the quiet connection the server's word arrives" same 0 "$CODE"
	kill -TERM "$(<"$LAB_DIR/.lab/busy$family.pid")"
	end "busy$family"
	check "IPv$family: the busy connection goes on" same 0 "$CODE"
done

# --- and plain flows are fast, also where the overlay device encapsulates
plain_is_fast() { # FROM TO FAMILY
	local before ip words
	read -ra words <<<"$2"
	ip=$(pod_ip "${words[@]}" "$3")
	traffic "$1" tcp-client "$ip" --bytes 200000 >/dev/null # neighbours and path MTU
	before=$(node_forwarded node-a "$3")
	traffic "$1" tcp-client "$ip" --bytes 1000000 && traffic "$1" udp-flood "$ip" --rate 200 --seconds 0.5
	same "$before" "$(node_forwarded node-a "$3")"
}
lab_calm
for family in 4 6; do
	check "IPv$family: a plain flow on the node passes no stack" plain_is_fast "node-a pod-a1" "node-a pod-a2" "$family"
	check "IPv$family: one to another node passes no stack" plain_is_fast "node-a pod-a1" "node-b pod-b1" "$family"
done
if ! overlay_is veth; then # that one encapsulates nothing
	agent_restart node-a -feature "ct_lookup=off,encap_l2_eth=off"
	for family in 4 6; do
		check "IPv$family: one that the overlay device encapsulates neither" plain_is_fast "node-a pod-a1" "node-b pod-b1" "$family"
	done
fi
finish
