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

static __always_inline struct tw_basis tw_cache_basis(const struct tw_pkt *pkt)
{
	struct tw_basis basis = {};
	__u32 zero = 0, bucket = tw_flow_bucket(pkt);
	__u64 *epoch = bpf_map_lookup_elem(&tw_epoch, &zero);
	__u32 *gen = bpf_map_lookup_elem(&tw_flow_gen, &bucket);

	if (epoch && gen) {
		basis.epoch = *(volatile __u64 *)epoch;
		basis.gen = *(volatile __u32 *)gen;
	}
	return basis;
}

/* The slot for the packet, whoever's it is now. NULL never happens, but the verifier cannot know. */
static __always_inline struct tw_cached *tw_cache_slot(const struct tw_pkt *pkt)
{
	__u32 slot = (tw_flow_hash(pkt) ^ tw_addr_v4(&pkt->src)) * 0x85ebca6bU >> 16 & (TW_CACHED_MAX - 1);

	return bpf_map_lookup_elem(&tw_flow_cache, &slot);
}

/* May a finding stand for the packet, whose transport header is parsed? Only what has ports: echoes are rare, and ICMP
 * errors are judged by the flow that they are about. */
static __always_inline int tw_cacheable(const struct tw_pkt *pkt)
{
	return !pkt->odd && pkt->flow_proto && pkt->flow_proto == pkt->proto;
}

/* Is the entry about the packet? `outer` may be NULL. A connection request is never answered from
 * here: its ports may have changed hands. */
static __always_inline int tw_cache_hit(const struct tw_cached *cached, const struct tw_basis *basis, __u32 ifindex,
					const struct tw_pkt *pkt, const struct tw_addr *outer)
{
	const __u64 *have = (const __u64 *)cached, *src = (const __u64 *)&pkt->src, *dst = (const __u64 *)&pkt->dst;
	const __u64 none[2] = {}, *from = outer ? (const __u64 *)outer : none;

	__u64 differs;

	/* One test at the end, not twelve: the verifier follows each. */
	differs = (cached->epoch ^ basis->epoch) | (cached->gen ^ basis->gen) | (cached->ifindex ^ ifindex) |
		  (cached->sport ^ pkt->sport) | (cached->dport ^ pkt->dport) | (cached->proto ^ pkt->proto) |
		  (have[0] ^ src[0]) | (have[1] ^ src[1]) | (have[2] ^ dst[0]) | (have[3] ^ dst[1]) |
		  (have[4] ^ from[0]) | (have[5] ^ from[1]) | pkt->first | pkt->odd | (pkt->flow_proto ^ pkt->proto);
	if (outer) /* "::" sends nothing, and would be taken for the entry of a packet without VXLAN */
		differs |= !(from[0] | from[1]);
	return !differs && basis->epoch;
}

/* Writes the part that identifies; the finding itself is the caller's to fill in, before or after. Any packet's may
 * stay here until the next comes; it is found again only if it is cacheable. */
static __always_inline void tw_cache_store(struct tw_cached *cached, const struct tw_basis *basis, __u32 ifindex,
					   const struct tw_pkt *pkt, const struct tw_addr *outer)
{
	if (outer)
		cached->outer = *outer;
	else
		__builtin_memset(&cached->outer, 0, sizeof(cached->outer));
	cached->src = pkt->src;
	cached->dst = pkt->dst;
	cached->ifindex = ifindex;
	cached->sport = pkt->sport;
	cached->dport = pkt->dport;
	cached->proto = pkt->proto;
	cached->gen = basis->gen;
	cached->epoch = tw_cacheable(pkt) ? basis->epoch : 0;
}
