/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/lookup.h"

/* VXLAN header, RFC 7348 section 5, and its group policy extension (the two bytes are reserved without it). */
struct tw_vxlan {
	__u8 flags; /* 0x08: the VNI is valid; 0x80: group */
	__u8 group_flags;
	__be16 group;
	__u8 vni[3];
	__u8 reserved;
};

#define TW_VXLAN_VNI   0x08
#define TW_VXLAN_GROUP 0x80

/* Everything between the outer Ethernet header and the inner IP header. */
struct tw_outer_tail {
	struct udphdr udp;
	struct tw_vxlan vxlan;
	struct ethhdr inner;
};

struct tw_outer_v4 {
	struct iphdr ip;
	struct tw_outer_tail tail;
} __attribute__((packed, aligned(2)));

struct tw_outer_v6 {
	struct ipv6hdr ip;
	struct tw_outer_tail tail;
} __attribute__((packed, aligned(2)));

_Static_assert(sizeof(struct tw_outer_v4) == 50, "VXLAN over IPv4");
_Static_assert(sizeof(struct tw_outer_v6) == 70, "VXLAN over IPv6");

/* The kernel's udp_flow_src_port() (include/net/udp.h), so that a flow keeps its ECMP path when a node changes between
 * the kernel's device and this. `hash` is skb_get_hash(). */
static __always_inline __be16 tw_flow_sport(__u32 hash)
{
	__u32 min = tw_cfg.sport_min, max = tw_cfg.sport_max;

	hash ^= hash << 16;
	return bpf_htons((__u16)(((__u64)hash * (max - min) >> 32) + min));
}

/* Outer ECN field for an inner one: RFC 6040 normal mode as the kernel does it (INET_ECN_encapsulate): a congestion
 * mark is not copied outwards, ECT(0) is set in its place. */
static __always_inline __u8 tw_ecn_encap(__u8 inner)
{
	return (inner & 3) == 3 ? 2 : inner & 3;
}

static __always_inline void tw_fill_tail(struct __sk_buff *skb, const struct tw_peer *peer, int v6, __be16 sport,
					 __u32 udp_len, struct tw_outer_tail *tail)
{
	__builtin_memset(tail, 0, sizeof(*tail));
	tail->udp.source = sport;
	tail->udp.dest = bpf_htons(tw_cfg.port);
	tail->udp.len = bpf_htons((__u16)udp_len);
	tail->vxlan.flags = TW_VXLAN_VNI;
	tail->vxlan.vni[0] = (__u8)(tw_cfg.vni >> 16);
	tail->vxlan.vni[1] = (__u8)(tw_cfg.vni >> 8);
	tail->vxlan.vni[2] = (__u8)tw_cfg.vni;
	if (tw_cfg.gbp && skb->mark) {
		tail->vxlan.flags |= TW_VXLAN_GROUP;
		tail->vxlan.group = bpf_htons((__u16)skb->mark);
	}
	__builtin_memcpy(tail->inner.h_dest, peer->vtep_mac, ETH_ALEN);
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		tail->inner.h_source[i] = tw_cfg.vtep_mac[i];
	tail->inner.h_proto = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
}

/* RFC 1071 sum of an IPv4 header without options whose checksum field is zero. */
static __always_inline __u16 tw_ip_csum(const struct iphdr *ip)
{
	const __u16 *word = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < (int)sizeof(*ip) / 2; i++)
		sum += word[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

static __always_inline int tw_write_outer_v4(struct __sk_buff *skb, const struct tw_pkt *pkt,
					     const struct tw_peer *peer, __be16 sport, __u32 inner_len)
{
	struct tw_outer_v4 outer = {};
	__u32 len = inner_len + sizeof(outer);
	struct iphdr ip = {};

	ip.version = 4;
	ip.ihl = 5;
	ip.tos = tw_ecn_encap(pkt->tos);
	ip.tot_len = bpf_htons((__u16)len);
	ip.id = (__u16)
		bpf_get_prandom_u32(); /* DF is not set, as the kernel's device leaves it: it may be fragmented */
	ip.ttl = 64;
	ip.protocol = IPPROTO_UDP;
	ip.saddr = ((const volatile __u32 *)&tw_cfg.node_v4)[3];
	ip.daddr = tw_addr_v4(&peer->node);
	ip.check = tw_ip_csum(&ip);
	outer.ip = ip;
	tw_fill_tail(skb, peer, 0, sport, len - sizeof(ip), &outer.tail);
	return (int)bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), 0);
}

