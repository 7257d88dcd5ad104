/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/deliver.h"
#include "bpf/lib/forged.h"

/* Left to the overlay device, whose socket takes VXLAN from the stack; without such a device nothing would. */
static __always_inline int tw_kernel_decap(void)
{
	return tw_cfg.vxlan_device ? TW_STACK(KERNEL_DECAP) : TW_DROP(NO_DEVICE);
}

/* Is it VXLAN for this node, by the outer headers? `pkt` is the outer packet. 0, or the verdict. */
static __always_inline int tw_is_tunnel(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	__be16 port;

	if (!tw_is_own_node(&pkt->dst))
		return TW_STACK(NOT_OURS);
	if (pkt->odd == TW_R_FRAGMENT)
		return TW_STACK(FRAGMENT); /* the kernel reassembles; its device and tw_from_overlay see the whole */
	if (pkt->proto != IPPROTO_UDP)
		return TW_STACK(NOT_OURS);
	if (bpf_skb_load_bytes(skb, pkt->l4_off + 2, &port, sizeof(port)))
		return TW_DROP(SHORT);
	if (port != bpf_htons(tw_cfg.port))
		return TW_STACK(NOT_OURS);
	return pkt->odd ? tw_kernel_decap() : 0;
}

static __always_inline int tw_check_vxlan(const struct tw_vxlan *vxlan)
{
	__u8 flags = vxlan->flags;

	if (tw_cfg.gbp)
		flags &= ~TW_VXLAN_GROUP;
	if (flags != TW_VXLAN_VNI || vxlan->reserved || (!tw_cfg.gbp && (vxlan->group_flags || vxlan->group)))
		return TW_DROP(BAD_VXLAN);
	if ((vxlan->vni[0] << 16 | vxlan->vni[1] << 8 | vxlan->vni[2]) != (int)tw_cfg.vni)
		return TW_DROP(BAD_VNI);
	return 0;
}

/* During a change of the own VtepMAC both are taken: peers learn of it seconds apart. */
static __always_inline int tw_is_own_mac(const __u8 *mac)
{
	__u8 old = 0;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		old |= tw_cfg.vtep_mac_old[i];
	return tw_mac_eq(mac, tw_cfg.vtep_mac) || (old && tw_mac_eq(mac, tw_cfg.vtep_mac_old));
}

/* Inner TOS after decapsulation: RFC 6040 section 4.2 as the kernel does it (INET_ECN_decapsulate). Drops a packet that
 * was marked on the way and cannot tell its sender. */
static __always_inline int tw_ecn_decap(__u8 outer, __u8 inner)
{
	if ((outer & 3) == 3)
		return (inner & 3) ? inner | 3 : TW_DROP(ECN);
	if ((outer & 3) == 1 && (inner & 3) == 2)
		return (inner & ~3) | 1;
	return inner;
}

/* Sets the ECN bits in the IP header at `l3_off` to those of `tos`, updates pkt. 0 or an error. */
static __always_inline int tw_store_ecn(struct __sk_buff *skb, struct tw_pkt *pkt, __u32 l3_off, __u8 tos)
{
	if (pkt->v6) {
		__u8 byte;

		if (bpf_skb_load_bytes(skb, l3_off + 1, &byte, sizeof(byte)))
			return -1;
		byte = (__u8)((byte & 0xcf) | (tos & 3) << 4);
		pkt->tos = tos;
		return (int)bpf_skb_store_bytes(skb, l3_off + 1, &byte, sizeof(byte), BPF_F_RECOMPUTE_CSUM);
	} else {
		/* RFC 1624, equation 3 */
		__u32 sum = (~bpf_ntohs(pkt->ip_csum) & 0xffffU) + (~(__u32)pkt->tos & 0xffffU) + tos;
		__be16 csum;

		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		csum = bpf_htons((__u16)~sum);
		pkt->tos = tos;
		pkt->ip_csum = csum;
		if (bpf_skb_store_bytes(skb, l3_off + 1, &tos, sizeof(tos), 0))
			return -1;
		return (int)bpf_skb_store_bytes(skb, l3_off + 10, &csum, sizeof(csum), 0);
	}
}

/* Takes the outer headers off. The outer Ethernet header stays in front. Checksum state as the kernel's receive path
 * leaves it: one level fewer is verified. 0 or an error. */
