/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/lookup.h"

/* VXLAN header, RFC 7348 section 5, with its group policy extension (reserved bits without it). */
struct tw_vxlan {
	__be32 flags; /* first byte: 0x08: the VNI is valid, 0x80: group; last two bytes: the group */
	__be32 vni;   /* three bytes, and a reserved one */
};

#define TW_VXLAN_VNI   0x08
#define TW_VXLAN_GROUP 0x80

/* Everything between the outer Ethernet header and the inner IP header. */
struct tw_outer_tail {
	struct udphdr udp;
	struct tw_vxlan vxlan;
	struct ethhdr inner;
} __attribute__((packed, aligned(2)));

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

static __always_inline __u32 tw_outer_size(int v6)
{
	return v6 ? sizeof(struct tw_outer_v6) : sizeof(struct tw_outer_v4);
}

/* The kernel's udp_flow_src_port() (include/net/udp.h), so that a flow keeps its ECMP path when a node changes between
 * the kernel's device and this. `hash` is skb_get_hash(). Host order. */
static __always_inline __u16 tw_flow_sport(__u32 hash)
{
	__u32 min = tw_cfg.sport_min, max = tw_cfg.sport_max;

	hash ^= hash << 16;
	return (__u16)(((__u64)hash * (max - min) >> 32) + min);
}

/* Outer ECN field for an inner one: RFC 6040 normal mode as the kernel does it (INET_ECN_encapsulate): a congestion
 * mark is not copied outwards, ECT(0) is set in its place. */
static __always_inline __u8 tw_ecn_encap(__u8 inner)
{
	return (inner & 3) == 3 ? 2 : inner & 3;
}

/* RFC 1071: the sum over 16-bit words is the same over 32-bit ones, folded. Not inverted. */
static __always_inline __u16 tw_csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

/* IPv4 identification: tells the fragments of one packet from those of another, so it must not come again soon. One for
 * each packet to the peer, CPUs apart. The segments of a super-packet take as many numbers, counting up from its own:
 * those start anywhere. */
static __always_inline __u16 tw_ip_id(const struct __sk_buff *skb, __u32 sent)
{
	return (__u16)(skb->gso_size ? bpf_get_prandom_u32() : sent + bpf_get_smp_processor_id() * 0x2f1dU);
}

/* The UDP checksum of VXLAN over IPv6 without a look at the data. What a transport checksum covers sums up, with its
 * pseudo header, to nothing (RFC 1071), also where a device has yet to write it. So the inner packet counts as its IPv6
 * header less that pseudo header: of addresses, length and next header nothing is left but the byte in which the latter
 * stands. Here: all that is the same in every packet to the peer, not inverted and never 0; `tail` is complete but for
 * what differs. The first word of VXLAN is left out, too. */
static __always_inline __u16 tw_csum6_base(const void *ip, const void *tail)
{
	const __u32 *addr = ip + 8, *word = tail;
	__u64 sum = bpf_htonl(IPPROTO_UDP) + (__u64)word[0] + word[3];

#pragma unroll
	for (int i = 0; i < 8; i++)
		sum += addr[i];
#pragma unroll
	for (int i = 4; i < 7; i++)
		sum += word[i];
	return tw_csum_fold(sum + *(const __u16 *)(tail + 28));
}

/* Does that hold for the packet behind the Ethernet header, which has no padding? For whole TCP, UDP and ICMPv6 right
 * behind the IPv6 header. Not for UDP without a checksum, or with one over less than the packet. */
static __always_inline int tw_csum6_holds(struct __sk_buff *skb)
{
	const __u8 *ip = tw_header(skb, ETH_HLEN, sizeof(struct ipv6hdr) + sizeof(struct udphdr));
	const __u16 *half = (const __u16 *)ip;

	if (skb->gso_size || !ip)
		return 0;
	if (ip[6] == IPPROTO_UDP)
		return half[2] == half[22] && half[23];
	return ip[6] == IPPROTO_TCP || ip[6] == IPPROTO_ICMPV6;
}

/* Writes the headers for the peer to `ip`, all but what differs from packet to packet: see struct tw_head. Offsets by
 * RFC 791, RFC 8200, RFC 768 and RFC 7348. DF is not set, as the kernel's device leaves it. */
