# shellcheck shell=bash disable=SC2034 # variables of peers/lib.sh are set here
# SPDX-License-Identifier: Apache-2.0
# One row: the same input to flanneld and to twilld, and the texts of what came of it compared; sourced by same.sh.
#
# Two sides, f (flanneld) and t (twilld), each a node and its router with an etcd on it. Addresses, routes and URLs are the same
# on both, so that nothing needs to be translated. Each daemon has a /run of its own, so that default paths count too.
#
#   session [--tls] [--auth]     fresh etcd servers from here on
#   row NAME [OPTIONS] [-- FLAGS]
#     --conf JSON                what is in etcd's config; --no-conf: nothing. Without either $CONF
#     --put KEY VALUE [TTL]      below the prefix
#     --env-file TEXT            subnet.env of a former run, lines joined by blanks
#     --var NAME=VALUE           environment
#     --prefix KEY, --bare       where config and leases are; no flags but the row's
#     --old                      the oldest flanneld
#     --http ADDRESS:PORT        asks /healthz and /readyz there
#     --stop                     SIGTERM in the end, and what that exits with
#     --ends                     no lease comes of this input: it is waited 3 s for at most
#     --renews                   waits until the lease is written again
#     --file PATH                the subnet file, when the row names another one
#     --accept REASON F T        the sides do differ: side f has a line that matches F, side t one that matches T
#
# The effect of a row: whether the daemon runs or with what it ended, every key with its value and the TTL that its lease was
# granted with, subnet.env with its mode, the health server's answers. VtepMACs are random: they are masked. twill's marker
# beside a lease is twill's alone and left out.

ROWS=0 ACCEPTED=0 SIDE=f PREFIX=$ETCD_PREFIX
peers_dir() { echo "$LAB_DIR/peers-$SIDE"; }
side_node() { echo "$SIDE"; }

sides_up() {
	local SIDE
	for SIDE in f t; do
		node_pair "$SIDE" "$SIDE-net"
		# A second way, for what chooses interfaces.
		ip -n "$(node_ns "$SIDE")" -batch - <<-STOP
			link add eth1 type veth peer name eth1 netns $(node_ns "$SIDE-net")
			link set dev eth1 up
			addr add 203.0.113.10/24 dev eth1
			addr add 2001:db8:9::10/64 dev eth1 nodad
		STOP
		ip -n "$(node_ns "$SIDE-net")" link set dev eth1 up
		peers_at "$SIDE-net" 192.0.2.11
	done
}

session() {
	ETCD_SCHEME=http ETCD_USER=()
	local users=()
	for SIDE in f t; do
		ETCD_USER=()
		[[ ! -e $(peers_dir)/etcd.pid ]] || peer_stop etcd KILL
		rm -rf "$(peers_dir)/etcd"
		PEER_NS=$SIDE-net
		start_etcd "$@"
		users=("${ETCD_USER[@]}")
	done
	ETCD_USER=("${users[@]}")
	echo "--- etcd ${*:-plain}"
}

# --- one side of a row ------------------------------------------------------------------------------------------------------

# All that a former row left.
side_clean() {
	local lease device dir
	dir=$(node_dir "$SIDE")
	for lease in $(etcd_do lease list | grep -v '^found'); do etcd_do lease revoke "$lease"; done
	etcd_do del --prefix ''
	for device in $(node_exec "$SIDE" ip -j link | jq -r '.[].ifname | select(startswith("flannel") or . == "twill0")'); do
		ip -n "$(node_ns "$SIDE")" link del "$device"
	done
	rm -rf "${LAB_PINS:?}/$SIDE" "$dir/run" "$dir/log"
	mkdir -p "$dir/run/twill-lab" "$dir/run/flannel"
}

