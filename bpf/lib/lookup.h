/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/parse.h"

static __always_inline struct tw_peer *tw_peer_by_hash(const struct tw_addr *addr, int v6, __u32 bits,
						       const struct tw_addr *mask)
{
	const __u32 *word = (const __u32 *)addr, *bit = (const __u32 *)mask;

	if (v6) {
		/* struct tw_cidr_v6 */
		__u64 key[] = {bits | (__u64)(word[0] & bit[0]) << 32,
			       (word[1] & bit[1]) | (__u64)(word[2] & bit[2]) << 32, word[3] & bit[3]};

		return bpf_map_lookup_elem(&tw_peers_v6, key);
	} else {
		/* struct tw_cidr_v4 */
		return bpf_map_lookup_elem(&tw_peers_v4, TW_KEY(bits | (__u64)(word[3] & bit[3]) << 32));
	}
}

static __always_inline struct tw_peer *tw_peer_by_trie(const struct tw_addr *addr, int v6)
{
	const __u32 *word = (const __u32 *)addr;

	if (v6) {
		__u64 key[] = {128 | (__u64)word[0] << 32, word[1] | (__u64)word[2] << 32, word[3]};

		return bpf_map_lookup_elem(&tw_peers_lpm6, key);
	} else {
		return bpf_map_lookup_elem(&tw_peers_lpm4, TW_KEY(32 | (__u64)word[3] << 32));
	}
}

/* The peer whose pod CIDR holds `addr`, or NULL. A cluster uses one prefix length as a rule, so this is one hash
 * lookup: a trie of 10,000 peers costs twice that. */
static __always_inline struct tw_peer *tw_peer_lookup(const struct tw_addr *addr, int v6)
{
	struct tw_prefixes *prefixes;
	struct tw_peer *peer;

	prefixes = bpf_map_lookup_elem(&tw_prefixes, TW_KEY(0));
	if (!prefixes)
		return 0;
#pragma unroll
	for (int i = 0; i < TW_PREFIXES_MAX; i++) {
		if (i >= (v6 ? prefixes->v6_count : prefixes->v4_count))
			break;
		peer = v6 ? tw_peer_by_hash(addr, 1, prefixes->v6[i], &prefixes->v6_mask[i])
			  : tw_peer_by_hash(addr, 0, prefixes->v4[i], &prefixes->v4_mask[i]);
		if (peer)
			return peer;
	}
	return (v6 ? prefixes->v6_trie : prefixes->v4_trie) ? tw_peer_by_trie(addr, v6) : 0;
}

static __always_inline struct tw_endpoint *tw_endpoint_lookup(const struct tw_addr *addr)
{
	return bpf_map_lookup_elem(&tw_endpoints, addr);
}

/* Per-peer counters; `bytes` of the IP packet. Returns how many packets went there from this CPU. */
static __always_inline __u32 tw_count_tx(__u32 index, __u32 bytes)
{
	struct tw_peer_stats *stats = bpf_map_lookup_elem(&tw_peer_stats, TW_KEY(index));

	if (!stats)
		return 0;
	stats->tx_packets += 1;
	stats->tx_bytes += bytes;
	return (__u32)stats->tx_packets;
}

static __always_inline void tw_count_rx(__u32 index, __u32 bytes)
{
	struct tw_peer_stats *stats = bpf_map_lookup_elem(&tw_peer_stats, TW_KEY(index));

	if (stats) {
		stats->rx_packets += 1;
		stats->rx_bytes += bytes;
	}
}

/* Who sent a packet. Whole words: see TW_KEY. */
struct tw_sender {
	__u64 stats; /* counter index */
	__u64 known; /* by what a packet says and our maps, without its MACs */
};

/* Anti-spoof, the same for every way in: may a packet from `outer` (a node's address by the outer header; NULL: it has
 * none, so only a peer that we reach the same way may send it), with Ethernet source `smac` next to it, carry the inner
 * source `inner`? 0, or the verdict. A pod is never a node, whatever the mode: else a pod's frame to some address of
 * ours would be taken for a tunnel. An outside client that reaches a pod directly is the stack's: conntrack must see
 * both directions. */
static __always_inline int tw_check_sender(const struct tw_addr *outer, const struct tw_mac *smac,
					   const struct tw_addr *inner, int v6, struct tw_sender *sender)
{
	struct tw_node *node = outer ? bpf_map_lookup_elem(&tw_nodes, outer) : 0;
	struct tw_peer *peer;

	sender->stats = 0;
	sender->known = 1;
	if (outer && tw_is_own_node(outer))
		return TW_DROP(SPOOF_NODE); /* a martian */
	if (node) {
		sender->stats = node->stats;
		if (tw_cfg.anti_spoof == TW_SPOOF_OFF || !tw_in_cluster(inner) || tw_net_has(&node->pods, inner))
			return 0;
		return TW_DROP(SPOOF_POD);
	}
	if (outer && (tw_cfg.anti_spoof == TW_SPOOF_STRICT || tw_in_cluster(outer)))
		return TW_DROP(SPOOF_NODE);
	peer = tw_peer_lookup(inner, v6);
	if (peer)
		sender->stats = peer->stats;
	if (!outer)
		return peer && peer->mode == TW_MODE_DIRECT ? 0 : TW_STACK(NOT_OURS);
	sender->known = 0;
	if (tw_cfg.anti_spoof == TW_SPOOF_OFF || (peer && tw_mac_eq(smac->bytes, peer->vtep_mac)))
		return 0;
	return TW_DROP(SPOOF_NODE);
}
