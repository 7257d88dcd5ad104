/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/flow.h"

/* In front of all other maps: whether the fast path may carry a packet, and where to, once found out, is known for the
 * next packet of the flow without asking anything. Hashed look-ups are most of what a packet costs otherwise. Direct
 * mapped: a flow that falls on another's slot takes it. One for each CPU, where programs do not interrupt each other,
 * so an entry is never seen half written. */

/* What a finding rests on; to be read before anything is looked up. */
struct tw_basis {
	__u64 epoch;
	__u32 gen;
};

static __always_inline struct tw_basis tw_cache_basis(__u32 hash)
{
	struct tw_basis basis = {};
	__u64 *epoch = bpf_map_lookup_elem(&tw_epoch, TW_KEY(0));
	__u32 *gen = bpf_map_lookup_elem(&tw_flow_gen, TW_KEY(tw_gen_index(hash)));

	if (epoch && gen) {
		basis.epoch = *(volatile __u64 *)epoch;
		if (basis.epoch)
			basis.epoch ^= tw_generation;
		basis.gen = *(volatile __u32 *)gen;
	}
	return basis;
}

/* The slot for a packet of the flow, whoever's it is now. `src` is the packet's source address, folded by XOR: the two
 * directions must not take each other's slot. NULL never happens, but the verifier cannot know. */
static __always_inline struct tw_cached *tw_cache_slot(__u32 hash, __u32 src)
{
	return bpf_map_lookup_elem(&tw_flow_cache, TW_KEY(tw_mix(hash ^ src) & (TW_CACHED_MAX - 1)));
}

/* May a finding stand for the packet, whose transport header is parsed? Only what has ports: echoes are rare, and ICMP
 * errors are judged by the flow that they are about. */
static __always_inline int tw_cacheable(const struct tw_pkt *pkt)
{
	return !pkt->odd && pkt->flow_proto && pkt->flow_proto == pkt->proto;
}

/* Writes the part that identifies; the finding itself is the caller's to fill in, before or after. `outer` may be NULL.
 * Any packet's may stay here until the next comes; it is found again only if it is cacheable. */
static __always_inline void tw_cache_store(struct tw_cached *cached, const struct tw_basis *basis, __u32 ifindex,
					   const struct tw_pkt *pkt, const struct tw_addr *outer, int tunnel)
{
	if (outer)
		cached->outer = *outer;
	else
		__builtin_memset(&cached->outer, 0, sizeof(cached->outer));
	cached->src = pkt->src;
	cached->dst = pkt->dst;
	cached->ifindex = ifindex;
	cached->sport = bpf_htons(pkt->sport);
	cached->dport = bpf_htons(pkt->dport);
	cached->proto = pkt->proto;
	cached->v6 = pkt->v6;
	cached->tunnel = (__u8)tunnel;
	cached->gen = basis->gen;
	cached->epoch = tw_cacheable(pkt) ? basis->epoch : 0;
}