static __always_inline void tw_head_fill(void *ip, const struct tw_peer *peer, int v6)
{
	const volatile __u32 *src = (const volatile __u32 *)(v6 ? &tw_cfg.node_v6 : &tw_cfg.node_v4);
	void *tail = ip + tw_ip_size(v6);
	const __u32 *dst = (const __u32 *)&peer->node;

	if (v6) {
		tw_put(ip, 0, bpf_htonl(6U << 28));
		tw_put(ip, 4, bpf_htonl(IPPROTO_UDP << 8 | 64));
#pragma unroll
		for (int i = 0; i < 4; i++) {
			tw_put(ip, 8 + 4 * i, src[i]);
			tw_put(ip, 24 + 4 * i, dst[i]);
		}
		tw_put_mac(tail + 22, tw_own_vtep(1));
	} else {
		__be32 first = bpf_htonl(0x45U << 24), third = bpf_htonl((__u32)(64 << 8 | IPPROTO_UDP) << 16);

		tw_put(ip, 0, first);
		tw_put(ip, 4, 0);
		tw_put(ip, 8, third);
		*(__u16 *)(ip + 10) = tw_csum_fold((__u64)first + third + src[3] + dst[3]);
		tw_put(ip, 12, src[3]);
		tw_put(ip, 16, dst[3]);
		tw_put_mac(tail + 22, tw_own_vtep(0));
	}
	tw_put(tail, 0, bpf_htonl(tw_cfg.port));
	tw_put(tail, 4, 0);
	tw_put(tail, 8, bpf_htonl((__u32)TW_VXLAN_VNI << 24));
	tw_put(tail, 12, bpf_htonl(tw_cfg.vni << 8));
	tw_put_mac(tail + 16, peer->vtep_mac);
	*(__be16 *)(tail + 28) = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	if (v6 && !peer->zero_csum6)
		*(__u16 *)(tail + 6) = tw_csum6_base(ip, tail);
}

static __always_inline void tw_head_copy(void *to, const struct tw_head *head, int v6)
{
	const __u32 *halves = (const __u32 *)head->words;
	__u64 *words = to;

#pragma unroll
	for (int i = 0; i < 6; i++)
		words[i] = head->words[i];
	if (v6) {
		words[6] = head->words[6];
		words[7] = head->words[7];
		*(__u32 *)(to + 64) = halves[16];
		*(__u16 *)(to + 68) = (__u16)halves[17];
	} else {
		*(__u16 *)(to + 48) = (__u16)halves[12];
	}
}

/* Completes the headers at `ip` for a packet of `inner_len` bytes with this TOS. `sport` in host order; `id` is
 * tw_ip_id(), for IPv4. */
static __always_inline void tw_head_complete(struct __sk_buff *skb, void *ip, int v6, __u8 tos, __u32 inner_len,
					     __u16 sport, __u16 id)
{
	void *tail = ip + tw_ip_size(v6);
	__u32 len = inner_len + sizeof(struct tw_outer_tail);

	if (v6) {
		*(__be16 *)ip = bpf_htons((__u16)(6U << 12 | (__u32)tw_ecn_encap(tos) << 4));
		*(__be16 *)(ip + 4) = bpf_htons((__u16)len);
	} else {
		__be16 ecn = bpf_htons(tw_ecn_encap(tos)), total = bpf_htons((__u16)(len + sizeof(struct iphdr)));
		__u64 sum = *(__u16 *)(ip + 10);

		*(__be16 *)ip |= ecn;
		*(__be16 *)(ip + 2) = total;
		*(__be16 *)(ip + 4) = bpf_htons(id);
		*(__u16 *)(ip + 10) = (__u16)~tw_csum_fold(sum + ecn + total + bpf_htons(id));
	}
	*(__be16 *)tail = bpf_htons(sport);
	*(__be16 *)(tail + 4) = bpf_htons((__u16)len);
	if (tw_cfg.gbp && skb->mark)
		tw_put(tail, 8, bpf_htonl((__u32)(TW_VXLAN_VNI | TW_VXLAN_GROUP) << 24 | (skb->mark & 0xffff)));
}

/* Completes the UDP checksum of the VXLAN frame, which is as it will leave, from tw_csum6_base(). 0 or an error. */
static __always_inline int tw_csum6_complete(struct __sk_buff *skb)
{
	void *ip = tw_header(skb, ETH_HLEN, sizeof(struct tw_outer_v6) + sizeof(struct ipv6hdr));
	void *tail = ip + sizeof(struct ipv6hdr);
	const void *inner = tail + sizeof(struct tw_outer_tail);
	__u16 *udp = tail; /* source port, destination port, length, checksum */
	__u64 sum;

	if (unlikely(!ip))
		return -1;
	sum = (__u64)udp[3] + udp[0] + 2 * udp[2] + *(const __u32 *)(tail + 8);
	sum += (__u64) * (const __u32 *)inner + *(const __u16 *)(inner + 6);
	sum += (__u16)~bpf_htons(*(const __u8 *)(inner + 6));
	udp[3] = (__u16)~tw_csum_fold(sum);
	if (!udp[3])
		udp[3] = 0xffff; /* zero would mean none: RFC 768 */
	return 0;
}

/* Mends the sum that a NIC made over the whole packet (CHECKSUM_COMPLETE) after 16 bits of it changed. */
static __always_inline void tw_csum_replace(struct __sk_buff *skb, __u16 from, __u16 to)
{
	bpf_csum_update(skb, (__u32)to + (__u16)~from);
}

/* Lowers TTL or hop limit in the IP header at `ip`, whose TTL is above 0. The IPv4 checksum follows by RFC 1624, so the
 * sum over the header stays; that of IPv6 has none. */
