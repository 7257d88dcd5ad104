# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# A lab: nodes, pods, a switch and a router as network namespaces of this machine. Source it, then:
#
#   lab_up NAME                               switch and router; lab_down follows by itself when the script ends
#   node_add NODE --segment 1|2               segments 1 and 2 are two L2 networks joined by the router
#   agent_start NODE [twilld flags]; wait_ready NODE
#   pod_add NODE POD --style bridge|veth      needs the agent's subnet.env
#   node_exec NODE cmd... ; pod_exec NODE POD cmd...
#   agent_kill NODE; agent_stop NODE; agent_restart NODE [flags]
#   lab_down
#
# Everything is under /run/twill-lab/NAME, pins under /sys/fs/bpf/twill-lab/NAME, namespaces are called
# twl-NAME-*. Environment: TWILL_BIN (where twilld is), TWILLD_FLAGS (given to every agent), LAB_NET_CONF (net-conf.json),
# LAB_KEEP=1 (do not take the lab down when the script ends), TWILL_TIME_SCALE (multiplies every time-out: emulated CPUs).

LAB_SUPPORT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB_REPO=$(cd "$LAB_SUPPORT/../.." && pwd)
TWILL_BIN=${TWILL_BIN:-$LAB_REPO/build/dev/bin}
LAB_ROOT=/run/twill-lab
LAB_BPFFS=/sys/fs/bpf
# Nodes' subnets end before 10.42.200.0: those are for leases that tests make by hand.
LAB_NET_CONF_DEFAULT='{
  "Network": "10.42.0.0/16", "SubnetLen": 24, "SubnetMax": "10.42.199.0",
  "EnableIPv6": true, "IPv6Network": "fd00:42::/48", "IPv6SubnetLen": 64,
  "Backend": { "Type": "vxlan", "VNI": 1, "DirectRouting": true }
}'

# shellcheck source=tests/support/lab_pods.sh
. "$LAB_SUPPORT/lab_pods.sh"

lab_die() {
	echo "lab: $*" >&2
	exit 1
}

# SECONDS: as many as that takes on this machine.
scaled() { echo $(($1 * ${TWILL_TIME_SCALE:-1})); }
# Seconds between two looks at the same thing: looking is not free where time-outs are scaled.
printf -v LAB_POLL '%d.%02d' $((5 * ${TWILL_TIME_SCALE:-1} / 100)) $((5 * ${TWILL_TIME_SCALE:-1} % 100))

# --- state ------------------------------------------------------------------------------------------------------

# Makes NAME the lab that the other functions speak of.
lab_use() {
	[[ $1 =~ ^[a-z0-9][a-z0-9-]{0,30}$ ]] || lab_die "name '$1': lower case letters, digits and '-' only"
	LAB_NAME=$1
	LAB_DIR=$LAB_ROOT/$1
	LAB_PINS=$LAB_BPFFS/twill-lab/$1
}

lab_exists() { [[ -d $LAB_DIR/.lab ]]; }