static __always_inline int tw_strip(struct __sk_buff *skb, __u32 room)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;

	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return (int)bpf_skb_adjust_room(skb, -(__s32)room, BPF_ADJ_ROOM_MAC, flags);
}

/* VXLAN for this node; `outer` is parsed up to the network layer and tw_is_tunnel() said 0. */
static __always_inline int tw_decap(struct __sk_buff *skb, const struct tw_pkt *outer)
{
	__u32 room = outer->v6 ? sizeof(struct tw_outer_v6) : sizeof(struct tw_outer_v4);
	struct tw_endpoint *endpoint;
	struct tw_outer_tail tail;
	struct tw_pkt pkt;
	__u32 stats = 0;
	int ret, tos;

	if (bpf_skb_load_bytes(skb, outer->l4_off, &tail, sizeof(tail)))
		return TW_DROP(SHORT);
	ret = tw_check_vxlan(&tail.vxlan);
	if (ret)
		return ret;
	if (!tw_is_own_mac(tail.inner.h_dest))
		return TW_DROP(BAD_MAC);
	if (tail.inner.h_proto != (outer->v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP)))
		return TW_DROP(BAD_VXLAN);
	ret = tw_parse_l3(skb, tail.inner.h_proto, ETH_HLEN + room, &pkt);
	if (ret)
		return ret;
	ret = tw_check_sender(&outer->src, tail.inner.h_source, &pkt.src, pkt.v6, &stats);
	if (ret)
		return ret;
	tos = tw_ecn_decap(outer->tos, pkt.tos);
	if (tos < 0)
		return tos;

	/* Before 7.3 no helper takes the tunnel's GSO type off: TCP is right all the same, segments of anything else
	 * would be lost. Lengths that contradict each other are the kernel's to judge. */
	if ((skb->gso_size && pkt.proto != IPPROTO_TCP) || pkt.l3_len + room != outer->l3_len ||
	    bpf_ntohs(tail.udp.len) != outer->l3_len - (outer->l4_off - outer->l3_off))
		return tw_kernel_decap();
	ret = tw_check_nested(skb, &pkt);
	if (ret)
		return ret;
	ret = tw_choose_endpoint(skb, &pkt, tw_in_cluster(&pkt.src), -(__s32)room, &endpoint);
	if (ret)
		return ret;

	tw_count_rx(stats, pkt.l3_len);
	if (tw_strip(skb, room))
		return TW_DROP(KERNEL_ERROR);
	if (tw_cfg.gbp && tail.vxlan.flags & TW_VXLAN_GROUP)
		skb->mark = bpf_ntohs(tail.vxlan.group);
	if (tos != pkt.tos && tw_store_ecn(skb, &pkt, ETH_HLEN, (__u8)tos))
		return TW_DROP(KERNEL_ERROR);
	if (!endpoint)
		return tw_into_stack(skb, tail.inner.h_source);
	if (tw_store_ttl(skb, &pkt, ETH_HLEN))
		return TW_DROP(KERNEL_ERROR);
	return tw_into_pod(skb, endpoint);
}

/* A packet to a pod of ours without outer headers: only from a peer that we reach the same way. An outside client's
 * goes through the stack, or conntrack would see half of its connection. */
static __always_inline int tw_receive_direct(struct __sk_buff *skb, struct tw_pkt *pkt)
{
	struct tw_endpoint *endpoint;
	struct tw_peer *peer;
	__u8 macs[2 * ETH_ALEN];
	int ret;

	if (!tw_in_own_pods(&pkt->dst))
		return TW_STACK(NOT_OURS);
	peer = tw_peer_lookup(&pkt->src, pkt->v6);
	if (!peer || peer->mode != TW_MODE_DIRECT)
		return TW_STACK(NOT_OURS);
	ret = tw_check_nested(skb, pkt);
	if (ret)
		return ret;
	ret = tw_choose_endpoint(skb, pkt, 1, 0, &endpoint);
	if (ret)
		return ret;
	tw_count_rx(peer->stats, pkt->l3_len);
	if (!endpoint) {
		if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)))
			return TW_DROP(SHORT);
		return tw_into_stack(skb, macs + ETH_ALEN);
	}
	if (tw_store_ttl(skb, pkt, ETH_HLEN))
		return TW_DROP(KERNEL_ERROR);
	return tw_into_pod(skb, endpoint);
}