static __always_inline int tw_write_outer_v6(struct __sk_buff *skb, const struct tw_pkt *pkt,
					     const struct tw_peer *peer, __be16 sport, __u32 inner_len)
{
	const volatile __u32 *src = (const volatile __u32 *)&tw_cfg.node_v6;
	__u8 tclass = tw_ecn_encap(pkt->tos);
	struct tw_outer_v6 outer = {};
	__u32 len = inner_len + sizeof(outer) - sizeof(outer.ip);

	outer.ip.version = 6;
	outer.ip.priority = tclass >> 4;
	outer.ip.flow_lbl[0] = (__u8)(tclass << 4);
	outer.ip.payload_len = bpf_htons((__u16)len);
	outer.ip.nexthdr = IPPROTO_UDP;
	outer.ip.hop_limit = 64;
#pragma unroll
	for (int i = 0; i < 4; i++)
		outer.ip.saddr.in6_u.u6_addr32[i] = src[i];
	__builtin_memcpy(&outer.ip.daddr, &peer->node, sizeof(outer.ip.daddr));
	tw_fill_tail(skb, peer, 1, sport, len, &outer.tail);
	return (int)bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), 0);
}

/* Lowers TTL or hop limit of the packet whose IP header is at `l3_off`; `pkt` tells the values before. The IPv4
 * checksum follows by RFC 1624, so the sum over the header stays; for IPv6 the helper mends the sum of a received
 * packet. 0 or an error. */
static __always_inline int tw_store_ttl(struct __sk_buff *skb, const struct tw_pkt *pkt, __u32 l3_off)
{
	if (pkt->v6) {
		__u8 ttl = pkt->ttl - 1;

		return (int)bpf_skb_store_bytes(skb, l3_off + 7, &ttl, sizeof(ttl), BPF_F_RECOMPUTE_CSUM);
	} else {
		struct {
			__u8 ttl;
			__u8 proto;
			__be16 csum;
		} field = {.ttl = pkt->ttl - 1, .proto = pkt->proto};
		__u32 sum = bpf_ntohs(pkt->ip_csum) + 0x100U;

		field.csum = bpf_htons((__u16)(sum + (sum >= 0xffff))); /* as ip_decrease_ttl() */
		return (int)bpf_skb_store_bytes(skb, l3_off + 8, &field, sizeof(field), 0);
	}
}

/* Sends the frame, as it is now, to the peer's next hop on the wire; the kernel resolves the neighbour. */
static __always_inline int tw_out_of_wire(const struct tw_peer *peer, int v6, int sent)
{
	struct bpf_redir_neigh next = {};

	if (v6) {
		next.nh_family = 10; /* AF_INET6 */
		__builtin_memcpy(next.ipv6_nh, &peer->nexthop, sizeof(next.ipv6_nh));
	} else {
		next.nh_family = 2; /* AF_INET */
		next.ipv4_nh = tw_addr_v4(&peer->nexthop);
	}
	if (bpf_redirect_neigh(peer->wire, &next, sizeof(next), 0) != TC_ACT_REDIRECT)
		return TW_DROP(KERNEL_ERROR);
	return sent;
}

/* The same for VXLAN made of a packet that the stack has routed, to the overlay device. That route stays on the frame,
 * and if it must wait for a neighbour, it would be sent to that route's neighbour afterwards. So the kernel looks up
 * another by the outer header. Only where it must: kernels before the fix of October 2025 forget to let the first one
 * go. */
static __always_inline int tw_out_by_route(const struct tw_peer *peer, int sent)
{
	if (bpf_redirect_neigh(peer->wire, 0, 0, 0) != TC_ACT_REDIRECT)
		return TW_DROP(KERNEL_ERROR);
	return sent;
}

