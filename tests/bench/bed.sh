# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Where the paths of ./dev bench run; sourced. Each pair of nodes has a cable of its own, all pairs stand side by side:
#
#   raw        two nodes without pods                      path raw
#   gw         flannel's host-gw backend                   path host-gw
#   flannel    flannel's vxlan backend                     paths kernel-vxlan, local-bridge
#   vxlan      twill, DirectRouting off                    paths twill-vxlan, twill-local
#   direct     twill, DirectRouting on                     path twill-direct
#
# Everything else is the same for all: sysctls, kube-proxy's rule, pods behind cni0, IPv4.

# shellcheck disable=SC2034 # for who sources this
BED_PATHS=(raw host-gw kernel-vxlan twill-vxlan twill-direct local-bridge twill-local)
BED_CLUSTER=10.42.0.0/16

# Path: the pair that it needs.
bed_pair() {
	case $1 in
	raw) echo raw ;;
	host-gw) echo gw ;;
	kernel-vxlan | local-bridge) echo flannel ;;
	twill-vxlan | twill-local) echo vxlan ;;
	twill-direct) echo direct ;;
	esac
}

# Path: namespace of the client, namespace of the server, address of the server.
bed_ends() {
	local pair
	pair=$(bed_pair "$1")
	case $1 in
	raw) echo "$(node_ns raw-a) $(node_ns raw-b) $(node_ip raw-b 4)" ;;
	*local*) echo "$(pod_ns "$pair-a" p1) $(pod_ns "$pair-a" p2) $(pod_ip "$pair-a" p2 4)" ;;
	*) echo "$(pod_ns "$pair-a" p1) $(pod_ns "$pair-b" p1) $(pod_ip "$pair-b" p1 4)" ;;
	esac
}

# bed_up NAME PATH...: everything that the paths need.
bed_up() {
	local pair path ns
	lab_up "$1"
	for pair in raw gw flannel vxlan direct; do
		for path in "${@:2}"; do
			[[ $(bed_pair "$path") == "$pair" ]] || continue
			node_pair "$pair-a" "$pair-b"
			"_bed_$pair"
			break
		done
	done
	# What is remembered of the last connection would speak for the next one. (Cubic is set on each socket: a namespace may
	# not choose it where the machine's default is another.)
	while read -r ns; do
		_lab_sysctl "$ns" ipv4/tcp_no_metrics_save=1
	done <"$LAB_DIR/.lab/netns"
	lab_calm
}

_bed_raw() { :; }

# --- flannel ----------------------------------------------------------------------------------------------------

_bed_gw() {
	_bed_subnets gw 1500
	ip -n "$(node_ns gw-a)" route add 10.42.2.0/24 via "$(node_ip gw-b 4)" dev eth0
	ip -n "$(node_ns gw-b)" route add 10.42.1.0/24 via "$(node_ip gw-a 4)" dev eth0
	_bed_pods gw
}

_bed_flannel() {
	_bed_subnets flannel 1450
	_bed_flannel_device flannel-a 10.42.1.0 0e:00:00:00:00:01 10.42.2.0 0e:00:00:00:00:02 "$(node_ip flannel-b 4)"
	_bed_flannel_device flannel-b 10.42.2.0 0e:00:00:00:00:02 10.42.1.0 0e:00:00:00:00:01 "$(node_ip flannel-a 4)"
	_bed_pods flannel
}

# As flanneld makes it: no learning, no group, and for each peer one neighbour, one fdb entry and one route.
_bed_flannel_device() { # NODE ADDRESS MAC PEER-ADDRESS PEER-MAC PEER-NODE
	ip -n "$(node_ns "$1")" -batch - <<-END
		link add flannel.1 mtu 1450 address $3 type vxlan id 1 dev eth0 local $(node_ip "$1" 4) dstport 8472 nolearning
		addr add $2/32 dev flannel.1
		link set dev flannel.1 up
		neigh replace $4 lladdr $5 dev flannel.1 nud permanent
		route replace $4/24 via $4 dev flannel.1 onlink
	END
	node_exec "$1" bridge fdb replace "$5" dev flannel.1 dst "$6" self permanent
}

