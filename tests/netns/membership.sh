#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Peers come, go, change their MAC and their address; what is not concerned is not disturbed.
. "$(dirname "$0")/lib.sh"

STORE_LEASES() { echo "$LAB_DIR/store/leases"; }

# Changes a lease as another node would: atomically.
edit_lease() { # KEY JQ-FILTER
	local file
	file=$(STORE_LEASES)/$1.json
	jq -c "$2" "$file" >"$LAB_DIR/.lab/edited"
	mv "$LAB_DIR/.lab/edited" "$file"
}

test_lab
node_add node-a --segment 1
node_add node-b --segment 1
agent_start node-a
agent_start node-b
wait_ready node-a
wait_ready node-b
pod_add node-a pod-a1 --style bridge
pod_add node-b pod-b1 --style bridge
pod_serve node-b pod-b1
check "the first two reach each other" reachable "node-a pod-a1" "node-b pod-b1"
lab_spawn node-a-pod-a1 "$TRAFFIC" udp-flood "$(pod_ip node-b pod-b1 4)" 5001 --rate 1000 --until-signal --json >"$LAB_DIR/.lab/steady"
STEADY=$LAB_PID

# --- joins
node_add node-c --segment 2
agent_start node-c
wait_ready node-c
pod_add node-c pod-c1 --style veth
pod_serve node-c pod-c1
check "a node that joins is reached" reachable "node-a pod-a1" "node-c pod-c1"
check "and reaches the others" reachable "node-c pod-c1" "node-b pod-b1"
c_pods=$(status node-c '.lease.pods[0]')
c_key=$(status node-c .lease.key)
check "status counts two peers, in both families" wait_until 3 items_are node-a peers 'length == 4'

# --- two agents never get one subnet
check "every node has pod CIDRs of its own" same 3 "$(for n in node-a node-b node-c; do status "$n" .lease.key; done | sort -u | wc -l)"

# --- changes its MAC
mac=$(status node-c '.lease.vtep_mac[0]')
agent_stop node-c
edit_lease "$c_key" '.BackendData.VtepMAC = "0e:00:00:00:00:77" | .BackendV6Data.VtepMAC = "0e:00:00:00:00:77"'
check "another MAC in the lease is another MAC for the peers" \
	wait_until 3 items_are node-a peers "map(select(.pods == \"$c_pods\" and .vtep_mac == \"0e:00:00:00:00:77\")) | length == 1"
agent_start node-c
wait_ready node-c
check "the node and its lease agree on a MAC" same "$(status node-c '.lease.vtep_mac[0]')" "$(status node-c .overlay.mac)"
check "after the change of MAC ($mac before) pods reach each other" reachable "node-a pod-a1" "node-c pod-c1"

# --- changes its address
agent_stop node-c
ip -n "$(node_ns node-c)" addr add 198.51.100.99/24 dev eth0
edit_lease "$c_key" '.PublicIP = "198.51.100.99"' # leases are found by their node address
agent_start node-c -public-ip 198.51.100.99
wait_ready node-c
check "another node address reaches the peers" \
	wait_until 3 items_are node-a peers "map(select(.pods == \"$c_pods\" and .node == \"198.51.100.99\")) | length == 1"
check "after the change of address pods reach each other" reachable "node-a pod-a1" "node-c pod-c1"
check "it kept its pod CIDRs" same "$c_pods" "$(status node-c '.lease.pods[0]')"

# --- leaves
agent_kill node-c
rm -f "$(STORE_LEASES)/$c_key.json"
check "a lease that is gone is a peer that is gone" wait_until 3 items_are node-a peers 'length == 2'
check "what is sent there is not answered" not ping_pod "node-a pod-a1" "$(pod_ip node-c pod-c1 4)"

# --- expires
expired='{"PublicIP":"198.51.100.77","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:00:00:00:00:78"},"Subnet":"10.42.250.0/24","Node":"node-x"}'
jq -c --arg at "$(date -u -d '+3 seconds' +%Y-%m-%dT%H:%M:%SZ)" '.Expiration = $at' <<<"$expired" >"$LAB_DIR/.lab/edited"
mv "$LAB_DIR/.lab/edited" "$(STORE_LEASES)/10.42.250.0-24.json"
check "a lease made by hand is a peer" wait_until 2 items_are node-a peers 'map(.pods) | contains(["10.42.250.0/24"])'
check "and ends when it expires" wait_until 6 items_are node-a peers 'map(.pods) | contains(["10.42.250.0/24"]) | not'

kill -TERM "$STEADY"
wait "$STEADY" || :
check "the others' traffic lost nothing through all of it" same 0 "$(jq .lost "$LAB_DIR/.lab/steady")"
check "and there was traffic" same true "$(jq '.sent > 1000' "$LAB_DIR/.lab/steady")"
finish
