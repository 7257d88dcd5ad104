#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The kernel overlay carries a node without programs: asked for by -fast-path=off, or because programs cannot be loaded. It
# is right, says so, keeps what it wrote, and packets do not notice when programs come and go.
. "$(dirname "$0")/lib.sh"
command -v setpriv >/dev/null || skip "missing: setpriv"

carried_by() { status_is "$1" ".data_plane.kind == \"$2\""; }
routes_of() { ip -n "$(node_ns "$1")" route; ip -n "$(node_ns "$1")" -6 route; }
# What the kernel overlay wrote on a node, as a set.
written() {
	routes_of "$1" | grep 'proto 117' || :
	ip -n "$(node_ns "$1")" neigh show nud permanent
	ip -n "$(node_ns "$1")" -6 neigh show nud permanent
}
sees() { written "$1" | grep -F -- "$2" >/dev/null; } # NODE TEXT
sees_not() { ! sees "$@"; }
no_programs_on() {
	local dev
	same 0 "$(status "$1" '.attachments | length')" || return
	[[ ! -e $LAB_PINS/$1/v1 ]] || { find "$LAB_PINS/$1"; return 1; }
	for dev in $(ip -n "$(node_ns "$1")" -o link show | awk -F'[ :@]+' '{ print $2 }'); do
		[[ -z $(node_exec "$1" tc filter show dev "$dev" ingress 2>/dev/null) ]] || { echo "filter on $dev"; return 1; }
	done
}
# What a node of that name would write, by hand and atomically.
lease_put() { # NODE-NUMBER MAC IPV4 IPV6
	local dir=$LAB_DIR/store/leases
	jq -n --arg mac "$2" --arg v4 "$3" --arg v6 "$4" --arg n "$1" '{PublicIP: $v4, PublicIPv6: $v6, BackendType: "vxlan",
		BackendData: {VNI: 1, VtepMAC: $mac}, BackendV6Data: {VNI: 1, VtepMAC: $mac}, Subnet: "10.42.\($n).0/24",
		IPv6Subnet: "fd00:42:0:f\($n)::/64", Expiration: "2099-01-01T00:00:00Z", Node: "hand-\($n)"}' >"$dir/.new"
	mv "$dir/.new" "$dir/$(lease_name "$1")"
}
lease_name() { echo "10.42.$1.0-24&fd00:42:0:f$1::-64.json"; }

lab_up "kernel-overlay-$$"
node_add node-a --segment 1
node_add node-b --segment 1
node_add node-c --segment 2

# node-c is asked for programs that it cannot have: its -bpf-root is on no BPF file system, for now.
mkdir "$LAB_DIR/no-bpffs"
ln -s "$LAB_DIR/no-bpffs" "$LAB_DIR/node-c/bpf"
agent_start node-a -fast-path=off
agent_start node-b
agent_start node-c -bpf-root "$LAB_DIR/node-c/bpf"
for node in node-a node-b node-c; do wait_ready "$node"; done
started=$SECONDS
pod_add node-a pod-a1 --style bridge
pod_add node-b pod-b1 --style veth
pod_add node-c pod-c1 --style bridge
for pod in "node-a pod-a1" "node-b pod-b1" "node-c pod-c1"; do
	read -ra words <<<"$pod"
	pod_serve "${words[@]}"
done