# _bed_subnets PAIR MTU: subnet.env and the firewall rules of both nodes.
_bed_subnets() {
	local node subnet
	for node in "$1-a 1" "$1-b 2"; do
		subnet=10.42.${node#* }
		printf '%s\n' "FLANNEL_NETWORK=$BED_CLUSTER" "FLANNEL_SUBNET=$subnet.1/24" "FLANNEL_MTU=$2" FLANNEL_IPMASQ=true \
			>"$(node_dir "${node% *}")/subnet.env"
		_bed_flannel_rules "${node% *}" "$subnet.0/24"
	done
}

_bed_flannel_rules() { # NODE SUBNET
	local masq='-m comment --comment "flanneld masq"' forward='-m comment --comment "flanneld forward"'
	node_exec "$1" iptables-restore -w --noflush <<-END
		*nat
		:FLANNEL-POSTRTG - [0:0]
		-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 $masq -j RETURN
		-A FLANNEL-POSTRTG -s $2 -d $BED_CLUSTER $masq -j RETURN
		-A FLANNEL-POSTRTG -s $BED_CLUSTER -d $2 $masq -j RETURN
		-A FLANNEL-POSTRTG ! -s $BED_CLUSTER -d $2 $masq -j RETURN
		-A FLANNEL-POSTRTG -s $BED_CLUSTER ! -d 224.0.0.0/4 $masq -j MASQUERADE --random-fully
		-A FLANNEL-POSTRTG ! -s $BED_CLUSTER -d $BED_CLUSTER $masq -j MASQUERADE --random-fully
		-A POSTROUTING $masq -j FLANNEL-POSTRTG
		COMMIT
		*filter
		:FLANNEL-FWD - [0:0]
		-A FLANNEL-FWD -s $BED_CLUSTER $forward -j ACCEPT
		-A FLANNEL-FWD -d $BED_CLUSTER $forward -j ACCEPT
		-A FORWARD $forward -j FLANNEL-FWD
		COMMIT
	END
}

# --- twill ------------------------------------------------------------------------------------------------------

_bed_vxlan() { _bed_twill vxlan false; }
_bed_direct() { _bed_twill direct true; }

# A pair's nodes have the addresses of any other pair's: it needs leases of its own.
_bed_twill() { # PAIR DIRECT-ROUTING
	local store=$LAB_DIR/$1.store node
	mkdir -p "$store"
	cat >"$store/config" <<-END
		{ "Network": "$BED_CLUSTER", "SubnetLen": 24, "Backend": { "Type": "vxlan", "VNI": 1, "DirectRouting": $2 } }
	END
	for node in "$1-a" "$1-b"; do agent_start "$node" -store "file://$store"; done
	for node in "$1-a" "$1-b"; do wait_ready "$node" "$(scaled 15)"; done
	_bed_pods "$1"
	for node in "$1-a p1" "$1-a p2" "$1-b p1"; do
		# shellcheck disable=SC2086 # node and pod
		wait_until "$(scaled 10)" _bed_is_endpoint $node || lab_die "${1}: twill did not find the pod of $node"
	done
}

_bed_is_endpoint() { # NODE POD
	node_ctl "$1" -o json endpoints | jq -e --arg ip "$(pod_ip "$1" "$2" 4)" 'any(.items[]; .ip == $ip)'
}

# Two pods on the first node, one on the second; each says a word to the gateway and to the others, so that neighbours,
# bridge ports and endpoints are known.
_bed_pods() {
	local ip
	pod_add "$1-a" p1 --style bridge
	pod_add "$1-a" p2 --style bridge
	pod_add "$1-b" p1 --style bridge
	for ip in "$(pod_ip "$1-a" p2 4)" "$(pod_ip "$1-b" p1 4)"; do
		wait_until "$(scaled 10)" pod_exec "$1-a" p1 ping -c 1 -W 1 "$ip" || lab_die "$1: no ping from p1 to $ip"
	done
}
