#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The same input to flanneld and to twilld with etcd, and what comes of it compared byte for byte: keys, values, TTLs,
# subnet.env, health, exit. Every row is one start of both. How a row is written: same_lib.sh.
#
# TWILL_FULL=1: all rows. SAME_GROUPS="plain interface config leases flags": these with a plain etcd.
# SAME_ROWS=REGEX: those whose name matches. SAME_SHOW=1: print what they did.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/peers/lib.sh"
peers_need etcd flannel flannel-old
. "$(dirname "$0")/same_lib.sh"

# One subnet in each family, so that chance has no choice.
V4='"Network":"10.42.0.0/16","SubnetLen":24,"SubnetMin":"10.42.7.0","SubnetMax":"10.42.7.0"'
V6='"EnableIPv6":true,"IPv6Network":"fd00:42::/48","IPv6SubnetLen":64,"IPv6SubnetMin":"fd00:42:0:7::","IPv6SubnetMax":"fd00:42:0:7::"'
VXLAN='"Backend":{"Type":"vxlan"}'
CONF="{$V4,$VXLAN}"
DUAL="{$V4,$V6,$VXLAN}"


BIG='{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}'

lease() { # PUBLIC-IP
	echo "{\"PublicIP\":\"$1\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":{\"VNI\":1,\"VtepMAC\":\"0e:00:00:00:00:01\"}}"
}
# What another daemon wrote: NETWORK SUBNET.
env_of() { echo "FLANNEL_NETWORK=$1 FLANNEL_SUBNET=$2 FLANNEL_MTU=1450 FLANNEL_IPMASQ=false"; }
backend() { echo "{$V4,\"Backend\":{$1}}"; }
OTHER=$(lease 198.51.100.1) OWN=$(lease 192.0.2.10)

rows_plain() {
	row "IPv4; SIGTERM ends with 0" --stop
	row "dual-stack" --conf "$DUAL"
	row "dual-stack, the oldest flanneld" --old --conf "$DUAL"
	row "vxlan: VNI, Port, GBP, DirectRouting, MTU" \
		--conf "$(backend '"Type":"vxlan","VNI":4096,"Port":4789,"GBP":true,"DirectRouting":true,"MTU":1400')"
	row "host-gw, dual-stack" --conf "{$V4,$V6,\"Backend\":{\"Type\":\"host-gw\"}}"
	row "alloc" --conf "$(backend '"Type":"alloc"')"
	row "the first subnet is left out, the last is not" --conf '{"Network":"10.42.0.0/22","Backend":{"Type":"vxlan"}}' \
		--put subnets/10.42.1.0-24 "$OTHER" 3600 --put subnets/10.42.2.0-24 "$OTHER" 3600
	row "an own lease is taken again" --conf "$BIG" --put subnets/10.42.9.0-24 "$OWN" 3600
	row "an own lease outside of the range is given up" --put subnets/10.42.9.0-24 "$OWN" 3600
	row "a reservation" --put subnets/10.42.7.0-24 "$OWN" \
		--accept "flanneld makes a lease of 24 h of it, then it is none any more" "ttl 86400s" "ttl none"
	row "subnet.env of a former run" --conf "$BIG" \
		--env-file "$(env_of 10.42.0.0/16 10.42.77.1/24)"
	row "by variables" --bare --prefix /my/net --file /run/my.env --var FLANNELD_ETCD_ENDPOINTS=http://192.0.2.11:2379 \
		--var FLANNELD_ETCD_PREFIX=/my/net --var FLANNELD_SUBNET_FILE=/run/my.env --var FLANNELD_IP_MASQ=true --var FLANNELD_IFACE=eth1 \
		--var FLANNELD_HEALTHZ_PORT=8081 --var FLANNELD_V=4 --var FLANNELD_IPTABLES_RESYNC=often --http 192.0.2.10:8081
	row "flags before variables, Go's forms of them" --prefix /my/net --file /run/my.env --var FLANNELD_ETCD_PREFIX=/not \
		--var FLANNELD_IP_MASQ=true --var FLANNELD_IFACE=eth1 --var FLANNELD_HEALTHZ_PORT=8082 --http 127.0.0.1:8081 \
		--http 192.0.2.10:8081 -- --etcd-prefix /my/net -subnet-file /run/my.env --ip-masq=F -iface=eth0 -healthz-port 0x1f91 \
		--healthz-ip=127.0.0.1 -iptables-forward-rules=false --v=2
	row "a dead endpoint first; several -iface" --bare -- \
		-etcd-endpoints=http://192.0.2.11:1,http://192.0.2.11:2379 -iface=eth9 -iface=203.0.113.10 -iface=eth0
	row "-iface with -public-ip, -public-ipv6" --conf "$DUAL" -- -iface=eth0 -public-ip=198.18.0.1 -public-ipv6=2001:db8:5::1
	row "-version" --bare --ends -- -version
	row "-subnet-lease-renew-margin=1440" --ends -- -subnet-lease-renew-margin=1440
	row "no interface serves" --ends -- -iface=eth9 -iface-regex=^zz
	row "an unknown flag" --ends --accept "flanneld's usage ends with 0, also after an error" "exit 0" "exit 2" -- -no-such-flag
}

rows_interface() {
	row "-iface-regex, address" -- '-iface-regex=^203\.0\.113'
	row "-iface-regex, name" -- '-iface-regex=th1$'
	row "-iface before -iface-regex" -- '-iface-regex=th1$' -iface=eth0
	row "-iface fails, -iface-regex serves" -- '-iface-regex=th1$' -iface=eth7
	row "several -iface-regex" -- '-iface-regex=^nothing' '-iface-regex=^203'
	row "-iface-can-reach" -- -iface-can-reach=203.0.113.77
	row "-iface-regex before -iface-can-reach" -- -iface-can-reach=203.0.113.77 '-iface-regex=th0$'
	row "-iface by address and -public-ipv6" --conf "$DUAL" -- -iface=203.0.113.10 -public-ipv6=2001:db8:9::10
	row "-iface by name, dual-stack" --conf "$DUAL" -- -iface=eth1
	row "-public-ip chooses" -- -public-ip=203.0.113.10
	row "-public-ip of nobody" --ends -- -public-ip=198.18.0.1
	row "-public-ip with -iface" -- -iface=eth1 -public-ip=198.18.0.1
	row "FLANNELD_PUBLIC_IP" --var FLANNELD_PUBLIC_IP=203.0.113.10
	row "FLANNELD_IFACE_REGEX" --var 'FLANNELD_IFACE_REGEX=^203'
	row "FLANNELD_IFACE_CAN_REACH" --var FLANNELD_IFACE_CAN_REACH=203.0.113.77
	row "FLANNELD_PUBLIC_IPV6, dual-stack" --conf "$DUAL" --var FLANNELD_IFACE=eth0 --var FLANNELD_PUBLIC_IPV6=2001:db8:5::1
}

rows_config() {
	row "lower-case keys, unknown ones, the last of two" --conf \
		'{"network":"10.9.0.0/16","network":"10.42.3.4/16","subnetlen":24,"SUBNETMIN":"10.42.7.0","subnetMax":"10.42.7.0",
		"x":[1],"backend":{"type":"VXLAN","vni":7}}'
	row "SubnetLen 26" --conf \
		'{"Network":"10.42.0.0/24","SubnetLen":26,"SubnetMin":"10.42.0.128","SubnetMax":"10.42.0.128","Backend":{"Type":"vxlan"}}'
	row "SubnetLen by default of a long network" --conf '{"Network":"10.42.0.0/24","SubnetMin":"10.42.0.192","Backend":{"Type":"vxlan"}}'
	row "SubnetMin alone" --conf '{"Network":"10.42.0.0/22","SubnetLen":24,"SubnetMin":"10.42.3.0","Backend":{"Type":"vxlan"}}'
	row "SubnetMax alone" --conf '{"Network":"10.42.0.0/22","SubnetLen":24,"SubnetMax":"10.42.1.0","Backend":{"Type":"vxlan"}}'
	row "SubnetMin: the first subnet on request" --conf \
		'{"Network":"10.42.0.0/22","SubnetLen":24,"SubnetMin":"10.42.0.0","SubnetMax":"10.42.0.0","Backend":{"Type":"vxlan"}}'
	row "IPv6SubnetLen 80" --conf "{$V4,\"EnableIPv6\":true,\"IPv6Network\":\"fd00:42::/64\",\"IPv6SubnetLen\":80,
		\"IPv6SubnetMin\":\"fd00:42:0:0:5::\",\"IPv6SubnetMax\":\"fd00:42:0:0:5::\",$VXLAN}"
	row "host-gw" --conf "$(backend '"Type":"host-gw"')"
	row "alloc, dual-stack" --conf "{$V4,$V6,\"Backend\":{\"Type\":\"alloc\"}}" \
		--accept "flanneld's alloc leaves the IPv6 address out, nobody reads it" '"PublicIPv6":null' '"PublicIPv6":"2001:db8:1::10"'
	row "vxlan: MTU 1400" --conf "$(backend '"Type":"vxlan","MTU":1400')"
	row "vxlan: VNI 70000" --conf "$(backend '"Type":"vxlan","VNI":70000')"
	row "vxlan: VNI 7, the oldest flanneld" --old --conf "$(backend '"Type":"vxlan","VNI":7')"
	row "vxlan: Learning" --conf "$(backend '"Type":"vxlan","Learning":true')"
	row "EnableNFTables" --conf "{$V4,\"EnableNFTables\":true,$VXLAN}"
	row "no config" --no-conf --ends
	# A config that nobody can use: flanneld asks again or ends, as it happens to notice; twilld asks again.
	local ends=(--accept "flanneld ends, twilld asks for the config again" "daemon: exit 1" "daemon: runs")
	row "no family is on" --ends --conf '{"EnableIPv4":false,"Backend":{"Type":"vxlan"}}' "${ends[@]}"
	for bad in '{' '"text"' '{"Network":"10.42.0.0"}' '{"Network":"10.42.0.0/16","SubnetLen":17}' '{"Network":"10.42.0.0/16","SubnetLen":31}' \
		'{"Network":"10.42.0.0/16","SubnetLen":"24"}' '{"Network":"10.42.0.0/30"}' '{"Network":"10.42.0.0/16","SubnetMin":"10.43.0.0"}' \
		'{"Network":"10.42.0.0/16","SubnetMin":"10.42.0.1"}' '{"EnableIPv6":true,"Network":"10.42.0.0/16"}'; do
		row "bad config $bad" --ends --conf "${bad%\}}${bad:+,$VXLAN\}}"
	done
	row "Backend.Type of nobody" --ends --conf "$(backend '"Type":"nothing"')" "${ends[@]}"
	row "Backend without Type" --ends --conf "$(backend '"VNI":1')" "${ends[@]}"
	row "IPv6 only" --ends --conf "{\"EnableIPv4\":false,$V6,$VXLAN}"
}

