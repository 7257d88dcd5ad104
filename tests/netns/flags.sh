#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A node that is set up as flannel's are, by flags and by variables: health server, choice of the interface, subnet.env,
# what is kept over a reboot, what is refused.
. "$(dirname "$0")/lib.sh"

# start NODE [VARIABLE=VALUE...] [-- flags]: nothing else is given, neither by lab.sh nor by the environment of the test.
start() {
	local node=$1 dir vars=()
	shift
	dir=$(node_dir "$node")
	while [[ $# != 0 && $1 != -- ]]; do
		vars+=("$1")
		shift
	done
	[[ $# == 0 ]] || shift
	: >"$dir/log"
	lab_spawn "$node" env -i "PATH=$PATH" TWILL_STORE="file://$LAB_DIR/store" TWILL_NODE="$node" TWILL_SOCKET="$dir/twill.sock" \
		TWILL_BPF_ROOT="$LAB_PINS/$node" TWILL_CNI_STATE_DIR="$dir/cni" FLANNELD_SUBNET_FILE="$dir/subnet.env" \
		"${vars[@]}" ${LIMIT:+timeout "$LIMIT"} "$TWILL_BIN/twilld" "$@" >>"$dir/log" 2>&1
	[[ ${LIMIT:-} ]] || disown "$LAB_PID"
	tail -n1 "$LAB_DIR/.lab/pids" >"$dir/agent.pid"
}

# refuses TEXT [VARIABLE=VALUE...] [-- flags]: ends with exit 1, and a line of the log has the text.
refuses() {
	local text=$1 code=0 dir
	dir=$(node_dir node-a)
	shift
	LIMIT=$(scaled 20) start node-a "$@"
	wait "$LAB_PID" || code=$?
	same 1 "$code" || return 1
	grep -F -- "$text" "$dir/log" && return
	cat "$dir/log"
	return 1
}

# http NODE ADDRESS PORT PATH: status and body of a GET.
http() {
	# shellcheck disable=SC2016 # expands in the inner shell
	node_exec "$1" bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf "GET %s HTTP/1.0\r\n\r\n" "$2" >&3 && cat <&3' "$2" "$3" "$4" 2>/dev/null |
		tr -d '\r' | awk 'NR == 1 { code = $2 } body { text = text $0 } /^$/ { body = 1 } END { print code, text }'
}
starts() { [[ $2 == "$1"* ]] || same "$1..." "$2"; }
http_is() { same "$1" "$(http "${@:2}")"; }

test_lab
node_add node-a --segment 1
DIR=$(node_dir node-a)
LEASES=$LAB_DIR/store/leases
lease() { # SUBNET PUBLIC-IP
	echo "{\"PublicIP\":\"$2\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":{\"VNI\":1,\"VtepMAC\":\"0e:00:00:00:00:01\"},\"Subnet\":\"$1\"}"
}

# --- health server: there before the configuration is; ready when every lease is programmed or pending
mkdir -p "$LEASES"
for i in {101..140}; do lease "10.42.$i.0/24" "198.51.100.$i" >"$LEASES/10.42.$i.0-24.json"; done
lease 10.42.200.0/24 203.0.113.200 >"$LEASES/10.42.200.0-24.json"
echo junk >"$LEASES/10.42.201.0-24.json"
node_exec node-a ip route add unreachable 203.0.113.0/24
mv "$LAB_DIR/store/config" "$LAB_DIR/.lab/config"
start node-a FLANNELD_HEALTHZ_PORT=8081 FLANNELD_IP_MASQ=true
check "/healthz answers while there is no configuration" wait_until "$(scaled 5)" http_is "200 flanneld is running" node-a 127.0.0.1 8081 /healthz
check "/readyz says that the node is not ready" http_is "503 flanneld is not ready yet" node-a 127.0.0.1 8081 /readyz
check "0.0.0.0 means IPv6 as well" http_is "200 flanneld is running" node-a ::1 8081 /healthz
check "the health server tells nothing else" starts 404 "$(http node-a 127.0.0.1 8081 /v1/status)"
cp "$LAB_DIR/.lab/config" "$LAB_DIR/store/config"
check "/readyz says when it is" wait_until "$(scaled 10)" http_is "200 flanneld is ready" node-a 127.0.0.1 8081 /readyz
check "then every lease is a peer or pending" same "40 peers, 10.42.200.0/24 pending" \
	"$(status node-a '"\(.peers.programmed) peers, \([.pending[].pods] | join(" ")) pending"')"
check "and junk costs itself only" status_is node-a '[.bad_leases[].key] == ["10.42.201.0-24"]'
rm -f "$LEASES"/10.42.{1[0-4][0-9],200,201}.0-24.json

# --- subnet.env
v4=$(status node-a '.lease.pods[0]') v6=$(status node-a '.lease.pods[1]')
expected="FLANNEL_NETWORK=10.42.0.0/16
FLANNEL_SUBNET=${v4/.0\//.1/}
FLANNEL_IPV6_NETWORK=fd00:42::/48
FLANNEL_IPV6_SUBNET=${v6/::\//::1/}
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true"
check "subnet.env is flannel's, to the letter" same "$expected" "$(cat "$DIR/subnet.env")"
check "its mode is 0644" same 644 "$(stat -c %a "$DIR/subnet.env")"
check "-ip-masq is done by programs" same 1 "$(status node-a '[.attachments[] | select(.program == "tw_to_wire" and .interface == "eth0")] | length')"
check "and nothing is said to be missing" status_is node-a '[.warnings[] | select(startswith("masquerade"))] == []'

# --- over a reboot
mac=$(status node-a .overlay.mac)
agent_stop node-a
ip -n "$(node_ns node-a)" link del twill0
rm -rf "${LAB_PINS:?}/node-a" "$DIR/subnet.env"
start node-a
wait_ready node-a
check "after a reboot the VTEP has its MAC of before" same "$mac" "$(status node-a .overlay.mac)"
check "and the node its pod CIDR" same "$v4" "$(status node-a '.lease.pods[0]')"
check "which is written again" same "FLANNEL_SUBNET=${v4/.0\//.1/} FLANNEL_IPMASQ=false" \
	"$(grep -E '^FLANNEL_(SUBNET|IPMASQ)=' "$DIR/subnet.env" | xargs)"
check "without -healthz-port nobody listens" same " " "$(http node-a 127.0.0.1 8081 /healthz)"

# --- taken over from flannel, whose node has a MAC for each family
key=$(status node-a .lease.key)
agent_stop node-a
ip -n "$(node_ns node-a)" link del twill0
jq -c '.BackendData.VtepMAC = "0e:00:00:00:00:44" | .BackendV6Data.VtepMAC = "0e:00:00:00:00:66"' "$LEASES/$key.json" >"$LAB_DIR/.lab/lease"
mv "$LAB_DIR/.lab/lease" "$LEASES/$key.json"
start node-a
wait_ready node-a
# Constants of the programs in which both stand side by side.
takes_both() {
	local id
	for id in $(bpftool -j map show | jq '.[] | select(.name == "twill_dp.rodata") | .id'); do
		bpftool -j map dump id "$id" || : # gone by now
	done | tr -d '" ' | grep -F '0x0e,0x00,0x00,0x00,0x00,0x44,0x0e,0x00,0x00,0x00,0x00,0x66' >/dev/null
}
both_macs() { jq -r '"\(.BackendData.VtepMAC) \(.BackendV6Data.VtepMAC)"' "$LEASES/$key.json"; }
for start in "taken over" "started again"; do
	check "$start: of two MACs IPv4's is the device's" same "0e:00:00:00:00:44" "$(status node-a .overlay.mac)"
	check "$start: both are published" same "0e:00:00:00:00:44 0e:00:00:00:00:66" "$(both_macs)"
	check "$start: the marker names IPv6's" same "0e:00:00:00:00:66" "$(jq -r .vtepMAC "$LEASES/../twill/$key.json")"
	check "$start: frames to both are taken" takes_both
	agent_stop node-a
	[[ $start == "started again" ]] && break
	start node-a
	wait_ready node-a
done

# --- the command line before variables; bad variables
start node-a FLANNELD_HEALTHZ_PORT=8081 FLANNELD_IP_MASQ=true FLANNELD_IPTABLES_RESYNC=often -- --ip-masq=false \
	-healthz-port 8082 -healthz-ip=127.0.0.1 -v=4 -iptables-forward-rules=false
wait_ready node-a
check "the command line wins: port" http_is "200 flanneld is ready" node-a 127.0.0.1 8082 /readyz
check "the variable's port is not used" same " " "$(http node-a 127.0.0.1 8081 /readyz)"
check "-healthz-ip: one address is one address" same " " "$(http node-a ::1 8082 /readyz)"
check "the command line wins: -ip-masq=false" grep -x FLANNEL_IPMASQ=false "$DIR/subnet.env"
check "a bad variable of flannel's is logged and ignored" grep -F FLANNELD_IPTABLES_RESYNC "$DIR/log"
agent_stop node-a

# --- choice of the interface
node_exec node-a ip route del unreachable 203.0.113.0/24
ip -n "$(node_ns node-a)" -batch - <<-END
	link add eth1 type veth peer name other
	link set dev other up
	link set dev eth1 up
	addr add 203.0.113.10/24 dev eth1
	addr add 2001:db8:9::10/64 dev eth1 nodad
END
# chooses INTERFACE PUBLIC-IP... as start
chooses() {
	local expected="$1 $2"
	start node-a "${@:3}"
	wait_ready node-a || return 1
	same "$expected" "$(status node-a '"\(.wires[0].name) \(.lease.public_ip | join(" "))"')"
	agent_stop node-a
}
here="192.0.2.10 2001:db8:1::10" there="203.0.113.10 2001:db8:9::10"
check "nothing said: the default route" chooses eth0 "$here"
check "-iface: the first that serves" chooses eth1 "$there" -- -iface=eth9 -iface eth1 --iface=eth0
check "-iface by address, with the IPv6 address beside it" chooses eth1 "$there" -- -iface 203.0.113.10 -public-ipv6 2001:db8:9::10
check "-iface-regex on an address" chooses eth1 "$there" -- '-iface-regex=[' '-iface-regex=^203\.0\.113'
check "-iface-regex on a name, after -iface" chooses eth1 "$there" FLANNELD_IFACE=eth9 -- '-iface-regex=th1$'
check "-iface-can-reach" chooses eth1 "$there" -- -iface-can-reach 203.0.113.77
check "FLANNELD_IFACE" chooses eth1 "$there" FLANNELD_IFACE=eth1
check "-public-ip is a selector" chooses eth1 "$there" FLANNELD_PUBLIC_IP=203.0.113.10
check "-public-ipv6 is one too" chooses eth1 "$there" -- -public-ipv6=2001:db8:9::10
check "with -iface it is only published" chooses eth0 "198.18.0.1 2001:db8:1::10" -- -iface=eth0 -public-ip=198.18.0.1
check "no such interface" refuses "-iface eth9: no such interface" -- -iface=eth9
check "a public IP of nobody" refuses "-public-ip 198.18.0.1: no interface has this address" -- -public-ip=198.18.0.1
check "several selectors, none serves" \
	refuses "no usable interface: -iface eth9: no such interface; -iface-regex ^zz: matches no address and no interface name" \
	-- -iface=eth9 -iface-regex=^zz

# --- the store: what flannel's flags mean without -store
check "-kube-subnet-mgr has to know its node" refuses "flag -kube-subnet-mgr: which node is this?" TWILL_STORE= TWILL_NODE= -- -kube-subnet-mgr
check "-kube-subnet-mgr has to know its server" refuses "flag -kube-subnet-mgr: no way to the Kubernetes API server" TWILL_STORE= -- -kube-subnet-mgr
check "-etcd-endpoints: what is no URL is refused" refuses "flag -etcd-endpoints ftp://x: want URLs" TWILL_STORE= -- -etcd-endpoints=ftp://x
if command -v etcd >/dev/null && command -v etcdctl >/dev/null; then
	lab_spawn node-a etcd --data-dir "$LAB_DIR/.lab/etcd" --listen-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 \
		--advertise-client-urls http://127.0.0.1:2379 >"$LAB_DIR/.lab/etcd.log" 2>&1
	disown "$LAB_PID"
	keys() { node_exec node-a env ETCDCTL_API=3 etcdctl "$@"; }
	check "etcd runs" wait_until "$(scaled 20)" keys endpoint health
	keys put /coreos.com/network/config <"$LAB_DIR/.lab/config" >/dev/null
	keys put /other/config <"$LAB_DIR/.lab/config" >/dev/null
	start node-a TWILL_STORE=
	wait_ready node-a "$(scaled 30)"
	check "nothing said: the lease is in etcd, where flannel looks, at the second of the default endpoints" \
		same "/coreos.com/network/subnets/$(status node-a .lease.key)" "$(keys get --prefix --keys-only /coreos.com/network/subnets | xargs)"
	agent_stop node-a
	start node-a TWILL_STORE= FLANNELD_ETCD_PREFIX=/other FLANNELD_ETCD_ENDPOINTS=http://127.0.0.1:2379
	wait_ready node-a "$(scaled 30)"
	check "-etcd-prefix, -etcd-endpoints" same "/other/subnets/$(status node-a .lease.key)" "$(keys get --prefix --keys-only /other/subnets | xargs)"
	agent_stop node-a
else
	echo "not checked: a real etcd behind -etcd-endpoints, there is no etcd or etcdctl"
fi

# --- what is refused
check "a renew margin of a day" refuses 'flag -subnet-lease-renew-margin "1440": allowed: 1 to 1439' -- -subnet-lease-renew-margin=1440
check "two stores" refuses "a node has one store" -- -kube-subnet-mgr
check "a health server where no address is" refuses "health server on 198.18.0.1 port 8081" -- -healthz-ip=198.18.0.1 -healthz-port=8081
for backend in udp wireguard ipip ipsec extension tencent-vpc; do
	jq -c --arg type "$backend" '.Backend.Type = $type' "$LAB_DIR/.lab/config" >"$LAB_DIR/store/config"
	check "the backend $backend is refused by name" refuses "Backend.Type $backend: not supported" --
done
jq -c 'del(.Backend)' "$LAB_DIR/.lab/config" >"$LAB_DIR/store/config"
check "no backend is udp, as with flannel" refuses "Backend absent" --
finish
