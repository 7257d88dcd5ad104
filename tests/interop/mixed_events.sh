# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What happens to nodes of a mixed cluster; sourced by mixed.sh after mixed_lib.sh. An event ends with the store holding a new
# state. Within 2 s of that the twill nodes are right: maps, subnet.env and what they publish. How long flanneld takes is printed;
# where it does not follow at all, it is started anew.

# shellcheck disable=SC2034 # for mixed.sh
EVENTS=(flannel_restart twill_restart flannel_lease twill_lease flannel_address twill_address flannel_mac twill_mac)
# shellcheck disable=SC2034 # for mixed.sh
FEW_EVENTS=(flannel_lease twill_lease flannel_address twill_address)

ms() { date +%s%3N; }
# twills_follow WHAT: the store holds the new state by now.
twills_follow() {
	local node
	for node in "${TWILLS[@]}"; do
		check "$1: $node follows" wait_until "$(scaled 2)" has_peers "$node" "$(wanted_peers "$node")"
		check "$1: $node has published" wait_until "$(scaled 2)" twill_published "$node"
	done
}
flannels_follow() { # WHAT
	local node start
	start=$(ms)
	for node in "${FLANNELS[@]}"; do
		if wait_until "$(scaled 10)" flannel_follows "$node"; then
			echo "mixed: $1: flanneld on $node took $(($(ms) - start)) ms"
		else
			echo "mixed: $1: flanneld on $node does not follow ($(flannel_follows "$node" || :)): started anew"
			flannel_restart "$node"
			check "$1: flanneld on $node, started anew, follows" wait_until "$(scaled 20)" flannel_follows "$node"
		fi
	done
}
after() { # WHAT
	twills_follow "$1"
	flannels_follow "$1"
	meets "$1"
	check "$1: pods of before are where they were" same "$PODS_BEFORE" "$(pod_cidrs)"
}
pod_cidrs() {
	local node family
	for node in "${NODES[@]}"; do for family in "${FAMILIES[@]}"; do subnet_of "$node" "$family"; done; done | xargs
}
# in_store WHAT COMMAND...: waits for it as long as flanneld may take.
in_store() { check "$1: it is in the store" wait_until "$(scaled 30)" "${@:2}"; }
gone() { not grep -F " $2 " <<<"$(peers_of "$1")"; } # NODE ADDRESS

cell_events() {
	local event PODS_BEFORE
	PODS_BEFORE=$(pod_cidrs)
	for event; do "event_$event"; done
}

event_flannel_restart() {
	local before
	before=$(store_leases)
	flannel_restart f1
	check "flanneld restarted: it has started" wait_until "$(scaled 20)" has_started f1
	after "flanneld restarted"
	check "flanneld restarted: its lease is what it was" same "$before" "$(store_leases)"
}
# It writes subnet.env anew on each start.
has_started() { [[ $(node_dir "$1")/subnet.env -nt $(peers_dir)/flanneld-$1.pid ]]; }
event_twill_restart() {
	local before env
	before=$(store_leases) env=$(<"$(node_dir t1)/subnet.env")
	agent_kill t1
	twill_start t1
	check "twilld killed and started: ready" wait_ready t1 "$(scaled 20)"
	check "twilld killed and started: its lease is what it was" same "$before" "$(store_leases)"
	check "twilld killed and started: its subnet.env too" same "$env" "$(<"$(node_dir t1)/subnet.env")"
	after "twilld killed and started"
}

