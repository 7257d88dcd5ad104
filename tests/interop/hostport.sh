#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# hostPort: the CNI plugins bridge and portmap, as flannel's CNI chain runs them, beside twilld -ip-masq. portmap's rules are the only
# ones, and each of the two translates its own packets: one source at a time, as the pod's server sees it.
. "$(dirname "$0")/../netns/lib.sh"
CNI=${TWILL_CNI_PLUGINS:-/usr/lib/cni}
for plugin in bridge host-local portmap; do
	[[ -x $CNI/$plugin ]] || skip "missing: $CNI/$plugin (Debian package containernetworking-plugins, or TWILL_CNI_PLUGINS)"
done
for tool in iptables ip6tables ss; do command -v "$tool" >/dev/null || skip "missing: $tool"; done

test_lab
node_add node-a
node_add node-b
for node in node-a node-b; do agent_start "$node" -ip-masq; done
for node in node-a node-b; do wait_ready "$node"; done
STATE=$LAB_DIR/.lab
A=$(node_ns node-a)
HOSTPORT=8080 SERVER=5001 # the pod's server, TCP and UDP
declare -A ROUTER=([4]=192.0.2.1 [6]=2001:db8:1::1)

# --- a pod by the plugins ---------------------------------------------------------------------------------------------------------

