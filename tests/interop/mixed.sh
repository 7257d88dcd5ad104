#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Mixed clusters: twill nodes and nodes with real flanneld, whatever the store, the family and the backend. Each cell of the matrix
# is a cluster of its own (mixed_lib.sh): what the twill nodes publish, have in their maps and say to CNI plugins is held against
# what the store holds; every pod talks to every pod and node, with super-packets and packets as large as they may be; then things
# happen to both kinds of node (mixed_events.sh).
#
# In CI three cells. TWILL_FULL=1: all. MIXED_CELLS=REGEX: those of all whose name ("new etcd IPv46 direct") matches.
# MIXED_EVENTS="flannel_restart ...": only these happen.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/peers/lib.sh"
peers_need etcd flannel flannel-old kube-apiserver
. "$(dirname "$0")/kube_lib.sh"
. "$(dirname "$0")/flanneld_lib.sh"
. "$(dirname "$0")/mixed_lib.sh"
. "$(dirname "$0")/mixed_events.sh"

SUMMARY=()
cell() { # VERSIONS STORE FAMILY BACKEND [EVENT...]
	local name="$1 $2 IPv$3 $4" checks=$CHECKS failures=$FAILURES start=$SECONDS events=("${@:5}")
	[[ $name =~ ${MIXED_CELLS:-} ]] || return 0
	echo "--- $name"
	cell_up "${@:1:4}"
	cell_talks
	[[ ! ${MIXED_EVENTS+set} ]] || read -ra events <<<"$MIXED_EVENTS"
	cell_events "${events[@]}"
	cell_down
	SUMMARY+=("$name: $((CHECKS - checks)) checks, $((FAILURES - failures)) failed, $((SECONDS - start)) s")
	echo "mixed: ${SUMMARY[-1]}"
}

lab_up "mixed-$$"
peers_at router 192.0.2.1
start_etcd
start_apiserver
if [[ ! ${TWILL_FULL:-}${MIXED_CELLS:-} ]]; then
	cell both etcd 4 vxlan "${EVENTS[@]}"
	cell both kubernetes 46 direct "${FEW_EVENTS[@]}" flannel_mac
	cell both etcd 46 host-gw twill_address
else
	for versions in new old; do
		for store in etcd kubernetes; do
			for family in 4 6 46; do
				# With IPv6 alone every flanneld has the address 0.0.0.0 in etcd, and takes the lease that another one wrote.
				[[ $store$family != etcd6 ]] || continue
				for backend in vxlan direct; do cell $versions $store $family $backend "${EVENTS[@]}"; done
				for backend in host-gw other; do cell $versions $store $family $backend "${FEW_EVENTS[@]}"; done
			done
		done
	done
fi
printf 'interop.mixed: %s\n' "${SUMMARY[@]}"
finish
