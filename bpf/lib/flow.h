/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/parse.h"

/* Both directions of a flow go through the stack on this node, or neither: replies of a flow that kube-proxy translated
 * must meet conntrack again. The verdict is kept in a map; on a miss conntrack is asked, so an evicted entry costs one
 * question and is never wrong. */

/* 1 when conntrack holds a translated connection one of whose two directions is src:sport -> dst:dport. Defined by the
 * unit: bpf/lib/conntrack.h asks, bpf/lib/no_conntrack.h cannot. */
static __always_inline int tw_ct_has_nat(struct __sk_buff *skb, const struct tw_addr *src, const struct tw_addr *dst,
					 __u16 sport, __u16 dport, __u8 proto, int v6);

/* Is the destination the lower end, in memory order? */
static __always_inline int tw_flow_swapped(const struct tw_pkt *pkt)
{
	const __u64 *a = (const __u64 *)&pkt->flow_src;
	const __u64 *b = (const __u64 *)&pkt->flow_dst;

	for (int i = 0; i < 2; i++)
		if (a[i] != b[i])
			return bpf_be64_to_cpu(a[i]) > bpf_be64_to_cpu(b[i]);
	return pkt->sport > pkt->dport;
}

/* Written word by word and the same way for both orders: see TW_KEY. */
static __always_inline void tw_flow_key(struct __sk_buff *skb, const struct tw_pkt *pkt, struct tw_flow *key)
{
	const __u64 *src = (const __u64 *)&pkt->flow_src, *dst = (const __u64 *)&pkt->flow_dst;
	__u64 swap = 0 - (__u64)(tw_forget(skb, (__u32)tw_flow_swapped(pkt)) & 1);
	__u64 first = (src[0] ^ dst[0]) & swap, second = (src[1] ^ dst[1]) & swap;
	__u64 ports = (pkt->sport ^ pkt->dport) & swap, *word = (__u64 *)key;

	word[0] = src[0] ^ first;
	word[1] = src[1] ^ second;
	word[2] = dst[0] ^ first;
	word[3] = dst[1] ^ second;
	word[4] = (pkt->sport ^ ports) | (pkt->dport ^ ports) << 16 | (__u64)pkt->flow_proto << 32;
}

static __always_inline struct tw_flow_state *tw_flow_find(const struct tw_pkt *pkt, const struct tw_flow *key)
{
	if (pkt->flow_proto == IPPROTO_TCP)
		return bpf_map_lookup_elem(&tw_flows_tcp, key);
	return bpf_map_lookup_elem(&tw_flows_any, key);
}

/* Every bit of `value` moves every one of the 24 bits of the result. */
static __always_inline __u32 tw_mix(__u32 value)
{
	return (__u32)(value * 0x9e3779b97f4a7c15ULL >> 40);
}

/* Hash of a flow, the same for both directions: of its addresses and ports, each pair combined by XOR and folded. */
static __always_inline __u32 tw_hash(__u32 addrs, __u32 ports)
{
	return tw_mix(addrs + ports * 0x2c1b3c6dU);
}

/* An address folded to one word by XOR. */
static __always_inline __u32 tw_addr_fold(const struct tw_addr *addr)
{
	const __u32 *word = (const __u32 *)addr;

	return word[0] ^ word[1] ^ word[2] ^ word[3];
}

static __always_inline __u32 tw_flow_hash(const struct tw_pkt *pkt)
{
	return tw_hash(tw_addr_fold(&pkt->flow_src) ^ tw_addr_fold(&pkt->flow_dst), pkt->sport ^ pkt->dport);
}

/* Where in tw_flow_gen. */
static __always_inline __u32 tw_gen_index(__u32 hash)
{
	return hash & (TW_GENS_MAX - 1);
}

