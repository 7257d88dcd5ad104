/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/flow.h"
#include "bpf/lib/nat_parse.h"

/* Masqueraded flows and their life. A flow has two halves, under the key of its packets in tw_nat_fwd and under that of
 * its replies in tw_nat_rev; each with its key is the whole flow, and both say the same of state and time. Nothing
 * evicts one, and nobody has to tidy up: a half whose time is over counts as absent and goes when somebody meets it. */

#define TW_NAT_PLACES	40 /* for a flow, looked at */
#define TW_NAT_NO_PLACE 0xffffffffU

/* In seconds, by enum tw_nat_state: the defaults of the kernel's nf_conntrack_*. */
static const __u32 tw_nat_timeouts[16] = {
	[TW_NAT_NONE] = 0,	 [TW_NAT_SYN_SENT] = 120,  [TW_NAT_SYN_RECV] = 60, [TW_NAT_ESTABLISHED] = 432000,
	[TW_NAT_FIN_WAIT] = 120, [TW_NAT_CLOSE_WAIT] = 60, [TW_NAT_LAST_ACK] = 30, [TW_NAT_TIME_WAIT] = 120,
	[TW_NAT_CLOSE] = 10,	 [TW_NAT_SYN_SENT2] = 120, [TW_NAT_UDP] = 30,	   [TW_NAT_UDP_BOTH] = 120,
	[TW_NAT_ECHO] = 30,	 [TW_NAT_OTHER] = 600,
};

/* Four bits for each state: the next one. Those of TCP are the kernel's (tcp_conntracks); where it calls a packet
 * invalid or ignores it, the state stays. */