# --- two nodes on it, one on programs
check "-fast-path=off: the kernel overlay carries the node" carried_by node-a "kernel overlay"
check "it is as asked for: status is well" node_ctl node-a status
check "no program, no filter, no pin" no_programs_on node-a
check "a node without bpffs is ready on it, too" carried_by node-c "kernel overlay"
check "and says why" status_is node-c '.ready and (.data_plane.why | test("not on a BPF file system")) and (.fast_path.on | not)'
check "and its status is degraded" same 5 "$(node_ctl node-c status >/dev/null && echo 0 || echo $?)"
check "the log says it once" same 1 "$(grep -c 'programs cannot carry this node' "$(node_dir node-c)/log")"
check "the other node has its programs" carried_by node-b programs
for pair in "node-a pod-a1:node-c pod-c1" "node-a pod-a1:node-b pod-b1" "node-b pod-b1:node-c pod-c1"; do
	one=${pair%:*} two=${pair#*:}
	read -ra to <<<"$two"
	read -ra from <<<"$one"
	check "$one and $two reach each other" reachable "$one" "$two"
	for family in 4 6; do
		check "$one -> $two, IPv$family: TCP is intact" traffic "$one" tcp-client "$(pod_ip "${to[@]}" $family)" --bytes 3000000
		check "$two -> $one, IPv$family: TCP is intact" traffic "$two" tcp-client "$(pod_ip "${from[@]}" $family)" --bytes 3000000
		check "$one -> $two, IPv$family: UDP super-packets are intact" traffic "$one" udp-gso "$(pod_ip "${to[@]}" $family)" --bytes 300000 --size 1200
	done
done
for family in 4 6; do
	check "node-a itself -> pod of node-c, IPv$family" node_exec node-a ping -q -c 2 -i 0.05 -W 1 "$(pod_ip node-c pod-c1 $family)"
	check "node-b itself -> pod of node-a, IPv$family" node_exec node-b ping -q -c 2 -i 0.05 -W 1 "$(pod_ip node-a pod-a1 $family)"
	index=$((family == 4 ? 0 : 1))
	own=$(status node-c ".lease.pods[$index]")
	check "pod of node-a -> node-c's own address, IPv$family" ping_pod "node-a pod-a1" "${own%/*}"
done
check "twillctl peers shows them" items_are node-a peers 'length == 4 and all(.tx_packets == null) and (map(.mode) | sort == ["direct", "direct", "vxlan", "vxlan"])'
check "twillctl endpoints shows the pod" items_are node-a endpoints "map(.ip) | contains([\"$(pod_ip node-a pod-a1 4)\"])"
check "a largest packet goes, a larger one does not" pod_exec node-a pod-a1 ping -q -c 1 -W 1 -M "do" -s 1422 "$(pod_ip node-c pod-c1 4)"

# --- leases come, change and go
lease_put 201 0e:00:00:00:02:01 203.0.113.1 2001:db8:9::1
check "a new lease is a route with its node, IPv4" wait_until 5 sees node-a "dst 203.0.113.1"
check "and IPv6" wait_until 5 sees node-a "dst 2001:db8:9::1"
check "its VtepMAC is a neighbour" sees node-a "10.42.201.0 dev twill0 lladdr 0e:00:00:00:02:01 PERMANENT"
lease_put 201 0e:00:00:00:02:02 203.0.113.2 2001:db8:9::1
check "another node address is taken over" wait_until 5 sees node-a "dst 203.0.113.2"
check "another VtepMAC, too" wait_until 5 sees node-a "fd00:42:0:f201:: dev twill0 lladdr 0e:00:00:00:02:02 PERMANENT"
check "nothing of before is left" same "" "$(written node-a | grep -F -e 203.0.113.1 -e 0e:00:00:00:02:01)"
rm "$LAB_DIR/store/leases/$(lease_name 201)"
check "a lease that went takes its entries along" wait_until 5 sees_not node-a 0e:00:00:00:02:02
check "and its routes" sees_not node-a 203.0.113.2

# --- floods for the rest: 1,000 packets per second and more, and streams, through everything that follows
flow_start "VXLAN IPv4" node-a-pod-a1 udp-flood "$(pod_ip node-c pod-c1 4)" --rate 1000
flow_start "VXLAN IPv6" node-c-pod-c1 udp-flood "$(pod_ip node-a pod-a1 6)" --rate 500
flow_start "direct IPv4" node-b-pod-b1 udp-flood "$(pod_ip node-a pod-a1 4)" --rate 500
flow_start "TCP over VXLAN" node-a-pod-a1 tcp-rr "$(pod_ip node-c pod-c1 6)"
flow_start "TCP to the host" node-a tcp-rr "$(pod_ip node-c pod-c1 4)"

# --- a hand-made mess is mended, with the agent there and over its death
lease_put 202 0e:00:00:00:02:03 203.0.113.3 2001:db8:9::3
check "a lease to spoil things of" wait_until 5 sees node-a "dst 2001:db8:9::3"
right=$(written node-a | sort)
is_right() { same "$right" "$(written node-a | sort)"; }
mess() {
	ip -n "$(node_ns node-a)" -batch - <<-END
		route del 10.42.202.0/24
		neigh replace fd00:42:0:f202:: lladdr 0e:00:00:00:00:66 dev twill0 nud permanent
		route replace fd00:42:0:f202::/64 via 2001:db8:1::1 dev eth0
	END
}
mess
check "what somebody deletes and replaces is put right" wait_until 5 is_right
agent_kill node-a
mess
ip -n "$(node_ns node-a)" -batch - <<-END
	route add 10.42.203.0/24 via 10.42.203.0 dev twill0 onlink proto 117 encap ip id 1 dst 203.0.113.9
	neigh replace 10.42.203.0 lladdr 0e:00:00:00:00:67 dev twill0 nud permanent
	neigh replace 10.42.204.0 lladdr 0e:00:00:00:00:68 dev twill0 nud permanent
END
sleep 0.3
agent_start node-a -fast-path=off
check "after kill -9 it is ready" wait_ready node-a
check "what is stale is gone, what was spoiled is right" wait_until 3 is_right

# --- programs come and go
agent_stop node-a
agent_start node-a
check "started with programs it is ready" wait_ready node-a
check "they carry it" wait_until 5 carried_by node-a programs
check "no route of the kernel overlay is left" sees_not node-a "proto 117"
check "no neighbour of a peer is left" sees_not node-a "10.42.202.0"
check "peers come from the maps again" items_are node-a peers 'all(.tx_packets != null)'
sleep 0.5

# A restart that lost the right to load programs: those of before would go on with what they knew.
mkdir "$LAB_DIR/nobpf"
printf '#!/bin/sh\nexec setpriv --bounding-set=-bpf,-sys_admin,-perfmon --inh-caps=-bpf,-sys_admin,-perfmon "%s" "$@"\n' "$TWILL_BIN/twilld" >"$LAB_DIR/nobpf/twilld"
chmod +x "$LAB_DIR/nobpf/twilld"
agent_stop node-a
TWILL_BIN=$LAB_DIR/nobpf agent_start node-a
check "without the right to load programs the node is ready" wait_ready node-a
check "on the kernel overlay" carried_by node-a "kernel overlay"
check "and names the capability" status_is node-a '.data_plane.why | test("CAP_BPF")'
check "programs of before are off" no_programs_on node-a
check "its peers are programmed" wait_until 3 is_right
refused() {
	local out code=0
	out=$(cd "$LAB_DIR" && nsenter --net="/run/netns/$(node_ns node-b)" timeout "$(scaled 10)" nobpf/twilld -store "file://$LAB_DIR/store" \
		-node x -subnet-file "$LAB_DIR/x.env" -socket "$LAB_DIR/x.sock" -bpf-root "$LAB_PINS/x" -fast-path="$1" 2>&1) || code=$?
	[[ $code == 1 && $out == *CAP_BPF* ]] || { echo "exit $code: $out"; return 1; }
}
check "-fast-path=required: the same ends it, with the reason" refused required
agent_restart node-a
check "with the right, programs carry again" wait_until 5 carried_by node-a programs
sleep 0.5
agent_restart node-a -fast-path=off
check "-fast-path=off at a restart takes them off" no_programs_on node-a
check "and has its peers" wait_until 3 is_right

# --- in one process: node-c gets its BPF file system, and tries again 30 s after the first time
ln -sfn "$LAB_PINS/node-c" "$LAB_DIR/node-c/bpf"
mkdir -p "$LAB_PINS/node-c"
check "programs that can be loaded later carry then" wait_until $((45 - (SECONDS - started < 30 ? SECONDS - started : 30))) carried_by node-c programs
check "the agent is the same" same 1 "$(grep -c 'node is ready' "$(node_dir node-c)/log")"
check "its kernel overlay is gone" sees_not node-c "proto 117"
sleep 0.5

# Whenever a clsact qdisc comes or goes the kernel stops the interface for some milliseconds (qdisc_graft).
flows_end 5000 "$([[ " ${TWILLD_FLAGS:-} " != *"tcx=off"* ]] || echo lossy)"

# --- detach
node_ctl node-a detach --yes >/dev/null
check "detach leaves no route, no neighbour, no device" same "" "$(routes_of node-a | grep -E 'proto 11[67]|twill0'; ip -n "$(node_ns node-a)" -o link show | grep twill0)"
finish
