# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What a node looks like, as a set; sourced after lib.sh.

# node_entries NODE SYSCTLS: everything that an agent, a proxy or a CNI plugin could have touched, one entry a line; sysctls
# that match the pattern. Counters, ages and what the kernel learns by itself (reachable neighbours, multicast routes of the
# kernel come and go with links) are taken out.
node_entries() (
	set +e # sysctl and tc find things that they cannot read
	ns=$(node_ns "$1")
	ip -n "$ns" -o -d link show | sed 's/[a-z_]*_timer *[0-9.]*//g; s/^/link /'
	ip -n "$ns" -o addr show | sed 's/^/addr /; s/valid_lft .*//'
	for family in 4 6; do
		ip -n "$ns" "-$family" route show table all | sed "s/^/route$family /; s/ expires [0-9]*sec//"
		ip -n "$ns" "-$family" rule show | sed "s/^/rule$family /"
		ip -n "$ns" "-$family" neigh show nud permanent | sed "s/^/neigh$family /"
	done
	node_exec "$1" bridge -o fdb show | grep permanent | sed 's/^/fdb /'
	node_exec "$1" iptables-save 2>/dev/null | sed 's/^#.*//; s/\[[0-9]*:[0-9]*\]//; s/^/iptables /'
	node_exec "$1" ip6tables-save 2>/dev/null | sed 's/^#.*//; s/\[[0-9]*:[0-9]*\]//; s/^/ip6tables /'
	node_exec "$1" nft list ruleset 2>/dev/null | sed 's/packets [0-9]* bytes [0-9]*//; s/^/nft /'
	node_exec "$1" sysctl -a --pattern "$2" 2>/dev/null |
		grep -vE 'nf_conntrack_count|fib_sync_mem|\.(stable_secret|retrans_time|base_reachable_time) |route\.flush|inet_peer' | sed 's/^/sysctl /'
	node_exec "$1" tc qdisc show | sed 's/^/qdisc /'
	for dev in $(ip -n "$ns" -o link show | awk -F'[ :@]+' '{ print $2 }'); do
		for hook in ingress egress; do node_exec "$1" tc filter show dev "$dev" $hook 2>/dev/null | sed "s/^/filter $dev $hook /"; done
	done
	find "$LAB_PINS/$1" -mindepth 1 2>/dev/null | sed 's/^/pin /'
	exit 0
)
