/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/parse.h"

/* Walks IPv6 extension headers (RFC 8200 section 4) from `*off`, whose kind is `proto`. *off becomes the start of the
 * transport header. Returns its protocol; -1 when this fragment has none, -2 when the chain is longer than a decent
 * packet's, or than the packet: what follows `end` is Ethernet padding, which the kernel cuts off. */
static __always_inline int tw_walk_v6(struct __sk_buff *skb, int proto, __u32 *off, __u32 end)
{
	const __u64 extensions =
		1ULL << IPPROTO_HOPOPTS | 1ULL << IPPROTO_ROUTING | 1ULL << IPPROTO_FRAGMENT | 1ULL << IPPROTO_DSTOPTS;

#pragma unroll
	for (int i = 0; i < 6; i++) {
		__u64 word = 0;
		__u8 *head = (__u8 *)&word;

		if (proto > 63 || !(extensions >> proto & 1))
			return proto;
		if (*off + 4 > end || bpf_skb_load_bytes(skb, *off, &word, 4))
			return -2;
		if (proto == IPPROTO_FRAGMENT && (head[2] || head[3] & 0xf8))
			return -1;
		*off += proto == IPPROTO_FRAGMENT ? 8 : (head[1] + 1) * 8;
		proto = head[0];
	}
	return -2;
}

/* Is it UDP to the overlay port, also behind IPv6 extension headers? A first fragment that hides the port, or has it
 * only in the padding, is taken for the worst; later ones are harmless without it. */
static __always_inline int tw_aims_at_tunnel(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	__u32 off = pkt->l4_off, end = pkt->l3_off + pkt->l3_len;
	int proto = pkt->proto;
	__u64 port = 0; /* network order, in its low half */

	if (pkt->later)
		return 0;
	if (pkt->v6)
		proto = tw_walk_v6(skb, proto, &off, end);
	if (proto != IPPROTO_UDP)
		return proto == -2;
	return off + 4 > end || bpf_skb_load_bytes(skb, off + 2, &port, 2) || port == bpf_htons(tw_cfg.port);
}

/* Is the destination an address of this node, as far as its routes tell? Of a packet that is not forwarded there is
 * nothing else to say. */
static __always_inline int tw_is_for_host(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	struct bpf_fib_lookup fib = {.ifindex = tw_ifindex(skb)};
	int ret;

	if (pkt->v6) {
		if (pkt->dst.high[0] == 0xfe && (pkt->dst.high[1] & 0xc0) == 0x80)
			return 1; /* link-local */
		fib.family = 10;  /* AF_INET6 */
		__builtin_memcpy(fib.ipv6_src, &pkt->src, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, &pkt->dst, sizeof(fib.ipv6_dst));
	} else {
		fib.family = 2; /* AF_INET */
		fib.ipv4_src = tw_addr_v4(&pkt->src);
		fib.ipv4_dst = tw_addr_v4(&pkt->dst);
	}
	ret = (int)bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	return ret == BPF_FIB_LKUP_RET_NOT_FWDED || ret == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* flannel's device listens on every address of the node and tells nothing of the outer headers of what it takes. So
 * what goes past tw_open() to it must come from a node of the cluster, by its source. */
static __always_inline int tw_check_untold_sender(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	if (!tw_cfg.flannel || !tw_cfg.vxlan_device || tw_cfg.anti_spoof == TW_SPOOF_OFF ||
	    !tw_aims_at_tunnel(skb, pkt) || bpf_map_lookup_elem(&tw_nodes, &pkt->src))
		return 0;
	return tw_is_own_node(&pkt->dst) || tw_is_for_host(skb, pkt) ? TW_DROP(SPOOF_NODE) : 0;
}

/* VXLAN inside VXLAN, or from a direct peer, for an address of ours in the pod network: the device's socket listens
 * there too and would take the pod that made it for a node. 0 or drops. */
static __always_inline int tw_check_nested(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	__u32 forged = tw_is_own_host(&pkt->dst) && tw_aims_at_tunnel(skb, pkt);

	return tw_forget(skb, forged) ? TW_DROP(FORGED) : 0;
}
