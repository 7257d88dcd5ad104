/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf/lib/deliver.h"
#include "bpf/lib/forged.h"
#include "bpf/lib/nat.h"
#include "bpf/lib/overlay.h"

/* tc ingress of the overlay device: what the kernel decapsulated because tw_from_wire left it (outer fragments, UDP
 * GSO), held to the same rules. Without a tunnel key: what tw_from_wire itself sent here, and what tw_from_host sent
 * round for a neighbour. */

static __always_inline int tw_admit(struct __sk_buff *skb)
{
	struct tw_endpoint *endpoint;
	struct tw_peer *peer;
	const struct ethhdr *eth;
	struct tw_pkt pkt;
	struct tw_sender sender;
	__u32 mtu;
	int ret, l4;

	/* A flannel overlay carries IP only. The kernel has taken an inner VLAN tag off. */
	if (skb->vlan_present)
		return TW_DROP(BAD_VXLAN);
	ret = tw_parse_l3(skb, tw_ethertype(skb), ETH_HLEN, &pkt);
	if (ret)
		return ret > 0 ? TW_DROP(BAD_VXLAN) : ret;
	ret = tw_check_overlay(skb, &pkt, &sender);
	if (ret == TW_STACK(VERIFIED)) {
		/* What tw_from_wire sends here carries our MAC; what tw_from_host sent round, that of the overlay's
		 * gateway. */
		eth = tw_header(skb, 0, sizeof(*eth));
		if (!eth || tw_mac_eq(eth->h_dest, tw_own_vtep(pkt.v6)))
			return ret;
		peer = tw_peer_lookup(&pkt.dst, pkt.v6);
		return peer && peer->mode == TW_MODE_DIRECT ? tw_direct(skb, pkt.v6, peer, 0) : ret;
	}
	if (ret)
		return ret;
	ret = tw_check_nested(skb, &pkt);
	if (ret)
		return ret;
	tw_count_rx((__u32)sender.stats, pkt.l3_len);

	/* Such a packet of a flow that the programs carry must not meet conntrack, which has not seen the others. */
	l4 = tw_parse_l4_all(skb, &pkt);
	ret = tw_choose_endpoint(skb, &pkt, l4, tw_in_cluster(&pkt.src), 0, &endpoint, &mtu);
	if (ret)
		return ret;
	if (endpoint)
		return tw_into_pod(skb, pkt.v6, endpoint);
	if (tw_cfg.nat && tw_is_own_host(&pkt.dst)) {
		ret = tw_nat_arrive(skb, 0);
		if (ret < 0)
			return ret;
	}
	/* To our former VtepMAC, which is not the device's: the stack would take it for somebody else's. */
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	return TW_STACK(TO_STACK);
}

SEC("tc")
int tw_from_overlay(struct __sk_buff *skb)
{
	return tw_finish(TW_HOOK_FROM_OVERLAY, tw_admit(skb));
}
