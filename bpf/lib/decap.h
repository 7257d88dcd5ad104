/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/deliver.h"
#include "bpf/lib/forged.h"
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
	return vni == bpf_htonl(tw_cfg.vni << 8) ? 0 : TW_DROP(BAD_VNI);
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

/* Makes the packet inside of it: counts it for the sender at index `stats`, takes off the outer headers, sets TOS from
 * `had` to `tos` and the mark to the VXLAN header's group. 0 or drops. */
static __always_inline int tw_unpack(struct __sk_buff *skb, int v6, __u32 l3_len, __u8 had, __u8 tos, __be32 flags,
				     __u32 stats)
{
	tw_count_rx(stats, l3_len);
	if (tw_strip(skb, tw_outer_size(v6)))
		return TW_DROP(KERNEL_ERROR);
	if (tw_cfg.gbp && flags & bpf_htonl((__u32)TW_VXLAN_GROUP << 24))
		skb->mark = bpf_ntohl(flags) & 0xffff;
	if (unlikely(tos != had) && tw_store_ecn(skb, v6, tos))
		return TW_DROP(KERNEL_ERROR);
	return 0;
}

/* The packet inside, from the node `outer`: who sent it, and where does it go? On 0 `*to_pod` tells whether to
 * slot->endpoint, and slot->stats is the sender's. `tos` and `misfit` are what the caller found out: the inner TOS or a
 * drop, and whether the kernel must decapsulate it. */
static __always_inline int tw_judge_inner(struct __sk_buff *skb, const struct tw_pkt *pkt, int l4,
					  const struct tw_addr *outer, const struct tw_mac *smac, int tos, __u32 misfit,
					  __s32 len_diff, struct tw_cached *slot, const struct tw_basis *basis,
					  int *to_pod)
{
	struct tw_endpoint *endpoint;
	__u32 stats = 0, mtu = 0;
	int ret;

	ret = tw_check_sender(outer, smac, &pkt->src, pkt->v6, &stats);
	if (ret)
		return ret;
	if (tos < 0)
		return tos;
	if (misfit)
		return tw_kernel_decap();
	ret = tw_check_nested(skb, pkt);
	if (ret)
		return ret;
	ret = tw_choose_endpoint(skb, pkt, l4, tw_in_cluster(&pkt->src), len_diff, &endpoint, &mtu);
	if (ret)
		return ret;
	tw_cache_store(slot, basis, tw_ifindex(skb), pkt, outer);
	/* That a node which we do not know may pass depends on more than the cache holds. */
	if (!endpoint || !bpf_map_lookup_elem(&tw_nodes, outer))
		slot->epoch = 0;
	slot->stats = stats;
	*to_pod = endpoint != 0;
	if (endpoint)
		tw_endpoint_store(slot, endpoint, mtu);
	return 0;
}

