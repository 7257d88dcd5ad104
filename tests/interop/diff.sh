#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The same packet through the kernel's vxlan, made as flannel makes it, and through twill leaves as the same frame, and each
# receives what the other sends: a table of packets by name, then random ones. Every packet is sent with the wire's offloads
# on and off, and where kube-proxy's rule drops what conntrack finds invalid and where it does not.
#
# INTEROP_FLAGS: more flags of tw-interop-diff.
# TWILL_FULL=1: a million random packets of a new seed instead of 10,000 of seed 1. INTEROP_SEED=N: those of seed N.
# INTEROP_PACKETS=N: N of them. INTEROP_TABLE=no: those only. INTEROP_PHASES="off:pass on:drop": with these only.
. "$(dirname "$0")/../netns/lib.sh"
. "$(dirname "$0")/flannel.sh"
. "$(dirname "$0")/worlds.sh"

DIFF=$TWILL_BIN/tw-interop-diff
for tool in bridge ethtool iptables ip6tables "$DIFF"; do
	command -v "$tool" >/dev/null || skip "missing: $tool"
done
[[ -r /proc/net/stat/nf_conntrack ]] || skip "missing: /proc/net/stat/nf_conntrack"

SEED=${INTEROP_SEED:-$([[ ${TWILL_FULL:-} ]] && date +%s || echo 1)}
PACKETS=${INTEROP_PACKETS:-$([[ ${TWILL_FULL:-} ]] && echo 1000000 || echo 10000)}
read -ra PHASES <<<"${INTEROP_PHASES:-off:pass off:drop on:pass on:drop}"
LAB_NET_CONF='{
  "Network": "10.42.0.0/16", "SubnetLen": 24,
  "EnableIPv6": true, "IPv6Network": "fd00:42::/48", "IPv6SubnetLen": 64,
  "Backend": { "Type": "vxlan", "VNI": 1 }
}'

# phase on|off drop|pass: offloads of the wire, what is invalid to conntrack.
phase() {
	local world flags=()
	read -ra flags <<<"${INTEROP_FLAGS:-}"
	for world in ta ka k0 tb kb; do
		world_offload "$world" "$1"
		world_invalid "$world" "$2"
	done
	[[ $1 == off ]] || flags+=(--offload)
	[[ ${INTEROP_TABLE:-} == no ]] || flags+=(--table)
	bench_exec "$DIFF" --lab "$LAB_NAME" --pins "$LAB_PINS" --title "offload $1, invalid $2" "${flags[@]}" \
		--packets $((PACKETS / ${#PHASES[@]})) --seed $((SEED + PHASE)) | tee -a "$LAB_DIR/.lab/out" || FAILURES=$((FAILURES + 1))
	PHASE=$((PHASE + 1))
}

test_lab
bench_up
world_twill ta a
world_kernel ka a
world_kernel k0 a udp6zerocsumtx udp6zerocsumrx
world_twill tb b
world_kernel kb b
echo "seed $SEED"
PHASE=0
for phase in "${PHASES[@]}"; do phase "${phase%:*}" "${phase#*:}"; done
awk '/ packets compared, / {
		line = $0; sub(/.*: /, "", line)
		for (i = 1; i <= NF; i++) { if ($(i + 1) == "packets" && $(i + 2) == "compared,") packets += $i; if ($(i + 1) == "differ;") differ += $i }
	}
	END { printf "interop.diff: %d packets compared, %d differ\n", packets, differ }' "$LAB_DIR/.lab/out"
finish
