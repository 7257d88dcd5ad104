#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 50,000 masqueraded flows that open, talk and close: none broken, none left when its time is over, counters add up. For
# 45 seconds, 10 minutes with TWILL_FULL=1; SOAK_SECONDS=N: so long.
. "$(dirname "$0")/../../netns/lib.sh"
. "$(dirname "$0")/lab.sh"

for tool in tc ethtool iptables ip6tables "$TWILL_BIN/tw-nat-diff"; do
	command -v "$tool" >/dev/null || skip "missing: $tool"
done

test_lab
nat_bench_up
nat_twill so
nat_offload so off
nat_bench_exec "$TWILL_BIN/tw-nat-diff" --lab "$LAB_NAME" --soak "${SOAK_SECONDS:-$([[ ${TWILL_FULL:-} ]] && echo 600 || echo 45)}" ||
	FAILURES=$((FAILURES + 1))
finish