static __always_inline void tw_lower_ttl(struct __sk_buff *skb, void *ip, int v6)
{
	if (v6) {
		__u16 *word = ip + 6; /* next header, hop limit */
		__u16 from = *word, to = (__u16)bpf_htons((__u16)(bpf_ntohs(from) - 1));

		*word = to;
		tw_csum_replace(skb, from, to);
	} else {
		struct iphdr *header = ip;
		__u32 sum = bpf_ntohs(header->check) + 0x100U;

		header->check = bpf_htons((__u16)(sum + (sum >= 0xffff))); /* as ip_decrease_ttl() */
		header->ttl -= 1;
	}
}

/* The same for the packet whose IP header is at `l3_off`. 0 or an error. */
static __always_inline int tw_store_ttl(struct __sk_buff *skb, int v6, __u32 l3_off)
{
	void *ip = tw_header(skb, l3_off, tw_ip_size(v6));

	if (unlikely(!ip))
		return -1;
	tw_lower_ttl(skb, ip, v6);
	return 0;
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
static __always_inline __u32 tw_segment_len(struct __sk_buff *skb, __u32 l3_len, __u32 hdr_len)
{
	return skb->gso_size ? hdr_len + skb->gso_size : l3_len;
}

/* Puts VXLAN headers before the packet, whose IP header says `l3_len` and `tos`, and sends it to the peer; `head` is
 * what tw_head_fill() wrote once, or NULL. `forward`: this program routes it, so its TTL falls by one; the caller has
 * seen that it does not expire. Everything is checked before the packet is changed: TW_STACK(ENCAPSULATED) or
 * TW_STACK(KERNEL_ENCAP) mean that it is as it was and that the overlay device must encapsulate it. */
static __always_inline int tw_encap(struct __sk_buff *skb, int v6, __u32 l3_len, __u8 tos, const struct tw_peer *peer,
				    const struct tw_head *head, int forward)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
		      BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH;
	__u32 inner_len = skb->gso_size ? skb->len - ETH_HLEN : l3_len;
	__u32 room = sizeof(struct tw_outer_v4);
	int ret, by_route;
	__u16 sport, id;
	void *outer;

	/* Ethernet padding of a short packet ends here, as it would in the stack; the overlay device would send it on.
	 */
	if (unlikely(skb->len > ETH_HLEN + inner_len) && bpf_skb_change_tail(skb, ETH_HLEN + inner_len, 0))
		return TW_STACK(KERNEL_ENCAP);
	/* Without ENCAP_L2_ETH (before 5.13) GSO would segment the inner frame wrongly. A flannel peer wants a UDP
	 * checksum on IPv6, which no helper keeps right over segmentation. */
	if (!tw_cfg.encap_l2_eth || (v6 && !peer->zero_csum6 && !tw_csum6_holds(skb)))
		return TW_STACK(KERNEL_ENCAP);
	/* Not by tw_outer_size(): old verifiers must see size and family come from one branch. */
	if (v6) {
		room = sizeof(struct tw_outer_v6);
		flags |= BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	} else {
		flags |= BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	}
	if (unlikely(inner_len + room > 0xffff))
		return TW_STACK(KERNEL_ENCAP);
	sport = tw_flow_sport(bpf_get_hash_recalc(skb));
	by_route = !forward && !tw_neigh_is_known(skb, peer, v6);

	ret = (int)bpf_skb_adjust_room(skb, (__s32)room, BPF_ADJ_ROOM_MAC, flags);
	if (unlikely(ret)) /* or a kind of GSO that it does not know */
		return ret == -TW_EALREADY ? TW_STACK(ENCAPSULATED) : TW_STACK(KERNEL_ENCAP);

	id = tw_ip_id(skb, tw_count_tx(peer->stats, inner_len));
	outer = tw_header(skb, ETH_HLEN, room + tw_ip_size(v6));
	if (unlikely(!outer))
		return TW_DROP(KERNEL_ERROR);
	if (head)
		tw_head_copy(outer, head, v6);
	else
		tw_head_fill(outer, peer, v6);
	tw_head_complete(skb, outer, v6, tos, inner_len, sport, id);
	if (forward)
		tw_lower_ttl(skb, outer + room, v6);
	if (v6 && !peer->zero_csum6 && tw_csum6_complete(skb))
		return TW_DROP(KERNEL_ERROR);
	return by_route ? tw_out_by_route(peer, TW_SENT(TO_VXLAN)) : tw_out_of_wire(peer, v6, TW_SENT(TO_VXLAN));
}

/* Sends the packet to the peer as it is. */
static __always_inline int tw_direct(struct __sk_buff *skb, int v6, const struct tw_peer *peer, int forward)
{
	if (forward && tw_store_ttl(skb, v6, ETH_HLEN))
		return TW_DROP(KERNEL_ERROR);
	tw_count_tx(peer->stats, skb->len - ETH_HLEN);
	return tw_out_of_wire(peer, v6, TW_SENT(TO_DIRECT));
}
