/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/encap.h"

/* The safety net for what the programs decline. */

/* Sends a routed packet of a pod to the overlay device, whose own hook (tw_from_host) finds the peer again. */
static __always_inline int tw_via_overlay(struct __sk_buff *skb, int v6, int reason)
{
	if (!tw_cfg.vxlan_device)
		return TW_DROP(NO_DEVICE);
	if (tw_store_ttl(skb, v6, ETH_HLEN))
		return TW_DROP(KERNEL_ERROR);
	tw_note_put(skb, TW_NOTE_CARRIED);
	if (bpf_redirect(tw_overlay(v6), 0) != TC_ACT_REDIRECT)
		return TW_DROP(KERNEL_ERROR);
	return 0x2000 | (reason & 0xfff);
}

/* Tells a collect-metadata device where to send the frame. 0 or an error. */
static __always_inline int tw_tell_device(struct __sk_buff *skb, int v6, const struct tw_peer *peer)
{
	struct bpf_tunnel_key key = {.tunnel_id = tw_cfg.vni, .tunnel_ttl = 64};
	__u64 flags = 0;
	__u32 group = skb->mark & 0xffff;

	if (v6) {
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
		return -1;
	return tw_cfg.gbp && group ? (int)bpf_skb_set_tunnel_opt(skb, &group, sizeof(group)) : 0;
}

/* Prepares the frame, which is on its egress, for the overlay device, which then encapsulates. */
static __always_inline int tw_kernel_encap(struct __sk_buff *skb, const struct tw_pkt *pkt, const struct tw_peer *peer,
					   int reason)
{
	void *frame = tw_header(skb, 0, ETH_HLEN);

	if (!tw_cfg.vxlan_device)
		return TW_DROP(NO_DEVICE);
	if (!frame)
		return TW_DROP(KERNEL_ERROR);
	tw_put_mac(frame, peer->vtep_mac);
	tw_put_mac(frame + ETH_ALEN, tw_own_vtep(pkt->v6));
	/* In flannel's device a table of its own leads from the MAC to the node. */
	if (!tw_cfg.flannel && tw_tell_device(skb, pkt->v6, peer))
		return TW_DROP(KERNEL_ERROR);
	tw_count_tx(peer->stats, skb->len - ETH_HLEN);
	return reason;
}

/* What a device with a VNI of its own decapsulated: of the outer headers it tells nothing, so that the inner source
 * must do. 0 or a drop. */
static __always_inline int tw_check_untold(struct __sk_buff *skb, const struct tw_pkt *pkt, struct tw_sender *sender)
{
	const struct ethhdr *eth = tw_header(skb, 0, sizeof(*eth));
	struct tw_peer *peer;

	if (!eth)
		return TW_DROP(SHORT);
	if (tw_ifindex(skb) != tw_overlay(pkt->v6))
		return TW_DROP(BAD_VXLAN);
	if (!tw_is_own_mac(eth->h_dest))
		return TW_DROP(BAD_MAC);
	peer = tw_peer_lookup(&pkt->src, pkt->v6);
	sender->stats = peer ? peer->stats : 0;
	return peer || tw_cfg.anti_spoof == TW_SPOOF_OFF || !tw_in_cluster(&pkt->src) ? 0 : TW_DROP(SPOOF_POD);
}

/* What the kernel's device decapsulated, before the stack sees it. 0: it is as it should be; TW_STACK(VERIFIED): one of
 * our programs put it here. */
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
			return tw_cfg.flannel && tw_cfg.vxlan_device && !tw_note_is(skb, TW_NOTE_CHECKED)
				       ? tw_check_untold(skb, pkt, sender)
				       : TW_STACK(VERIFIED);
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
