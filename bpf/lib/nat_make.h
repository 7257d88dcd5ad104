/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/nat_flow.h"

/* Makes masqueraded flows. What is true is in tw_nat_rev alone: a port is taken when an entry can be made there.
 * tw_nat_ports only remembers, 64 ports at a time, where that is worth trying. */

#define TW_NAT_PROBES	 32 /* blocks of ports looked at */
#define TW_NAT_TRIES	 6  /* ports that may turn out to be taken after all, blocks that may turn out to be full */
#define TW_NAT_NO_PORT	 0xffffffffU
#define TW_NAT_SOME_PORT 0xfffffffeU /* any will do */
#define TW_NAT_AGAIN	 0xfffffffdU /* a block was asked about and has none: there are others */

/* What conntrack knows of src:sport -> dst:dport: 1: it is a connection's first direction, 2: its replies, 0: nothing.
 * Defined by the unit, as tw_ct_has_nat(). */
static __always_inline int tw_ct_direction(struct __sk_buff *skb, const struct tw_nat_key *key, int v6);

/* Would a reply of the key job->rev reach a socket of the host? */
static __always_inline int tw_nat_has_socket(struct __sk_buff *skb, struct tw_nat_job *job)
{
	const __u32 *src = (const __u32 *)&job->rev.src, *dst = (const __u32 *)&job->rev.dst;
	__u32 ports = bpf_htons(job->rev.sport) | (__u32)bpf_htons(job->rev.dport) << 16;
	int tcp = job->rev.proto == IPPROTO_TCP;
	struct bpf_sock *sock;
	__u32 *word = job->tuple;

	if (job->pkt.v6) {
#pragma unroll
		for (int i = 0; i < 4; i++) {
			word[i] = src[i];
			word[4 + i] = dst[i];
		}
		word[8] = ports;
		sock = tcp ? bpf_skc_lookup_tcp(skb, (void *)word, 36, BPF_F_CURRENT_NETNS, 0)
			   : bpf_sk_lookup_udp(skb, (void *)word, 36, BPF_F_CURRENT_NETNS, 0);
	} else {
		word[0] = src[3];
		word[1] = dst[3];
		word[2] = ports;
		sock = tcp ? bpf_skc_lookup_tcp(skb, (void *)word, 12, BPF_F_CURRENT_NETNS, 0)
			   : bpf_sk_lookup_udp(skb, (void *)word, 12, BPF_F_CURRENT_NETNS, 0);
	}
	if (!sock)
		return 0;
	bpf_sk_release(sock);
	return 1;
}

/* Does the port belong to somebody whom we do not see in tw_nat_rev: a socket of this host, or a connection that the
 * kernel translates? */
static __always_inline int tw_nat_is_foreign(struct __sk_buff *skb, struct tw_nat_job *job)
{
	if (job->rev.proto != IPPROTO_TCP && job->rev.proto != IPPROTO_UDP)
		return 0;
	if (tw_nat_has_socket(skb, job))
		return 1;
	return tw_cfg.ct_lookup && tw_ct_direction(skb, &job->rev, (int)job->pkt.v6);
}

/* Tries to take the port of job->rev for job->half. 1: it is taken. */
__noinline int tw_nat_take(struct __sk_buff *skb)
{
	struct tw_nat_job *job = tw_nat_job();
	struct tw_nat_flow *has;

	if (!job)
		return 0;
	has = bpf_map_lookup_elem(&tw_nat_rev, &job->rev);
	if (has && tw_nat_is_alive(has, job->now))
		return 0;
	if (has)
		tw_nat_end(job, &job->rev, has);
	if (tw_nat_is_foreign(skb, job))
		return 0;
	return !bpf_map_update_elem(&tw_nat_rev, &job->rev, job->half, BPF_NOEXIST);
}

/* One of the bits of `free`, which is not 0; any one with `any` random. */
static __always_inline __u32 tw_nat_pick(__u64 free, __u32 any)
{
	__u64 turned, lowest;

	any &= 63;
	turned = free >> any | free << (-any & 63);
	lowest = turned & -turned;
	/* Else clang 16 sees that zeros are counted, wants a table for that, and crashes. */
	asm volatile("" : "+r"(lowest));
	return ((__u32)__builtin_popcountll(lowest - 1) + any) & 63;
}

