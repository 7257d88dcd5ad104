#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Scripted conversations through the kernel's MASQUERADE, with flannel's rules, and through twill's programs: both ends see the
# same, but for the port that is chosen. With the wires' offloads off and on; NAT_ONLY=TEXT: conversations with that in their
# name. NAT_FLAGS: more flags of tw-nat-diff.
. "$(dirname "$0")/../../netns/lib.sh"
. "$(dirname "$0")/../flannel.sh"
. "$(dirname "$0")/lab.sh"

for tool in bridge tc ethtool iptables ip6tables nft "$TWILL_BIN/tw-nat-diff"; do
	command -v "$tool" >/dev/null || skip "missing: $tool"
done
read -ra FLAGS <<<"${NAT_FLAGS:-}"

test_lab
nat_worlds
for offload in off on; do
	for world in ki kn kk ti tn tk tc; do nat_offload "$world" "$offload"; done
	echo "offload $offload"
	nat_bench_exec "$TWILL_BIN/tw-nat-diff" --lab "$LAB_NAME" --only "${NAT_ONLY:-}" "${FLAGS[@]}" || FAILURES=$((FAILURES + 1))
done
finish
