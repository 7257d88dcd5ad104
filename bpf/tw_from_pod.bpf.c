/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "bpf/lib/deliver.h"
#include "bpf/lib/forged.h"
#include "bpf/lib/overlay.h"
#include "bpf/lib/quick.h"

/* tc ingress of the host side of a pod's interface: all that the pod sends. */

#define TW_CLAIM_PERIOD_NS 50000000ULL /* tell the agent of an unknown source 20 times a second at most */
#define TW_CLAIM_GAP_NS	   100000ULL   /* and of one interface's sources ten thousand times */

/* Reports a source inside our pod CIDR that is no endpoint of this interface: pods that talk only to pods leave no
 * trace in the host's neighbour table. */
static __always_inline void tw_report_claim(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	struct tw_claim claim = {.addr = pkt->src, .ifindex = tw_ifindex(skb)};
	struct tw_event event = {.kind = TW_EVENT_CLAIM, .ifindex = tw_ifindex(skb), .addr = pkt->src};
	struct tw_claim any = {.ifindex = tw_ifindex(skb)};
	__u64 now = bpf_ktime_get_ns();
	__u64 *last;

	last = bpf_map_lookup_elem(&tw_claims, &claim);
	if (last && now - *last < TW_CLAIM_PERIOD_NS)
		return;
	/* A pod that invents addresses must not fill the ring for all. */
	last = bpf_map_lookup_elem(&tw_claims, &any);
	if (last && now - *last < TW_CLAIM_GAP_NS)
		return;
	if (bpf_skb_load_bytes(skb, ETH_ALEN, event.mac, sizeof(event.mac)))
		return;
	/* Remembered only when told: a full ring costs no endpoint. */
	if (!bpf_ringbuf_output(&tw_events, &event, sizeof(event), 0)) {
		bpf_map_update_elem(&tw_claims, &claim, &now, BPF_ANY);
		bpf_map_update_elem(&tw_claims, &any, &now, BPF_ANY);
	}
}

/* A pod must not make VXLAN for a node: masquerade would give its frame the address of this one. Pods may run VXLAN
 * among themselves. */
static __always_inline int tw_check_forged(struct __sk_buff *skb, const struct tw_pkt *pkt)
{
	__u32 own = tw_forget(skb, tw_is_own_host(&pkt->dst) || tw_is_own_node(&pkt->dst)), forged;

	if (!own && tw_in_cluster(&pkt->dst))
		return 0;
	forged = tw_aims_at_tunnel(skb, pkt) && (own || bpf_map_lookup_elem(&tw_nodes, &pkt->dst) ||
						 (tw_cfg.flannel && tw_cfg.vxlan_device && tw_is_for_host(skb, pkt)));
	return tw_forget(skb, forged) ? TW_DROP(FORGED) : 0;
}

/* Does the pod send the frame to its gateway? What it sends to another pod that routes, or to nobody, the stack
 * bridges. */
static __always_inline int tw_for_gateway(struct __sk_buff *skb, const struct tw_cached *slot)
{
	const struct ethhdr *eth = tw_header(skb, 0, sizeof(*eth));

	return eth && tw_mac_eq(eth->h_dest, slot->host_mac);
}

/* To a pod of this node. A frame that carries the pod's own MAC was bridged, so nobody routes it and its TTL stays. */
static __always_inline int tw_to_local(struct __sk_buff *skb, const struct tw_pkt *pkt, const struct tw_cached *slot)
{
	const struct ethhdr *eth = tw_header(skb, 0, sizeof(*eth));

	if (!eth)
		return TW_DROP(SHORT);
	if (tw_mac_eq(eth->h_dest, slot->endpoint.mac))
		return tw_redirect_into_pod(skb, &slot->endpoint);
	if (!tw_mac_eq(eth->h_dest, slot->host_mac))
		return TW_STACK(NOT_GATEWAY);
	return pkt->ttl <= 1 ? TW_STACK(TTL) : tw_into_pod(skb, pkt->v6, &slot->endpoint);
}

/* To a pod of another node; for the gateway, and with a TTL that does not expire. */
static __always_inline int tw_to_peer(struct __sk_buff *skb, int v6, __u32 l3_len, __u32 hdr_len, __u8 tos,
				      const struct tw_cached *slot)
{
	const struct tw_peer *peer = &slot->peer;
	int ret;

	if (unlikely(tw_segment_len(skb, l3_len, hdr_len) > peer->mtu))
		return TW_STACK(TOO_BIG);
	if (unlikely(!peer->wire))
		return TW_STACK(NO_WIRE);
	if (peer->mode == TW_MODE_DIRECT)
		return tw_direct(skb, v6, peer, 1);
	ret = tw_encap(skb, v6, l3_len, tos, peer, &slot->head, 1);
	if (unlikely(ret == TW_STACK(ENCAPSULATED) || ret == TW_STACK(KERNEL_ENCAP)))
		return tw_via_overlay(skb, v6, ret);
	return ret;
}

