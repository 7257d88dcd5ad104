/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf/lib/nat_quick.h"

/* tc egress of every interface that leads out of the cluster: masquerade. */

SEC("tc")
int tw_to_wire(struct __sk_buff *skb)
{
	/* What has a VLAN tag has left by the VLAN's device, and been here before. */
	int ret = tw_cfg.nat && !skb->vlan_present ? tw_nat_quick_out(skb) : TW_STACK(NAT_NOT);

	if (tw_cfg.nat && ret == TW_LONG_WAY)
		ret = tw_nat_leave(skb, 0);

	return tw_finish(TW_HOOK_TO_WIRE, ret);
}
