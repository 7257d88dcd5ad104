#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two nodes whose leases are in a real etcd, with pods that talk all the time: etcd goes, is killed, forgets, is damaged by hand,
# wants certificates and passwords. No packet is lost through any of it, and what is in etcd and in the maps is right again
# within 2 s.
. "$(dirname "$0")/../netns/faults/lib.sh"
. "$(dirname "$0")/peers/lib.sh"

peers_need etcd
need bpftool iptables
RATE=200 BACK=$(scaled 2) DOWN=$(size 20 300)
# shellcheck disable=SC2034 # pods have addresses of both families
LAB_NET4=10.42.0.0/16 LAB_NET6=fd00:42::/48
CONFIG='{"Network":"10.42.0.0/16","SubnetMax":"10.42.199.0","EnableIPv6":true,"IPv6Network":"fd00:42::/48","Backend":{"Type":"vxlan","VNI":1}}'

# --- etcd -------------------------------------------------------------------------------------------------------------

# change KEY [VALUE]...: all in one Txn, as etcdctl takes it from its input. VALUE - deletes the key.
change() {
	local what='' value
	while [[ $# -gt 0 ]]; do
		value=${2//\\/\\\\}
		if [[ $2 == - ]]; then what+="del \"$ETCD_PREFIX/$1\""; else what+="put \"$ETCD_PREFIX/$1\" \"${value//\"/\\\"}\""; fi
		what+=$'\n'
		shift 2
	done
	printf '\n%s\n\n' "$what" | etcd_do txn >/dev/null
}
lease() { # PUBLIC-IP MAC
	echo "{\"PublicIP\":\"$1\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":{\"VNI\":1,\"VtepMAC\":\"$2\"}}"
}
PEER_MAC=0e:00:00:00:00:01
put_peers() { # NUMBER...
	local n all=()
	for n; do all+=("subnets/10.42.$n.0-24" "$(lease "198.51.100.$n" $PEER_MAC)"); done
	change "${all[@]}"
}
revision() { etcd_do get "$ETCD_PREFIX/config" -w json | jq .header.revision; }

# --- nodes ------------------------------------------------------------------------------------------------------------

# cut_off NODE, join_again NODE: etcd refuses this node's connections.
cut_off() { node_exec "$1" iptables -w -I OUTPUT -p tcp --dport 2379 -j REJECT --reject-with tcp-reset; }
join_again() { node_exec "$1" iptables -w -D OUTPUT -p tcp --dport 2379 -j REJECT --reject-with tcp-reset; }

# is_peer NODE NUMBER [MAC-BYTE]: put_peer's, in the map. no_peer NODE NUMBER.
is_peer() {
	same '[198,51,100,'"$2"']"0e:00:00:00:00:'"${3:-01}"'"' "$(peer_field "$1" "10.42.$2.0/24" node.low)$(node_ctl "$1" -o json peers |
		jq ".items[] | select(.pods == \"10.42.$2.0/24\") | .vtep_mac")"
}
no_peer() { same "" "$(peer_field "$1" "10.42.$2.0/24" node)"; }
is_healthy() { status_is "$1" .store.healthy; }
is_failing() { status_is "$1" '.store.healthy | not'; }

# The lease of each node is in etcd as the node has it, its marker beside it under the same etcd lease (jq rounds the id), and
# the other node has it as its peer.
both_right() {
	local all node other key
	is_healthy node-a && is_healthy node-b || return
	all=$(etcd_do get --prefix "$ETCD_PREFIX/" -w json | jq -c '.kvs | map({key: (.key | @base64d), value: (.value | @base64d), lease})')
	for node in node-a node-b; do
		other="node-b"
		[[ $node == node-a ]] || other="node-a"
		key=$(status $node .lease.key)
		same "$(node_ip $node 4) $(status $node .overlay.mac) 1 true true" \
			"$(jq -r --arg key "$key" --arg prefix "$ETCD_PREFIX" '(.[] | select(.key == "\($prefix)/subnets/\($key)")) as $lease |
				(.[] | select(.key == "\($prefix)/twill/\($key)")) as $marker | ($lease.value | fromjson) |
				"\(.PublicIP) \(.BackendData.VtepMAC) \($marker.value | fromjson | "\(.v) \(.zeroCsum6)")" +
				" \($lease.lease == $marker.lease and $lease.lease != null)"' <<<"$all")"
		items_are $other peers "any(.pods == \"$(pods_of $node)\")" || { echo "$node is no peer of $other"; return 1; }
	done
}
ttl_of() { etcd_ttl "$ETCD_PREFIX/subnets/$(status "$1" .lease.key)"; }
kept_pods() { same "$PODS" "$(pods_of node-a) $(pods_of node-b)"; }

# soon WHAT COMMAND...: within 2 s. With what a start of etcdctl takes, a machine under load has more.
soon() { check "$1" _soon "${@:2}"; }
_soon() { wait_until "$BACK" "$@" || "$@"; }

floods() {
	flood_start "$1 a-b IPv4" "node-a pod-a1" "$(pod_ip node-b pod-b1 4)" "$RATE"
	flood_start "$1 b-a IPv6" "node-b pod-b1" "$(pod_ip node-a pod-a1 6)" "$RATE"
}
nothing_lost() { # CASE
	flood_end
	check "$1: no packet was lost" same 0 "$LOST"
	check "$1: and there were some" test "$SENT" -gt "$RATE"
	ALL_SENT=$((ALL_SENT + SENT))
}

# --- cases ------------------------------------------------------------------------------------------------------------

# Three agents, two subnets.
race_start() {
	local node
	etcd_do put /race/config '{"Network":"10.43.0.0/16","SubnetMin":"10.43.1.0","SubnetMax":"10.43.2.0","Backend":{"Type":"vxlan"}}' >/dev/null
	for node in r1 r2 r3; do etcd_agent $node -etcd-prefix=/race; done
}
race_ready() { local n=0 node; for node in r1 r2 r3; do if status_is $node .ready; then n=$((n + 1)); fi; done; same 2 "$n"; }
loser() { local node; for node in r1 r2 r3; do status_is $node .ready || echo $node; done; }
says_full() { status_is "$1" '.store.error | contains("10.43.1.0") and contains("no free /24")'; }
race_end() {
	local third other
	check "race: two of three agents get the two subnets" wait_until "$(scaled 15)" race_ready
	third=$(loser)
	check "race: the third ($third) says that the range is full" wait_until "$(scaled 5)" says_full "$third"
	check "race: in its log too" said "$third" "no free /24"
	check "race: it lives and waits" agent_alive "$third"
	check "race: two keys, none of them twice" same "/race/subnets/10.43.1.0-24 /race/subnets/10.43.2.0-24" "$(etcd_keys /race/subnets | xargs)"
	other=r1
	[[ $third != r1 ]] || other=r2
	agent_kill $other
	etcd_do del "/race/subnets/$(status_key $other)" >/dev/null
	check "race: a subnet that is free again is the third's" wait_until "$(scaled 5)" status_is "$third" .ready
	check "race: it is the one that was given up" same "$(status_key $other)" "$(status "$third" .lease.key)"
	for other in r1 r2 r3; do agent_kill $other; done
}
status_key() { sed -n 's|^FLANNEL_SUBNET=\(.*\)\.1/24|\1.0-24|p' "$(node_dir "$1")/subnet.env"; }

JUNK_KEYS=(10.42.20{2,3,4,5,6,7}.0-24 10.42.208.7-24 10.99.1.0-99 no-key-at-all a/b/c)
junk_is_named() {
	local keys
	keys=$(printf '%s\n' "${JUNK_KEYS[@]}" | jq -R . | jq -sc .)
	# One has no name at all, one is no UTF-8.
	status_is node-a "[.bad_leases[] | select(.why | length > 5) | .key] | contains($keys) and length == $((${#JUNK_KEYS[@]} + 2))"
}
junk() {
	local key own_b all=()
	put_peers 201
	change subnets/10.42.202.0-24 '{ not JSON' \
		subnets/10.42.203.0-24 "$(lease 198.51.100.999 $PEER_MAC)" \
		subnets/10.42.204.0-24 "$(lease 198.51.100.204 zz)" \
		subnets/10.42.205.0-24 '' \
		subnets/10.42.206.0-24 "$(head -c 70000 /dev/zero | tr '\0' '{')" \
		subnets/10.42.207.0-24 $'\xff\xfe\x01' \
		subnets/10.42.208.7-24 "$(lease 198.51.100.208 $PEER_MAC)" \
		subnets/10.99.1.0-99 "$(lease 198.51.100.209 $PEER_MAC)" \
		subnets/no-key-at-all "$(lease 198.51.100.210 $PEER_MAC)" \
		subnets/a/b/c x subnets/ x $'subnets/\xc3\x28' x \
		twill/10.42.201.0-24 '{"v":"' twill/nonsense $'\xff' elsewhere x
	soon "junk: each key is named, with a reason" junk_is_named
	check "junk: a good lease beside it, with a marker that is junk, is a peer" is_peer node-a 201
	check "junk: the agent is ready" status_is node-a .ready
	put_peers 202
	soon "junk: corrected, it is a peer" is_peer node-a 202
	check "junk: and no longer named" status_is node-a '[.bad_leases[].key] | contains(["10.42.202.0-24"]) | not'
	own_b=$(status node-b .lease.key)
	change subnets/10.42.201.0-24 '[[[' config '{"Network": 7' "subnets/$own_b" junk "twill/$own_b" junk
	soon "junk: a good lease that turns into junk is named" status_is node-a '[.bad_leases[].key] | contains(["10.42.201.0-24"])'
	check "junk: and its peer stays" is_peer node-a 201
	soon "junk: another config is said" status_is node-a 'any(.warnings[]; contains("restart twilld"))'
	soon "junk: a node writes its own lease again" both_right
	for key in 10.42.201.0-24 "${JUNK_KEYS[@]}" '' $'\xc3\x28'; do all+=("subnets/$key" -); done
	change config "$CONFIG" "${all[@]}"
	soon "junk: nothing of it is left in the status" status_is node-a '.bad_leases == []'
	soon "junk: nor in the maps" no_peer node-a 201
}

by_hand() {
	change "subnets/$(status node-b .lease.key)" -
	soon "by hand: node-b writes again what was deleted" both_right
	change "subnets/$(status node-a .lease.key)" -
	soon "by hand: node-a too" both_right
	etcd_do lease revoke "$(printf %x "$(etcd_do get "$ETCD_PREFIX/subnets/$(status node-b .lease.key)" -w fields | sed -n 's/^"Lease" : //p')")" >/dev/null
	soon "by hand: and after its etcd lease was revoked" both_right
	check "by hand: they keep their subnets" kept_pods
	check "by hand: for a day" same "86400 86400" "$(ttl_of node-a) $(ttl_of node-b)"
	sleep 1.5 # what was told gone, and not told back, would go from the map now
	check "by hand: and are peers for good" both_right
}

# Keys change while no node hears of it: FIRST-PEER's MAC, the address of the next; the third goes, a fourth comes.
meanwhile() { # FIRST-PEER
	change "subnets/10.42.$1.0-24" "$(lease "198.51.100.$1" 0e:00:00:00:00:07)" \
		"subnets/10.42.$(($1 + 1)).0-24" "$(lease "198.51.100.$(($1 / 10))" $PEER_MAC)" "subnets/10.42.$(($1 + 2)).0-24" -
	put_peers $(($1 + 3))
}
before() { put_peers "$1" $(($1 + 1)) $(($1 + 2)); }
before_is_seen() { is_peer node-a "$1" && is_peer node-a $(($1 + 1)) && is_peer node-a $(($1 + 2)) && no_peer node-a $(($1 + 3)); }
change_is_seen() { # CASE FIRST-PEER
	soon "$1: a MAC that changed meanwhile" is_peer node-a "$2" 07
	soon "$1: an address that changed meanwhile" peer_field_is node-a "10.42.$(($2 + 1)).0/24" node.low "[198,51,100,$(($2 / 10))]"
	soon "$1: a peer that went meanwhile" no_peer node-a $(($2 + 2))
	soon "$1: a peer that came meanwhile" is_peer node-a $(($2 + 3))
	soon "$1: both nodes are right" both_right
	check "$1: they keep their subnets" kept_pods
}

stopped() { # for DOWN seconds; what changes is compacted before a node hears of it
	before 210
	soon "stopped: peers are there" before_is_seen 210
	peer_stop etcd
	soon "stopped: status says so" is_failing node-a
	agent_kill node-b
	etcd_agent node-b
	sleep "$DOWN"
	check "stopped for $DOWN s: node-a is ready" status_is node-a .ready
	check "stopped: its peers are there" before_is_seen 210
	check "stopped: its log is short" test "$(grep -c 'store trouble' "$(node_dir node-a)/log")" -lt 20
	cut_off node-a
	cut_off node-b
	start_etcd
	meanwhile 210
	etcd_do compact "$(revision)" --physical >/dev/null
	join_again node-a
	join_again node-b
	wait_ready node-b # its agent started while etcd was down
	change_is_seen "stopped and compacted" 210
}

killed() {
	before 220
	soon "killed: peers are there" before_is_seen 220
	peer_stop etcd KILL
	cut_off node-a
	start_etcd
	meanwhile 220
	join_again node-a
	change_is_seen "killed" 220
}

# The backup was made before node-b came, and before the lease of node-a was deleted by hand.
old_backup() {
	local late
	put_peers 230
	soon "old backup: a late peer is there" is_peer node-a 230
	late=$(revision)
	peer_stop etcd KILL
	etcd_restore "$LAB_DIR/early.db"
	start_etcd
	soon "old backup: both nodes are right" both_right
	check "old backup: revisions went back" test "$(revision)" -lt "$late"
	check "old backup: they keep their subnets" kept_pods
	soon "old backup: a peer that the backup does not know goes" no_peer node-a 230
	put_peers 231
	soon "old backup: the watch goes on" is_peer node-a 231
	check "old backup: both nodes are still right" both_right
}

# secured NAME FLAGS...: the same network in an etcd that wants to know who asks.
secured() {
	local what=$1 node
	# shellcheck disable=SC2034 # peers/lib.sh's
	ETCD_SCHEME=http ETCD_USER=()
	peer_stop etcd
	etcd_restore "$LAB_DIR/late.db"
	start_etcd "${@:2}"
	for node in node-a node-b; do
		agent_stop $node
		etcd_agent $node
	done
	for node in node-a node-b; do wait_ready $node; done
	soon "$what: both nodes are right" both_right
	put_peers 240
	soon "$what: a peer that comes is seen" is_peer node-a 240
	if [[ ${#ETCD_USER[@]} != 0 ]]; then
		peer_stop etcd KILL # and with it the token of the session
		start_etcd "${@:2}"
		put_peers 241
		soon "$what: after etcd was killed too" is_peer node-a 241
		check "$what: both nodes are still right" both_right
	fi
	check "$what: they keep their subnets" kept_pods
	check "$what: no password in log or status" not grep -r flannel-password "$(node_dir node-a)/log" "$(node_dir node-b)/log"
}

# --- all of it --------------------------------------------------------------------------------------------------------

lab_up "etcd-$$"
ALL_SENT=0
for node in node-a r1 r2 r3; do node_add $node --segment 1; done
node_add node-b --segment 2
peers_at router 192.0.2.1
start_etcd
change config '{"Network": 7}'
etcd_agent node-a
check "a config that cannot be used is named" wait_until "$(scaled 10)" status_is node-a '.store.error | contains("Network 7")'
change config "$CONFIG"
wait_ready node-a
etcd_backup "$LAB_DIR/early.db"
etcd_agent node-b
wait_ready node-b
race_start
pod_add node-a pod-a1 --style bridge
pod_add node-b pod-b1 --style veth
pod_serve node-a pod-a1
pod_serve node-b pod-b1
check "pods reach each other" reachable "node-a pod-a1" "node-b pod-b1"
PODS="$(pods_of node-a) $(pods_of node-b)"
check "both nodes are right" both_right
run() {
	local start=$SECONDS
	floods "$1"
	"${@:2}"
	nothing_lost "$1"
	echo "$1: $((SECONDS - start)) s"
}
run junk junk
run race race_end
run by-hand by_hand
run stopped stopped
run killed killed
run old-backup old_backup
etcd_backup "$LAB_DIR/late.db"
run tls secured TLS --tls
run auth secured "user and password" --auth
run cn-auth secured "user by certificate" --cn-auth
check "the agent of node-a lives" agent_alive node-a
echo "$ALL_SENT packets"
finish
