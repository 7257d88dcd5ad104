#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A node on which real flanneld runs gets twilld in its place, and is given back, again and again, with real kube-proxy beside them.
# What goes through the node meanwhile lives: streams, 10,000 packets a second, connections that wait for their server, downloads
# through ClusterIP, NodePort and masquerade. flannel's devices and entries are right all the time, also those that flannel left
# stale, and when it comes back it finds what it left.
#
# In CI two cycles with Kubernetes, one with etcd, what happens when nobody looks only there. TWILL_FULL=1: ten with each store, and
# everything with both and with DirectRouting. TAKEOVER_SCENES="kubernetes:4:vxlan etcd:46:direct": only these.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/peers/lib.sh"
peers_need etcd flannel kube-apiserver kube-proxy
for tool in bridge iptables ip6tables conntrack ss; do command -v "$tool" >/dev/null || skip "missing: $tool"; done
. "$(dirname "$0")/kube_lib.sh"
. "$(dirname "$0")/flanneld_lib.sh"
. "$(dirname "$0")/mixed_lib.sh"
. "$(dirname "$0")/../netns/snapshot.sh"
. "$(dirname "$0")/takeover_lib.sh"
# shellcheck disable=SC2034 # for kube_lib.sh
ANNOTATIONS=$PREFIX
ms() { date +%s%3N; }

# within SECONDS COMMAND...: by the clock, for a command that takes its time. What it said last is shown.
within() {
	local end out
	end=$(($(ms) + $(scaled "$1") * 1000))
	until out=$("${@:2}" 2>&1); do
		(($(ms) < end)) || { echo "$out"; return 1; }
		sleep "$LAB_POLL"
	done
}

# --- switches -------------------------------------------------------------------------------------------------------------------

# The measure of the harness: nothing but flanneld's own restart.
flannel_to_flannel() { # SIGNAL
	peer_stop flanneld-a "$1"
	flannel_up
}
flannel_up() {
	flannel_start a
	check "a: flanneld has started" wait_until "$(scaled 30)" has_started a
	check "a: flanneld has programmed its peers" wait_until "$(scaled 30)" flannel_follows a
}
has_started() { [[ $(node_dir "$1")/subnet.env -nt $(peers_dir)/flanneld-$1.pid ]]; }

flannel_to_twill() { # SIGNAL
	peer_stop flanneld-a "$1"
	twill_start a -ip-masq -detach-timeout=30
	check "a: twilld is ready" wait_ready a "$(scaled 20)"
}
twill_to_flannel() {
	check "a: detach ends well" node_ctl a detach --yes
	flannel_up
}

devices() { node_exec a ip -o link show | grep -E '^[0-9]+: (flannel|twill)' | sed 's/ mtu .* state [A-Z]*//; s/group.*link/link/'; }
is_adopted() {
	same "$DEVICES" "$(devices)" || return
	same "$(overlay_of "${FAMILIES[0]}") programs" "$(status a '"\(.overlay.name) \(.data_plane.kind)"')"
}
by_programs() { items_are a peers 'any(.tx_packets > 0) and any(.rx_packets > 0)'; }

# --- what twillctl says of it ---------------------------------------------------------------------------------------------------

preflight() { # NODE JQ-FILTER
	local flags
	mapfile -t flags < <(daemon_flags)
	node_exec "$1" "$TWILL_BIN/twilld" -preflight -node "$1" -bpf-root "$LAB_PINS/$1" -subnet-file "$(node_dir "$1")/subnet.env" "${flags[@]}" | jq -r "$2"
}
verdicts() { preflight a '[.checks[] | select(.verdict == "stop") | .name] | join(" ")'; }
migrate_status() {
	same "" "$(verdicts)" || return
	node_exec a ip link add other type vxlan id 99 dstport 8472 dev eth0
	same port "$(verdicts)" || { node_exec a ip link del other; return 1; }
	node_exec a ip link del other
	same "" "$(verdicts)"
}
# runs NODE WHO: as c, whose agent runs, tells it.
runs() {
	same "$2" "$(node_ctl c -o json migrate status | jq -r --arg ip "$(node_ip "$1" 4)" '.nodes[] | select(.public_ip[0] == $ip) | .runs')"
}

# The manifests of docs/migrating.md, as an API server sees them.
page_block() { awk -v name="$1" '$1 == "`" name "`:" { found = 1 } /```$/ { on = 0 } on { print } found && /```yaml$/ { on = 1; found = 0 }' "$LAB_REPO/docs/migrating.md" | sed 's/^   //'; }
manifests() {
	local api=/apis/apps/v1/namespaces/kube-flannel/daemonsets strict='fieldValidation=Strict' name
	kube_do POST /api/v1/namespaces '{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kube-flannel"}}' >"$STATE/namespace"
	page_block twill.yaml | sed 's/{name: twill, /{name: kube-flannel-ds, /' >"$STATE/flannel.yaml"
	kube_do POST "$api?$strict" "$(<"$STATE/flannel.yaml")" application/yaml >"$STATE/manifest" || { cat "$STATE/manifest"; return 1; }
	# kubectl's way needs JSON of it; applied it has the same effect.
	kube_do PATCH "$api/kube-flannel-ds?$strict&fieldManager=test" "$(printf '%s\n' "apiVersion: apps/v1" "kind: DaemonSet" "$(page_block flannel-patch.yaml)")" \
		application/apply-patch+yaml >"$STATE/manifest" || { cat "$STATE/manifest"; return 1; }
	grep -F DoesNotExist "$STATE/manifest" >/dev/null || return
	for name in twill.yaml twill-detach.yaml; do
		kube_do POST "$api?$strict" "$(page_block "$name")" application/yaml >"$STATE/manifest" || { cat "$STATE/manifest"; return 1; }
	done
}

