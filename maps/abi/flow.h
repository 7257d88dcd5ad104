/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps/abi/addr.h"
#include "maps/abi/limits.h"

/* A flow without a direction; key of tw_flows_tcp and tw_flows_any. Of the two ends, `a` is the one whose (address,
 * port) is lower in memory order, so that both directions share one entry. Ports in host order. */
struct tw_flow {
	struct tw_addr a;
	struct tw_addr b;
	__u16 a_port;
	__u16 b_port;
	__u8 proto; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 reserved[3];
};
TW_ASSERT_SIZE(struct tw_flow, 40);

/* Who carries a flow through this node, both directions. */
enum tw_verdict {
	TW_VERDICT_FAST = 1,  /* the programs */
	TW_VERDICT_STACK = 2, /* the kernel: conntrack has NAT on it */
};

struct tw_flow_state {
	enum tw_verdict verdict;
};
TW_ASSERT_SIZE(struct tw_flow_state, 4);
