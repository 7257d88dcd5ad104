/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/encap.h"
#include "bpf/lib/nat_parse.h"

/* Writes addresses and ports into packets. Checksums through the kernel's helpers, which know whether a sum is there,
 * to be made by the NIC (then only the pseudo header's part is changed) or made by it already. */

/* Where the checksum is in a transport header; 0: has none, or none that we change (SCTP: ports stay). */
static __always_inline __u32 tw_nat_check_off(__u64 proto, __u64 v6)
{
	if (proto == IPPROTO_TCP)
		return 16;
	if (proto == IPPROTO_UDP)
		return 6;
	return tw_nat_is_icmp(proto, v6) ? 2 : 0;
}

/* Where the port is that a rewritten source (`dst` 0) or destination has; ICMP echo has one identifier. */
static __always_inline __u32 tw_nat_port_off(__u64 proto, __u64 v6, int dst)
{
	if (tw_nat_is_icmp(proto, v6))
		return 4;
	return dst ? 2 : 0;
}

/* Is the address part of the transport checksum? */
static __always_inline int tw_nat_has_pseudo(__u64 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_ICMPV6;
}

static __always_inline int tw_nat_put_addr(struct __sk_buff *skb, __u32 l3_off, __u64 v6, int dst,
					   const struct tw_addr *from, const struct tw_addr *to)
{
	if (v6)
		return (int)bpf_skb_store_bytes(skb, l3_off + (dst ? 24 : 8), to, sizeof(*to), 0);
	if (bpf_l3_csum_replace(skb, l3_off + 10, tw_addr_v4(from), tw_addr_v4(to), 4))
		return -1;
	return (int)bpf_skb_store_bytes(skb, l3_off + (dst ? 16 : 12), to->low, sizeof(to->low), 0);
}

/* Gives the packet, or the error about one, another source (`dst` 0) or destination. `check` is the checksum's place in
 * the frame, 0: none. 0 or an error. */
static __always_inline int tw_nat_write_addr(struct __sk_buff *skb, const struct tw_nat_pkt *pkt, int dst,
					     const struct tw_addr *from, const struct tw_addr *to, __u32 check,
					     __u64 flags)
{
	__s64 diff = bpf_csum_diff((__be32 *)from, sizeof(*from), (__be32 *)to, sizeof(*to), 0);

	if (check && bpf_l4_csum_replace(skb, check, 0, (__u64)diff, flags | BPF_F_PSEUDO_HDR))
		return -1;
	/* The helper takes the change of the checksum for one of the whole packet's sum, which over IPv6 the address
	 * makes good again. */
	if (pkt->v6)
		bpf_csum_update(skb, (__wsum)diff);
	return tw_nat_put_addr(skb, ETH_HLEN, pkt->v6, dst, from, to);
}

/* Packet `pkt`, no ICMP error: its source (`dst` 0) or destination becomes `to` with `port`. */
static __always_inline int tw_nat_write_plain(struct __sk_buff *skb, const struct tw_nat_pkt *pkt, int dst,
					      const struct tw_addr *to, __u16 port)
{
	const struct tw_addr *from = dst ? &pkt->l3.dst : &pkt->l3.src;
	__u32 l4 = (__u32)pkt->l3.l4_off, check = 0;
	__u64 flags = pkt->l3.proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__be16 old = bpf_htons(dst ? pkt->key.dport : pkt->key.sport), new = bpf_htons(port);

	if (!pkt->l3.later)
		check = tw_nat_check_off(pkt->l3.proto, pkt->v6);
	check = tw_forget(skb, check);
	if (tw_nat_write_addr(skb, pkt, dst, from, to, check && tw_nat_has_pseudo(pkt->l3.proto) ? l4 + check : 0,
			      flags))
		return -1;
	if (!check || old == new)
		return 0;
	if (bpf_l4_csum_replace(skb, l4 + check, old, new, flags | sizeof(new)))
		return -1;
	return (int)bpf_skb_store_bytes(skb, l4 + tw_nat_port_off(pkt->l3.proto, pkt->v6, dst), &new, sizeof(new), 0);
}