# TERM and KILL in turn.
declare -A CYCLES=([kubernetes]=2 [etcd]=1)
[[ ! ${TWILL_FULL:-} ]] || CYCLES=([kubernetes]=10 [etcd]=10)
cycles() {
	local i signal in_store leases env
	snapshot before
	in_store=$(own_in_store) leases=$(store_leases) env=$(<"$(node_dir a)/subnet.env") DEVICES=$(devices)
	check "twilld -preflight: nothing stops a take-over of a, but what is put in the way" migrate_status
	check "twillctl migrate status: a runs flannel" runs a flannel
	traffic_start
	[[ $STORE == etcd && ! ${TWILL_FULL:-} ]] || switch "flanneld to flanneld, SIGKILL" flannel_to_flannel KILL
	for ((i = 0; i < CYCLES[$STORE]; i++)); do
		signal=TERM
		((i % 2 == 0)) || signal=KILL
		switch "flanneld to twilld, SIG$signal" flannel_to_twill $signal
		check "a: flannel's devices are the overlay, programs carry it" is_adopted
		check "twillctl migrate status: a runs twill" wait_until "$(scaled 2)" runs a twill
		check "and b flannel" runs b flannel
		check "a: packets go by them" wait_until "$(scaled 5)" by_programs
		check "a: routes, neighbours and fdb are right" within 2 peers_are_exact a
		check "a: its lease is what it was" same "$leases" "$(store_leases)"
		check "a: subnet.env too" same "$env" "$(<"$(node_dir a)/subnet.env")"
		check "a: the programs dropped nothing" same "{}" "$(drops a)"
		switch "twilld to flanneld" twill_to_flannel
	done
	traffic_end
	check "twillctl migrate status: a runs flannel again" wait_until "$(scaled 2)" runs a flannel
	check "given back: the store says of a what it said" same "$in_store" "$(own_in_store)"
	check "given back: masquerade has drained" wait_until "$(scaled 60)" not agent_alive a
	same_sets "given back" before
}

# --- what happens when nobody looks ------------------------------------------------------------------------------------------------

right() { check "$1: routes, neighbours and fdb are those of the leases" within 2 peers_are_exact a; }
spoil() { # NUMBER: of flannel's entries for that peer
	local family first
	for family in "${FAMILIES[@]}"; do
		first=10.42.2$1.0
		[[ $family == 4 ]] || first=fd00:42:0:f2$1::
		ip -n "$(node_ns a)" "-$family" route del "$first/$([[ $family == 4 ]] && echo 24 || echo 64)"
		ip -n "$(node_ns a)" "-$family" neigh replace "$first" lladdr 0a:00:00:00:00:ee dev "$(overlay_of "$family")" nud permanent
	done
}
stale() {
	hand_lease 21 21 121
	hand_lease 22 22 122
	hand_lease 24 24 124
	check "flanneld has programmed nodes of the store" wait_until "$(scaled 30)" peers_are_exact a
	peer_stop flanneld-a KILL
	hand_gone 21
	hand_lease 22 32 132
	hand_lease 23 23 123
	spoil 24
	check "with nobody there the entries are stale" not peers_are_exact a
	twill_start a -ip-masq -detach-timeout=30
	check "a: twilld is ready" wait_ready a "$(scaled 20)"
	right "what flannel left stale"
	hand_lease 25 25 125
	right "a node added while adopted"
	hand_lease 24 24 144
	right "an address changed"
	hand_lease 23 33 123
	right "a MAC changed"
	hand_gone 22
	right "a node deleted"
	spoil 24
	right "what somebody spoils"
	agent_kill a
	hand_gone 25
	hand_lease 24 34 154
	twill_start a -ip-masq -detach-timeout=30
	check "a: twilld is ready after SIGKILL" wait_ready a "$(scaled 20)"
	check "a: the same devices are the overlay" is_adopted
	right "changes while twilld was dead"
	hand_lease 26 26 126
	right "another node added"
	agent_kill a
	check "detach without an agent ends well" node_ctl a detach --yes
	check "and leaves flannel's entries right" peers_are_exact a
	flannel_up
	check "flanneld, started again, has no more to do" peers_are_exact a
	check "and finds its devices as they were" same "$DEVICES" "$(devices)"
}

SCENES=(kubernetes:4:vxlan etcd:46:vxlan)
[[ ! ${TWILL_FULL:-} ]] || SCENES+=(etcd:46:direct)
[[ ! ${TAKEOVER_SCENES:-} ]] || read -ra SCENES <<<"$TAKEOVER_SCENES"
for scene in "${SCENES[@]}"; do
	start=$SECONDS
	IFS=: read -r store families backend <<<"$scene"
	scene_up "$store" "$families" "${backend:-vxlan}"
	[[ $STORE != kubernetes ]] || check "docs/migrating.md: an API server takes its manifests" manifests
	cycles
	[[ $STORE == kubernetes && ! ${TWILL_FULL:-} ]] || stale
	echo "takeover: $scene: $((SECONDS - start)) s"
	[[ $FAILURES == 0 ]] || break
	[[ $scene == "${SCENES[-1]}" ]] || lab_down
done
finish
