/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/deliver.h"
#include "bpf/lib/forged.h"
#include "bpf/lib/nat.h"
#include "bpf/lib/quick.h"

/* Left to the overlay device, whose socket takes VXLAN from the stack; without such a device nothing would. */
static __always_inline int tw_kernel_decap(void)
{
	return tw_cfg.vxlan_device ? TW_STACK(KERNEL_DECAP) : TW_DROP(NO_DEVICE);
}

/* Is it VXLAN for this node, by the outer headers? `pkt` is the outer packet. 0, or the verdict. */
static __always_inline int tw_is_tunnel(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	const struct udphdr *udp;

	if (!tw_is_own_node(&pkt->dst))
		return TW_STACK(NOT_OURS);
	if (pkt->odd == TW_R_FRAGMENT)
		return TW_STACK(FRAGMENT); /* the kernel reassembles; its device and tw_from_overlay see the whole */
	if (pkt->proto != IPPROTO_UDP)
		return TW_STACK(NOT_OURS);
	udp = tw_header(skb, pkt->l4_off, sizeof(*udp));
	if (!udp)
		return TW_DROP(SHORT);
	if (udp->dest != bpf_htons(tw_cfg.port))
		return TW_STACK(NOT_OURS);
	return pkt->odd ? tw_kernel_decap() : 0;
}

static __always_inline int tw_check_vxlan(__be32 flags, __be32 vni)
{
	if (tw_cfg.gbp)
		flags &= bpf_htonl(~((__u32)TW_VXLAN_GROUP << 24 | 0xffffffU));
	if (flags != bpf_htonl((__u32)TW_VXLAN_VNI << 24) || vni & bpf_htonl(0xff))
		return TW_DROP(BAD_VXLAN);
	if (vni == bpf_htonl(tw_cfg.vni << 8))
		return 0;
	/* Where the port is not our device's alone, another device may have it. */
	return tw_cfg.flannel || !tw_cfg.vxlan_device ? TW_STACK(NOT_OURS) : TW_DROP(BAD_VNI);
}

/* Inner TOS after decapsulation: RFC 6040 section 4.2 as the kernel does it (INET_ECN_decapsulate). Drops a packet that
 * was marked on the way and cannot tell its sender. Without a branch: the verifier would follow each. */
static __always_inline int tw_ecn_decap(__u8 outer, __u8 inner)
{
	const __u32 table = 0xfce4d4e4; /* two bits for each pair: what ECN becomes */
	__u32 pair = (outer & 3) << 2 | (inner & 3);
	__u32 lost = 0 - (((pair ^ 0xc) - 1) >> 31); /* all ones: outer marked, inner cannot be */

	return (int)(((inner & ~3U) | (table >> 2 * pair & 3)) & ~lost) | (int)(lost & (__u32)TW_DROP(ECN));
}

/* Sets the ECN bits in the IP header behind the Ethernet header to those of `tos`. 0 or an error. */
static __always_inline int tw_store_ecn(struct __sk_buff *skb, int v6, __u8 tos)
{
	__u8 *ip = tw_header(skb, ETH_HLEN, sizeof(struct iphdr));
	__u16 *word = (__u16 *)ip; /* version and TOS, or version, traffic class and flow label */
	__u16 from, to;

	if (!ip)
		return -1;
	from = *word;
	if (v6)
		ip[1] = (__u8)((ip[1] & 0xcf) | (tos & 3) << 4);
	else
		ip[1] = tos;
	to = *word;
	if (v6) {
		tw_csum_replace(skb, from, to);
	} else {
		struct iphdr *header = (struct iphdr *)ip;

		header->check = (__u16)~tw_csum_fold((__u64)(__u16)~header->check + (__u16)~from + to); /* RFC 1624 */
	}
	return 0;
}

/* Takes the outer headers off. The outer Ethernet header stays in front. Checksum state as the kernel's receive path
 * leaves it: one level fewer is verified. 0 or an error. */
static __always_inline int tw_strip(struct __sk_buff *skb, __u32 room)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;

	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return (int)bpf_skb_adjust_room(skb, -(__s32)room, BPF_ADJ_ROOM_MAC, flags);
}

/* Makes the packet inside of it: takes off `room` bytes of outer headers, sets TOS from `had` to `tos` and the mark to
 * the VXLAN header's group. 0 or drops. */
