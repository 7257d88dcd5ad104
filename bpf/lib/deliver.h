/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/cache.h"
#include "bpf/lib/encap.h"

/* Hands the frame, complete, into the pod. */
static __always_inline int tw_redirect_into_pod(struct __sk_buff *skb, const struct tw_endpoint *endpoint)
{
	/* Frames for a gateway on a bridge arrive as OTHERHOST, which ip_rcv would drop; the kernel resets it only
	 * since 6.15. */
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	if (bpf_redirect_peer(endpoint->ifindex, 0) != TC_ACT_REDIRECT)
		return TW_DROP(KERNEL_ERROR);
	return TW_SENT(TO_LOCAL);
}

/* Hands the frame, whose IP header is at ETH_HLEN, into the pod; TTL is lowered on the way. */
static __always_inline int tw_into_pod(struct __sk_buff *skb, int v6, const struct tw_endpoint *endpoint)
{
	void *frame = tw_header(skb, 0, ETH_HLEN + tw_ip_size(v6));

	if (unlikely(!frame))
		return TW_DROP(KERNEL_ERROR);
	tw_put_mac(frame, endpoint->mac);
	tw_put_mac(frame + ETH_ALEN, endpoint->host_mac);
	tw_lower_ttl(skb, frame + ETH_HLEN, v6);
	return tw_redirect_into_pod(skb, endpoint);
}

/* Gives the frame, whose Ethernet source was `src`, to the kernel as received on the overlay device: on the wire it
 * would fail the reverse path filter, which knows other pods behind the overlay device only. */
static __always_inline int tw_into_stack(struct __sk_buff *skb, int v6, const struct tw_mac *src)
{
	void *frame = tw_header(skb, 0, ETH_HLEN);

	if (!frame)
		return TW_DROP(KERNEL_ERROR);
	tw_put_mac(frame, tw_own_vtep(v6));
	tw_put_mac(frame + ETH_ALEN, src->bytes);
	if (tw_cfg.flannel)
		tw_note_put(skb, TW_NOTE_CHECKED);
	if (bpf_redirect(tw_overlay(v6), BPF_F_INGRESS) != TC_ACT_REDIRECT)
		return TW_DROP(KERNEL_ERROR);
	return TW_SENT(TO_STACK);
}

/* May the endpoint be reached past the stack, with a frame of skb->len + len_diff? 0, or why not. An interface that is
 * gone must not become a black hole while the agent is away: the stack may know where the address lives now. *mtu is
 * what the interface takes, bytes of IP. */
static __always_inline int tw_endpoint_check(struct __sk_buff *skb, const struct tw_endpoint *endpoint, __s32 len_diff,
					     __u32 *mtu)
{
	__u32 found = 0;
	int ret;

	if (endpoint->shaped)
		return TW_STACK(SHAPED);
	if (endpoint->ifindex == tw_ifindex(skb))
		return TW_STACK(HAIRPIN);
	if (!tw_cfg.check_mtu) {
		*mtu = 0xffffffff;
		return 0;
	}
	ret = (int)bpf_check_mtu(skb, endpoint->ifindex, &found, len_diff, 0);
	*mtu = found;
	if (ret < 0)
		return TW_STACK(NO_ENDPOINT);
	return ret ? TW_STACK(TOO_BIG) : 0;
}

/* Keeps an endpoint that was just checked. */
static __always_inline void tw_endpoint_store(struct tw_cached *slot, const struct tw_endpoint *endpoint, __u32 mtu)
{
	slot->endpoint = *endpoint;
	slot->mtu = mtu;
	slot->asked = (__u32)bpf_jiffies64();
}

/* Does what tw_endpoint_check() said hold for this packet? The interface is asked once in each tick
 * of the kernel's clock (1 to 10 ms), not for each packet. */
static __always_inline int tw_endpoint_ready(struct __sk_buff *skb, struct tw_cached *slot, __s32 len_diff)
{
	__u32 now, mtu;

	if (!tw_cfg.check_mtu)
		return 1;
	now = (__u32)bpf_jiffies64();
	if (unlikely(slot->asked != now)) {
		if (tw_endpoint_check(skb, &slot->endpoint, len_diff, &mtu))
			return 0;
		slot->asked = now;
		slot->mtu = mtu;
	}
	return skb->len + (__u32)len_diff - ETH_HLEN <= slot->mtu || skb->gso_size;
}

/* What a packet from a peer is to become: *endpoint is set when it may go straight into a pod, whose interface takes
 * *mtu, else the stack gets it. `l4` is what tw_parse_l4() said. `len_diff` is what decapsulation will take off,
 * negative. Returns 0 or a drop. */
static __always_inline int tw_choose_endpoint(struct __sk_buff *skb, const struct tw_pkt *pkt, int l4, int from_peer,
					      __s32 len_diff, struct tw_endpoint **endpoint, __u32 *mtu)
{
	struct tw_endpoint *found;

	*endpoint = 0;
	/* A source that is no pod would get its reply through the stack, so the request goes there too. */
	if (!tw_cfg.fast || !from_peer || pkt->ttl <= 1)
		return 0;
	if (l4 || pkt->odd)
		return l4;
	found = tw_endpoint_lookup(&pkt->dst);
	if (!found || tw_endpoint_check(skb, found, len_diff, mtu))
		return 0;
	if (!tw_flow_check(skb, pkt))
		*endpoint = found;
	return 0;
}
