#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every map at its capacity, under traffic: peers, endpoints, flows. What is in stays and loses nothing, what does not fit is
# told with numbers and gets its place when others go; of flows the oldest are forgotten and asked for anew.
. "$(dirname "$0")/lib.sh"
need bpftool

PEERS_MAX=16384 ENDPOINTS_MAX=8192 FLOWS_MAX=65536 OVER=200
# shellcheck disable=SC2034 # for lab.sh
LAB_NET_CONF='{
  "Network": "10.0.0.0/8", "SubnetLen": 24, "SubnetMin": "10.255.0.0",
  "EnableIPv6": true, "IPv6Network": "fd00:42::/48", "IPv6SubnetLen": 64,
  "Backend": { "Type": "vxlan", "VNI": 1, "DirectRouting": true }
}'
# shellcheck disable=SC2034
LAB_NET4=10.0.0.0/8

# leases FIRST LAST: nodes of these numbers behind the router, one pod CIDR each.
leases() {
	local i ip mac
	for ((i = $1; i <= $2; i++)); do
		ip=203.$((i / 62500)).$((i / 250 % 250)).$((i % 250 + 1))
		printf -v mac '0e:00:00:00:%02x:%02x' $((i / 256)) $((i % 256))
		printf '{"PublicIP":"%s","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"%s"},"Subnet":"10.%d.%d.0/24","Node":"node-%d"}\n' \
			"$ip" "$mac" $((i / 256)) $((i % 256)) "$i" >"$LAB_DIR/store/leases/10.$((i / 256)).$((i % 256)).0-24.json"
	done
}
entries() { bpftool -j map dump pinned "$LAB_PINS/$1/v1/maps/$2" | jq length; }
peers_are() { status_is node-a ".peers.programmed == $1 and .peers.pending == $2"; }

test_lab
lab_three_nodes
pod_serve node-a pod-a2
pod_serve node-b pod-b1
pod_serve node-c pod-c1
for pod in "node-a pod-a2" "node-b pod-b1" "node-c pod-c1"; do reachable "node-a pod-a1" "$pod"; done

# --- peers: 2 real ones in each family, and more than fit
flood_start peers "node-a pod-a1" "$(pod_ip node-c pod-c1 4)" 500
leases 1 $((PEERS_MAX - 2 + OVER))
check "peers: all that fit are programmed, the others pending" wait_until "$(scaled 30)" peers_are $((PEERS_MAX + 2)) $OVER
check "peers: the map is full" same $PEERS_MAX "$(entries node-a tw_peers_v4)"
check "peers: each that is pending says why" status_is node-a '.pending | all(.why | test("tw_peers_v4"))'
# A real node that comes now finds no room; those that were there keep theirs.
node_add node-d --segment 2
agent_start node-d
check "peers: a late node is ready" wait_until "$(scaled 30)" status_is node-d .ready
pod_add node-d pod-d1 --style bridge
late=$(pods_of node-d)
check "peers: a late node is pending" wait_until "$(scaled 10)" status_is node-a ".pending | any(.pods == \"$late\")"
check "peers: it is not reached over IPv4" not ping_pod "node-a pod-a1" "$(pod_ip node-d pod-d1 4)"
check "peers: over IPv6, whose map has room, it is" wait_until "$SOON" ping_pod "node-a pod-a1" "$(pod_ip node-d pod-d1 6)"
agent_kill node-a
agent_start node-a
check "peers: a restarted agent is ready with a full map" wait_until "$(scaled 30)" status_is node-a .ready
for ((i = 1; i <= OVER + 50; i++)); do rm "$LAB_DIR/store/leases/10.$((i / 256)).$((i % 256)).0-24.json"; done
check "peers: when others go, nobody is pending" wait_until "$(scaled 30)" status_is node-a '.peers.pending == 0'
check "peers: the late node is reached" wait_until "$SOON" ping_pod "node-a pod-a1" "$(pod_ip node-d pod-d1 4)"
flood_end
check "peers: nothing was lost to those that were there" same 0 "$LOST"
find "$LAB_DIR/store/leases" -name '10.*' ! -name '10.255.*' -delete
agent_kill node-d