static __always_inline int tw_unpack(struct __sk_buff *skb, int v6, __u32 room, __u8 had, __u8 tos, __be32 flags)
{
	if (tw_strip(skb, room))
		return TW_DROP(KERNEL_ERROR);
	if (tw_cfg.gbp && flags & bpf_htonl((__u32)TW_VXLAN_GROUP << 24))
		skb->mark = bpf_ntohl(flags) & 0xffff;
	if (unlikely(tos != had) && tw_store_ecn(skb, v6, tos))
		return TW_DROP(KERNEL_ERROR);
	return 0;
}

/* How a packet came. Whole words: see TW_KEY. */
struct tw_arrival {
	struct tw_addr outer; /* the node that VXLAN came from; all zero: it came without */
	struct tw_mac smac;   /* Ethernet source; of VXLAN the inner one */
	__u64 room;	      /* bytes of outer headers; 0: none */
	__u64 flags;	      /* of the VXLAN header, network order */
	__s64 tos;	      /* of the packet itself, when its outer headers are off; < 0: to be dropped for it */
	__u64 misfit;	      /* other than 0: the kernel must decapsulate */
};

/* Opens VXLAN for this node: `pkt`, parsed up to the network layer, for which tw_is_tunnel() said 0 (so it has no
 * options), becomes the packet inside. 0, or the verdict. */
static __always_inline int tw_open(struct __sk_buff *skb, struct tw_pkt *pkt, struct tw_arrival *arrival)
{
	__u32 room = tw_outer_size(pkt->v6), l3_len = pkt->l3_len, udp_len;
	__be16 h_proto = pkt->v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	const struct tw_outer_tail *tail;
	__u8 tos = pkt->tos;
	int ret;

	tail = tw_header(skb, ETH_HLEN + room - sizeof(*tail), sizeof(*tail));
	if (!tail)
		return TW_DROP(SHORT);
	udp_len = bpf_ntohs(tail->udp.len) + room - sizeof(*tail);
	arrival->flags = tail->vxlan.flags;
	ret = tw_check_vxlan(tail->vxlan.flags, tail->vxlan.vni);
	if (ret)
		return ret;
	if (!tw_is_own_mac(tail->inner.h_dest))
		return TW_DROP(BAD_MAC);
	if (tail->inner.h_proto != h_proto)
		return TW_DROP(BAD_VXLAN);
	arrival->smac = tw_mac_at(tail->inner.h_source);
	arrival->outer = pkt->src;
	arrival->room = room;
	ret = tw_parse_l3(skb, h_proto, ETH_HLEN + room, pkt);
	if (ret)
		return ret;
	arrival->tos = tw_ecn_decap(tos, pkt->tos);
	/* Before 7.3 no helper takes the tunnel's GSO type off: TCP is right all the same, segments of anything else
	 * would be lost. Lengths that contradict each other are the kernel's to judge. */
	arrival->misfit = skb->gso_size * (__u32)(pkt->proto ^ IPPROTO_TCP) | ((pkt->l3_len + room) ^ l3_len) |
			  (udp_len ^ l3_len);
	return 0;
}

/* A packet without outer headers: for a pod of ours, or of a pod for this node itself, whose route back to that pod is
 * the overlay device, so that on the wire it would fail the reverse path filter. 0, or the verdict: `otherwise`, when
 * it is neither. */
static __always_inline int tw_open_direct(struct __sk_buff *skb, const struct tw_pkt *pkt, struct tw_arrival *arrival,
					  int otherwise)
{
	const struct ethhdr *eth;

	if (!tw_in_own_pods(&pkt->dst) && !(tw_is_own_node(&pkt->dst) && tw_in_cluster(&pkt->src)))
		return otherwise;
	eth = tw_header(skb, 0, sizeof(*eth));
	if (!eth)
		return TW_DROP(SHORT);
	arrival->smac = tw_mac_at(eth->h_source);
	tw_fresh(&arrival->outer, TW_WORDS(arrival->outer));
	arrival->room = 0;
	arrival->flags = 0;
	arrival->tos = pkt->tos;
	arrival->misfit = 0;
	return 0;
}

