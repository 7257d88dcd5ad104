/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/cache.h"

/* The next packet of a flow that the cache knows: plain TCP or UDP, nearly all there is. Its headers are compared where
 * they lie, and nothing is kept that is not needed. Whatever is out of the ordinary goes the long way, which alone says
 * what becomes of it: so to be too careful here is only slow. `v6` is a constant wherever it is passed: the code exists
 * once for each family. */

/* Not answered here. Nothing has been changed. */
#define TW_LONG_WAY 0x4000

struct tw_quick {
	__u32 ports;   /* source and destination, as in the header */
	__u32 l3_len;  /* by the IP header, header included */
	__u32 hdr_len; /* IP and transport header */
	__u8 proto;
	__u8 ttl;
	__u8 tos;
};

/* What must be in reach behind an IP header: TCP up to and with the flags (RFC 9293 3.1). */
#define TW_QUICK_L4 14

/* Goes `way`, of which there is one for each family. */
#define TW_BY_FAMILY(skb, way) \
	((skb)->protocol == bpf_htons(ETH_P_IP)	    ? way(skb, 0) \
	 : (skb)->protocol == bpf_htons(ETH_P_IPV6) ? way(skb, 1) \
						    : TW_LONG_WAY)

/* Reads the packet at `ip`, followed by TW_QUICK_L4 bytes. Returns 1 if it is plain. A connection request is not: its
 * ports may have changed hands. */
static __always_inline int tw_quick_read(const void *ip, int v6, struct tw_quick *quick)
{
	const __u8 *l4 = ip + tw_ip_size(v6);
	const __u8 *bytes = ip;

	if (v6) {
		quick->l3_len = bpf_ntohs(*(const __be16 *)(ip + 4)) + tw_ip_size(1);
		quick->proto = bytes[6];
		quick->ttl = bytes[7];
		quick->tos = (__u8)(bytes[0] << 4 | bytes[1] >> 4);
		if (unlikely(bytes[0] >> 4 != 6))
			return 0;
	} else {
		quick->l3_len = bpf_ntohs(*(const __be16 *)(ip + 2));
		quick->proto = bytes[9];
		quick->ttl = bytes[8];
		quick->tos = bytes[1];
		if (unlikely(bytes[0] != 0x45 || *(const __be16 *)(ip + 6) & bpf_htons(0x3fff)))
			return 0;
	}
	quick->ports = *(const __u32 *)l4;
	quick->hdr_len = tw_ip_size(v6) + sizeof(struct udphdr);
	if (quick->proto == IPPROTO_TCP) {
		quick->hdr_len = tw_ip_size(v6) + (l4[12] >> 4) * 4;
		if (unlikely((l4[13] & 0x17) == 0x02)) /* of FIN SYN RST ACK only SYN */
			return 0;
	} else if (unlikely(quick->proto != IPPROTO_UDP)) {
		return 0;
	}
	return quick->l3_len >= tw_ip_size(v6) + TW_QUICK_L4;
}

/* What the cache holds for the packet at `ip`, which came by `ifindex`; `outer` is the IP header of its VXLAN, or NULL.
 * NULL if nothing that is good. */
static __always_inline struct tw_cached *tw_quick_find(const void *ip, int v6, const struct tw_quick *quick,
						       __u32 ifindex, const void *outer)
{
	__u32 kind = quick->proto | (__u32)v6 << 8 | (__u32)(outer != 0) << 16;
	const struct tw_cached *has;
	struct tw_cached *cached;
	struct tw_basis basis;
	__u32 src, dst, hash;
	__u64 differs;

	/* IPv4 as in struct tw_addr. */
	src = v6 ? tw_addr_fold(ip + 8) : *(const __u32 *)(ip + 12) ^ bpf_htonl(0xffff);
	dst = v6 ? tw_addr_fold(ip + 24) : *(const __u32 *)(ip + 16) ^ bpf_htonl(0xffff);
	hash = tw_hash(src ^ dst, bpf_ntohs((__u16)(quick->ports ^ quick->ports >> 16)));
	cached = tw_cache_slot(hash, src);
	basis = tw_cache_basis(hash);
	if (!cached)
		return 0;
	has = cached;
	/* One test at the end, not twelve: the verifier follows each. */
	differs = (has->epoch ^ basis.epoch) | (has->gen ^ basis.gen) | (has->ifindex ^ ifindex) |
		  (*(const __u32 *)&has->sport ^ quick->ports) | ((*(const __u32 *)&has->proto & 0xffffff) ^ kind);
	if (v6) {
		const __u64 *src = (const __u64 *)&has->src, *dst = (const __u64 *)&has->dst;
		const __u64 *from = (const __u64 *)&has->outer, *word = ip + 8;

		differs |= (src[0] ^ word[0]) | (src[1] ^ word[1]) | (dst[0] ^ word[2]) | (dst[1] ^ word[3]);
		if (outer)
			differs |= (from[0] ^ *(const __u64 *)(outer + 8)) | (from[1] ^ *(const __u64 *)(outer + 16));
	} else {
		const __u32 *word = ip + 12;

		differs |= (tw_addr_v4(&has->src) ^ word[0]) | (tw_addr_v4(&has->dst) ^ word[1]);
		if (outer)
			differs |= tw_addr_v4(&has->outer) ^ *(const __u32 *)(outer + 12);
	}
	return differs || !basis.epoch ? 0 : cached;
}

/* Is the packet at `ip` for a pod of this node, by its address? */
static __always_inline int tw_quick_to_own_pod(const void *ip, int v6)
{
	if (v6) {
		const volatile __u64 *addr = (const volatile __u64 *)&tw_cfg.own_v6.addr;
		const volatile __u64 *mask = (const volatile __u64 *)&tw_cfg.own_v6.mask;
		const __u64 *dst = ip + 24;

		return (dst[0] & mask[0]) == addr[0] && (dst[1] & mask[1]) == addr[1];
	}
	return (*(const __u32 *)(ip + 16) & ((const volatile __u32 *)&tw_cfg.own_v4.mask)[3]) ==
	       ((const volatile __u32 *)&tw_cfg.own_v4.addr)[3];
}

/* And is it for this node itself, at the address that it uses towards others? */
static __always_inline int tw_quick_to_own_node(const void *ip, int v6)
{
	if (v6) {
		const volatile __u64 *node = (const volatile __u64 *)&tw_cfg.node_v6;
		const __u64 *dst = ip + 24;

		return dst[0] == node[0] && dst[1] == node[1];
	}
	return *(const __u32 *)(ip + 16) == ((const volatile __u32 *)&tw_cfg.node_v4)[3];
}
