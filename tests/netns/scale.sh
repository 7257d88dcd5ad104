#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One node and 1,000 others: all programmed, in little memory, adopted by the next agent, changed one by one; and more
# peers than the map holds.
. "$(dirname "$0")/lib.sh"
command -v bpftool >/dev/null || PATH=$PATH:/usr/sbin
command -v bpftool >/dev/null || skip "missing: bpftool"

NODES=1000 CAPACITY=16384 RSS_LIMIT_KB=12288
LAB_NET_CONF='{
  "Network": "10.0.0.0/8", "SubnetLen": 24, "SubnetMin": "10.255.0.0",
  "EnableIPv6": true, "IPv6Network": "fd00:42::/48", "IPv6SubnetLen": 64, "IPv6SubnetMin": "fd00:42:0:ff00::",
  "Backend": { "Type": "vxlan", "VNI": 1, "DirectRouting": true }
}'

# leases FIRST LAST 4|46: nodes of these numbers behind the router, one pod CIDR each, or one in each family.
leases() {
	local i pods pods6 mac ip ip6=null v6='' key
	for ((i = $1; i <= $2; i++)); do
		pods=10.$((i / 256)).$((i % 256)).0 key=10.$((i / 256)).$((i % 256)).0-24
		ip=203.$((i / 62500)).$((i / 250 % 250)).$((i % 250 + 1))
		printf -v mac '0e:00:00:00:%02x:%02x' $((i / 256)) $((i % 256))
		if [[ $3 == 46 ]]; then
			printf -v pods6 'fd00:42:0:%x::' "$i"
			printf -v ip6 '"2001:db8:9::%x"' "$i"
			key+="&$pods6-64" v6=",\"IPv6Subnet\":\"$pods6/64\",\"BackendV6Data\":{\"VNI\":1,\"VtepMAC\":\"$mac\"}"
		fi
		echo "{\"PublicIP\":\"$ip\",\"PublicIPv6\":$ip6,\"BackendType\":\"vxlan\",\"BackendData\":{\"VNI\":1,\"VtepMAC\":\"$mac\"},\"Subnet\":\"$pods/24\"$v6,\"Node\":\"node-$i\"}" \
			>"$LEASES/$key.json"
	done
}

rss_kb() { awk '/^VmRSS:/ { print $2 }' "/proc/$(cut -d' ' -f1 "$(node_dir node-a)/agent.pid")/status"; }
small_enough() { [[ $(rss_kb) -le $RSS_LIMIT_KB ]] || { echo "VmRSS $(rss_kb) kB"; return 1; }; }
entries() { bpftool -j map dump pinned "$LAB_PINS/node-a/v1/maps/$1" | jq length; }
dump() { bpftool -j map dump pinned "$LAB_PINS/node-a/v1/maps/$1" | jq -cS '.[] | .formatted // .' | sort; }
peers_are() { status_is node-a ".peers.programmed == $1 and .peers.pending == $2"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

test_lab
node_add node-a --segment 1
LEASES=$LAB_DIR/store/leases
mkdir -p "$LEASES"
leases 1 $NODES 46
start=$(now_ms)
agent_start node-a
wait_ready node-a
check "$NODES peers are programmed, in both families" wait_until 10 peers_are $((2 * NODES)) 0
echo "programmed after $(($(now_ms) - start)) ms"
check "they are in the map" same "$NODES $NODES" "$(entries tw_peers_v4) $(entries tw_peers_v6)"
check "resident memory, once what the start needed is given back, is at most 12 MB" wait_until "$(scaled 10)" small_enough
echo "VmRSS $(rss_kb) kB"
check "no lease is bad" status_is node-a '.bad_leases == []'

# --- the next agent adopts them
for map in tw_peers_v4 tw_peers_v6 tw_nodes tw_prefixes; do dump $map; done >"$LAB_DIR/.lab/before"
agent_kill node-a
# As a version that knows lengths and no masks would leave it: the next one completes it.
prefixes=$LAB_PINS/node-a/v1/maps/tw_prefixes
mapfile -t lengths < <(bpftool -j map lookup pinned "$prefixes" key 0 0 0 0 | jq -r '.value[:12][]')
mapfile -t no_masks < <(yes 0 | head -n 128)
bpftool map update pinned "$prefixes" key 0 0 0 0 value "${lengths[@]}" "${no_masks[@]}"
agent_start node-a
wait_ready node-a
check "after kill -9 all are there" wait_until 10 peers_are $((2 * NODES)) 0
for map in tw_peers_v4 tw_peers_v6 tw_nodes tw_prefixes; do dump $map; done >"$LAB_DIR/.lab/after"
check "no entry was made anew" cmp "$LAB_DIR/.lab/before" "$LAB_DIR/.lab/after"
check "resident memory is still at most 12 MB" wait_until "$(scaled 10)" small_enough
echo "after the restart VmRSS $(rss_kb) kB"

# --- one changes
node_of() { # PODS: byte 12 to 15 of tw_peer.node
	bpftool -j map lookup pinned "$LAB_PINS/node-a/v1/maps/tw_peers_v4" key 24 0 0 0 "${@:1:4}" |
		jq -r '(.formatted.value // .value).node.low | map(tostring) | join(".")'
}
moved() { same 192.0.2.77 "$(node_of 10 0 77 0)"; }
edited=$LEASES/10.0.77.0-24\&fd00:42:0:4d::-64.json
jq -c '.PublicIP = "192.0.2.77"' "$edited" >"$LAB_DIR/.lab/edited"
start=$(now_ms)
mv "$LAB_DIR/.lab/edited" "$edited"
check "a lease that changes is changed in the map" wait_until 10 moved
echo "changed in the map after $(($(now_ms) - start)) ms"
check "and in no other entry" same 2 "$(diff <(for map in tw_peers_v4 tw_peers_v6; do dump $map; done) \
	<(grep -F '"bits"' "$LAB_DIR/.lab/before" | head -n $((2 * NODES))) | grep -c '^[<>]')"
check "one that is now on the node's own L2 is direct" items_are node-a peers \
	'any(.[]; .pods == "10.0.77.0/24" and .mode == "direct")'

# --- half of them go
for ((i = 501; i <= NODES; i++)); do rm "$LEASES/10.$((i / 256)).$((i % 256)).0-24"*; done
check "leases that go are peers that go" wait_until 10 peers_are $NODES 0

# --- more than fit: the rest stays pending, and the agent lives
full_map() {
	leases 1001 $((CAPACITY + 600)) 4
	check "a full map leaves the rest pending" wait_until 30 peers_are $((CAPACITY + 500)) 100
	check "the map is full" same "$CAPACITY" "$(entries tw_peers_v4)"
	check "each that is pending says why" status_is node-a '.pending | length > 0 and all(.why | length > 5)'
	echo "with $CAPACITY peers VmRSS $(rss_kb) kB"
	local i
	for ((i = 1001; i <= 1200; i++)); do rm "$LEASES/10.$((i / 256)).$((i % 256)).0-24.json"; done
	check "when others go, the rest takes their place" wait_until 30 peers_are $((CAPACITY + 400)) 0
}
if main_variant; then full_map; fi
finish