rows_leases() {
	row "an own lease of both families" --conf "{\"Network\":\"10.42.0.0/16\",$V6,$VXLAN}" \
		--put "subnets/10.42.9.0-24&fd00:42:0:7::-64" \
		"$(jq -c '.PublicIPv6 = "2001:db8:1::10" | .BackendV6Data = .BackendData' <<<"$OWN")" 3600
	row "an own lease of IPv4 where both are on" --conf "$DUAL" --put subnets/10.42.9.0-24 "$OWN" 3600 \
		--accept "flanneld panics" "exit 2" "key .*/10.42.7.0-24&fd00:42:0:7::-64"
	row "an own lease of another length" --put subnets/10.42.7.0-25 "$OWN" 3600 \
		--accept "flanneld deletes it, counts it as taken all the same and ends; started again it succeeds" "exit 1" "key .*/10.42.7.0-24"
	row "subnet.env's subnet is somebody's" --conf '{"Network":"10.42.0.0/22","SubnetMin":"10.42.2.0","Backend":{"Type":"vxlan"}}' \
		--put subnets/10.42.2.0-24 "$OTHER" 3600 --env-file "$(env_of 10.42.0.0/22 10.42.2.1/24)"
	row "subnet.env's subnet is outside" \
		--env-file "$(env_of 10.42.0.0/16 10.42.77.1/24)"
	row "subnet.env of another network" \
		--env-file "$(env_of 10.9.0.0/16 10.9.77.1/24)"
	row "subnet.env of both families" --conf "{\"Network\":\"10.42.0.0/16\",\"EnableIPv6\":true,\"IPv6Network\":\"fd00:42::/48\",$VXLAN}" \
		--env-file "$(env_of 10.42.0.0/16 10.42.77.1/24) FLANNEL_IPV6_NETWORK=fd00:42::/48 FLANNEL_IPV6_SUBNET=fd00:42:0:9::1/64"
	row "subnet.env is junk" --env-file "FLANNEL_SUBNET=junk x=y"
	row "an own lease before subnet.env" --conf "$BIG" --put subnets/10.42.9.0-24 "$OWN" 3600 \
		--env-file "$(env_of 10.42.0.0/16 10.42.77.1/24)"
	row "no subnet is left" --ends --put subnets/10.42.7.0-24 "$OTHER" 3600 \
		--accept "flanneld ends and its supervisor starts it again, twilld waits for one" "daemon: exit 1" "daemon: runs"
}

