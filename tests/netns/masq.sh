#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# -ip-masq: by which interfaces packets leave and with which addresses, and that flows outlive the agent. What is done to a
# packet is in tests/packet.
. "$(dirname "$0")/lib.sh"

test_lab
NODE=$(node_ns node-a)

# The router has no way back to pods. A second way out leads to "isp", behind which is "far".
node_add node-a
_lab_netns "twl-$LAB_NAME-isp"
ip -n "$NODE" link add wan0 type veth peer name cust netns "twl-$LAB_NAME-isp"
ip -n "$NODE" -batch - <<-END
	addr add 203.0.113.2/24 dev wan0
	addr add 2001:db8:3::2/64 dev wan0 nodad
	link set dev wan0 up
	route add 203.0.114.0/24 via 203.0.113.1
	route add 2001:db8:4::/64 via 2001:db8:3::1
END
ip -n "twl-$LAB_NAME-isp" -batch - <<-END
	link set dev lo up
	link set dev cust up
	addr add 203.0.113.1/24 dev cust
	addr add 2001:db8:3::1/64 dev cust nodad
	addr add 203.0.114.1/32 dev lo
	addr add 2001:db8:4::1/128 dev lo
END

# serve WHERE: traffic servers there.
serve() {
	local pid
	pid=$(node_exec "$1" "$TRAFFIC" server :: 5001 --background)
	lab_record_pid "$pid"
}
serve router
serve isp

# seen WHERE: the addresses from which connections are there.
seen() { node_exec "$1" ss -Hnt state established "( sport = :5001 )" | awk '{ sub(/:[0-9]*$/, "", $NF); gsub(/[][]|::ffff:/, "", $NF); print $NF }' | sort -u | xargs; }

# comes_as POD WHERE ADDRESS EXPECTED: a connection of the pod to that address is seen there to come from EXPECTED.
comes_as() {
	local pid found
	lab_spawn "node-a-$1" "$TRAFFIC" tcp-rr "$3" 5001 --until-signal --json >"$LAB_DIR/.lab/comes"
	pid=$LAB_PID
	wait_until "$(scaled 5)" sees "$2" "$4" || found=$(seen "$2")
	kill -TERM "$pid"
	wait "$pid" || { echo "the connection failed: $(<"$LAB_DIR/.lab/comes")"; return 1; }
	wait_until "$(scaled 5)" not sees "$2" "$4" || { echo "not closed: $(seen "$2")"; return 1; }
	[[ -z ${found:-} ]] || { echo "seen: $found"; return 1; }
}
sees() { [[ " $(seen "$1") " == *" $2 "* ]]; }

# Masqueraded flows of the pod to the server, and the size of a map.
status_of_flows() { same "$1" "$(node_ctl node-a -o json nat list | jq '[.items[] | select(.remote_port == 5001 and .state == "established")] | length')"; }
entries() { node_ctl node-a -o json maps | jq ".items[] | select(.name == \"$1\") | .capacity"; }

agent_start node-a -ip-masq
wait_ready node-a
pod_add node-a pod-a1 --style bridge
for family in 4 6; do
	case $family in
	4) router=192.0.2.1 isp=203.0.113.1 far=203.0.114.1 eth=$(node_ip node-a 4) wan=203.0.113.2 ;;
	6) router=2001:db8:1::1 isp=2001:db8:3::1 far=2001:db8:4::1 eth=$(node_ip node-a 6) wan=2001:db8:3::2 ;;
	esac
	check "IPv$family by the wire: the wire's address" comes_as pod-a1 router "$router" "$eth"
	check "IPv$family by a second interface: that one's address" comes_as pod-a1 isp "$isp" "$wan"
	check "IPv$family to what is behind it" comes_as pod-a1 isp "$far" "$wan"
	check "IPv$family echo" ping_pod "node-a pod-a1" "$far"
done

