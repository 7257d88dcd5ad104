#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# -ip-masq on a node with flannel's rules, made by hand as flannel v0.28.9 makes them: iptables, iptables-legacy and nftables. What
# they translate goes on, what is new is twill's, and then they are gone, nobody else's with them. With flannel's devices and
# the real flanneld: tests/interop.
. "$(dirname "$0")/lib.sh"

for tool in iptables-nft iptables-legacy; do command -v "$tool" >/dev/null || skip "missing: $tool"; done
lab_up "masq-takeover-$$"
NODE=$(node_ns node-a)
node_add node-a
lab_record_pid "$(node_exec router "$TRAFFIC" server :: 5001 --background)"
agent_start node-a
wait_ready node-a
pod_add node-a pod-a1 --style bridge
P4=$(status node-a '.lease.pods[0]') P6=$(status node-a '.lease.pods[1]')
C4=$(status node-a '.network[0]') C6=$(status node-a '.network[1]')

iptables_rules() { # nft|legacy
	local tool cluster own multicast
	for tool in iptables ip6tables; do
		cluster=$C4 own=$P4 multicast=224.0.0.0/4
		[[ $tool == iptables ]] || cluster=$C6 own=$P6 multicast=ff00::/8
		node_exec node-a "$tool-$1-restore" --noflush <<-END
			*nat
			:FLANNEL-POSTRTG - [0:0]
			-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
			-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
			-A FLANNEL-POSTRTG -s $own -d $cluster -m comment --comment "flanneld masq" -j RETURN
			-A FLANNEL-POSTRTG -s $cluster -d $own -m comment --comment "flanneld masq" -j RETURN
			-A FLANNEL-POSTRTG ! -s $cluster -d $own -m comment --comment "flanneld masq" -j RETURN
			-A FLANNEL-POSTRTG -s $cluster ! -d $multicast -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
			-A FLANNEL-POSTRTG ! -s $cluster -d $cluster -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
			COMMIT
			*filter
			:FLANNEL-FWD - [0:0]
			-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
			-A FLANNEL-FWD -s $cluster -m comment --comment "flanneld forward" -j ACCEPT
			-A FLANNEL-FWD -d $cluster -m comment --comment "flanneld forward" -j ACCEPT
			COMMIT
		END
	done
}

nftables_rules() {
	local family number cluster own multicast
	for family in ip ip6; do
		number=4 cluster=$C4 own=$P4 multicast=224.0.0.0/4
		[[ $family == ip ]] || number=6 cluster=$C6 own=$P6 multicast=ff00::/8
		node_exec node-a nft -f - <<-END
			table $family flannel-ipv$number {
				chain postrtg {
					type nat hook postrouting priority srcnat; policy accept;
					meta mark 0x4000 return
					$family saddr $own $family daddr $cluster return
					$family saddr $cluster $family daddr $own return
					$family saddr != $own $family daddr $cluster return
					$family saddr $cluster $family daddr != $multicast masquerade fully-random
					$family saddr != $cluster $family daddr $cluster masquerade fully-random
				}
				chain forward {
					type filter hook forward priority filter; policy accept;
					$family saddr $cluster accept
					$family daddr $cluster accept
				}
			}
		END
	done
}

# Somebody else's, which has to stay to the letter.
others() {
	for tool in iptables ip6tables; do
		node_exec node-a "$tool-legacy" -t nat -N MINE
		node_exec node-a "$tool-legacy" -t nat -A POSTROUTING -o nowhere -j MINE
		node_exec node-a "$tool-legacy" -t nat -A MINE -p tcp --dport 7 -j RETURN
		node_exec node-a "$tool-nft" -t nat -N THEIRS
		node_exec node-a "$tool-nft" -t nat -A POSTROUTING -o nowhere -j THEIRS
	done
}

everything() {
	local tool
	for tool in iptables-legacy ip6tables-legacy; do node_exec node-a "$tool-save" | grep -vE '^[#:*]|^COMMIT' || :; done
	node_exec node-a nft -s list ruleset 2>/dev/null
}
is_as_before() { diff "$LAB_DIR/.lab/before" <(everything); }
nothing_of_flannels() { same "" "$(everything | grep -iE 'flannel|twill' || :)"; }

DOWNLOADS=()
# downloads N: of both families.
downloads() {
	local i to
	DOWNLOADS=()
	for ((i = 0; i < $1; i++)); do
		to=192.0.2.1
		((i % 2)) || to=2001:db8:1::1
		lab_spawn node-a-pod-a1 "$TRAFFIC" tcp-download "$to" 5001 --mbit 1 --until-signal --json --seed "$i" >"$LAB_DIR/.lab/download-$i"
		DOWNLOADS+=("$LAB_PID")
	done
}
connected() { [[ $(node_exec router ss -Hnt state established '( sport = :5001 )' | wc -l) == "$1" ]]; }
translated_by_us() { node_ctl node-a -o json nat list | jq '[.items[] | select(.protocol == "tcp" and .remote_port == 5001)] | length'; }
downloads_end() {
	local i broken=0
	kill -TERM "${DOWNLOADS[@]}" || :
	for i in "${!DOWNLOADS[@]}"; do
		wait "${DOWNLOADS[i]}" || :
		[[ $(jq -r .result "$LAB_DIR/.lab/download-$i") == ok ]] || broken=$((broken + 1))
	done
	BROKEN=$broken
}
old_ones_alone() { same 0 "$(translated_by_us)"; }

others
agent_stop node-a
_lab_sysctl "$NODE" netfilter/nf_conntrack_tcp_timeout_time_wait=1 netfilter/nf_conntrack_tcp_timeout_close=1
for kind in nft legacy nftables alone; do
	# With nobody else's rule conntrack would stop with flannel's: they wait until nothing depends on it.
	if [[ $kind == alone ]]; then
		node_exec node-a nft flush ruleset
		for tool in iptables-legacy ip6tables-legacy; do for table in nat filter; do node_exec node-a "$tool" -t "$table" -F; done; done
	fi
	everything >"$LAB_DIR/.lab/before"
	count=20
	[[ $kind != nft ]] || count=200
	if [[ $kind == nftables || $kind == alone ]]; then nftables_rules; else iptables_rules "$kind"; fi
	agent_start node-a
	wait_ready node-a
	downloads "$count"
	check "$kind: $count downloads, translated by flannel's rules" wait_until "$(scaled 20)" connected "$count"
	agent_restart node-a -ip-masq
	check "$kind: they go on" connected "$count"
	check "$kind: and are not twill's" old_ones_alone
	check "$kind: a new connection works" pod_exec node-a pod-a1 "$TRAFFIC" tcp-rr 192.0.2.1 5001 --seconds 0.2 --json
	check "$kind: by twill" same 1 "$(translated_by_us)"
	if [[ $kind == alone ]]; then
		check "alone: status says what flannel's rules wait for" status_is node-a '[.warnings[] | select(test("stay, without effect, until"))] | length == 2'
		sleep 0.3
		check "alone: the downloads go on" connected "$count"
	fi
	downloads_end
	check "$kind: all downloads were whole" same 0 "$BROKEN"
	check "$kind: nothing of flannel's is left" wait_until "$(scaled 10)" nothing_of_flannels
	check "$kind: and everything else is as it was" is_as_before
	check "$kind: status has no word about it" status_is node-a '[.warnings[] | select(test("flannel"))] == []'
	agent_stop node-a
done
finish