# --- endpoints: one routed pod with more addresses than fit, each allocated by host-local
NODE_B=$(node_ns node-b)
many=$((ENDPOINTS_MAX + OVER))
dev=$(pod_host_if node-b pod-b1)
subnet=$(status node-b '.lease.pods[] | select(contains(":"))')
address() { printf -v ADDRESS '%s1:%x' "${subnet%/64}" "$1"; }
owner=$(<"$LAB_DIR/node-b/pods/pod-b1/id")
for ((i = 1; i <= many; i++)); do
	address $i
	printf '%s\r\neth0' "$owner" >"$LAB_DIR/node-b/cni/networks/cbr0/$ADDRESS"
done
flood_start endpoints "node-a pod-a1" "$(pod_ip node-b pod-b1 4)" 500
routes() { # add|del FIRST LAST
	local i
	for ((i = $2; i <= $3; i++)); do
		address $i
		echo "route $1 $ADDRESS/128 dev $dev"
	done | ip -n "$NODE_B" -batch -
}
# A route alone tells no MAC: the neighbour entry does, and it is there when somebody asked for the pod.
neighbours() { # FIRST LAST
	local i
	for ((i = $1; i <= $2; i++)); do
		address $i
		echo "neigh replace $ADDRESS lladdr $(<"$LAB_DIR/node-b/pods/pod-b1/mac") dev $dev nud permanent"
	done | ip -n "$NODE_B" -batch -
}
endpoints_are() { status_is node-b ".endpoints == $1 and (.pending | length == $2)"; }
routes add 1 $many
neighbours 1 $many
check "endpoints: all that fit are programmed, the others pending" wait_until "$(scaled 30)" endpoints_are $ENDPOINTS_MAX $((OVER + 2))
check "endpoints: the map is full" same $ENDPOINTS_MAX "$(entries node-b tw_endpoints)"
check "endpoints: each that is pending says why" status_is node-b '.pending | all(.why | test("tw_endpoints"))'
# One without an entry is the stack's, and reached.
beyond=$(status node-b '.pending[-1].pods')
pod_exec node-b pod-b1 ip addr add "$beyond/128" dev eth0 nodad
check "endpoints: a pod's address that has no entry is reached by the stack" wait_until "$SOON" ping_pod "node-a pod-a1" "$beyond"
agent_kill node-b
agent_start node-b
check "endpoints: a restarted agent is ready with a full map" wait_until "$(scaled 30)" status_is node-b .ready
flood_end
check "endpoints: nothing was lost to one that was there" same 0 "$LOST"
for ((i = 1; i <= OVER + 50; i++)); do
	address $i
	rm "$LAB_DIR/node-b/cni/networks/cbr0/$ADDRESS"
done
check "endpoints: when others go, nobody is pending" wait_until "$(scaled 30)" status_is node-b '.pending == []'

# --- flows: a service's flow belongs to the stack; forgotten, it must be found again in conntrack
VIP=10.96.0.10
clusterip_add node-a $VIP 5001 "$(pod_ip node-c pod-c1 4)" 5001
pod_exec node-a pod-a1 ip route replace $VIP/32 via "$(sed -n 's/^FLANNEL_SUBNET=\(.*\)\/.*/\1/p' "$(node_dir node-a)/subnet.env")"
flood_start service "node-a pod-a1" $VIP 500
flood_start flows "node-a pod-a1" "$(pod_ip node-c pod-c1 4)" 500
flow_arguments=("eth_dst=$(ip -n "$(node_ns node-a)" -j link show dev cni0 | jq -r '.[0].address')" "eth_src=$(pod_mac node-a pod-a1)"
	"src=$(pod_ip node-a pod-a1 4)" "dst=$(pod_ip node-c pod-c1 4)")
for ((round = 0; round < 3; round++)); do pod_exec node-a pod-a1 "$FAULT" flows eth0 "${flow_arguments[@]}" count=$FLOWS_MAX; done
echo "flows: $(entries node-a tw_flows_any) entries after 3 times $FLOWS_MAX flows"
check "flows: the map is as good as full" test "$(entries node-a tw_flows_any)" -gt $((FLOWS_MAX / 2))
check "flows: a new service flow works" traffic "node-a pod-a1" udp-flood $VIP --rate 200 --seconds 1
flood_end
check "flows: nothing was lost, of the service's flow neither" same 0 "$LOST"
check "flows: of each there were packets" same true "$(flood service '.received > 100')"
finish
