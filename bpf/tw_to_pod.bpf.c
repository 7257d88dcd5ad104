/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf/lib/flow.h"

/* tc egress of the host side of a pod's interface: only what the stack hands to the pod (redirect_peer does not pass
 * here). So translated flows are known as the stack's before the pod answers. Never holds a packet up. */

static __always_inline int tw_observe(struct __sk_buff *skb)
{
	struct tw_pkt pkt;

	if (tw_parse_l3(skb, tw_ethertype(skb), ETH_HLEN, &pkt))
		return TW_STACK(NOT_IP);
	if (!pkt.odd && !tw_parse_l4(skb, &pkt) && !pkt.odd)
		tw_flow_note(skb, &pkt);
	return TW_STACK(FROM_STACK);
}

SEC("tc")
int tw_to_pod(struct __sk_buff *skb)
{
	return tw_finish(TW_HOOK_TO_POD, tw_observe(skb));
}
