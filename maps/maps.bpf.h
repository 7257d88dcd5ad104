/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Every map. docs/maps.md explains them to users; a test compares it with a dump. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "maps/abi/endpoint.h"
#include "maps/abi/event.h"
#include "maps/abi/flow.h"
#include "maps/abi/limits.h"
#include "maps/abi/nat.h"
#include "maps/abi/owned.h"
#include "maps/abi/peer.h"
#include "maps/abi/reasons.h"

#define TW_MAP(name, kind, key_type, value_type, max, flags) \
	struct { \
		__uint(type, kind); \
		__type(key, key_type); \
		__type(value, value_type); \
		__uint(max_entries, max); \
		__uint(map_flags, flags); \
	} name SEC(".maps")

/* Pod CIDR -> node. Written by reconcile, read by tw_from_pod, tw_from_host, tw_from_wire and tw_from_overlay. */
TW_MAP(tw_peers_v4, BPF_MAP_TYPE_HASH, struct tw_cidr_v4, struct tw_peer, TW_PEERS_MAX, BPF_F_NO_PREALLOC);
TW_MAP(tw_peers_v6, BPF_MAP_TYPE_HASH, struct tw_cidr_v6, struct tw_peer, TW_PEERS_MAX, BPF_F_NO_PREALLOC);
/* The same for prefix lengths beyond the TW_PREFIXES_MAX most used ones. */
TW_MAP(tw_peers_lpm4, BPF_MAP_TYPE_LPM_TRIE, struct tw_cidr_v4, struct tw_peer, TW_PEERS_MAX, BPF_F_NO_PREALLOC);
TW_MAP(tw_peers_lpm6, BPF_MAP_TYPE_LPM_TRIE, struct tw_cidr_v6, struct tw_peer, TW_PEERS_MAX, BPF_F_NO_PREALLOC);
/* One entry: which prefix lengths the hashes hold. Written by reconcile, read with the peers. */
TW_MAP(tw_prefixes, BPF_MAP_TYPE_ARRAY, __u32, struct tw_prefixes, 1, 0);
/* Node address -> its pod CIDR. Written by reconcile, read by tw_from_wire, tw_from_overlay (anti-spoof) and
 * tw_from_pod. */
TW_MAP(tw_nodes, BPF_MAP_TYPE_HASH, struct tw_addr, struct tw_node, 2 * TW_PEERS_MAX, BPF_F_NO_PREALLOC);
/* Pod address -> interface and MACs. Written by reconcile, read by tw_from_pod and tw_from_wire. */
TW_MAP(tw_endpoints, BPF_MAP_TYPE_HASH, struct tw_addr, struct tw_endpoint, TW_ENDPOINTS_MAX, BPF_F_NO_PREALLOC);
/* Flow -> who carries it. Written and read by the programs; agent and users only look. */
TW_MAP(tw_flows_tcp, BPF_MAP_TYPE_LRU_HASH, struct tw_flow, struct tw_flow_state, TW_FLOWS_TCP_MAX, 0);
TW_MAP(tw_flows_any, BPF_MAP_TYPE_LRU_HASH, struct tw_flow, struct tw_flow_state, TW_FLOWS_ANY_MAX, 0);
/* Direct-mapped, by a hash of the packet: what tw_from_pod and tw_from_wire found out about a flow, so that its next
 * packet costs no other look-up. Written and read by them. */
TW_MAP(tw_flow_cache, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct tw_cached, TW_CACHED_MAX, 0);
/* By a hash of the flow: how often a flow became the stack's. Written by the programs; a change ends what is cached of
 * it on every CPU. */
TW_MAP(tw_flow_gen, BPF_MAP_TYPE_ARRAY, __u32, __u32, TW_GENS_MAX, 0);
/* One entry, never the same value twice: whoever has changed peers, nodes, prefixes, endpoints or the programs'
 * configuration, or has written into the flow maps, stores another, which ends all that is cached. Written by the agent
 * (CLOCK_MONOTONIC, ns); 0: nothing may be cached. */
TW_MAP(tw_epoch, BPF_MAP_TYPE_ARRAY, __u32, __u64, 1, 0);
/* Claimed address -> when it was last reported (CLOCK_MONOTONIC, ns). Written and read by tw_from_pod. */
TW_MAP(tw_claims, BPF_MAP_TYPE_LRU_HASH, struct tw_claim, __u64, TW_CLAIMS_MAX, 0);
/* enum tw_reason -> packets, by hook. Written by the programs, read by status, drops and metrics. */
TW_MAP(tw_reasons, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct tw_reason_count, TW_R__MAX, 0);
/* Peer's index -> packets and bytes. Written by the programs, read by peers and metrics; reset by reconcile on reuse.
 */
TW_MAP(tw_peer_stats, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct tw_peer_stats, 2 * TW_PEERS_MAX, 0);
/* Interface -> what we added there. Written and read by the agent only; in a map because it must live as long as the
 * pins. */
TW_MAP(tw_owned, BPF_MAP_TYPE_HASH, __u32, struct tw_owned, TW_OWNED_MAX, BPF_F_NO_PREALLOC);

/* Flows that are masqueraded, by their packets and by their replies; see docs/design/masquerade.md. Written and read by
 * tw_to_wire, tw_from_host, tw_from_wire and tw_from_overlay; the agent and users only look. */
TW_MAP(tw_nat_fwd, BPF_MAP_TYPE_HASH, struct tw_nat_key, struct tw_nat_flow, TW_NAT_MAX, 0);
TW_MAP(tw_nat_rev, BPF_MAP_TYPE_HASH, struct tw_nat_key, struct tw_nat_flow, TW_NAT_MAX, 0);
/* One place for each flow: its key in tw_nat_rev, or that of one that was. A new flow takes the place of an old one.
 * Written and read by the same programs. */
TW_MAP(tw_nat_slots, BPF_MAP_TYPE_ARRAY, __u32, struct tw_nat_key, TW_NAT_MAX, 0);
/* By a hash of the remote end: which ports are in use towards it. Written and read by the same programs. */
TW_MAP(tw_nat_ports, BPF_MAP_TYPE_ARRAY, __u32, struct tw_nat_block, TW_NAT_BLOCKS, 0);
/* Ports that may be used. Written by the agent, read by the same programs. */
TW_MAP(tw_nat_range, BPF_MAP_TYPE_ARRAY, __u32, struct tw_nat_range, TW_NAT_RANGES, 0);
/* Interface -> addresses. Written by the agent, read by the same programs. */
TW_MAP(tw_nat_ifs, BPF_MAP_TYPE_HASH, __u32, struct tw_nat_if, TW_NAT_IFS_MAX, BPF_F_NO_PREALLOC);
/* Destinations that are not masqueraded; both families in 16 bytes, IPv4 prefixes with 96 more. The value is not used.
 * Written by the agent, read by the same programs. */
TW_MAP(tw_nat_except, BPF_MAP_TYPE_LPM_TRIE, struct tw_cidr_v6, __u32, TW_NAT_EXCEPT, BPF_F_NO_PREALLOC);
/* One entry: room to work in. Written and read by the same programs. */
TW_MAP(tw_nat_work, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct tw_nat_work, 1, 0);
/* Packets in fragments -> their new address. Written and read by the same programs. To forget one loses a packet,
 * never a flow. */
TW_MAP(tw_nat_frags, BPF_MAP_TYPE_LRU_HASH, struct tw_nat_frag, struct tw_addr, TW_NAT_FRAGS, 0);

/* struct tw_event records. Written by tw_from_pod, read by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, TW_EVENTS_BYTES);
} tw_events SEC(".maps");
