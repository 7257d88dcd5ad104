/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf/lib/flow.h"
#include "bpf/lib/nat.h"
#include "bpf/lib/overlay.h"

/* tc egress of the overlay device: what the node's own stack sends or forwards to pods of other nodes. The stack has
 * routed it, so TTL and MTU are settled; anything that is IP is encapsulated here, fragments and odd protocols too. */

/* The stack's route, to this device, is still on the packet; were it to wait for the neighbour on the wire, it would be
 * sent to that route's neighbour afterwards. On its way round through our own ingress it loses the route, and
 * tw_from_overlay sends it. */
static __always_inline int tw_again(struct __sk_buff *skb, int v6)
{
	tw_note_put(skb, TW_NOTE_CHECKED);
	if (bpf_redirect(tw_overlay(v6), BPF_F_INGRESS) != TC_ACT_REDIRECT)
		return TW_DROP(KERNEL_ERROR);
	return TW_SENT(NO_NEIGHBOUR);
}

/* A global function, so that its stack is not under that of masquerade. */
__noinline int tw_send(struct __sk_buff *skb)
{
	struct tw_peer *peer;
	struct tw_pkt pkt;
	int ret;

	ret = tw_parse_l3(skb, tw_ethertype(skb), ETH_HLEN, &pkt);
	if (ret)
		return ret > 0 ? TW_DROP(NO_PEER) : ret; /* nothing but IP has a peer */
	peer = tw_peer_lookup(&pkt.dst, pkt.v6);
	if (!peer && (pkt.v6 ? pkt.dst.high[0] == 0xff : (pkt.dst.low[0] & 0xf0) == 0xe0))
		return TW_DROP(MULTICAST); /* group membership reports, name services: the device is just one more link
					      to them */
	if (!peer || !peer->wire)
		return TW_DROP(NO_PEER); /* passed on, it would come back */

	/* A pod's packet here was forwarded by the stack: perhaps because kube-proxy translated it. */
	if (tw_in_own_pods(&pkt.src) && !tw_note_is(skb, TW_NOTE_CARRIED) && !pkt.odd && !tw_parse_l4(skb, &pkt) &&
	    !pkt.odd)
		tw_flow_note(skb, &pkt);
	if (peer->mode == TW_MODE_DIRECT)
		return tw_neigh_is_known(skb, peer, pkt.v6) ? tw_direct(skb, pkt.v6, peer, 0) : tw_again(skb, pkt.v6);
	if (!skb->gso_size && pkt.l3_len > peer->mtu)
		return tw_kernel_encap(skb, &pkt, peer,
				       TW_STACK(TOO_BIG)); /* outer fragments are the kernel's to make */
	ret = tw_encap(skb, pkt.v6, pkt.l3_len, pkt.tos, peer, 0, 0);
	if (ret == TW_STACK(ENCAPSULATED) || ret == TW_STACK(KERNEL_ENCAP))
		return tw_kernel_encap(skb, &pkt, peer, ret);
	return ret;
}

SEC("tc")
int tw_from_host(struct __sk_buff *skb)
{
	/* The node by an address of the wire, or somebody outside, to another node's pod: the answer has to come back
	 * here. */
	int ret = tw_cfg.nat ? tw_nat_leave(skb, 1) : 0;

	return tw_finish(TW_HOOK_FROM_HOST, ret < 0 ? ret : tw_send(skb));
}
