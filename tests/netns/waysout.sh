#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Masquerade by ways out that are made of several devices: a VLAN device on an interface with addresses of its own, a bridge with
# br_netfilter, a bond. And what such ways let in.
. "$(dirname "$0")/lib.sh"
command -v ss >/dev/null || skip "missing: ss"

test_lab
NODE=$(node_ns node-a)
node_add node-a

# way NAME NUMBER COMMANDS...: a veth "NAME" of the node to a host "NAME", where COMMANDS make a device "top" on the node's end. The host's
# end "up" is the same without addresses. The network is 203.0.113.(NUMBER * 16)/28, 2001:db8:NUMBER::/64; the node is .2, the host .1.
way() {
	_lab_netns "twl-$LAB_NAME-$1"
	_lab_sysctl "twl-$LAB_NAME-$1" ipv6/conf/all/accept_dad=0 ipv6/conf/default/accept_dad=0
	ip -n "$NODE" link add "$1" type veth peer name up netns "twl-$LAB_NAME-$1"
	ip -n "$NODE" link set dev "$1" up
	ip -n "twl-$LAB_NAME-$1" link set dev lo up
	ip -n "twl-$LAB_NAME-$1" link set dev up up
}
# ends NAME DEVICE DEVICE-THERE NUMBER: addresses.
ends() {
	ip -n "$NODE" -batch - <<-END
		link set dev $2 up
		addr add 203.0.113.$(($4 * 16 + 2))/28 dev $2
		addr add 2001:db8:$4::2/64 dev $2 nodad
	END
	ip -n "twl-$LAB_NAME-$1" -batch - <<-END
		link set dev $3 up
		addr add 203.0.113.$(($4 * 16 + 1))/28 dev $3
		addr add 2001:db8:$4::1/64 dev $3 nodad
	END
	lab_record_pid "$(node_exec "$1" "$TRAFFIC" server :: 5001 --background)"
}
# device NAME HOST-ARGUMENTS...: can this kernel make it? Else the way is passed over.
HOSTS=()
device() {
	local said
	said=$(ip -n "$NODE" link add "$@" 2>&1) || { echo "without $1: $said"; return 1; }
}

way tagged
# It leads out by itself, and lends from others what it has not: an address of IPv6.
ip -n "$NODE" addr add 203.0.114.2/24 dev tagged
if device vlan7 link tagged type vlan id 7; then
	ip -n "twl-$LAB_NAME-tagged" link add vlan7 link up type vlan id 7
	ends tagged vlan7 vlan7 3
	HOSTS+=("tagged 3")
fi

way bridged
if device br0 type bridge; then
	ip -n "$NODE" link set dev bridged master br0
	ends bridged br0 up 4
	HOSTS+=("bridged 4")
fi

way bonded
ip -n "$NODE" link set dev bonded down
if device bond0 type bond mode active-backup miimon 100; then
	ip -n "$NODE" link set dev bonded master bond0
	ends bonded bond0 up 5
	HOSTS+=("bonded 5")
fi
[[ ${#HOSTS[@]} -gt 0 ]] || skip "missing: vlan, bridge and bond"

agent_start node-a -ip-masq
wait_ready node-a
pod_add node-a pod-a1 --style bridge

seen() {
	node_exec "$1" ss -Hnt state established "( sport = :5001 )" | awk '{ sub(/:[0-9]*$/, "", $NF); gsub(/[][]|::ffff:/, "", $NF); print $NF }' |
		sort -u | xargs
}
sees() { [[ $(seen "$1") == "$2" ]]; }
# comes_as HOST ADDRESS EXPECTED: a connection of the pod is seen there to come from EXPECTED, and ends well.
comes_as() {
	local pid found=''
	lab_spawn node-a-pod-a1 "$TRAFFIC" tcp-rr "$2" 5001 --until-signal --json >"$LAB_DIR/.lab/comes"
	pid=$LAB_PID
	wait_until "$(scaled 5)" sees "$1" "$3" || found="seen: $(seen "$1")"
	kill -TERM "$pid" 2>/dev/null || :
	wait "$pid" || found+=" failed: $(<"$LAB_DIR/.lab/comes")"
	wait_until "$(scaled 5)" sees "$1" "" || found+=" not closed"
	[[ -z $found ]] || { echo "$found"; return 1; }
}
for way in "${HOSTS[@]}"; do
	read -r host number <<<"$way"
	for family in 4 6; do
		case $family in
		4) there=203.0.113.$((number * 16 + 1)) here=203.0.113.$((number * 16 + 2)) ;;
		6) there=2001:db8:$number::1 here=2001:db8:$number::2 ;;
		esac
		check "$host, IPv$family: TCP" comes_as "$host" "$there" "$here"
		check "$host, IPv$family: UDP" traffic "node-a pod-a1" udp-flood "$there" --rate 100 --seconds 0.5
		check "$host, IPv$family: echo" ping_pod "node-a pod-a1" "$there"
	done
done
node_ctl node-a nat list --all >"$LAB_DIR/.lab/list"
check "one flow for each, none of an address of the node" same "" "$(awk '$2 ~ /^(203|\[?2001)/' "$LAB_DIR/.lab/list")"
finish
