/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps/abi/addr.h"
#include "maps/abi/limits.h"

enum tw_event_kind {
	TW_EVENT_CLAIM = 1, /* a source inside our pod CIDR that is no endpoint of that interface */
};

/* One record of the ring buffer tw_events. */
struct tw_event {
	enum tw_event_kind kind;
	__u32 ifindex;	     /* where the packet came in */
	struct tw_addr addr; /* its IP source */
	__u8 mac[6];	     /* its Ethernet source */
	__u8 reserved[2];
};
TW_ASSERT_SIZE(struct tw_event, 32);
