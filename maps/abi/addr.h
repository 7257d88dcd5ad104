/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps/abi/layout.h"

/* One IPv4 or IPv6 address, network byte order. IPv4 is held IPv4-mapped (RFC 4291 2.5.5.2): `low` is the IPv4 address
 * and `high` is ten times 0 and two times 255. For IPv6 `low` is the last four bytes. */
struct tw_addr {
	__u8 high[12];
	__u8 low[4];
} __attribute__((aligned(4)));
TW_ASSERT_SIZE(struct tw_addr, 16);

/* A prefix as the programs compare it: (x & mask) == addr, over all 16 bytes (an IPv4 mask starts with 96 set bits).
 * All zero bits in `mask` and a non-zero `addr` match nothing: that is how "no such prefix" is written. */
struct tw_net {
	struct tw_addr addr;
	struct tw_addr mask;
};
TW_ASSERT_SIZE(struct tw_net, 32);

/* Keys of tw_peers_*: the prefix length, host order, then the masked address. The same bytes serve a hash and, with the
 * length in front, an LPM trie (linux/bpf.h, struct bpf_lpm_trie_key). */
struct tw_cidr_v4 {
	__u32 bits;
	__u8 addr[4];
};
TW_ASSERT_SIZE(struct tw_cidr_v4, 8);

struct tw_cidr_v6 {
	__u32 bits;
	__u8 addr[16];
};
TW_ASSERT_SIZE(struct tw_cidr_v6, 20);
