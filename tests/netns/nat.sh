#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# twillctl nat on a node that masquerades: what it lists is there, what it foretells comes true, with and without the agent; bpftool
# shows the same flows by the names of their fields.
. "$(dirname "$0")/lib.sh"
for tool in bpftool ss; do command -v "$tool" >/dev/null || skip "missing: $tool"; done

test_lab
NODE=$(node_ns node-a)
node_add node-a
node_add node-b
# A second way out, to "isp".
_lab_netns "twl-$LAB_NAME-isp"
_lab_sysctl "twl-$LAB_NAME-isp" ipv6/conf/all/accept_dad=0 ipv6/conf/default/accept_dad=0
ip -n "$NODE" link add wan0 type veth peer name cust netns "twl-$LAB_NAME-isp"
ip -n "$NODE" -batch - <<-END
	addr add 203.0.113.2/24 dev wan0
	addr add 2001:db8:3::2/64 dev wan0 nodad
	link set dev wan0 up
END
ip -n "twl-$LAB_NAME-isp" -batch - <<-END
	link set dev lo up
	link set dev cust up
	addr add 203.0.113.1/24 dev cust
	addr add 2001:db8:3::1/64 dev cust nodad
	route add 10.42.0.0/16 via 203.0.113.2
	route add fd00:42::/48 via 2001:db8:3::2
END
agent_start node-a -ip-masq -healthz-port 8088 -non-masquerade-cidrs 203.0.113.128/25,2001:db8:3:0:8000::/65
agent_start node-b -ip-masq
wait_ready node-a
wait_ready node-b
pod_add node-a pod-a1 --style bridge
pod_add node-b pod-b1 --style bridge
for address in 203.0.113.129/24 2001:db8:3:0:8000::1/64; do ip -n "twl-$LAB_NAME-isp" addr add "$address" dev cust; done
for where in router isp node-a node-b-pod-b1; do lab_record_pid "$(nsenter --net="/run/netns/twl-$LAB_NAME-$where" "$TRAFFIC" server :: 5001 --background)"; done

# --- what trace foretells ---------------------------------------------------------------------------------------------------------

seen() { # WHERE: sources of the connections to the server there
	nsenter --net="/run/netns/twl-$LAB_NAME-$1" ss -Hnt state established "( sport = :5001 )" |
		awk '{ sub(/:[0-9]*$/, "", $NF); gsub(/[][]|::ffff:/, "", $NF); print $NF }' | sort -u | xargs
}
sees() { [[ $(seen "$1") == "$2" ]]; }
trace() { node_ctl node-a -o json nat trace "$@"; }

CLIENT=
client_start() { # ADDRESS
	lab_spawn node-a-pod-a1 "$TRAFFIC" tcp-rr "$1" 5001 --until-signal --json >"$LAB_DIR/.lab/client" 2>&1
	CLIENT=$LAB_PID
}
client_end() { kill -TERM "$CLIENT" && wait "$CLIENT"; }

# foretold FAMILY WHERE ADDRESS ROW EXPECTED: trace says row and source, and the server sees that one. Then trace finds the flow, with
# its port, if there is one; and list has it.
foretold() {
	local pod told flow
	pod=$(pod_ip node-a pod-a1 "$1")
	told=$(trace "$(end_of "$pod")" "$(end_of "$3" 5001)")
	same "$4" "$(jq .row <<<"$told")" || return
	if [[ $5 == "$pod" ]]; then same false "$(jq .masqueraded <<<"$told")"; else same "true $5" "$(jq -r '"\(.masqueraded) \(.address)"' <<<"$told")"; fi || return
	client_start "$3"
	wait_until "$(scaled 10)" sees "$2" "$5" || { echo "the server sees '$(seen "$2")'"; return 1; }
	flow=$(node_ctl node-a -o json nat list --pod "$pod" --remote "$(end_of "$3" 5001)" --proto tcp --state established | jq -c '.items[] | [.address, .halves]')
	told=$(trace "$(end_of "$pod" "$(client_port "$3")")" "$(end_of "$3" 5001)" | jq -r '.verdict')
	client_end || return
	if [[ $5 == "$pod" ]]; then
		same "" "$flow" && [[ $told == "stays as it is"* ]]
	else
		same "[\"$5\",\"both\"]" "$flow" && [[ $told == "masqueraded as "*", as its flow is" ]]
	fi || { echo "$told"; return 1; }
	wait_until "$(scaled 10)" sees "$2" "" || { echo "not closed"; return 1; }
}
end_of() { local at=$1; [[ $at != *:* || -z ${2:-} ]] || at="[$at]"; echo "$at${2:+:$2}"; }
client_port() { pod_exec node-a pod-a1 ss -Hnt state established "( dport = :5001 )" | awk '{ sub(/.*:/, "", $(NF - 1)); print $(NF - 1) }' | head -n 1; }