#define TW_NAT_ROW(no, ss, sr, es, fw, cw, la, tw, cl, s2, udp) \
	(no##ULL | ss##ULL << 4 | sr##ULL << 8 | es##ULL << 12 | fw##ULL << 16 | cw##ULL << 20 | la##ULL << 24 | \
	 tw##ULL << 28 | cl##ULL << 32 | s2##ULL << 36 | udp##ULL << 40 | 11ULL << 44 | 12ULL << 48 | 13ULL << 52)

/* By event, first of the packets, then of the replies. */
static const __u64 tw_nat_steps[16] = {
	[TW_NAT_EV_SYN] = TW_NAT_ROW(1, 1, 2, 3, 4, 5, 6, 1, 1, 9, 10),
	[TW_NAT_EV_SYNACK] = TW_NAT_ROW(0, 1, 2, 3, 4, 5, 6, 7, 8, 2, 10),
	[TW_NAT_EV_FIN] = TW_NAT_ROW(0, 1, 4, 4, 6, 6, 6, 7, 8, 9, 10),
	[TW_NAT_EV_ACK] = TW_NAT_ROW(3, 1, 3, 3, 5, 5, 7, 7, 8, 9, 10),
	[TW_NAT_EV_RST] = TW_NAT_ROW(0, 8, 8, 8, 8, 8, 8, 8, 8, 8, 10),
	[TW_NAT_EV_NOTHING] = TW_NAT_ROW(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
	[TW_NAT_EV_DATA] = TW_NAT_ROW(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
	[TW_NAT_EV_ANSWER] = TW_NAT_ROW(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
	[8 + TW_NAT_EV_SYN] = TW_NAT_ROW(0, 9, 2, 3, 4, 5, 6, 1, 8, 9, 11),
	[8 + TW_NAT_EV_SYNACK] = TW_NAT_ROW(0, 2, 2, 3, 4, 5, 6, 7, 8, 2, 11),
	[8 + TW_NAT_EV_FIN] = TW_NAT_ROW(0, 1, 4, 4, 6, 6, 6, 7, 8, 9, 11),
	[8 + TW_NAT_EV_ACK] = TW_NAT_ROW(0, 1, 2, 3, 5, 5, 7, 7, 8, 9, 11),
	[8 + TW_NAT_EV_RST] = TW_NAT_ROW(0, 8, 8, 8, 8, 8, 8, 8, 8, 8, 11),
	[8 + TW_NAT_EV_NOTHING] = TW_NAT_ROW(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11),
	[8 + TW_NAT_EV_DATA] = TW_NAT_ROW(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11),
	[8 + TW_NAT_EV_ANSWER] = TW_NAT_ROW(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11),
};

static __always_inline __u32 tw_nat_timeout(__u32 state)
{
	return ((const volatile __u32 *)tw_nat_timeouts)[state & 15];
}

/* `reply`: 0 or 1. */
static __always_inline __u8 tw_nat_next(__u32 state, __u64 event, __u32 reply)
{
	__u64 row = ((const volatile __u64 *)tw_nat_steps)[((__u32)event & 7) | reply << 3];

	return (__u8)(row >> 4 * (state & 15) & 15);
}

static __always_inline __u32 tw_nat_now(void)
{
	return (__u32)(bpf_ktime_get_ns() / 1000000000);
}

static __always_inline int tw_nat_is_alive(const struct tw_nat_flow *half, __u32 now)
{
	return (__s32)(half->until - now) > 0;
}

/* The key of the other half. From tw_nat_fwd (`reply` 0) it is that of the replies: to the new source; from tw_nat_rev
 * that of the packets: from the old one. */
static __always_inline void tw_nat_turn(const struct tw_nat_key *key, const struct tw_nat_flow *half, __u32 reply,
					struct tw_nat_key *other)
{
	const __u64 *near = (const __u64 *)(reply ? &key->src : &key->dst), *far = (const __u64 *)&half->addr;
	__u32 here = reply ? key->sport : key->dport;
	__u64 *word = (__u64 *)other;

	/* In tw_nat_rev the remote end is the source, in tw_nat_fwd the destination. */
	word[0] = reply ? far[0] : near[0];
	word[1] = reply ? far[1] : near[1];
	word[2] = reply ? near[0] : far[0];
	word[3] = reply ? near[1] : far[1];
	word[4] = (reply ? half->port | here << 16 : here | (__u32)half->port << 16) | (__u64)key->proto << 32;
}

/* Does `half` say the address and port that `key` has on the side of the pod? */
static __always_inline int tw_nat_points_at(const struct tw_nat_flow *half, const struct tw_nat_key *key, __u32 reply)
{
	const __u64 *x = (const __u64 *)&half->addr, *y = (const __u64 *)(reply ? &key->dst : &key->src);

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (half->port ^ (reply ? key->dport : key->sport)));
}

/* Where the block of `port` is kept. */
static __always_inline __u32 tw_nat_block_index(const struct tw_nat_key *rev, __u32 block)
{
	__u32 fold = tw_addr_fold(&rev->src) + tw_addr_fold(&rev->dst) * 31;

	return (tw_mix(fold + rev->sport * 0x2c1b3c6dU + rev->proto * 7) + block) & (TW_NAT_BLOCKS - 1);
}

/* Is the block the one with `port` towards the remote end of `rev`? */
static __always_inline int tw_nat_block_is(const struct tw_nat_block *block, const struct tw_nat_key *rev, __u32 first)
{
	const __u64 *x = (const __u64 *)&block->first, *y = (const __u64 *)rev;
	__u64 last = (y[4] & ~0xffff0000ULL) | (__u64)first << 16;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ last));
}

/* Notes in the block, if it is kept, that the port of `rev` is in use, or not. */
static __always_inline void tw_nat_block_note(const struct tw_nat_key *rev, int used)
{
	__u32 port = rev->dport;
	struct tw_nat_block *block = bpf_map_lookup_elem(&tw_nat_ports, TW_KEY(tw_nat_block_index(rev, port / 64)));
	__u64 bit = 1ULL << (port & 63);

	if (!block || !tw_nat_block_is(block, rev, port & ~63U))
		return;
	/* Not atomic: a bit lost costs a probe. */
	block->used = used ? block->used | bit : block->used & ~bit;
}

/* Ends the flow of a half in tw_nat_rev. */
static __always_inline void tw_nat_end(struct tw_nat_job *job, const struct tw_nat_key *rev,
				       const struct tw_nat_flow *half)
{
	struct tw_nat_key *fwd = &job->ended;
	struct tw_nat_flow *other;

	tw_nat_turn(rev, half, 1, fwd);
	tw_nat_block_note(rev, 0);
	other = bpf_map_lookup_elem(&tw_nat_fwd, fwd);
	if (other && !other->plain && tw_nat_points_at(other, rev, 1))
		bpf_map_delete_elem(&tw_nat_fwd, fwd);
	bpf_map_delete_elem(&tw_nat_rev, rev);
}

/* The half for the packet, or NULL. `reply`: a constant. */
static __always_inline struct tw_nat_flow *tw_nat_lookup(const struct tw_nat_key *key, __u32 reply)
{
	return reply ? bpf_map_lookup_elem(&tw_nat_rev, key) : bpf_map_lookup_elem(&tw_nat_fwd, key);
}

/* Writes what both halves say. */
static __always_inline void tw_nat_stamp(struct tw_nat_flow *half, __u8 state, __u32 until)
{
	half->state = state;
	half->until = until;
}

/* A place for one more flow, in tw_nat_slots: an empty one, that of a flow whose time is over, which ends here, or at
 * last that of a plain one, whose loss does less harm than a flow refused. -1: none found. `plain`: it is for a plain
 * one, which anybody outside can cause: only half of the places are for those, and they take none from each other.
 * job->rev is written. */
__noinline int tw_nat_place(struct __sk_buff *skb, __u32 plain)
{
	__u32 max = plain ? tw_cfg.nat_max / 2 : tw_cfg.nat_max;
	__u32 any = bpf_get_prandom_u32(), at = max ? any % max : 0, weak = tw_forget(skb, TW_NAT_NO_PLACE);
	struct tw_nat_job *job = tw_nat_job();
	struct tw_nat_key *last;

	if (!job)
		return -1;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < TW_NAT_PLACES; i++) {
		struct tw_nat_key *place = bpf_map_lookup_elem(&tw_nat_slots, TW_KEY(at));
		struct tw_nat_flow *has;

		if (!place)
			return -1;
		if (!place->proto)
			return (int)at;
		tw_nat_key_set(&job->rev, &place->src, &place->dst, place->sport | (__u32)place->dport << 16,
			       place->proto);
		if (place->reserved[0]) { /* a plain one */
			has = bpf_map_lookup_elem(&tw_nat_fwd, &job->rev);
			if (!has || !has->plain || has->place != at)
				return (int)at;
			if (!tw_nat_is_alive(has, job->now)) {
				bpf_map_delete_elem(&tw_nat_fwd, &job->rev);
				return (int)at;
			}
			weak = tw_forget(skb, at);
		} else {
			has = bpf_map_lookup_elem(&tw_nat_rev, &job->rev);
			if (!has || has->place != at)
				return (int)at;
			if (!tw_nat_is_alive(has, job->now)) {
				tw_nat_end(job, &job->rev, has);
				return (int)at;
			}
		}
		/* At random: in a row, taken places would grow together. */
		any = any * 1664525 + 1013904223;
		at = max > TW_NAT_PLACES ? any % max : at + 1;
		at = tw_forget(skb, at < max ? at : 0);
	}
	if (plain || weak == TW_NAT_NO_PLACE)
		return -1;
	last = bpf_map_lookup_elem(&tw_nat_slots, TW_KEY(weak));
	if (!last)
		return -1;
	tw_nat_key_set(&job->rev, &last->src, &last->dst, last->sport | (__u32)last->dport << 16, last->proto);
	bpf_map_delete_elem(&tw_nat_fwd, &job->rev);
	return (int)weak;
}

