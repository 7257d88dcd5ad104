/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/encap.h"

/* The safety net for what the programs decline. */

/* In the control block of a packet that tw_from_pod carries to the overlay device: tw_from_host must not take it for
 * one that the stack forwards. IP has its own notes there, and writes them anew for each packet that it receives. */
#define TW_CARRIED_0 0x74770001
#define TW_CARRIED_1 0x8e1d5a37

static __always_inline int tw_is_carried(const struct __sk_buff *skb)
{
	return skb->cb[0] == TW_CARRIED_0 && skb->cb[1] == TW_CARRIED_1;
}

/* Sends a routed packet of a pod to the overlay device, whose own hook (tw_from_host) finds the peer again. */
static __always_inline int tw_via_overlay(struct __sk_buff *skb, int v6, int reason)
{
	if (!tw_cfg.vxlan_device)
		return TW_DROP(NO_DEVICE);
	if (tw_store_ttl(skb, v6, ETH_HLEN))
		return TW_DROP(KERNEL_ERROR);
	skb->cb[0] = TW_CARRIED_0;
	skb->cb[1] = TW_CARRIED_1;
	if (bpf_redirect(tw_cfg.overlay, 0) != TC_ACT_REDIRECT)
		return TW_DROP(KERNEL_ERROR);
	return 0x2000 | (reason & 0xfff);
}

/* Tells the overlay device, on whose egress the frame is, where to send it; the device then encapsulates. */
static __always_inline int tw_kernel_encap(struct __sk_buff *skb, const struct tw_pkt *pkt, const struct tw_peer *peer,
					   int reason)
{
	struct bpf_tunnel_key key = {.tunnel_id = tw_cfg.vni, .tunnel_ttl = 64};
	void *frame = tw_header(skb, 0, ETH_HLEN);
	__u64 flags = 0;
	__u32 group = skb->mark & 0xffff;

	if (!tw_cfg.vxlan_device)
		return TW_DROP(NO_DEVICE);
	if (!frame)
		return TW_DROP(KERNEL_ERROR);
	tw_put_mac(frame, peer->vtep_mac);
	tw_put_mac(frame + ETH_ALEN, tw_cfg.vtep_mac);
	if (pkt->v6) {
		__builtin_memcpy(key.remote_ipv6, &peer->node, sizeof(key.remote_ipv6));
#pragma unroll
		for (int i = 0; i < 4; i++)
			key.local_ipv6[i] = ((const volatile __u32 *)&tw_cfg.node_v6)[i];
		flags = BPF_F_TUNINFO_IPV6;
		if (peer->zero_csum6)
			flags |= BPF_F_ZERO_CSUM_TX;
	} else {
		key.remote_ipv4 = bpf_ntohl(tw_addr_v4(&peer->node)); /* HOST order, unlike the IPv6 one */
		key.local_ipv4 = bpf_ntohl(((const volatile __u32 *)&tw_cfg.node_v4)[3]);
		flags = BPF_F_ZERO_CSUM_TX;
	}
	/* Before 6.0 a key has no source address: the kernel chooses it by route. */
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags) &&
	    bpf_skb_set_tunnel_key(skb, &key, __builtin_offsetof(struct bpf_tunnel_key, local_ipv4), flags))
		return TW_DROP(KERNEL_ERROR);
	if (tw_cfg.gbp && group && bpf_skb_set_tunnel_opt(skb, &group, sizeof(group)))
		return TW_DROP(KERNEL_ERROR);
	tw_count_tx(peer->stats, skb->len - ETH_HLEN);
	return reason;
}

/* What the kernel's device decapsulated, before the stack sees it. 0: it has been checked, or was decapsulated by
 * tw_from_wire. */
static __always_inline int tw_check_overlay(struct __sk_buff *skb, const struct tw_pkt *pkt, struct tw_sender *sender)
{
	struct bpf_tunnel_key key = {};
	struct tw_addr outer __attribute__((aligned(8)));
	struct tw_addr local __attribute__((aligned(8)));
	const struct ethhdr *eth;
	struct tw_mac smac;
	int v6 = 0;

	/* Kernels before 6.0 know a key without the local address. */
	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) &&
	    bpf_skb_get_tunnel_key(skb, &key, __builtin_offsetof(struct bpf_tunnel_key, local_ipv4), 0)) {
		if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6) &&
		    bpf_skb_get_tunnel_key(skb, &key, __builtin_offsetof(struct bpf_tunnel_key, local_ipv4),
					   BPF_F_TUNINFO_IPV6))
			return TW_STACK(VERIFIED);
		v6 = 1;
	}
	if (key.tunnel_id != tw_cfg.vni)
		return TW_DROP(BAD_VNI);
	if (v6 != pkt->v6)
		return TW_DROP(BAD_VXLAN);
	if (v6)
		__builtin_memcpy(&outer, key.remote_ipv6, sizeof(outer));
	else
		tw_addr_set_v4(&outer, bpf_htonl(key.remote_ipv4));
	/* A frame to another address of this node, or one that a pod made: masquerade may have given it a node's
	 * source. */
	if (v6)
		__builtin_memcpy(&local, key.local_ipv6, sizeof(local));
	else
		tw_addr_set_v4(&local, bpf_htonl(key.local_ipv4));
	if (key.local_ipv6[0] && !tw_is_own_node(&local)) /* not told before 6.0: 0 */
		return TW_DROP(FORGED);
	eth = tw_header(skb, 0, sizeof(*eth));
	if (!eth)
		return TW_DROP(SHORT);
	if (!tw_is_own_mac(eth->h_dest))
		return TW_DROP(BAD_MAC);
	smac = tw_mac_at(eth->h_source);
	return tw_check_sender(&outer, &smac, &pkt->src, v6, sender);
}
