/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps/abi/addr.h"
#include "maps/abi/limits.h"

/* A pod of this node; value of tw_endpoints, whose key is the pod's address. */
struct tw_endpoint {
	__u32 ifindex;	  /* host side of the pod's interface */
	__u8 mac[6];	  /* the pod's own */
	__u8 host_mac[6]; /* the gateway as the pod sees it: Ethernet source of what is delivered */
	__u8 shaped;	  /* 1: a qdisc on the interface must see the packets, so the stack delivers them */
	__u8 reserved[3];
};
TW_ASSERT_SIZE(struct tw_endpoint, 20);

/* Key of tw_claims: an address that somebody used from an interface. */
struct tw_claim {
	struct tw_addr addr;
	__u32 ifindex;
};
TW_ASSERT_SIZE(struct tw_claim, 20);
