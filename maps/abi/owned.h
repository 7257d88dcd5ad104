/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps/abi/layout.h"

/* What we added to somebody else's interface and cannot mark otherwise; value of tw_owned, whose key is the interface
 * index. Read after a restart, and by detach. */
struct tw_owned {
	__u8 clsact; /* 1: the clsact qdisc is ours to remove once it is empty */
	__u8 reserved[3];
};
TW_ASSERT_SIZE(struct tw_owned, 4);
