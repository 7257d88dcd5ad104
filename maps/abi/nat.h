/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps/abi/addr.h"
#include "maps/abi/limits.h"

/* Which packets are masqueraded: docs/design/masquerade.md. */
enum tw_nat_rules {
	TW_NAT_OFF = 0,
	TW_NAT_IPTABLES = 1, /* as flannel's iptables rules have it */
	TW_NAT_NFT = 2,	     /* as its nftables rules have it */
};

/* One direction of a flow as a packet shows it; key of tw_nat_fwd (as the packet comes from its sender) and of
 * tw_nat_rev (the reply as it comes from outside). Ports in host order. ICMP echo has its identifier in the place of
 * the port of the side that asks, and 0 in the other (of IPv4's other questions their type); protocols without ports
 * have 0. */
struct tw_nat_key {
	struct tw_addr src;
	struct tw_addr dst;
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 reserved[3];
};
TW_ASSERT_SIZE(struct tw_nat_key, 40);

/* Where a flow is in its life. TCP as in the kernel's nf_conntrack_proto_tcp.c; the numbers are its, too. */
enum tw_nat_state {
	TW_NAT_NONE = 0,
	TW_NAT_SYN_SENT = 1,
	TW_NAT_SYN_RECV = 2,
	TW_NAT_ESTABLISHED = 3,
	TW_NAT_FIN_WAIT = 4,
	TW_NAT_CLOSE_WAIT = 5,
	TW_NAT_LAST_ACK = 6,
	TW_NAT_TIME_WAIT = 7,
	TW_NAT_CLOSE = 8,
	TW_NAT_SYN_SENT2 = 9, /* both sides asked */
	TW_NAT_UDP = 10,      /* nothing came back yet */
	TW_NAT_UDP_BOTH = 11,
	TW_NAT_ECHO = 12,
	TW_NAT_OTHER = 13, /* any other protocol */
};

/* Half of a masqueraded flow; value of tw_nat_fwd and tw_nat_rev. With its key it is the whole flow: in tw_nat_fwd
 * `addr` and `port` are the source that the packet gets, in tw_nat_rev the source that it had. */
struct tw_nat_flow {
	struct tw_addr addr;
	__u16 port;
	__u8 state;  /* enum tw_nat_state */
	__u8 plain;  /* 1: came from outside to this pod: not masqueraded, has no half in tw_nat_rev */
	__u32 until; /* CLOCK_MONOTONIC, seconds: counts as absent from then on */
	__u32 place; /* index into tw_nat_slots */
};
TW_ASSERT_SIZE(struct tw_nat_flow, 28);

/* Which of 64 ports are in use towards one remote end; value of tw_nat_ports, an array with a place for each such block
 * by a hash. No more than a memory of what tw_nat_rev says: it may be overwritten by another one's at any time. */
struct tw_nat_block {
	struct tw_nat_key first; /* as in tw_nat_rev, `dport` is the first of the 64 ports; `proto` 0: nobody's */
	__u64 used;		 /* one bit a port, the lowest is the first */
	__u32 checked;		 /* CLOCK_MONOTONIC, seconds: when tw_nat_rev was asked for all of them */
	__u32 reserved;
};
TW_ASSERT_SIZE(struct tw_nat_block, 56);

/* Ports that masquerade may use; value of tw_nat_range. At index i: */
struct tw_nat_range {
	__u64 ports;  /* of the 64 ports from 64 * i: one bit each, the lowest is the first */
	__u32 nth;    /* the i-th number of those blocks that have any port */
	__u32 blocks; /* how many these are; the same in all entries */
};
TW_ASSERT_SIZE(struct tw_nat_range, 16);

enum tw_nat_if_flags {
	TW_NAT_IF_BRIDGE =
		1, /* a bridge: netfilter may have seen what arrives, before a reply got its old destination */
	TW_NAT_IF_ASIDE =
		2, /* no wire: only replies that arrive here are ours, not VXLAN nor packets of direct peers */
};

/* Addresses that what leaves by an interface gets; value of tw_nat_ifs, whose key is the interface index. */
struct tw_nat_if {
	struct tw_addr v4; /* all zero: none */
	struct tw_addr v6;
	struct tw_net on_link[TW_NAT_NETS]; /* for a destination inside: `from` of the same index instead */
	struct tw_addr from[TW_NAT_NETS];
	__u32 flags; /* enum tw_nat_if_flags */
};
TW_ASSERT_SIZE(struct tw_nat_if, 36 + TW_NAT_NETS * 48);

/* Room in which the programs work on one packet; value of tw_nat_work, one for each CPU. Means nothing afterwards. */
struct tw_nat_work {
	__u64 words[64];
};

/* A packet in fragments; key of tw_nat_frags. The value is the address that they all get. */
struct tw_nat_frag {
	struct tw_addr src;
	struct tw_addr dst;
	__u32 id; /* IP identification, network order */
	__u8 proto;
	__u8 reserved[3];
};
TW_ASSERT_SIZE(struct tw_nat_frag, 40);