for family in 4 6; do
	pod=$(pod_ip node-a pod-a1 $family)
	case $family in
	4) router=192.0.2.1 isp=203.0.113.1 wan=203.0.113.2 except=203.0.113.129 ;;
	6) router=2001:db8:1::1 isp=2001:db8:3::1 wan=2001:db8:3::2 except=2001:db8:3:0:8000::1 ;;
	esac
	node=$(node_ip node-a $family)
	check "IPv$family: to outside: row 5, the wire's address" foretold $family router "$router" 5 "$node"
	check "IPv$family: by a second interface: row 5, that one's" foretold $family isp "$isp" 5 "$wan"
	check "IPv$family: what is excluded stays as it is" foretold $family isp "$except" 5 "$pod"
	check "IPv$family: to a pod of another node: row 2" foretold $family node-b-pod-b1 "$(pod_ip node-b pod-b1 $family)" 2 "$pod"
	check "IPv$family: to this node itself" foretold $family node-a "$node" 5 "$pod"
done
check "status names the ways out" same '[true,"iptables",100000,["eth0","192.0.2.10","2001:db8:1::10"],["wan0","203.0.113.2","2001:db8:3::2"]]' \
	"$(status node-a '.masquerade | [.on, .rules, .capacity] + (.interfaces | sort_by(.name) | map([.name, .ipv4, .ipv6])) | tojson')"
check "what is marked is kube-proxy's" same 1 "$(trace 10.42.1.5 192.0.2.1 --mark 0x4000 | jq .row)"

# --- list, stats, bpftool, without the agent ----------------------------------------------------------------------------------------

client_start 192.0.2.1
wait_until "$(scaled 10)" sees router "$(node_ip node-a 4)" || :
check "an echo" ping_pod "node-a pod-a1" 192.0.2.1
# An answer serves for five seconds, but this is the first question.
metrics=$(node_exec node-a bash -c 'exec 3<>/dev/tcp/127.0.0.1/8088; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3')
check "metrics: flows, ports, remote ends, packets" same "yes yes yes yes" "$(for pattern in '^twill_nat_flows{protocol="tcp"} [1-9]' '^twill_nat_ports [1-9]' \
	'^twill_nat_destination_flows{remote="192.0.2.1",remote_port="5001",protocol="tcp",address="192.0.2.10"} [1-9]' \
	'^twill_packets_total{reason="nat_out",class="stack",hook="to_wire"} [1-9]'; do grep -e "$pattern" <<<"$metrics" >/dev/null && echo yes || echo "no $pattern"; done | xargs)"
agent_kill node-a
list() { node_ctl node-a -o json nat list "$@"; }
check "without the agent: the connection is there" same '["tcp","192.0.2.1",5001,"192.0.2.10","established","both"]' \
	"$(list --remote 192.0.2.1:5001 --state established | jq -c '.items[] | [.protocol, .remote, .remote_port, .address, .state, .halves]')"
check "and the echo" same 1 "$(list --remote 192.0.2.1 --proto icmp | jq '[.items[] | select(.state == "echo")] | length')"
stats=$(node_ctl node-a -o json nat stats)
check "stats: rules, capacity, no lone half" same '["iptables",100000,0]' "$(jq -c '[.rules, .flows.capacity, .flows.lone_halves]' <<<"$stats")"
check "as many flows live as are listed" same "$(list | jq '.items | length')" "$(jq .flows.live <<<"$stats")"
check "ports are not those of the host" same false "$(jq --argjson low "$(node_exec node-a cut -f 1 /proc/sys/net/ipv4/ip_local_port_range)" \
	'[.ports.ranges[] | .first <= $low and .last >= $low] | any' <<<"$stats")"
check "packets went out and in" same true "$(jq '.packets.out > 0 and .packets.in > 0' <<<"$stats")"

# The same flow by bpftool, which prints numbers of one byte each in an address.
dump() {
	bpftool -j map dump pinned "$LAB_PINS/node-a/v1/maps/tw_nat_fwd" | jq -c 'map(.formatted // .) | .[]
		| select(.key.proto == 6 and .value.state == 3 and .key.dport == 5001 and .key.dst.low == [192, 0, 2, 1])
		| [.key.src.low, .value.addr.low, .value.plain]'
}
check "bpftool shows the flow by its fields" same "[[$(pod_ip node-a pod-a1 4 | tr . ,)],[192,0,2,10],0]" "$(dump)"
ended=0
client_end || ended=$?
check "the connection lives and ends well" same 0 "$ended"
finish
