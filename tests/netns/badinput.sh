#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Bad input: a config error ends twilld with exit 1 and one line that names file, key, value and what is allowed; a junk
# lease costs that lease only, is shown, and heals.
. "$(dirname "$0")/lib.sh"

test_lab
node_add node-a --segment 1
CONFIG=$LAB_DIR/store/config
GOOD=$(<"$CONFIG")

# Runs twilld until it ends by itself; prints the exit code, then what it said.
run_twilld() {
	local code=0 flags=()
	read -ra flags <<<"${TWILLD_FLAGS:-}"
	node_exec node-a timeout 10 "$TWILL_BIN/twilld" -store "file://$LAB_DIR/store" -node node-a \
		-subnet-file "$LAB_DIR/node-a/subnet.env" -socket "$LAB_DIR/node-a/twill.sock" -cni-state-dir "$LAB_DIR/node-a/cni" \
		-bpf-root "$LAB_PINS/node-a" "${flags[@]}" "$@" >"$LAB_DIR/.lab/out" 2>&1 || code=$?
	echo "$code"
}

# refused CODE WORDS... : the last run ended with 1 and one line of error, which has all the words.
refused() {
	local code=$1 word last
	shift
	last=$(grep -v ' info ' "$LAB_DIR/.lab/out" || :)
	[[ $code == 1 ]] || { echo "exit code $code"; cat "$LAB_DIR/.lab/out"; return 1; }
	for word in "$@"; do
		[[ $last == *"$word"* ]] || { echo "'$word' is not in: $last"; return 1; }
	done
	[[ $(wc -l <<<"$last") == 1 ]] || { echo "more than one line: $last"; return 1; }
}

config() { # WHAT CONFIG WORDS...
	echo "$2" >"$CONFIG"
	check "config: $1 is refused" refused "$(run_twilld)" "$CONFIG" "${@:3}"
}

config "no JSON" '{"Network": "10.42.0.0/16",' "$CONFIG"
config "a number as Network" '{"Network": 10, "Backend": {"Type": "vxlan"}}' Network 10
config "a Network that is no CIDR" '{"Network": "10.42.0.0/33", "Backend": {"Type": "vxlan"}}' Network 10.42.0.0/33
config "no Network" '{"Backend": {"Type": "vxlan"}}' Network
config "SubnetLen 31" '{"Network": "10.42.0.0/16", "SubnetLen": 31, "Backend": {"Type": "vxlan"}}' SubnetLen 31
config "SubnetMin outside of Network" '{"Network": "10.42.0.0/16", "SubnetMin": "10.43.0.0", "Backend": {"Type": "vxlan"}}' SubnetMin 10.43.0.0
config "an IPv6SubnetLen too long" '{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:42::/48", "IPv6SubnetLen": 127, "Backend": {"Type": "vxlan"}}' IPv6SubnetLen 127
config "an unknown backend" '{"Network": "10.42.0.0/16", "Backend": {"Type": "carrier-pigeon"}}' Type carrier-pigeon vxlan
config "a VNI of 25 bits" '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "VNI": 16777216}}' VNI 16777216
config "a port of 17 bits" '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "Port": 65536}}' Port 65536
config "both families off" '{"Network": "10.42.0.0/16", "EnableIPv4": false, "Backend": {"Type": "vxlan"}}' EnableIPv4
config "an unknown key inside Twill" '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}, "Twill": {"fastPaht": "on"}}' Twill fastPaht
config "a bad value inside Twill" '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}, "Twill": {"antiSpoof": "maybe"}}' antiSpoof maybe strict
echo "$GOOD" >"$CONFIG"

check "flag: a bad value of -fast-path is refused" refused "$(run_twilld -fast-path=sometimes)" fast-path sometimes auto
check "flag: an unknown feature is refused" refused "$(run_twilld -feature warp=on)" feature warp tcx
check "flag: an interface that is not there is refused" refused "$(run_twilld -iface nosuch0)" nosuch0
check "flag: an unknown flag is usage, exit 2" same 2 "$(run_twilld -no-such-flag)"
check "a store of an unknown kind is refused" refused "$(run_twilld -store carrier://pigeon)" carrier://pigeon
check "after all of it nothing is left: no overlay device" same "" "$(ip -n "$(node_ns node-a)" -o link show type vxlan)"

# --- junk leases
agent_start node-a
wait_ready node-a
LEASES=$LAB_DIR/store/leases
lease() { # SUBNET PUBLIC-IP
	echo "{\"PublicIP\":\"$2\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":{\"VNI\":1,\"VtepMAC\":\"0e:00:00:00:00:01\"},\"Subnet\":\"$1\",\"Node\":\"by-hand\"}"
}
put() { # KEY CONTENT
	echo "$2" >"$LAB_DIR/.lab/lease"
	mv "$LAB_DIR/.lab/lease" "$LEASES/$1.json"
}
is_bad() { wait_until 3 status_is node-a "[.bad_leases[].key] | contains([\"$1\"])"; }
is_peer() { wait_until 3 items_are node-a peers "map(.pods) | contains([\"$1\"])"; }

put 10.42.201.0-24 "$(lease 10.42.201.0/24 192.0.2.201)"
put 10.42.202.0-24 '{ not JSON'
put 10.42.203.0-24 "$(lease 10.42.203.0/24 192.0.2.999)"
put 10.42.204.0-24 '{"PublicIP":"192.0.2.204","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"zz"},"Subnet":"10.42.204.0/24"}'
put 'no-key-at-all' "$(lease 10.42.205.0/24 192.0.2.205)"
for key in 10.42.202.0-24 10.42.203.0-24 10.42.204.0-24 no-key-at-all; do check "the junk lease $key is shown" is_bad "$key"; done
check "each says why" status_is node-a '[.bad_leases[].why] | all(length > 5)'
check "the good one beside them is a peer" is_peer 10.42.201.0/24
check "status is degraded or unhealthy, but the agent is ready" status_is node-a .ready
put 10.42.202.0-24 "$(lease 10.42.202.0/24 192.0.2.202)"
check "a junk lease heals when it is corrected: a peer" is_peer 10.42.202.0/24
check "and is no longer shown as junk" wait_until 3 status_is node-a '[.bad_leases[].key] | contains(["10.42.202.0-24"]) | not'
put 10.42.201.0-24 'junk'
check "a good lease that turns into junk is shown" is_bad 10.42.201.0-24
check "the agent lives" agent_alive node-a
finish
