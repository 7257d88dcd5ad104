#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The disk under the store is full when a lease must be renewed: the agent says so, keeps lease and traffic, also over a
# restart; no file is damaged; a new node waits; and all of it is well once there is room.
. "$(dirname "$0")/lib.sh"
need mountpoint

STORE=''
cleanup() {
	[[ -z $STORE ]] || umount -l "$STORE" 2>/dev/null || :
	lab_down
}

lease_file() { grep -l "\"Node\":\"$1\"" "$STORE"/leases/*.json; }
lease_left() { # NODE: seconds until it expires
	echo $(($(date -d "$(jq -r .Expiration "$(lease_file "$1")")" +%s) - $(date +%s)))
}
left_is_over() { [[ $(lease_left "$1") -gt $2 ]] || { echo "$(lease_left "$1") s"; return 1; }; }

# As if the lease of NODE had been made long ago. Prepared while there is room.
prepare_old() { # NODE
	jq -c --arg at "$(date -u -d '+20 minutes' +%Y-%m-%dT%H:%M:%SZ)" '.Expiration = $at' "$(lease_file "$1")" >"$STORE/old-$1"
}
make_old() { mv "$STORE/old-$1" "$(lease_file "$1")"; }

fill() {
	dd if=/dev/zero of="$STORE/fill" bs=4k 2>/dev/null || :
	local i # and the inodes
	for ((i = 0; i < 2000; i++)); do : 2>/dev/null >"$STORE/inode-$i" || break; done
}
make_room() { rm -f "$STORE"/fill "$STORE"/inode-*; }

told_full() { status_is "$1" '(.store.healthy | not) and (.store.error | contains("No space left on device"))'; }
told_well() { status_is "$1" .store.healthy; }
leases_whole() {
	local file
	for file in "$STORE"/leases/*.json "$STORE"/twill/*.json; do jq -e . "$file" >/dev/null || { echo "$file"; return 1; }; done
}

test_lab
trap cleanup EXIT
STORE=$LAB_DIR/store
config=$(<"$STORE/config")
mount -t tmpfs -o size=512k,nr_inodes=200 tmpfs "$STORE" || skip "missing: tmpfs"
echo "$config" >"$STORE/config"
lab_three_nodes
pod_serve node-c pod-c1
reachable "node-a pod-a1" "node-c pod-c1"
key=$(status node-a .lease.key)
mac=$(status node-a .overlay.mac)
prepare_old node-a
flood_start vxlan "node-a pod-a1" "$(pod_ip node-c pod-c1 4)" 500

# The file of now is kept open: what takes its name must not leave room for the next one.
# shellcheck disable=SC2034 # nobody reads it
exec {kept}<"$(lease_file node-a)"
fill
check "the disk is full" not cp "$STORE/config" "$STORE/copy"
make_old node-a
check "a renewal fails, and the agent says so" wait_until "$SOON" told_full node-a
check "the log has it too" said node-a "No space left on device"
check "the agent lives" agent_alive node-a
check "it is ready still" status_is node-a .ready
check "it keeps its lease" same "$key" "$(status node-a .lease.key)"
check "all files are whole" leases_whole
check "others keep it as a peer" items_are node-c peers "any(.[]; .node == \"$(node_ip node-a 4)\")"

# The next agent finds its own lease, which is good for 20 minutes, and cannot write it.
agent_kill node-a
agent_start node-a
# twillctl status ends 1 while the store is in trouble.
check "a restarted agent is ready with the lease that there is" wait_until "$(scaled 15)" status_is node-a .ready
check "the restarted agent keeps lease and MAC" same "$key $mac" "$(status node-a .lease.key) $(status node-a .overlay.mac)"
check "the restarted agent says so too" wait_until "$SOON" told_full node-a
check "pods reach each other" reachable "node-a pod-a1" "node-c pod-c1"

node_add node-d --segment 1
agent_start node-d
check "a node without a lease is told why it has none" wait_until "$SOON" said node-d "No space left on device"
check "it waits" agent_alive node-d
check "and is not ready" status_is node-d '.ready | not'

make_room
SECONDS=0
check "with room the lease is renewed" wait_until "$(scaled 40)" left_is_over node-a 80000
check "with room the store is well" wait_until "$(scaled 40)" told_well node-a
check "with room the new node is ready" wait_until "$(scaled 40)" status_is node-d .ready
echo "well again after $SECONDS s"
check "all files are whole" leases_whole
check "no temporary file is left" same "" "$(find "$STORE" -name '.*.twill-tmp')"
flood_end
check "no packet between pods was lost" same 0 "$LOST"

finish