/* May the pod send it, and where does it go? On 0 `slot` holds the answer. `l4` is what tw_parse_l4() said. */
static __always_inline int tw_judge(struct __sk_buff *skb, const struct tw_pkt *pkt, int l4, struct tw_cached *slot,
				    const struct tw_basis *basis)
{
	struct tw_endpoint *source, *endpoint;
	struct tw_peer *peer;
	int ret, local;
	__u32 mtu;

	ret = tw_check_forged(skb, pkt);
	if (ret)
		return ret;
	if (skb->vlan_present || skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST)
		return TW_STACK(NOT_IP);

	source = tw_endpoint_lookup(&pkt->src);
	if (!source || source->ifindex != tw_ifindex(skb)) {
		if (tw_in_own_pods(&pkt->src))
			tw_report_claim(skb, pkt);
		return TW_STACK(NEW_SOURCE);
	}
	/* Its replies come through the stack, and its own qdisc may sit behind us. */
	if (source->shaped)
		return TW_STACK(SHAPED);
	local = tw_in_own_pods(&pkt->dst);
	peer = local ? 0 : tw_peer_lookup(&pkt->dst, pkt->v6);
	if (!local && !peer)
		return TW_STACK(NOT_POD);
	slot->epoch = 0;
	if (peer) {
		/* From whichever map: from here on there is one way only. Written later, the verifier would walk more.
		 */
		slot->peer = *peer;
		tw_head_fill(&slot->head, &slot->peer, pkt->v6);
	}
	if (!tw_cfg.fast)
		return TW_STACK(FAST_OFF);
	if (l4)
		return l4;
	if (pkt->odd)
		return TW_STACK(NOT_IP) - TW_R_NOT_IP + pkt->odd;
	ret = tw_flow_check(skb, pkt);
	if (ret)
		return ret;
	if (local) {
		endpoint = tw_endpoint_lookup(&pkt->dst);
		if (!endpoint)
			return TW_STACK(NO_ENDPOINT);
		ret = tw_endpoint_check(skb, endpoint, 0, &mtu);
		if (ret)
			return ret;
		tw_endpoint_store(slot, endpoint, mtu);
	}
	slot->local = (__u8)local;
	tw_put_mac(slot->host_mac, source->host_mac);
	tw_cache_store(slot, basis, tw_ifindex(skb), pkt, 0, 0);
	return 0;
}

/* Of the family `v6`, a constant. */
static __always_inline int tw_route_family(struct __sk_buff *skb, int v6)
{
	const __u8 *frame = tw_header(skb, 0, ETH_HLEN + tw_ip_size(v6) + TW_QUICK_L4);
	struct tw_quick quick;
	struct tw_cached *slot;
	int bridged;

	if (unlikely(!frame || !tw_quick_read(frame + ETH_HLEN, v6, &quick)) ||
	    unlikely(ETH_HLEN + quick.l3_len > skb->len || quick.ttl <= 1))
		return TW_LONG_WAY;
	slot = tw_quick_find(frame + ETH_HLEN, v6, &quick, tw_ifindex(skb), 0);
	if (unlikely(!slot))
		return TW_LONG_WAY;
	bridged = slot->local && tw_mac_eq(frame, slot->endpoint.mac);
	if (unlikely(!bridged && !tw_mac_eq(frame, slot->host_mac)))
		return TW_LONG_WAY;
	if (!slot->local)
		return tw_to_peer(skb, v6, quick.l3_len, quick.hdr_len, quick.tos, slot);
	if (unlikely(!tw_endpoint_ready(skb, slot, 0)))
		return TW_LONG_WAY;
	return bridged ? tw_redirect_into_pod(skb, &slot->endpoint) : tw_into_pod(skb, v6, &slot->endpoint);
}

/* The next packet of a flow. */
static __always_inline int tw_route_quick(struct __sk_buff *skb)
{
	return skb->vlan_present ? TW_LONG_WAY : TW_BY_FAMILY(skb, tw_route_family);
}

/* Any packet. */
static __always_inline int tw_route_any(struct __sk_buff *skb)
{
	struct tw_cached *slot;
	struct tw_basis basis;
	struct tw_pkt pkt;
	int ret, l4;
	__u32 hash;

	/* The kernel takes priority tags (VLAN 0) off behind us, one after the other. */
	if (skb->vlan_present && !(skb->vlan_tci & 0xfff) &&
	    (skb->protocol == bpf_htons(ETH_P_8021Q) || skb->protocol == bpf_htons(ETH_P_8021AD)))
		return TW_DROP(FORGED);
	ret = tw_parse_l3(skb, tw_ethertype(skb), ETH_HLEN, &pkt);
	if (ret)
		return ret;
	l4 = tw_parse_l4_all(skb, &pkt);
	hash = tw_flow_hash(&pkt);
	basis = tw_cache_basis(hash);
	slot = tw_cache_slot(hash, tw_addr_fold(&pkt.src));
	if (!slot)
		return TW_DROP(KERNEL_ERROR);
	ret = tw_judge(skb, &pkt, l4, slot, &basis);
	if (ret)
		return ret;
	if (slot->local)
		return tw_to_local(skb, &pkt, slot);
	if (!tw_for_gateway(skb, slot))
		return TW_STACK(NOT_GATEWAY);
	if (pkt.ttl <= 1)
		return TW_STACK(TTL);
	return tw_to_peer(skb, pkt.v6, pkt.l3_len, pkt.hdr_len, pkt.tos, slot);
}

SEC("tc")
int tw_from_pod(struct __sk_buff *skb)
{
	int ret = tw_cfg.fast ? tw_route_quick(skb) : TW_LONG_WAY;

	if (unlikely(ret == TW_LONG_WAY))
		ret = tw_route_any(skb);
	return tw_finish(TW_HOOK_FROM_POD, ret);
}