/* `flags`: BPF_ANY, or BPF_NOEXIST to leave what somebody else found out meanwhile. */
static __always_inline void tw_flow_store(const struct tw_pkt *pkt, const struct tw_flow *key, enum tw_verdict verdict,
					  __u64 flags)
{
	__u64 state = verdict; /* struct tw_flow_state */
	__u32 *gen;

	if (pkt->flow_proto == IPPROTO_TCP)
		bpf_map_update_elem(&tw_flows_tcp, key, &state, flags);
	else
		bpf_map_update_elem(&tw_flows_any, key, &state, flags);
	if (verdict != TW_VERDICT_STACK)
		return;
	/* After the verdict: whoever sees the old number may have asked before it. */
	gen = bpf_map_lookup_elem(&tw_flow_gen, TW_KEY(tw_gen_index(tw_flow_hash(pkt))));
	if (gen)
		__sync_fetch_and_add(gen, 1);
}

static __always_inline int tw_ct_has_nat_either_way(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	int nat =
		tw_ct_has_nat(skb, &pkt->flow_src, &pkt->flow_dst, pkt->sport, pkt->dport, pkt->flow_proto, pkt->v6) ||
		tw_ct_has_nat(skb, &pkt->flow_dst, &pkt->flow_src, pkt->dport, pkt->sport, pkt->flow_proto, pkt->v6);

	return (int)tw_forget(skb, (__u32)nat);
}

/* 0: the programs may carry it; else FLOW_STACK. A connection request asks anew: its ports may have belonged to a
 * connection of the other kind. */
static __always_inline int tw_flow_check(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	enum tw_verdict verdict = TW_VERDICT_FAST;
	struct tw_flow_state *state;
	struct tw_flow key __attribute__((aligned(8)));

	if (!pkt->flow_proto)
		return 0;
	tw_flow_key(skb, pkt, &key);
	if (!pkt->first) {
		state = tw_flow_find(pkt, &key);
		if (state)
			return state->verdict == TW_VERDICT_STACK ? TW_STACK(FLOW_STACK) : 0;
	}
	if (tw_cfg.ct_lookup && tw_ct_has_nat_either_way(skb, pkt))
		verdict = TW_VERDICT_STACK;
	/* Between question and answer the stack may have been seen to translate the flow. */
	tw_flow_store(pkt, &key, verdict, verdict == TW_VERDICT_STACK || pkt->first ? BPF_ANY : BPF_NOEXIST);
	return verdict == TW_VERDICT_STACK ? TW_STACK(FLOW_STACK) : 0;
}

/* For hooks that see only what the stack forwards to pods: remembers a translated flow as the stack's before its first
 * reply comes. Plain flows are not made the stack's, or one odd packet of theirs would make them slow for ever; without
 * the conntrack lookup (before 5.18) that cannot be told apart and every flow seen here is the stack's. A TCP verdict
 * holds until the next connection request; one for UDP is asked again, as nothing tells when its ports change hands. */
static __always_inline void tw_flow_note(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	struct tw_flow_state *state;
	struct tw_flow key __attribute__((aligned(8)));
	int nat;

	if (!pkt->flow_proto || !tw_in_cluster(&pkt->src))
		return; /* the reply cannot take the fast path */
	if (!tw_cfg.ct_lookup && pkt->proto != pkt->flow_proto)
		return; /* an ICMP error does not tell who carries the flow: the node itself answers what is too big */
	tw_flow_key(skb, pkt, &key);
	state = tw_flow_find(pkt, &key);
	if (state && !pkt->first &&
	    (state->verdict == TW_VERDICT_STACK || (pkt->flow_proto == IPPROTO_TCP && tw_cfg.ct_lookup)))
		return;
	/* The packet is translated already: conntrack knows its reply by just the turned-round addresses. */
	nat = !tw_cfg.ct_lookup ||
	      tw_ct_has_nat(skb, &pkt->flow_dst, &pkt->flow_src, pkt->dport, pkt->sport, pkt->flow_proto, pkt->v6);
	if (nat)
		tw_flow_store(pkt, &key, TW_VERDICT_STACK, BPF_ANY);
	else if (!state || pkt->first)
		tw_flow_store(pkt, &key, TW_VERDICT_FAST, BPF_ANY);
}