/* VXLAN for this node; `outer` is parsed up to the network layer and tw_is_tunnel() said 0, so it has no options. */
static __always_inline int tw_decap(struct __sk_buff *skb, const struct tw_pkt *outer)
{
	__u32 room = tw_outer_size(outer->v6);
	__be16 h_proto = outer->v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	const struct tw_outer_tail *tail;
	struct tw_cached *slot;
	__u32 udp_len, misfit, hash;
	struct tw_vxlan vxlan;
	struct tw_basis basis;
	struct tw_pkt pkt;
	struct tw_mac smac;
	int ret, l4, tos, to_pod;

	tail = tw_header(skb, ETH_HLEN + room - sizeof(*tail), sizeof(*tail));
	if (!tail)
		return TW_DROP(SHORT);
	vxlan = tail->vxlan;
	udp_len = bpf_ntohs(tail->udp.len);
	ret = tw_check_vxlan(vxlan.flags, vxlan.vni);
	if (ret)
		return ret;
	if (!tw_is_own_mac(tail->inner.h_dest))
		return TW_DROP(BAD_MAC);
	if (tail->inner.h_proto != h_proto)
		return TW_DROP(BAD_VXLAN);
	smac = tw_mac_at(tail->inner.h_source);
	ret = tw_parse_l3(skb, h_proto, ETH_HLEN + room, &pkt);
	if (ret)
		return ret;
	tos = tw_ecn_decap(outer->tos, pkt.tos);
	/* Before 7.3 no helper takes the tunnel's GSO type off: TCP is right all the same, segments of anything else
	 * would be lost. Lengths that contradict each other are the kernel's to judge. */
	misfit = skb->gso_size * (__u32)(pkt.proto ^ IPPROTO_TCP) | ((pkt.l3_len + room) ^ outer->l3_len) |
		 ((udp_len + outer->l4_off - outer->l3_off) ^ outer->l3_len);
	l4 = tw_parse_l4_all(skb, &pkt);
	hash = tw_flow_hash(&pkt);
	basis = tw_cache_basis(hash);
	slot = tw_cache_slot(hash, tw_addr_fold(&pkt.src));
	if (!slot)
		return TW_DROP(KERNEL_ERROR);
	ret = tw_judge_inner(skb, &pkt, l4, &outer->src, &smac, tos, misfit, -(__s32)room, slot, &basis, &to_pod);
	if (ret)
		return ret;
	ret = tw_unpack(skb, pkt.v6, pkt.l3_len, pkt.tos, (__u8)tos, vxlan.flags, slot->stats);
	if (ret)
		return ret;
	return to_pod ? tw_into_pod(skb, pkt.v6, &slot->endpoint) : tw_into_stack(skb, &smac);
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
		     !tw_mac_eq(tail->inner.h_dest, tw_cfg.vtep_mac) || !tw_quick_to_own_node(ip, v6) ||
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
	ret = tw_unpack(skb, v6, quick.l3_len, quick.tos, (__u8)tos, flags, slot->stats);
	return unlikely(ret) ? ret : tw_into_pod(skb, v6, &slot->endpoint);
}

/* A packet to a pod of ours without outer headers: only from a peer that we reach the same way. An outside client's
 * goes through the stack, or conntrack would see half of its connection. */
static __always_inline int tw_receive_direct(struct __sk_buff *skb, struct tw_pkt *pkt)
{
	struct tw_endpoint *endpoint;
	const struct ethhdr *eth;
	struct tw_cached *slot;
	struct tw_basis basis;
	struct tw_peer *peer;
	struct tw_mac smac;
	__u32 hash, mtu;
	int ret, l4;

	if (!tw_in_own_pods(&pkt->dst))
		return TW_STACK(NOT_OURS);
	l4 = tw_parse_l4_all(skb, pkt);
	hash = tw_flow_hash(pkt);
	basis = tw_cache_basis(hash);
	peer = tw_peer_lookup(&pkt->src, pkt->v6);
	if (!peer || peer->mode != TW_MODE_DIRECT)
		return TW_STACK(NOT_OURS);
	ret = tw_check_nested(skb, pkt);
	if (ret)
		return ret;
	ret = tw_choose_endpoint(skb, pkt, l4, 1, 0, &endpoint, &mtu);
	if (ret)
		return ret;
	tw_count_rx(peer->stats, pkt->l3_len);
	if (endpoint) {
		slot = tw_cache_slot(hash, tw_addr_fold(&pkt->src));
		if (!slot)
			return TW_DROP(KERNEL_ERROR);
		tw_cache_store(slot, &basis, tw_ifindex(skb), pkt, 0);
		tw_endpoint_store(slot, endpoint, mtu);
		slot->stats = peer->stats;
		return tw_into_pod(skb, pkt->v6, endpoint);
	}
	eth = tw_header(skb, 0, sizeof(*eth));
	if (!eth)
		return TW_DROP(SHORT);
	smac = tw_mac_at(eth->h_source);
	return tw_into_stack(skb, &smac);
}