node_ns() { echo "twl-$LAB_NAME-$1"; }
node_dir() { echo "$LAB_DIR/$1"; }
node_ip() { cat "$LAB_DIR/$1/ip$2"; } # NODE 4|6
node_exec() { nsenter --net="/run/netns/twl-$LAB_NAME-$1" "${@:2}"; }
lab_nodes() {
	local dir
	for dir in "$LAB_DIR"/*/ip4; do [[ -e $dir ]] && basename "$(dirname "$dir")"; done
	return 0
}

# A network namespace of the lab: written down first, so that it goes away whatever happens next.
_lab_netns() {
	echo "$1" >>"$LAB_DIR/.lab/netns"
	ip netns add "$1"
}

# Namespace, then path=value with paths below /proc/sys/net.
_lab_sysctl() {
	local ns=$1
	shift
	# shellcheck disable=SC2016 # expands in the inner shell
	nsenter --net="/run/netns/$ns" bash -c \
		'for kv; do echo "${kv#*=}" >"/proc/sys/net/${kv%%=*}" || { echo "lab: sysctl net/$kv failed" >&2; exit 1; }; done' \
		lab "$@"
}

# Processes are known by pid and start time, so that a pid used anew is never mistaken for ours. A zombie has ended. Its file
# is read once: the shell may collect it between two looks.
_lab_started() {
	local stat
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	stat=${stat##*) }
	# shellcheck disable=SC2086 # fields of a line of numbers
	set -- $stat
	[[ $1 != Z ]] && echo "${20}"
}

lab_record_pid() { echo "$1 $(_lab_started "$1")" >>"$LAB_DIR/.lab/pids"; }

_lab_alive() { # PID START
	[[ -n $2 && $(_lab_started "$1") == "$2" ]]
}

# Runs a command in the background in a namespace of the lab (NODE or NODE-POD); its pid is in LAB_PID.
lab_spawn() {
	local ns=$1
	shift
	nsenter --net="/run/netns/twl-$LAB_NAME-$ns" "$@" &
	LAB_PID=$!
	lab_record_pid "$LAB_PID"
}

# --- up and down ------------------------------------------------------------------------------------------------

lab_up() {
	[[ $EUID == 0 ]] || lab_die "makes network namespaces and loads BPF programs: run it as root"
	lab_use "$1"
	lab_exists && lab_die "lab $1 is up already: ./dev lab down $1"
	[[ ${LAB_KEEP:-} ]] || lab_trap
	mkdir -p "$LAB_DIR/.lab" "$LAB_DIR/store"
	_lab_modules
	_lab_bpffs_take
	printf '%s\n' "${LAB_NET_CONF:-$LAB_NET_CONF_DEFAULT}" >"$LAB_DIR/store/config"
	_lab_underlay
}

lab_trap() {
	trap lab_down EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	trap 'exit 141' PIPE
}

# Kernels with modules may not have these loaded; those with everything built in have nothing to load. Bridges of other
# namespaces must not start to pass through netfilter because of us.
_lab_modules() {
	local before=yes key
	command -v modprobe >/dev/null || return 0
	[[ -d /proc/sys/net/bridge ]] || before=no
	modprobe -qa br_netfilter nf_conntrack vxlan sch_ingress cls_bpf 2>/dev/null || :
	if [[ $before == no && -d /proc/sys/net/bridge ]]; then
		for key in iptables ip6tables arptables; do echo 0 >"/proc/sys/net/bridge/bridge-nf-call-$key"; done
	fi
}

_lab_underlay() {
	local sw="twl-$LAB_NAME-switch" router="twl-$LAB_NAME-router"
	_lab_netns "$sw"
	_lab_netns "$router"
	_lab_sysctl "$sw" ipv6/conf/all/disable_ipv6=1 ipv6/conf/default/disable_ipv6=1
	_lab_bridge_nf "$sw" 0
	_lab_sysctl "$router" ipv4/ip_forward=1 ipv6/conf/all/forwarding=1 ipv6/conf/default/accept_dad=0 \
		ipv4/conf/all/rp_filter=0 ipv4/conf/default/rp_filter=0
	ip -n "$sw" -batch - <<-END
		link set dev lo up
		link add seg1 type bridge mcast_snooping 0
		link add seg2 type bridge mcast_snooping 0
		link set dev seg1 up
		link set dev seg2 up
		link add router1 type veth peer name seg1 netns $router
		link add router2 type veth peer name seg2 netns $router
		link set dev router1 master seg1 up
		link set dev router2 master seg2 up
	END
	ip -n "$router" -batch - <<-END
		link set dev lo up
		link set dev seg1 up
		link set dev seg2 up
		addr add 192.0.2.1/24 dev seg1
		addr add 198.51.100.1/24 dev seg2
		addr add 2001:db8:1::1/64 dev seg1 nodad
		addr add 2001:db8:2::1/64 dev seg2 nodad
	END
}

# Whether bridges of a namespace pass through netfilter, where the kernel has br_netfilter.
_lab_bridge_nf() {
	[[ -d /proc/sys/net/bridge ]] || return 0
	_lab_sysctl "$1" "bridge/bridge-nf-call-iptables=$2" "bridge/bridge-nf-call-ip6tables=$2"
}

# bpffs may have to be mounted, for this lab or for one that runs beside it; the last one undoes it.
_lab_bpffs_take() {
	(
		flock 9
		if [[ $(stat -f -c %T "$LAB_BPFFS") != bpf_fs ]]; then
			mount -t bpf bpf "$LAB_BPFFS"
			touch "$LAB_ROOT/.mounted-bpffs"
		fi
		mkdir -p "$LAB_PINS"
	) 9</run
}

_lab_bpffs_release() {
	(
		flock 9
		rm -rf "$LAB_PINS" "$LAB_DIR"
		rmdir "$LAB_BPFFS/twill-lab" 2>/dev/null || :
		if [[ -e $LAB_ROOT/.mounted-bpffs && -z $(ls "$LAB_ROOT") && -z $(find "$LAB_BPFFS" -mindepth 1 ! -name "*.debug") ]]; then
			umount "$LAB_BPFFS" 2>/dev/null && rm -f "$LAB_ROOT/.mounted-bpffs"
		fi
		[[ -e $LAB_ROOT/.mounted-bpffs ]] || rmdir "$LAB_ROOT" 2>/dev/null || :
	) 9</run
}

# Takes everything away. May be called at any time, twice, or from another process than lab_up.
lab_down() {
	local pid start ns
	trap '' INT TERM HUP PIPE
	disown -a 2>/dev/null || :
	[[ -n ${LAB_DIR:-} && -d $LAB_DIR ]] || return 0
	if [[ -e $LAB_DIR/.lab/pids ]]; then
		while read -r pid start; do
			if _lab_alive "$pid" "$start"; then kill -KILL "$pid" 2>/dev/null || :; fi
		done <"$LAB_DIR/.lab/pids"
	fi
	if [[ -e $LAB_DIR/.lab/netns ]]; then
		while read -r ns; do ip netns del "$ns" 2>/dev/null || :; done <"$LAB_DIR/.lab/netns"
	fi
	_lab_bpffs_release
}

# --- nodes ------------------------------------------------------------------------------------------------------

# node_add NODE --segment 1|2
node_add() {
	local node=$1 segment=1 net4 net6 index
	[[ ${2:-} == --segment ]] && segment=$3
	case $segment in
	1) net4=192.0.2 net6=2001:db8:1: ;;
	2) net4=198.51.100 net6=2001:db8:2: ;;
	*) lab_die "segment $segment: 1 or 2" ;;
	esac
	index=$((10 + $(lab_nodes | wc -l)))
	_node_new "$node" "$net4.$index" "$net6:$index"
	ip -n "$(node_ns "$node")" link add eth0 type veth peer name "$node" netns "twl-$LAB_NAME-switch"
	_node_wire "$node" "$net4.1" "$net6:1"
	ip -n "twl-$LAB_NAME-switch" link set dev "$node" master "seg$segment" up
	_node_kube_proxy "$node"
}

# node_pair A B: two nodes with one cable between them, no switch, each the other's router. Pairs do not know of each other.
node_pair() {
	_node_new "$1" 192.0.2.10 2001:db8:1::10
	_node_new "$2" 192.0.2.11 2001:db8:1::11
	ip -n "$(node_ns "$1")" link add eth0 type veth peer name eth0 netns "$(node_ns "$2")"
	_node_wire "$1" 192.0.2.11 2001:db8:1::11
	_node_wire "$2" 192.0.2.10 2001:db8:1::10
	_node_kube_proxy "$1"
	_node_kube_proxy "$2"
}

# _node_new NODE IPV4 IPV6: its namespace and its place on disk.
_node_new() {
	local ns dir
	ns=$(node_ns "$1")
	dir=$(node_dir "$1")
	mkdir -p "$dir/cni/networks/cbr0" "$dir/cni/results" "$dir/pods"
	echo "$2" >"$dir/ip4"
	echo "$3" >"$dir/ip6"
	_lab_netns "$ns"
	# What a Kubernetes node on Debian has; accept_dad saves the second that IPv6 addresses would wait.
	_lab_sysctl "$ns" ipv4/ip_forward=1 ipv6/conf/all/forwarding=1 ipv6/conf/default/forwarding=1 \
		ipv4/conf/all/rp_filter=1 ipv4/conf/default/rp_filter=1 \
		ipv6/conf/all/accept_dad=0 ipv6/conf/default/accept_dad=0
	_lab_bridge_nf "$ns" 1
}

# _node_wire NODE ROUTER4 ROUTER6: addresses and default routes on its eth0.
_node_wire() {
	ip -n "$(node_ns "$1")" -batch - <<-END
		link set dev lo up
		link set dev eth0 up
		addr add $(node_ip "$1" 4)/24 dev eth0
		addr add $(node_ip "$1" 6)/64 dev eth0 nodad
		route add default via $2 dev eth0
		route add default via $3 dev eth0
	END
}

# The rule of kube-proxy that drops what conntrack finds invalid: half-seen flows die of it.
_node_kube_proxy() {
	local tool
	for tool in iptables ip6tables; do
		if command -v "$tool" >/dev/null; then
			node_exec "$1" "$tool" -w -N KUBE-FORWARD
			node_exec "$1" "$tool" -w -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
			node_exec "$1" "$tool" -w -A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
		else
			node_exec "$1" nft -f - <<-END
				table ${tool/tables/} kube-proxy-forward {
					chain forward {
						type filter hook forward priority 0; policy accept;
						ct state invalid drop
					}
				}
			END
		fi
	done
}

# --- the agent --------------------------------------------------------------------------------------------------

# agent_start NODE [twilld flags]
agent_start() {
	local node=$1 dir flags=() start
	dir=$(node_dir "$node")
	read -ra flags <<<"${TWILLD_FLAGS:-}"
	[[ -x $TWILL_BIN/twilld ]] || lab_die "no $TWILL_BIN/twilld: ./dev build"
	nsenter --net="/run/netns/$(node_ns "$node")" "$TWILL_BIN/twilld" \
		-store "file://$LAB_DIR/store" -node "$node" -subnet-file "$dir/subnet.env" -socket "$dir/twill.sock" \
		-cni-state-dir "$dir/cni" -bpf-root "$LAB_PINS/$node" "${flags[@]}" "${@:2}" >>"$dir/log" 2>&1 9>&- &
	start=$!
	disown "$start" # the shell need not tell when it is killed
	lab_record_pid "$start"
	tail -n1 "$LAB_DIR/.lab/pids" >"$dir/agent.pid"
}

_agent_signal() { # NODE SIGNAL: sends it and waits until the process is gone
	local pid start i tries=$(($(scaled 5) * 100))
	read -r pid start <"$(node_dir "$1")/agent.pid" || return 0
	_lab_alive "$pid" "$start" || return 0
	kill "-$2" "$pid" 2>/dev/null || return 0 # it ended by itself just now
	for ((i = 0; i < tries; i++)); do
		_lab_alive "$pid" "$start" || break
		sleep 0.01
	done
	((i < tries)) || lab_die "twilld of $1 did not end within $(scaled 5) s of SIG$2"
}

agent_kill() { _agent_signal "$1" KILL; }
agent_stop() { _agent_signal "$1" TERM; }

# SIGTERM, start again, ready again.
agent_restart() {
	agent_stop "$1"
	agent_start "$@"
	wait_ready "$1"
}

# The three nodes of the demo and of most tests: node-a and node-b on one L2, node-c behind the router; two pods on
# node-a, pods of node-b routed, the others behind cni0.
lab_three_nodes() {
	local node
	node_add node-a --segment 1
	node_add node-b --segment 1
	node_add node-c --segment 2
	for node in node-a node-b node-c; do agent_start "$node"; done
	for node in node-a node-b node-c; do wait_ready "$node"; done
	pod_add node-a pod-a1 --style bridge
	pod_add node-a pod-a2 --style bridge
	pod_add node-b pod-b1 --style veth
	pod_add node-c pod-c1 --style bridge
}

agent_alive() {
	local pid start
	read -r pid start <"$(node_dir "$1")/agent.pid" && _lab_alive "$pid" "$start"
}

# node_ctl NODE args...: twillctl against that node's agent and pins.
node_ctl() {
	node_exec "$1" env "PATH=$TWILL_BIN:$PATH" "TWILL_BPF_ROOT=$LAB_PINS/$1" \
		twillctl --socket "$(node_dir "$1")/twill.sock" "${@:2}"
}

# wait_ready NODE [SECONDS]. A node that is ready but degraded (status ends 1) is given a second to get over it.
wait_ready() {
	local node=$1 tries=$((${2:-15} * 20)) i text code patience=20
	for ((i = 0; i < tries; i++)); do
		code=0
		text=$(node_ctl "$node" -o json status 2>/dev/null) || code=$?
		if [[ ${text//[[:space:]]/} == *'"ready":true'* ]] && ((code == 0 || patience-- == 0)); then return 0; fi
		agent_alive "$node" || break
		sleep "$LAB_POLL"
	done
	echo "lab: twilld of $node is not ready; the end of its log:" >&2
	tail -n 20 "$(node_dir "$node")/log" >&2
	return 1
}

# wait_until SECONDS command...: repeats the command, quietly, until it succeeds.
wait_until() {
	local tries=$(($1 * 20)) i
	shift
	for ((i = 0; i < tries; i++)); do
		if "$@" >/dev/null 2>&1; then return 0; fi
		sleep "$LAB_POLL"
	done
	return 1
}