# cni COMMAND POD: ADD or DEL by both plugins in turn. What the first one says is what the second one is given, as a runtime does.
cni() {
	local pod=$2 first second
	first=$(jq -n --arg v4 "$SUBNET4" --arg v6 "$SUBNET6" --arg dir "$STATE/host-local" '
		{cniVersion: "1.0.0", name: "cbr0", type: "bridge", bridge: "cni0", isGateway: true, isDefaultGateway: true, ipMasq: false,
			hairpinMode: true, mtu: 1450, ipam: {type: "host-local", dataDir: $dir, ranges: [[{subnet: $v4}], [{subnet: $v6}]]}}')
	second=$(jq -n --argjson host "$HOSTPORT" --argjson server "$SERVER" '
		{cniVersion: "1.0.0", name: "cbr0", type: "portmap", capabilities: {portMappings: true},
			runtimeConfig: {portMappings: [{hostPort: $host, containerPort: $server, protocol: "tcp"},
				{hostPort: $host, containerPort: $server, protocol: "udp"}]}}')
	if [[ $1 == ADD ]]; then
		plugin bridge ADD "$pod" <<<"$first" >"$STATE/$pod.result" || return
		jq --slurpfile result "$STATE/$pod.result" '.prevResult = $result[0]' <<<"$second" | plugin portmap ADD "$pod"
	else
		jq --slurpfile result "$STATE/$pod.result" '.prevResult = $result[0]' <<<"$second" | plugin portmap DEL "$pod"
		plugin bridge DEL "$pod" <<<"$first"
	fi
}
plugin() { # PLUGIN COMMAND POD
	node_exec node-a env CNI_COMMAND="$2" CNI_CONTAINERID="$LAB_NAME-$3" CNI_NETNS="/run/netns/$(pod_ns node-a "$3")" CNI_IFNAME=eth0 \
		CNI_PATH="$CNI" "$CNI/$1"
}

SUBNET4=$(node_exec node-a sh -c ". '$LAB_DIR/node-a/subnet.env'; echo \$FLANNEL_SUBNET" | sed 's/\.1\//.0\//')
SUBNET6=$(node_exec node-a sh -c ". '$LAB_DIR/node-a/subnet.env'; echo \$FLANNEL_IPV6_SUBNET" | sed 's/::1\//::\//')
for pod in web other; do
	_lab_netns "$(pod_ns node-a "$pod")"
	_lab_sysctl "$(pod_ns node-a "$pod")" ipv6/conf/all/accept_dad=0 ipv6/conf/default/accept_dad=0
done
check "the plugins make a pod with a hostPort" cni ADD web
HOSTPORT=8081 SERVER=5001 check "and one with another" cni ADD other
cni_ip() { jq -r --arg colon "$([[ $2 == 6 ]] && echo true || echo false)" '.ips[].address | select(contains(":") == ($colon == "true")) | split("/")[0]' "$STATE/$1.result"; }
for pod in web other; do
	lab_record_pid "$(pod_exec node-a "$pod" "$TRAFFIC" server :: "$SERVER" --background)"
done
pod_add node-b pod-b --style bridge
lab_record_pid "$(node_exec router "$TRAFFIC" server :: 5001 --background)"

# --- who the server sees ----------------------------------------------------------------------------------------------------------

# seen NODE|NODE POD: sources of the connections to the server there.
seen() {
	nsenter --net="/run/netns/twl-$LAB_NAME-${1/ /-}" ss -Hnt state established "( sport = :5001 )" |
		awk '{ sub(/:[0-9]*$/, "", $NF); gsub(/[][]|::ffff:/, "", $NF); print $NF }' | sort -u | xargs
}
sees() { [[ $(seen "$1") == "$2" ]]; }

# comes_as CLIENT SERVER ADDRESS PORT SOURCE: a connection of the client is seen by the server to come from SOURCE, goes on while it
# is open, and ends well. "a b" is pod b of node a.
comes_as() {
	local pid found='' file
	file="$STATE/comes-$1-$3-$4"
	lab_spawn "${1/ /-}" "$TRAFFIC" tcp-rr "$3" "$4" --until-signal --json >"$file" 2>&1
	pid=$LAB_PID
	wait_until "$(scaled 10)" sees "$2" "$5" || found="seen: '$(seen "$2")', not '$5'"
	kill -TERM "$pid" 2>/dev/null || :
	wait "$pid" || found+=" the connection failed: $(<"$file")"
	wait_until "$(scaled 10)" sees "$2" "" || found+=" not closed: $(seen "$2")"
	[[ -z $found ]] || { echo "$found"; return 1; }
}
# Datagrams there and back.
answers() { nsenter --net="/run/netns/twl-$LAB_NAME-${1/ /-}" "$TRAFFIC" udp-flood "$2" "$3" --rate 100 --seconds 0.5 --timeout "$(scaled 10)"; }

flows_of() { node_ctl node-a -o json nat list --pod "$1" | jq -r '.items[] | select(.plain | not) | "\(.pod):\(.pod_port)"'; }

for family in 4 6; do
	node=$(node_ip node-a "$family") web=$(cni_ip web "$family") gateway=$(ip -n "$A" -j addr show dev cni0 | jq -r --arg family "$family" \
		'.[].addr_info[] | select(.family == (if $family == "4" then "inet" else "inet6" end) and .scope == "global") | .local')
	check "IPv$family: from outside to the hostPort, TCP: the pod sees the client itself" \
		comes_as router "node-a web" "$node" 8080 "${ROUTER[$family]}"
	check "IPv$family: UDP" answers router "$node" 8080
	check "IPv$family: replies of a hostPort are no flow of masquerade" same "" "$(flows_of "$(if [[ $family == 6 ]]; then echo "[$web]"; else echo "$web"; fi):5001")"
	check "IPv$family: the pod to its own hostPort: by portmap's address, the bridge's" comes_as "node-a web" "node-a web" "$node" 8080 "$gateway"
	check "IPv$family: UDP" answers "node-a web" "$node" 8080
	check "IPv$family: another pod of the node to it" comes_as "node-a other" "node-a web" "$node" 8080 "$gateway"
	check "IPv$family: the node itself" comes_as node-a "node-a web" "$node" 8080 "$node"
	check "IPv$family: a pod of another node to it: by that node's address" \
		comes_as "node-b pod-b" "node-a web" "$node" 8080 "$(node_ip node-b "$family")"
	check "IPv$family: UDP" answers "node-b pod-b" "$node" 8080
	check "IPv$family: beside it the pod's own connections to outside are masqueraded" comes_as "node-a web" router "${ROUTER[$family]}" 5001 "$node"
	check "IPv$family: and those of another pod to its hostPort's number elsewhere" answers "node-a other" "${ROUTER[$family]}" 5001
done

# In the tables that translate, and of the tools that twill would have to use.
rules() { node_exec node-a sh -c 'iptables-save -t nat; ip6tables-save -t nat' | grep '^-A' | grep -v 'CNI-' || :; }
check "no rule translates but portmap's" same "" "$(rules)"
for pod in web other; do
	HOSTPORT=$([[ $pod == web ]] && echo 8080 || echo 8081) check "$pod goes" cni DEL "$pod"
done
check "and its rules with it" same "" "$(node_exec node-a sh -c 'iptables-save -t nat; ip6tables-save -t nat' | grep -e '--dport 808' || :)"
finish
