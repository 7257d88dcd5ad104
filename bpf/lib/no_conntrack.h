/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/common.h"
#include "maps/abi/nat.h"

/* In place of bpf/lib/conntrack.h. A constant in .rodata does not do: a call of a kernel function needs the kernel's
 * BTF and its JIT even where it is never reached, and so does the relocation of a field. */

static __always_inline int tw_ct_has_nat(struct __sk_buff *skb, const struct tw_addr *src, const struct tw_addr *dst,
					 __u16 sport, __u16 dport, __u8 proto, int v6)
{
	(void)skb, (void)src, (void)dst, (void)sport, (void)dport, (void)proto, (void)v6;
	return 0;
}

static __always_inline int tw_ct_direction(struct __sk_buff *skb, const struct tw_nat_key *key, int v6)
{
	(void)skb, (void)key, (void)v6;
	return 0;
}