/* Does the kernel know the link-layer address of the peer's next hop? */
static __always_inline int tw_neigh_is_known(struct __sk_buff *skb, const struct tw_peer *peer, int v6)
{
	struct bpf_fib_lookup fib = {.ifindex = peer->wire};

	if (v6) {
		fib.family = 10; /* AF_INET6 */
		__builtin_memcpy(fib.ipv6_dst, &peer->nexthop, sizeof(fib.ipv6_dst));
	} else {
		fib.family = 2; /* AF_INET */
		fib.ipv4_dst = tw_addr_v4(&peer->nexthop);
	}
	return bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_OUTPUT) == BPF_FIB_LKUP_RET_SUCCESS;
}

/* Largest IP packet on the wire that the packet becomes: its own length, or that of its GSO segments. */
static __always_inline __u32 tw_segment_len(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	return skb->gso_size ? pkt->hdr_len + skb->gso_size : pkt->l3_len;
}

/* Puts VXLAN headers before the packet and sends it to the peer. `forward`: this program routes it, so its TTL falls by
 * one; the caller has seen that it does not expire. Everything is checked before the packet is changed:
 * TW_STACK(ENCAPSULATED) or TW_STACK(KERNEL_ENCAP) mean that it is as it was and that the overlay device must
 * encapsulate it. */
static __always_inline int tw_encap(struct __sk_buff *skb, struct tw_pkt *pkt, const struct tw_peer *peer, int forward)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
		      BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH;
	__u32 inner_len = skb->gso_size ? skb->len - ETH_HLEN : pkt->l3_len;
	__u32 room = sizeof(struct tw_outer_v4);
	int ret, by_route;
	__be16 sport;

	/* Without ENCAP_L2_ETH (before 5.13) GSO would segment the inner frame wrongly. A flannel peer wants a UDP
	 * checksum on IPv6, which no helper keeps right over segmentation. */
	if (!tw_cfg.encap_l2_eth || (pkt->v6 && !peer->zero_csum6))
		return TW_STACK(KERNEL_ENCAP);
	if (pkt->v6) {
		room = sizeof(struct tw_outer_v6);
		flags |= BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	} else {
		flags |= BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	}
	if (inner_len + room > 0xffff)
		return TW_STACK(KERNEL_ENCAP);
	sport = tw_flow_sport(bpf_get_hash_recalc(skb));
	by_route = !forward && !tw_neigh_is_known(skb, peer, pkt->v6);
	/* Ethernet padding of a short packet ends here, as it would in the stack. */
	if (skb->len > ETH_HLEN + inner_len && bpf_skb_change_tail(skb, ETH_HLEN + inner_len, 0))
		return TW_STACK(KERNEL_ENCAP);

	ret = (int)bpf_skb_adjust_room(skb, (__s32)room, BPF_ADJ_ROOM_MAC, flags);
	if (ret == -TW_EALREADY)
		return TW_STACK(ENCAPSULATED);
	if (ret)
		return TW_STACK(KERNEL_ENCAP); /* a kind of GSO that it does not know */

	ret = pkt->v6 ? tw_write_outer_v6(skb, pkt, peer, sport, inner_len)
		      : tw_write_outer_v4(skb, pkt, peer, sport, inner_len);
	if (!ret && forward)
		ret = tw_store_ttl(skb, pkt, ETH_HLEN + room);
	if (ret)
		return TW_DROP(KERNEL_ERROR);
	tw_count_tx(peer->stats, inner_len);
	return by_route ? tw_out_by_route(peer, TW_SENT(TO_VXLAN)) : tw_out_of_wire(peer, pkt->v6, TW_SENT(TO_VXLAN));
}

/* Sends the packet to the peer as it is. */
static __always_inline int tw_direct(struct __sk_buff *skb, struct tw_pkt *pkt, const struct tw_peer *peer, int forward)
{
	if (forward && tw_store_ttl(skb, pkt, pkt->l3_off))
		return TW_DROP(KERNEL_ERROR);
	tw_count_tx(peer->stats, skb->len - ETH_HLEN);
	return tw_out_of_wire(peer, pkt->v6, TW_SENT(TO_DIRECT));
}