rows_flags() {
	row "-ip-masq" -- -ip-masq -ip-masq-fully-random-disable
	row "bool forms" -- --ip-masq=T -iptables-forward-rules=0 -ip-blackhole-route=TRUE -set-node-network-unavailable=false
	row "an argument that is no flag ends them" -- -ip-masq argument -iface=eth1
	row "-- ends them" -- -ip-masq -- -iface=eth1
	row "-iptables-resync, -v, -vmodule, -log_backtrace_at" -- -iptables-resync=1 -v=10 -vmodule=x=1 -log_backtrace_at=main.go:1
	row "-healthz-ip and -healthz-port" --http 192.0.2.10:8081 --http 127.0.0.1:8081 -- -healthz-ip=192.0.2.10 -healthz-port=8081
	row "-healthz-port below 0" --http 127.0.0.1:8081 -- -healthz-port=-1
	row "-etcd-prefix without a slash" --prefix my/net -- -etcd-prefix=my/net
	row "-etcd-prefix with many" --prefix /my/net -- -etcd-prefix=/my//net/
	row "-etcd-endpoints without a scheme" --bare -- -etcd-endpoints=192.0.2.11:2379
	row "-subnet-file in a new directory" --file /run/a/b/my.env -- -subnet-file=/run/a/b/my.env
	row "-subnet-lease-renew-margin=0" --ends -- -subnet-lease-renew-margin=0
	row "-subnet-lease-renew-margin=1439: renewed after a minute" --renews -- -subnet-lease-renew-margin=1439
	row "FLANNELD_SUBNET_LEASE_RENEW_MARGIN=1440" --ends --var FLANNELD_SUBNET_LEASE_RENEW_MARGIN=1440
	row "FLANNELD_IP_MASQ=maybe" --var FLANNELD_IP_MASQ=maybe
	row "FLANNELD_IP_MASQ is empty" --var FLANNELD_IP_MASQ=
	row "FLANNELD_VERSION is none" --var FLANNELD_VERSION=true
	row "-help" --bare --ends -- -help
	row "-version=false" -- -version=false
	row "a number that is none" --ends --accept "flanneld's usage ends with 0, also after an error" "exit 0" "exit 2" -- -healthz-port=many
	row "a flag without its argument" --ends --accept "flanneld's usage ends with 0, also after an error" "exit 0" "exit 2" -- -iface
	row "TLS files for an http URL" -- -etcd-cafile=@PEERS@/ca.crt -etcd-certfile=@PEERS@/flannel.crt -etcd-keyfile=@PEERS@/flannel.key
	row "a user where etcd has no users" --ends -- -etcd-username=flannel -etcd-password=flannel-password
}