# --- flows outlive the agent, and maps of another size
flow_start "TCP over IPv4" node-a-pod-a1 tcp-download 203.0.114.1
flow_start "TCP over IPv6" node-a-pod-a1 tcp-download 2001:db8:4::1
check "two downloads" wait_until "$(scaled 5)" status_of_flows 2
agent_kill node-a
agent_start node-a -ip-masq
check "after kill -9 the agent is ready" wait_ready node-a
agent_restart node-a -ip-masq -nat-max=2000
check "with less room for flows it is ready" same 2000 "$(entries tw_nat_rev)"
agent_restart node-a -ip-masq
check "and with more again" same 100000 "$(entries tw_nat_rev)"
memory() { awk '/VmRSS/ { print $2 < 30720 }' "/proc/$(cut -d' ' -f1 "$(node_dir node-a)/agent.pid")/status"; }
check "the agent is below 30 MiB" same 1 "$(memory)"
nat_bytes() { node_ctl node-a -o json maps | jq '[.items[] | select(.name | startswith("tw_nat_")) | .memory_bytes] | add <= 32 * 1048576'; }
check "and the maps for 100,000 flows below 32 MiB" same true "$(nat_bytes)"
check "nothing is held twice" status_of_flows 2
flows_end 0

# --- off and on again
agent_restart node-a
check "without -ip-masq nothing is attached for it" same 0 "$(status node-a '[.attachments[] | select(.program == "tw_to_wire")] | length')"
check "and the second interface is left alone" same 0 "$(status node-a '[.attachments[] | select(.interface == "wan0")] | length')"
check "its maps have one entry" same "1 1 1" "$(entries tw_nat_rev) $(entries tw_nat_slots) $(entries tw_nat_range)"
agent_restart node-a -ip-masq -non-masquerade-cidrs=203.0.114.0/24
check "on again it masquerades" comes_as pod-a1 isp 203.0.113.1 203.0.113.2
ip -n "twl-$LAB_NAME-isp" route add "$(status node-a '.lease.pods[0]')" via 203.0.113.2
check "but not to excepted networks" comes_as pod-a1 isp 203.0.114.1 "$(pod_ip node-a pod-a1 4)"

# --- another address, another interface
lab_spawn node-a-pod-a1 "$TRAFFIC" tcp-quiet 203.0.113.1 5001 --timeout "$(scaled 60)" >"$LAB_DIR/.lab/quiet"
quiet=$LAB_PID
check "a connection under the old address" wait_until "$(scaled 5)" sees isp 203.0.113.2
ip -n "$NODE" addr del 203.0.113.2/24 dev wan0
ip -n "$NODE" addr add 203.0.113.3/24 dev wan0
check "with the address its flow ends" wait_until "$(scaled 5)" status_of_flows 0
kill "$quiet" || : # it may have noticed
ip -n "$NODE" addr add 203.0.115.3/24 dev wan0
ip -n "twl-$LAB_NAME-isp" addr add 203.0.115.1/24 dev cust
takes() { comes_as pod-a1 isp "$1" "$2"; }
check "new ones have the new address" wait_until "$(scaled 5)" takes 203.0.113.1 203.0.113.3
check "a second network on the interface has its own" wait_until "$(scaled 5)" takes 203.0.115.1 203.0.115.3
ip -n "$NODE" link add wan1 type veth peer name cust1 netns "twl-$LAB_NAME-isp"
ip -n "twl-$LAB_NAME-isp" link set dev cust1 up
ip -n "twl-$LAB_NAME-isp" addr add 203.0.116.1/24 dev cust1
ip -n "$NODE" link set dev wan1 up
ip -n "$NODE" addr add 203.0.116.2/24 dev wan1
check "an interface that came later serves, too" wait_until "$(scaled 5)" takes 203.0.116.1 203.0.116.2
ip -n "$NODE" link del wan1
check "one that goes leaves nothing behind" wait_until "$(scaled 5)" status_is node-a '[.attachments[] | select(.interface == "wan1")] == []'

# --- what the settings refuse
agent_stop node-a
refused() {
	local text
	text=$(node_exec node-a "$TWILL_BIN/twilld" -store "file://$LAB_DIR/store" -node node-a "$1" 2>&1) && return 1
	[[ $text == *"$2"* ]] || { echo "$text"; return 1; }
}
check "-masq-ports names flag and value" refused -masq-ports=5-4 'flag -masq-ports "5-4": allowed: ports from 1'
check "-nat-max too" refused -nat-max=7 'flag -nat-max "7": allowed: 1024 to'
check "-non-masquerade-cidrs too" refused -non-masquerade-cidrs=x 'flag -non-masquerade-cidrs "x": allowed: networks'

check "no rule of ours is anywhere" same "" "$(node_exec node-a nft list ruleset | grep -iE 'twill|flannel|masq|10\.42' || :)"
finish