/* The packet `pkt` may come from whom it says, or it is no peer's: where does it go? */
static __always_inline int tw_receive(struct __sk_buff *skb, struct tw_pkt *pkt, const struct tw_arrival *arrival)
{
	__u32 hash, mtu = 0, room = tw_forget(skb, (__u32)arrival->room);
	struct tw_endpoint *endpoint;
	struct tw_sender sender;
	struct tw_cached *slot;
	struct tw_basis basis;
	int ret, l4;

	l4 = tw_parse_l4_all(skb, pkt);
	hash = tw_flow_hash(pkt);
	basis = tw_cache_basis(hash);
	slot = tw_cache_slot(hash, tw_addr_fold(&pkt->src));
	if (!slot)
		return TW_DROP(KERNEL_ERROR);
	ret = tw_check_sender(room ? &arrival->outer : 0, &arrival->smac, &pkt->src, pkt->v6, &sender);
	if (ret)
		return ret;
	if (arrival->tos < 0)
		return (int)arrival->tos;
	if (arrival->misfit)
		return tw_kernel_decap();
	ret = tw_check_nested(skb, pkt);
	if (ret)
		return ret;
	ret = tw_choose_endpoint(skb, pkt, l4, tw_in_cluster(&pkt->src), -(__s32)room, &endpoint, &mtu);
	if (ret)
		return ret;
	tw_cache_store(slot, &basis, tw_ifindex(skb), pkt, &arrival->outer, room != 0);
	/* That a node which we do not know may pass depends on more than the cache holds. */
	if (!endpoint || !sender.known)
		slot->epoch = 0;
	slot->stats = (__u32)sender.stats;
	if (endpoint)
		tw_endpoint_store(slot, endpoint, mtu);
	tw_count_rx((__u32)sender.stats, pkt->l3_len);
	if (room) {
		ret = tw_unpack(skb, pkt->v6, room, pkt->tos, (__u8)arrival->tos, (__be32)arrival->flags);
		if (ret)
			return ret;
	}
	if (endpoint)
		return tw_into_pod(skb, pkt->v6, &slot->endpoint);
	if (tw_cfg.nat && (tw_is_own_host(&pkt->dst) || tw_is_own_node(&pkt->dst))) {
		ret = tw_nat_arrive(skb, 0);
		if (ret < 0)
			return ret;
	}
	if (tw_cfg.flannel && !room)
		return TW_STACK(TO_STACK); /* the kernel's way back is this wire */
	return tw_into_stack(skb, pkt->v6, &arrival->smac);
}

/* The next packet of a flow in VXLAN; `outer` is what its first IP header said. */
static __always_inline int tw_decap_quick(struct __sk_buff *skb, int v6, const struct tw_quick *outer)
{
	__u32 room = tw_outer_size(v6);
	__be32 flags, ignored = tw_cfg.gbp ? bpf_htonl((__u32)TW_VXLAN_GROUP << 24 | 0xffffffU) : 0;
	__be16 h_proto = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	const struct tw_outer_tail *tail;
	struct tw_quick quick;
	struct tw_cached *slot;
	const void *ip;
	int ret, tos;

	ip = tw_header(skb, ETH_HLEN, room + tw_ip_size(v6) + TW_QUICK_L4);
	if (unlikely(!ip))
		return TW_LONG_WAY;
	tail = ip + tw_ip_size(v6);
	flags = tail->vxlan.flags;
	if (unlikely((flags & ~ignored) != bpf_htonl((__u32)TW_VXLAN_VNI << 24) ||
		     tail->vxlan.vni != bpf_htonl(tw_cfg.vni << 8) || tail->inner.h_proto != h_proto ||
		     !tw_mac_eq(tail->inner.h_dest, tw_own_vtep(v6)) || !tw_quick_to_own_node(ip, v6) ||
		     bpf_ntohs(tail->udp.len) + tw_ip_size(v6) != outer->l3_len))
		return TW_LONG_WAY;
	if (unlikely(!tw_quick_read(ip + room, v6, &quick)) ||
	    unlikely(quick.l3_len + room != outer->l3_len || quick.ttl <= 1))
		return TW_LONG_WAY;
	tos = tw_ecn_decap(outer->tos, quick.tos);
	if (unlikely(tos < 0 || (skb->gso_size && quick.proto != IPPROTO_TCP)))
		return TW_LONG_WAY;
	slot = tw_quick_find(ip + room, v6, &quick, tw_ifindex(skb), ip);
	if (unlikely(!slot || !tw_endpoint_ready(skb, slot, -(__s32)room)))
		return TW_LONG_WAY;
	tw_count_rx(slot->stats, quick.l3_len);
	ret = tw_unpack(skb, v6, room, quick.tos, (__u8)tos, flags);
	return unlikely(ret) ? ret : tw_into_pod(skb, v6, &slot->endpoint);
}
