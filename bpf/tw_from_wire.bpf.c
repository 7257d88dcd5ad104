/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf/lib/decap.h"

/* tc ingress of a wire: VXLAN and directly routed packets from peers, and everything else that arrives there. */

static __always_inline int tw_receive(struct __sk_buff *skb)
{
	struct tw_pkt pkt;
	int ret;

	if (skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return TW_STACK(NOT_IP);
	ret = tw_parse_l3(skb, (__be16)skb->protocol, ETH_HLEN, &pkt);
	if (ret < 0)
		return TW_STACK(NOT_OURS); /* not ours to judge: the stack drops what is broken */
	if (ret)
		return ret;
	ret = tw_is_tunnel(skb, &pkt);
	if (!ret)
		return tw_decap(skb, &pkt);
	if (ret == TW_STACK(NOT_OURS))
		return tw_receive_direct(skb, &pkt);
	return ret;
}

SEC("tc")
int tw_from_wire(struct __sk_buff *skb)
{
	return tw_finish(TW_HOOK_FROM_WIRE, tw_receive(skb));
}
