/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf/lib/decap.h"
#include "bpf/lib/nat_quick.h"

/* tc ingress of a wire: VXLAN and directly routed packets from peers, and everything else that arrives there. */

/* Of the family `v6`, a constant. */
static __always_inline int tw_receive_family(struct __sk_buff *skb, int v6)
{
	const void *ip = tw_header(skb, ETH_HLEN, tw_ip_size(v6) + TW_QUICK_L4);
	struct tw_quick quick;
	struct tw_cached *slot;

	if (unlikely(!ip || !tw_quick_read(ip, v6, &quick)) || unlikely(ETH_HLEN + quick.l3_len > skb->len))
		return TW_LONG_WAY;
	if (quick.ports >> 16 == bpf_htons(tw_cfg.port) && quick.proto == IPPROTO_UDP)
		return tw_decap_quick(skb, v6, &quick);
	if (!tw_quick_to_own_pod(ip, v6) || quick.ttl <= 1)
		return TW_LONG_WAY;
	slot = tw_quick_find(ip, v6, &quick, tw_ifindex(skb), 0);
	if (unlikely(!slot || !tw_endpoint_ready(skb, slot, 0)))
		return TW_LONG_WAY;
	tw_count_rx(slot->stats, quick.l3_len);
	return tw_into_pod(skb, v6, &slot->endpoint);
}

/* The next packet of a flow. */
static __always_inline int tw_receive_quick(struct __sk_buff *skb)
{
	if (skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return TW_LONG_WAY;
	return TW_BY_FAMILY(skb, tw_receive_family);
}

/* enum tw_nat_if_flags of the interface. With masquerade the program is also where no peer is. */
static __always_inline __u32 tw_arrival_flags(struct __sk_buff *skb)
{
	struct tw_nat_if *at = tw_cfg.nat ? bpf_map_lookup_elem(&tw_nat_ifs, TW_KEY(tw_ifindex(skb))) : 0;

	return at ? at->flags : 0;
}

/* A reply has its old destination again. Behind a bridge br_netfilter has shown it to conntrack before, under the other
 * one, and the stack would not ask again: what goes round by the device's ingress is forgotten there. */
static __always_inline int tw_reply(struct __sk_buff *skb)
{
	if (!(tw_arrival_flags(skb) & TW_NAT_IF_BRIDGE))
		return TW_STACK(NAT_IN);
	tw_note_put(skb, TW_NOTE_ROUND);
	return bpf_redirect(tw_ifindex(skb), BPF_F_INGRESS) == TC_ACT_REDIRECT ? TW_SENT(NAT_IN)
									       : TW_DROP(KERNEL_ERROR);
}

/* Any packet. */
static __always_inline int tw_receive_any(struct __sk_buff *skb)
{
	struct tw_arrival arrival;
	struct tw_pkt pkt;
	int ret;

	if (skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return TW_STACK(NOT_IP);
	ret = tw_parse_l3(skb, tw_ethertype(skb), ETH_HLEN, &pkt);
	if (ret < 0)
		return TW_STACK(NOT_OURS); /* not ours to judge: the stack drops what is broken */
	if (ret)
		return ret;
	ret = tw_is_tunnel(skb, &pkt);
	if (ret && tw_check_untold_sender(skb, &pkt))
		return TW_DROP(SPOOF_NODE);
	if (!ret)
		ret = tw_arrival_flags(skb) & TW_NAT_IF_ASIDE ? TW_STACK(NOT_OURS) : tw_open(skb, &pkt, &arrival);
	else if (ret == TW_STACK(NOT_OURS) || ret == TW_STACK(FRAGMENT))
		ret = tw_open_direct(skb, &pkt, &arrival, ret);
	if (!ret && !arrival.room && tw_arrival_flags(skb) & TW_NAT_IF_ASIDE)
		ret = TW_STACK(NOT_OURS); /* the stack asks whether the source may come by here */
	return ret ? ret : tw_receive(skb, &pkt, &arrival);
}

SEC("tc")
int tw_from_wire(struct __sk_buff *skb)
{
	int ret = tw_cfg.fast ? tw_receive_quick(skb) : TW_LONG_WAY;
	int quick = TW_LONG_WAY;

	/* What is nobody's may be a reply to a masqueraded flow. Fragments are for the same address as VXLAN. */
	if (tw_cfg.nat && ret == TW_LONG_WAY) {
		quick = tw_note_is(skb, TW_NOTE_ROUND) ? TW_NAT_MISS : tw_nat_quick_in(skb);
		if (quick != TW_LONG_WAY && quick != TW_NAT_MISS)
			ret = quick;
	}
	if (unlikely(ret == TW_LONG_WAY))
		ret = tw_receive_any(skb);
	if (tw_cfg.nat && quick != TW_NAT_MISS && (ret == TW_STACK(NOT_OURS) || ret == TW_STACK(FRAGMENT)))
		ret = tw_nat_arrive(skb, ret);
	if (tw_cfg.nat && ret == TW_STACK(NAT_IN))
		ret = tw_reply(skb);
	return tw_finish(TW_HOOK_FROM_WIRE, ret);
}