static __always_inline __u64 tw_nat_range_ports(__u32 block)
{
	struct tw_nat_range *range = bpf_map_lookup_elem(&tw_nat_range, TW_KEY(block & (TW_NAT_RANGES - 1)));

	return range ? range->ports : 0;
}

/* Asks tw_nat_rev for all ports of a block towards the remote end of job->rev, whose port is written, and remembers. */
__noinline int tw_nat_ask(struct __sk_buff *skb, __u32 block)
{
	struct tw_nat_job *job = tw_nat_job();
	struct tw_nat_block *kept;
	__u64 used = tw_forget(skb, 0);
	__u64 *word;

	if (!job)
		return -1;
	block &= TW_NAT_RANGES - 1;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 64; i++) {
		struct tw_nat_flow *has;

		job->rev.dport = (__u16)(block * 64 + i);
		has = bpf_map_lookup_elem(&tw_nat_rev, &job->rev);
		used = used >> 1 | (__u64)(has && tw_nat_is_alive(has, job->now)) << 63;
	}
	job->rev.dport = (__u16)(block * 64);
	kept = bpf_map_lookup_elem(&tw_nat_ports, TW_KEY(tw_nat_block_index(&job->rev, block)));
	if (!kept)
		return -1;
	word = (__u64 *)&kept->first;
#pragma unroll
	for (int i = 0; i < 5; i++)
		word[i] = ((const __u64 *)&job->rev)[i];
	kept->used = used;
	kept->checked = job->now;
	return 0;
}

/* Looks at blocks at random, or where they are few at all of them. Of two
 * that are remembered to have ports free the one with more becomes job->block: so all fill alike, and the last free
 * ports are in many blocks. One that is not remembered ends this and becomes job->unknown; else that is one that was
 * full more than a second ago. TW_NAT_NO_PORT: none. */
__noinline int tw_nat_scan(struct __sk_buff *skb, __u32 any)
{
	struct tw_nat_job *job = tw_nat_job();
	struct tw_nat_range *range = bpf_map_lookup_elem(&tw_nat_range, TW_KEY(0));
	__u32 blocks, nth, spread, best = tw_forget(skb, 0);

	if (!job || !range || !range->blocks)
		return -1;
	blocks = range->blocks;
	nth = any % blocks;
	spread = tw_forget(skb, blocks > TW_NAT_PROBES);
	job->block = job->unknown = TW_NAT_NO_PORT;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < TW_NAT_PROBES; i++) {
		struct tw_nat_block *kept;
		__u64 free;
		__u32 block;

		if (i >= blocks)
			break;
		if (nth >= blocks)
			nth -= blocks;
		range = bpf_map_lookup_elem(&tw_nat_range, TW_KEY(nth & (TW_NAT_RANGES - 1)));
		if (!range)
			break;
		any = any * 1664525 + 1013904223;
		nth = tw_forget(skb, spread ? (any >> 8) % blocks : nth + 1);
		block = range->nth & (TW_NAT_RANGES - 1);
		kept = bpf_map_lookup_elem(&tw_nat_ports, TW_KEY(tw_nat_block_index(&job->rev, block)));
		if (!kept)
			break;
		if (!tw_nat_block_is(kept, &job->rev, block * 64)) {
			job->unknown = block;
			break;
		}
		free = tw_nat_range_ports(block) & ~kept->used;
		if (free) {
			__u32 count = tw_forget(skb, (__u32)__builtin_popcountll(free));
			__u32 more = 0 - ((best - count) >> 31); /* no branch: a verifier would walk both ways */

			job->block = (block & more) | (job->block & ~more);
			if (best)
				break;
			best = count;
			continue;
		}
		if (kept->checked != job->now)
			job->unknown = block;
	}
	return 0;
}

/* A port that seems free towards the remote end of job->rev, TW_NAT_AGAIN or TW_NAT_NO_PORT. */
static __always_inline __u32 tw_nat_search(struct __sk_buff *skb, struct tw_nat_job *job)
{
	__u32 any = bpf_get_prandom_u32(), block;
	struct tw_nat_block *kept;
	__u64 free;

	if (tw_nat_scan(skb, any))
		return TW_NAT_NO_PORT;
	block = job->block;
	if (block == TW_NAT_NO_PORT) {
		block = job->unknown;
		if (block == TW_NAT_NO_PORT || tw_nat_ask(skb, block))
			return TW_NAT_NO_PORT;
	}
	block &= TW_NAT_RANGES - 1;
	kept = bpf_map_lookup_elem(&tw_nat_ports, TW_KEY(tw_nat_block_index(&job->rev, block)));
	if (!kept)
		return TW_NAT_NO_PORT;
	free = tw_nat_range_ports(block) & ~kept->used;
	return free ? block * 64 + tw_nat_pick(free, any >> 16) : TW_NAT_AGAIN;
}