/* The quoted packet's checksum, if the quote reaches so far, and the error's with it. */
static __always_inline int tw_nat_write_quoted_check(struct __sk_buff *skb, const struct tw_nat_pkt *pkt, __u32 icmp,
						     __u32 diff)
{
	__u32 at = (__u32)pkt->quoted.l4_off + tw_nat_check_off(pkt->quoted.proto, pkt->v6);
	__u64 old = 0;
	__u16 new;

	if (at == (__u32)pkt->quoted.l4_off || bpf_skb_load_bytes(skb, at, &old, 2) ||
	    (!old && pkt->quoted.proto == IPPROTO_UDP))
		return 0;
	new = (__u16)~tw_csum_fold((~old & 0xffff) + (__u64)diff);
	if (!new && pkt->quoted.proto == IPPROTO_UDP)
		new = 0xffff;
	if (bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0))
		return -1;
	return (int)bpf_l4_csum_replace(skb, icmp, old, new, sizeof(new));
}

/* ICMP error `pkt`: outside, its source (`dst` 0) or destination becomes `to`; the packet that it quotes gets the same
 * address at its other end, and `port` there. */
static __always_inline int tw_nat_write_error(struct __sk_buff *skb, const struct tw_nat_pkt *pkt, int dst,
					      const struct tw_addr *to, __u16 port)
{
	const struct tw_addr *from = dst ? &pkt->l3.dst : &pkt->l3.src;
	const struct tw_addr *inner = dst ? &pkt->quoted.src : &pkt->quoted.dst;
	__u32 icmp = (__u32)pkt->l3.l4_off + 2, l4 = (__u32)pkt->quoted.l4_off;
	__be16 old = bpf_htons(dst ? pkt->key.dport : pkt->key.sport), new = bpf_htons(port);
	__u32 diff = 0;
	__s64 moved = bpf_csum_diff((__be32 *)inner, sizeof(*inner), (__be32 *)to, sizeof(*to), 0);

	if (tw_nat_has_pseudo(pkt->quoted.proto))
		diff = (__u32)moved;
	/* Over IPv4 the quoted header's own checksum makes its address good. */
	if (pkt->v6 && bpf_l4_csum_replace(skb, icmp, 0, (__u64)moved, 0))
		return -1;
	if (tw_nat_put_addr(skb, (__u32)pkt->l3.l4_off + 8, pkt->v6, !dst, inner, to))
		return -1;
	if (tw_nat_has_port(pkt->quoted.proto, pkt->v6)) {
		if (bpf_skb_store_bytes(skb, l4 + tw_nat_port_off(pkt->quoted.proto, pkt->v6, !dst), &new, sizeof(new),
					0) ||
		    bpf_l4_csum_replace(skb, icmp, old, new, sizeof(new)))
			return -1;
		diff = tw_csum_fold((__u64)diff + (__u16)~old + new);
	}
	if (tw_nat_write_quoted_check(skb, pkt, icmp, diff))
		return -1;
	return tw_nat_write_addr(skb, pkt, dst, from, to, pkt->v6 ? icmp : 0, 0);
}

/* Gives the packet of tw_nat_work the address in it: as its source (`dst` 0) or destination. 0 or an error. */
__noinline int tw_nat_write(struct __sk_buff *skb, __u32 dst, __u32 port)
{
	struct tw_nat_job *job = tw_nat_job();

	if (!job)
		return -1;
	if (job->pkt.quoted.l4_off)
		return tw_nat_write_error(skb, &job->pkt, (int)dst, &job->addr, (__u16)port);
	return tw_nat_write_plain(skb, &job->pkt, (int)dst, &job->addr, (__u16)port);
}