side_input() {
	local i lease file
	[[ $CONF_OF == none ]] || etcd_do put "$PREFIX/config" "$CONF_OF"
	for ((i = 0; i < ${#PUTS[@]}; i += 3)); do
		lease=()
		if [[ ${PUTS[i + 2]} ]]; then
			lease=(--lease "$(etcd_do lease grant "${PUTS[i + 2]}" | cut -d ' ' -f 2)")
		fi
		etcd_do put "${lease[@]}" "$PREFIX/${PUTS[i]}" "${PUTS[i + 1]}"
	done
	if [[ $ENV_FILE ]]; then
		file=$(side_file)
		tr ' ' '\n' <<<"$ENV_FILE" >"$file"
		chmod 0644 "$file"
		touch -d @1 "$file"
	fi
}

side_file() { echo "$(node_dir "$SIDE")$SUBNET_FILE"; }

side_start() {
	local dir program flags=()
	dir=$(node_dir "$SIDE")
	program=$TWILL_BIN/twilld
	[[ $SIDE == t ]] || program=$(peer_path "$FLANNEL")
	[[ $BARE ]] || mapfile -t flags < <(etcd_flags)
	# shellcheck disable=SC2016 # expands in the inner shell
	lab_spawn "$SIDE" env -i "PATH=$PATH" TWILL_NODE=node TWILL_BPF_ROOT="$LAB_PINS/$SIDE" TWILL_CNI_STATE_DIR="$dir/cni" \
		"${VARS[@]}" unshare -m bash -c 'mount --bind "$1/twill-lab" "$0/twill-lab" && mount --rbind "$0" /run && exec "${@:2}"' \
		"$dir/run" /run "$program" "${flags[@]}" "${FLAGS[@]//@PEERS@/$(peers_dir)}" >"$dir/out" 2>"$dir/log" </dev/null 9>&-
	read -r DAEMON STARTED < <(tail -n 1 "$LAB_DIR/.lab/pids")
}

side_ended() { ! _lab_alive "$DAEMON" "$STARTED"; }
side_written() {
	local file
	file=$(side_file)
	[[ $(stat -c %Y "$file" 2>/dev/null) != 1 ]] && grep FLANNEL_IPMASQ "$file"
}
side_settled() { side_ended || side_written; }

# GET of /healthz and /readyz
side_http() {
	local path
	for path in /healthz /readyz; do
		echo "$1$path: $(node_exec "$SIDE" curl -s --noproxy '*' --max-time 2 -w ' %{http_code} %{content_type}' "http://$1$path" || echo none)"
	done
}
side_is_ready() { [[ $(side_http "$1") == *" ready"* || $(side_http "$1") == *"flanneld is ready"* ]]; }

side_renewed() { (($(etcd_do get --prefix "$PREFIX/subnets/" -w json | jq '.kvs[0].version') > 1)); }

side_keys() {
	local lease ttls=()
	mapfile -t ttls < <(for lease in $(etcd_do lease list | grep -v '^found'); do etcd_do lease timetolive "$lease" --keys; done)
	etcd_do get --prefix '' | awk -v marker="$PREFIX/twill/" -v ttls="$(printf '%s\n' "${ttls[@]}")" '
		BEGIN { n = split(ttls, line, "\n") }
		NR % 2 { key = $0; next }
		index(key, marker) == 1 || key ~ /\/config$/ { next }
		{
			ttl = "none"
			for (i = 1; i <= n; i++)
				if (index(line[i], "[" key "]") || index(line[i], "[" key " ") || index(line[i], " " key "]") || index(line[i], " " key " ")) {
					ttl = line[i]; sub(/.*TTL\(/, "", ttl); sub(/\).*/, "", ttl)
				}
			print "key " key "\n  value " $0 "\n  ttl " ttl
		}' | sed -E 's/"VtepMAC":"[0-9a-f:]{17}"/"VtepMAC":"MAC"/g'
}

side() {
	local limit=20 state=runs code=0 address
	[[ ! $ENDS ]] || limit=3
	PEER_NS=$SIDE-net
	side_clean && side_input && side_start || return
	wait_until "$(scaled $limit)" side_settled || :
	for address in "${HTTP[@]}"; do wait_until "$(scaled 10)" side_is_ready "$address" || :; done
	if ! side_ended; then
		{
			for address in "${HTTP[@]}"; do side_http "$address"; done
			[[ ! $RENEWS ]] || { wait_until "$(scaled 100)" side_renewed && echo "renewed"; } || echo "not renewed"
			[[ ! $STOP ]] || kill -TERM "$DAEMON"
			[[ ! $STOP ]] || wait_until "$(scaled 10)" side_ended || echo "does not end"
		} >"$(node_dir "$SIDE")/http"
	else
		: >"$(node_dir "$SIDE")/http"
	fi
	if side_ended; then
		wait "$DAEMON" || code=$?
		state="exit $code"
	fi
	{
		echo "daemon: $state"
		[[ $state == runs || ! -s $(node_dir "$SIDE")/out ]] || echo "says on standard output: $(head -c 200 "$(node_dir "$SIDE")/out")"
		cat "$(node_dir "$SIDE")/http"
		side_keys
		[[ ! -e $(side_file) ]] || { echo "subnet file, mode $(stat -c %a "$(side_file)"):" && cat "$(side_file)"; }
	} >"$(node_dir "$SIDE")/effect"
	side_ended || kill -KILL "$DAEMON"
	wait "$DAEMON" 2>/dev/null || :
}

# --- both ---------------------------------------------------------------------------------------------------------------------

run_side() { (SIDE=$1 && set +e && side) >"$(node_dir "$1")/script" 2>&1; }

differ_as_accepted() { # FLANNEL TWILL
	local f t
	f=$(node_dir f)/effect t=$(node_dir t)/effect
	if cmp -s "$f" "$t"; then echo "they do not differ any more" && return 1; fi
	grep -E -- "$1" "$f" >/dev/null || { echo "flanneld: no line '$1'" && cat "$f" && return 1; }
	grep -E -- "$2" "$t" >/dev/null || { echo "twilld: no line '$2'" && cat "$t" && return 1; }
}

same_effects() {
	local f t
	f=$(node_dir f)/effect t=$(node_dir t)/effect
	[[ -s $f && -s $t ]] || { cat "$(node_dir f)/script" "$(node_dir t)/script" && return 1; }
	diff -u --label flanneld --label twilld "$f" "$t" && return
	echo "--- flanneld's log"
	grep -v 'CLI flags' "$(node_dir f)/log" | tail -n 5
	echo "--- twilld's log"
	tail -n 5 "$(node_dir t)/log"
	return 1
}

row() {
	local name=$1 CONF_OF=$CONF PUTS=() ENV_FILE='' VARS=() BARE='' FLANNEL=flannel HTTP=() STOP='' ENDS='' RENEWS='' FLAGS=() accept=()
	local SUBNET_FILE=/run/flannel/subnet.env PREFIX=$ETCD_PREFIX
	[[ ${SAME_ROWS:-.} == . || $name =~ $SAME_ROWS ]] || return 0
	shift
	while [[ $# != 0 ]]; do
		case $1 in
		--conf) CONF_OF=${2//[$'\n\t']/} && shift ;;
		--no-conf) CONF_OF=none ;;
		--put)
			PUTS+=("$2" "$3" '') && shift 2
			if [[ ${2:-} =~ ^[0-9]+$ ]]; then PUTS[${#PUTS[@]} - 1]=$2 && shift; fi
			;;
		--env-file) ENV_FILE=$2 && shift ;;
		--var) VARS+=("$2") && shift ;;
		--prefix) PREFIX=$2 && shift ;;
		--bare) BARE=yes ;;
		--old) FLANNEL=flannel-old ;;
		--http) HTTP+=("$2") && shift ;;
		--stop) STOP=yes ;;
		--ends) ENDS=yes ;;
		--renews) RENEWS=yes ;;
		--file) SUBNET_FILE=$2 && shift ;;
		--accept) accept=("${@:2:3}") && shift 3 ;;
		--) FLAGS=("${@:2}") && break ;;
		*) lab_die "row $name: $1" ;;
		esac
		shift
	done
	ROWS=$((ROWS + 1))
	run_side f &
	local f=$!
	run_side t || :
	wait "$f" || :
	[[ ! ${SAME_SHOW:-} ]] || cat "$(node_dir f)/effect"
	if [[ ${#accept[@]} == 0 ]]; then
		check "$name" same_effects
	else
		ACCEPTED=$((ACCEPTED + 1))
		check "$name; accepted: ${accept[0]}" differ_as_accepted "${accept[@]:1}"
	fi
}