# With etcd flanneld ends by itself, to be started by a supervisor. With Kubernetes it does not even notice.
event_flannel_lease() {
	local what="flannel's lease deleted" node family=${FAMILIES[0]} address
	address=$(node_ip f1 "$family")
	delete_lease f1
	for node in "${TWILLS[@]}"; do check "$what: $node lets go of it" wait_until "$(scaled 2)" gone "$node" "$address"; done
	if [[ $STORE == etcd ]]; then
		check "$what: flanneld ends" wait_until "$(scaled 20)" _peer_gone flanneld-f1
	fi
	restore_node f1
	flannel_restart f1
	in_store "$what, flanneld started" lease_is f1 "$family" ip "$address"
	after "$what, flanneld started"
}
event_twill_lease() {
	local what="twill's lease deleted" name family=${FAMILIES[0]} address
	address=$(node_ip t1 "$family")
	delete_lease t1
	restore_node t1
	check "$what: it is written again" wait_until "$(scaled 2)" lease_is t1 "$family" ip "$address"
	after "$what"
	[[ $STORE == kubernetes ]] || return 0
	for name in kube-subnet-manager backend-type; do
		annotate t1 "{\"$PREFIX$name\": null}"
		check "twill's $name taken away: it is written again" wait_until "$(scaled 2)" twill_published t1
	done
	after "twill's annotations taken away"
}

# node_moves NODE HOST-PART: other addresses on its wire, of the same networks.
node_moves() {
	local ns old4 old6
	ns=$(node_ns "$1") old4=$(node_ip "$1" 4) old6=$(node_ip "$1" 6)
	echo "${old4%.*}.$2" >"$(node_dir "$1")/ip4"
	echo "${old6%::*}::$2" >"$(node_dir "$1")/ip6"
	ip -n "$ns" -batch - <<-END
		addr del $old4/24 dev eth0
		addr del $old6/64 dev eth0
		addr add $(node_ip "$1" 4)/24 dev eth0
		addr add $(node_ip "$1" 6)/64 dev eth0 nodad
		route replace default via ${old4%.*}.1 dev eth0
		route replace default via ${old6%::*}::1 dev eth0
	END
}
# It knows its address at start only. With etcd another address is another node's, unless the lease goes.
event_flannel_address() {
	local what="flannel's address changed" family=${FAMILIES[0]}
	peer_stop flanneld-f1
	[[ $STORE != etcd ]] || delete_lease f1
	node_moves f1 61
	flannel_start f1
	in_store "$what" lease_is f1 "$family" ip "$(node_ip f1 "$family")"
	after "$what"
}
event_twill_address() {
	local what="twill's address changed" family
	node_moves t1 62
	for family in "${FAMILIES[@]}"; do
		check "$what: it publishes IPv$family" wait_until "$(scaled 2)" lease_is t1 "$family" ip "$(node_ip t1 "$family")"
	done
	after "$what"
}

flannel_macs() { # NODE MAC
	local family
	for family in "${FAMILIES[@]}"; do ip -n "$(node_ns "$1")" link set dev "$(overlay_of "$family")" address "$2"; done
}
event_flannel_mac() {
	local what="flannel's VtepMAC changed" family
	is_vxlan || return 0
	flannel_restart f1 flannel_macs f1 0a:00:00:00:00:f1
	for family in "${FAMILIES[@]}"; do in_store "$what" lease_is f1 "$family" mac 0a:00:00:00:00:f1; done
	after "$what"
}
event_twill_mac() {
	local what="twill's VtepMAC changed" family mac=0a:00:00:00:00:71 old
	is_vxlan || return 0
	old=$(mac_of t1 twill0)
	ip -n "$(node_ns t1)" link set dev twill0 address 0a:00:00:00:00:72
	check "somebody's MAC on twill0: it is taken back" wait_until "$(scaled 2)" mac_is t1 twill0 "$old"
	check "somebody's MAC on twill0: nothing is published" twill_published t1
	agent_kill t1
	ip -n "$(node_ns t1)" link set dev twill0 address $mac
	twill_start t1
	check "$what: ready" wait_ready t1 "$(scaled 20)"
	for family in "${FAMILIES[@]}"; do
		check "$what: it publishes IPv$family" wait_until "$(scaled 2)" lease_is t1 "$family" mac $mac
	done
	after "$what"
}
mac_is() { same "$3" "$(mac_of "$1" "$2")"; }
