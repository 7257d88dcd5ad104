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

# seen WHERE FAMILY: the addresses from which connections are there.
seen() { node_exec "$1" ss "-Hnt$2" state established "( sport = :5001 )" | awk '{ sub(/:[0-9]*$/, "", $NF); gsub(/[][]|::ffff:/, "", $NF); print $NF }' | sort -u | xargs; }

# comes_as POD WHERE ADDRESS EXPECTED: a connection of the pod to that address is seen there to come from EXPECTED.
comes_as() {
	local pid found
	lab_spawn "node-a-$1" "$TRAFFIC" tcp-rr "$3" 5001 --until-signal --json >"$LAB_DIR/.lab/comes"
	pid=$LAB_PID
	wait_until "$(scaled 5)" sees "$2" "$4" || found=$(seen "$2" a)
	kill -TERM "$pid"
	wait "$pid" || { echo "the connection failed: $(<"$LAB_DIR/.lab/comes")"; return 1; }
	wait_until "$(scaled 5)" sees "$2" "" || { echo "not closed: $(seen "$2" a)"; return 1; }
	[[ -z ${found:-} ]] || { echo "seen: $found"; return 1; }
}
sees() { [[ $(seen "$1" a) == "$2" ]]; }

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
check "no rule of ours is anywhere" same "" "$(node_exec node-a nft list ruleset | grep -iE 'twill|flannel|masq|10\.42' || :)"
finish
