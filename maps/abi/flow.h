/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps/abi/addr.h"
#include "maps/abi/endpoint.h"
#include "maps/abi/limits.h"
#include "maps/abi/peer.h"

/* A flow without a direction; key of tw_flows_tcp and tw_flows_any. Of the two ends, `a` is the one whose (address,
 * port) is lower in memory order, so that both directions share one entry. Ports in host order. */
struct tw_flow {
	struct tw_addr a;
	struct tw_addr b;
	__u16 a_port;
	__u16 b_port;
	__u8 proto; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 reserved[3];
};
TW_ASSERT_SIZE(struct tw_flow, 40);

/* Who carries a flow through this node, both directions. */
enum tw_verdict {
	TW_VERDICT_FAST = 1,  /* the programs */
	TW_VERDICT_STACK = 2, /* the kernel: conntrack has NAT on it */
};

struct tw_flow_state {
	enum tw_verdict verdict;
};
TW_ASSERT_SIZE(struct tw_flow_state, 4);

/* VXLAN headers for a peer, outer IP to inner Ethernet (50 bytes over IPv4, 70 over IPv6), as they are in every packet;
 * what differs from packet to packet is zero. The IPv4 header's checksum, and over IPv6 that of UDP, is not one: it is
 * the sum of what else is known (RFC 1071), not yet inverted; of UDP 0 where the peer takes none. Network order. */
struct tw_head {
	__u64 words[9];
};

/* What the programs found out about the packets of one flow in one direction that the fast path may carry; value of
 * tw_flow_cache, one for each CPU. Good for a packet that agrees in all of the first part, while tw_epoch and the
 * flow's counter in tw_flow_gen are what they were before the finding. */
struct tw_cached {
	struct tw_addr src;
	struct tw_addr dst;
	struct tw_addr outer; /* the node that VXLAN came from; all zero: the packet came without it */
	__u32 ifindex;	      /* interface that it came in by */
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 v6;
	__u8 tunnel; /* 1: it came as VXLAN */
	__u8 reserved;
	__u32 gen;
	__u64 epoch; /* 0: not a finding */

	__u32 asked; /* when the endpoint's interface was asked last, low half of the kernel's jiffies */
	__u32 mtu;   /* its answer, bytes of IP */
	__u32 stats; /* index into tw_peer_stats of the sender */
	__u8 local;  /* of a packet that a pod sent: 1: goes to `endpoint`; 0: to `peer`, with `head` */
	__u8 pad;
	__u8 host_mac[6]; /* of a pod that sends: its gateway */
	struct tw_endpoint endpoint;
	struct tw_peer peer;
	struct tw_head head;
};
TW_ASSERT_SIZE(struct tw_cached,
	       (92 + sizeof(struct tw_endpoint) + sizeof(struct tw_peer) + 7) / 8 * 8 + sizeof(struct tw_head));
TW_ASSERT_OFF(struct tw_cached, epoch, 64);
TW_ASSERT_OFF(struct tw_cached, endpoint, 92);