rows_tls() {
	local tls=(-etcd-cafile=@PEERS@/ca.crt -etcd-certfile=@PEERS@/flannel.crt -etcd-keyfile=@PEERS@/flannel.key)
	row "TLS, user and password" --conf "$DUAL"
	row "the same by variables" --bare --var FLANNELD_ETCD_ENDPOINTS=https://192.0.2.11:2379 --var FLANNELD_ETCD_USERNAME=flannel \
		--var FLANNELD_ETCD_PASSWORD=flannel-password -- "${tls[@]}"
	row "a wrong password" --ends --bare \
		--accept "flanneld ends and its supervisor starts it again, twilld asks again" "exit 1" "runs" -- \
		"${tls[@]}" -etcd-endpoints=https://192.0.2.11:2379 -etcd-username=flannel -etcd-password=wrong
	[[ ${TWILL_FULL:-} ]] || return 0
	row "no key file" --ends --bare -- -etcd-cafile=@PEERS@/ca.crt -etcd-certfile=@PEERS@/none.crt -etcd-keyfile=@PEERS@/none.key \
		-etcd-endpoints=https://192.0.2.11:2379 -etcd-username=flannel -etcd-password=flannel-password
	row "no CA" --ends --bare -- "${tls[@]:1}" -etcd-endpoints=https://192.0.2.11:2379 -etcd-username=flannel -etcd-password=flannel-password
	row "no certificate" --ends --bare -- -etcd-endpoints=https://192.0.2.11:2379 -etcd-username=flannel -etcd-password=flannel-password
	row "no password" --ends --bare -- "${tls[@]}" -etcd-endpoints=https://192.0.2.11:2379
}

lab_up "same-$$"
sides_up
session
for group in ${SAME_GROUPS:-plain ${TWILL_FULL:+interface config leases flags}}; do "rows_$group"; done
session --tls --auth
rows_tls
if [[ ${TWILL_FULL:-} ]]; then
	session --cn-auth
	row "the certificate's name is the user"
fi
lab_down
echo "interop.same: $ROWS rows compared, $ACCEPTED of them differ for a reason that the row tells, $FAILURES failed"
finish
