#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Who may include whom (docs/contributing.md has the table). Reads #include lines only; tests may include everything.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

# part; what of ours it may include; system headers that it must not (both are patterns of grep -E, '-' is none)
rules='
include/twill;twill/;bpf/|netlink/|uv\.h|curl/|microhttpd|nlohmann/|spdlog/|fmt/|sys/socket|linux/
maps/abi;maps/abi/;-
maps;twill/|maps/;netlink/|uv\.h|curl/|microhttpd|nlohmann/|spdlog/
bpf;bpf/|maps/abi/|maps/maps\.bpf\.h$;[a-z_]+$|nlohmann/|netlink/
agent/loop;twill/|agent/loop/;bpf/|netlink/|nlohmann/|microhttpd
agent/store;twill/|agent/store/|agent/loop/;bpf/|netlink/
agent/nl;twill/|agent/nl/|agent/loop/;bpf/|nlohmann/|microhttpd
agent/reconcile;twill/|agent/reconcile/|agent/store/(lease|lease_event|net_conf|store)\.hpp$|agent/dataplane/dataplane\.hpp$;bpf/|netlink/|uv\.h|sys/socket|sys/inotify|linux/|nlohmann/
agent/dataplane;twill/|agent/dataplane/|agent/reconcile/|agent/nl/|agent/loop/|maps/|twill_(dp|plain)\.skel\.h$;nlohmann/|microhttpd|curl/
agent/cli;twill/|agent/cli/|agent/nl/|maps/;uv\.h|spdlog/
agent/cni;twill/|agent/cni/|agent/nl/|maps/;uv\.h|spdlog/
agent/daemon;twill/|agent/(daemon|loop|store|nl|reconcile|dataplane)/|maps/|twill_dp\.skel\.h$;-
'

declare -A rule_of_part=()
while IFS= read -r line; do
	if [[ $line ]]; then rule_of_part[${line%%;*}]=$line; fi
done <<<"$rules"

# Sets `rule` to that of the longest folder that the file is in.
find_rule() {
	local part=${1%/*}
	rule=
	while [[ $part && -z $rule ]]; do
		rule=${rule_of_part[$part]:-}
		[[ $part == */* ]] || return 0
		part=${part%/*}
	done
}

check() {
	local file=$1 rule part ours banned line header
	find_rule "$file"
	if [[ -z $rule ]]; then
		case $file in
		agent/CMakeLists.txt | tests/* | docs/*) ;;
		*) echo "$file: in no layer (tests/lint/layering.sh lists them)" ;;
		esac
		return
	fi
	IFS=';' read -r part ours banned <<<"$rule"
	while read -r line; do
		header=${line#*[\"<]}
		header=${header%%[\">]*}
		if [[ $line == *\"* || $header =~ ^(twill|agent|maps)/ ]]; then
			[[ $header =~ ^($ours) ]] || echo "$file: $part may not include $header"
		elif [[ $banned != - && $header =~ ^($banned) ]]; then
			echo "$file: $part may not include <$header>"
		fi
	done < <(grep -hE '^[[:space:]]*#[[:space:]]*include' "$tree/$file")
}

violations_from < <(for file in $(files "include maps bpf agent" "c h cpp hpp"); do check "$file"; done)
finish