/* A random port of the range. */
static __always_inline __u32 tw_nat_any_port(void)
{
	struct tw_nat_range *range = bpf_map_lookup_elem(&tw_nat_range, TW_KEY(0));
	__u32 any = bpf_get_prandom_u32(), block;
	__u64 ports;

	if (!range || !range->blocks)
		return TW_NAT_NO_PORT;
	range = bpf_map_lookup_elem(&tw_nat_range, TW_KEY(any % range->blocks & (TW_NAT_RANGES - 1)));
	if (!range)
		return TW_NAT_NO_PORT;
	block = range->nth & (TW_NAT_RANGES - 1);
	ports = tw_nat_range_ports(block);
	return ports ? block * 64 + tw_nat_pick(ports, any >> 16) : TW_NAT_NO_PORT;
}

static __always_inline __u8 tw_nat_first_state(const struct tw_nat_pkt *pkt)
{
	if (pkt->key.proto == IPPROTO_TCP)
		return TW_NAT_SYN_SENT;
	if (pkt->key.proto == IPPROTO_UDP)
		return TW_NAT_UDP;
	return tw_nat_is_icmp(pkt->key.proto, pkt->v6) ? TW_NAT_ECHO : TW_NAT_OTHER;
}

/* Makes the flow of the packet with source `job->addr`. `wish`: the port that it should have, TW_NAT_SOME_PORT: any.
 * Returns its port, or what is below 0: a drop. */
__noinline int tw_nat_make(struct __sk_buff *skb, __u32 wish)
{
	struct tw_nat_job *job = tw_nat_job();
	__u32 port = wish, state, until;
	struct tw_nat_key *rev;
	const __u64 *src, *to;
	int at, taken = 0;

	if (!job)
		return TW_DROP(KERNEL_ERROR);
	src = (const __u64 *)&job->pkt.key.src;
	to = (const __u64 *)&job->addr;
	rev = &job->rev;
	state = tw_nat_first_state(&job->pkt);
	until = job->now + tw_nat_timeout(state);
	at = tw_nat_place(skb, 0);
	if (at < 0)
		return TW_DROP(NAT_TABLE);
	tw_nat_key_set(rev, &job->pkt.key.dst, &job->addr, job->pkt.key.dport, job->pkt.key.proto);
	job->half[0] = src[0];
	job->half[1] = src[1];
	job->half[2] = job->pkt.key.sport | (__u64)state << 16 | (__u64)until << 32;
	job->half[3] = (__u32)at;
	if (port == TW_NAT_SOME_PORT)
		port = tw_nat_any_port();
#pragma clang loop unroll(disable)
	for (int i = 0; i < TW_NAT_TRIES; i++) {
		if (port == TW_NAT_NO_PORT)
			break;
		if (port != TW_NAT_AGAIN) {
			rev->dport = (__u16)port;
			taken = tw_nat_take(skb);
			if (taken)
				break;
			tw_nat_block_note(rev, 1);
			if (!tw_nat_has_port(job->pkt.key.proto, job->pkt.v6))
				break;
		}
		port = tw_nat_search(skb, job);
		port = tw_forget(skb, port);
	}
	if (!taken)
		return TW_DROP(NAT_PORTS);
	job->half[0] = to[0];
	job->half[1] = to[1];
	job->half[2] = (port & 0xffff) | (__u64)state << 16 | (__u64)until << 32;
	if (bpf_map_update_elem(&tw_nat_fwd, &job->pkt.key, job->half, BPF_ANY)) {
		bpf_map_delete_elem(&tw_nat_rev, rev);
		return TW_DROP(NAT_TABLE);
	}
	tw_nat_block_note(rev, 1);
	tw_nat_settle(at, rev, 0);
	return (int)(port & 0xffff);
}