/* Puts the flow there. `plain`: the key is that of a half in tw_nat_fwd that has no other. */
static __always_inline void tw_nat_settle(int at, const struct tw_nat_key *key, __u8 plain)
{
	struct tw_nat_key *place = bpf_map_lookup_elem(&tw_nat_slots, TW_KEY((__u32)at));

	if (at < 0 || !place)
		return;
	tw_nat_key_set(place, &key->src, &key->dst, key->sport | (__u32)key->dport << 16, key->proto);
	place->reserved[0] = plain;
}

/* A packet of the flow `half`, which is alive, in the direction `reply` (a constant). Once in a second, and when the
 * state changes, the other half is looked at: it is told, made if it is missing, and if it belongs to another flow by
 * now, this half is of none. Returns 1, or 0 if there is no such flow any more. */
static __always_inline int tw_nat_touch(struct __sk_buff *skb, struct tw_nat_job *job, struct tw_nat_flow *half,
					__u32 reply)
{
	const struct tw_nat_key *key = &job->pkt.key;
	struct tw_nat_key *turned = &job->turned;
	__u8 state = tw_nat_next(half->state, job->pkt.event, reply);
	__u32 until = job->now + tw_nat_timeout(state);
	struct tw_nat_flow *other;

	if (likely(half->state == state && half->until == until))
		return 1;
	if (half->plain) {
		half->until = until;
		return 1;
	}
	tw_nat_turn(key, half, reply, turned);
	other = tw_nat_lookup(turned, !reply);
	if (other && tw_nat_points_at(other, key, reply)) {
		tw_nat_stamp(other, state, until);
	} else if (other && tw_nat_is_alive(other, job->now)) {
		if (reply) {
			tw_nat_block_note(key, 0);
			bpf_map_delete_elem(&tw_nat_rev, key);
		} else {
			bpf_map_delete_elem(&tw_nat_fwd, key);
		}
		return 0;
	} else {
		const __u64 *side = (const __u64 *)(reply ? &key->dst : &key->src);
		int place = reply ? (int)half->place : tw_nat_place(skb, 0);
		__u64 *made = job->half;

		if (place < 0)
			return 0;
		made[0] = side[0];
		made[1] = side[1];
		made[2] = (reply ? key->dport : key->sport) | (__u64)state << 16 | (__u64)until << 32;
		made[3] = (__u32)place;
		if (reply ? bpf_map_update_elem(&tw_nat_fwd, turned, made, BPF_ANY)
			  : bpf_map_update_elem(&tw_nat_rev, turned, made, BPF_ANY))
			return 0;
		if (!reply) {
			half->place = (__u32)place;
			tw_nat_block_note(turned, 1);
			tw_nat_settle(place, turned, 0);
		}
	}
	tw_nat_stamp(half, state, until);
	return 1;
}
