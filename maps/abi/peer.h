/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps/abi/addr.h"
#include "maps/abi/limits.h"

/* How packets reach a peer. */
enum tw_mode {
	TW_MODE_ENCAP = 1,  /* VXLAN (RFC 7348) */
	TW_MODE_DIRECT = 2, /* plain IP to the node, which is on the same L2 */
};

/* The node that owns a pod CIDR; value of tw_peers_v4 and tw_peers_v6. Inner and outer family are the same. */
struct tw_peer {
	struct tw_addr node;	/* outer destination */
	struct tw_addr nexthop; /* neighbour on the wire that leads there: the node itself or a gateway */
	enum tw_mode mode;
	__u32 wire;	  /* interface index of the wire */
	__u32 mtu;	  /* largest inner IP packet, bytes, IP header included */
	__u32 stats;	  /* index into tw_peer_stats */
	__u8 vtep_mac[6]; /* inner Ethernet destination */
	__u8 zero_csum6;  /* 1: the peer takes VXLAN over IPv6 with UDP checksum zero (RFC 6935) */
	__u8 reserved;
};
TW_ASSERT_SIZE(struct tw_peer, 56);
TW_ASSERT_OFF(struct tw_peer, vtep_mac, 48);

/* What a packet from a node's address may claim; value of tw_nodes, whose key is the node's address. */
struct tw_node {
	struct tw_net pods; /* inner sources inside the cluster network must lie here */
	__u32 stats;	    /* index into tw_peer_stats, the same as in the peer's tw_peers entry */
};
TW_ASSERT_SIZE(struct tw_node, 36);

/* The prefix lengths in use, value of tw_prefixes. Lengths are listed most used first; v4_trie and v6_trie say that
 * tw_peers_lpm4 and tw_peers_lpm6 hold peers of still other lengths. */
struct tw_prefixes {
	__u8 v4_count;
	__u8 v6_count;
	__u8 v4_trie;
	__u8 v6_trie;
	__u8 v4[TW_PREFIXES_MAX];
	__u8 v6[TW_PREFIXES_MAX];
	struct tw_addr v4_mask[TW_PREFIXES_MAX]; /* the same lengths as masks; of IPv4 the first 96 bits are set */
	struct tw_addr v6_mask[TW_PREFIXES_MAX];
};
TW_ASSERT_SIZE(struct tw_prefixes, 140);

/* Value of tw_peer_stats, one for each CPU. Bytes count IP packets without outer headers; a GSO packet counts once. */
struct tw_peer_stats {
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 rx_packets;
	__u64 rx_bytes;
};
TW_ASSERT_SIZE(struct tw_peer_stats, 32);
