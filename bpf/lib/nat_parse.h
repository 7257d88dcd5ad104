/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/parse.h"

/* What masquerade needs of a packet. Unlike for the fast path nothing is odd: options, extension headers, fragments and
 * any protocol are translated as far as they can be. */

enum {
	TW_SCTP = 132,		     /* IPPROTO_SCTP is no macro in linux/in.h, nor is this one's neighbour */
	TW_SCTP_INIT = 1,	     /* RFC 9260 3.3.2 */
	TW_NAT_EXTENSIONS = 4,	     /* IPv6 extension headers that we look behind */
	TW_NAT_ICMP6_REDIRECT = 137, /* RFC 4861 */
};

/* The network layer of one packet. */
struct tw_nat_l3 {
	struct tw_addr src __attribute__((aligned(8)));
	struct tw_addr dst;
	__u64 l4_off; /* of the transport header, if there is one; from the start of the frame */
	__u64 id;     /* identification, network order */
	__u64 proto;
	__u64 part;  /* a fragment */
	__u64 later; /* and not the first */
};

/* What a packet says of its flow. */
struct tw_nat_pkt {
	/* As this packet goes; of an ICMP error that of the packet that it is about, turned round. */
	struct tw_nat_key key __attribute__((aligned(8)));
	struct tw_nat_l3 l3;
	struct tw_nat_l3 quoted; /* `l4_off` 0: it is no ICMP error */
	__u64 event;		 /* enum tw_nat_event */
	__u64 v6;
};

/* Where all this is kept: in a map, because the stack is too small, and because verifiers do not follow what is in one.
 * There is one for each CPU, and programs do not interrupt each other. */
struct tw_nat_job {
	struct tw_nat_pkt pkt;
	struct tw_addr addr __attribute__((aligned(8)));      /* the new address */
	struct tw_nat_key rev __attribute__((aligned(8)));    /* of a flow that is made, or looked at for its place */
	struct tw_nat_key turned __attribute__((aligned(8))); /* of another half */
	struct tw_nat_key ended __attribute__((aligned(8)));  /* of a flow that ends */
	struct tw_nat_frag frag __attribute__((aligned(8)));
	__u32 now;	 /* tw_nat_now() */
	__u32 block;	 /* of ports: one that seems to have a free one */
	__u32 unknown;	 /* and one of which that is not known */
	__u64 half[4];	 /* struct tw_nat_flow */
	__u32 tuple[10]; /* struct bpf_sock_tuple */
};

_Static_assert(sizeof(struct tw_nat_job) <= sizeof(struct tw_nat_work), "TW_NAT_WORK");

static __always_inline struct tw_nat_job *tw_nat_job(void)
{
	return bpf_map_lookup_elem(&tw_nat_work, TW_KEY(0));
}

/* What a packet does to its flow: the columns of tw_nat_steps. The first five as the kernel numbers TCP's. */
enum tw_nat_event {
	TW_NAT_EV_SYN = 0,
	TW_NAT_EV_SYNACK = 1,
	TW_NAT_EV_FIN = 2,
	TW_NAT_EV_ACK = 3,
	TW_NAT_EV_RST = 4,
	TW_NAT_EV_NOTHING = 5, /* TCP without any of these, SCTP that is no INIT */
	TW_NAT_EV_DATA = 6,    /* of other protocols, and INIT */
	TW_NAT_EV_ANSWER = 7,  /* ICMP echo reply, or another answer */
};

static __always_inline int tw_nat_read_v4(struct __sk_buff *skb, __u32 off, struct tw_nat_l3 *l3)
{
	__u64 head[3]; /* RFC 791 */

	head[2] = 0;
	if (bpf_skb_load_bytes(skb, off, head, sizeof(struct iphdr)))
		return -1;
	tw_addr_set_v4(&l3->src, (__be32)(head[1] >> 32));
	tw_addr_set_v4(&l3->dst, (__be32)head[2]);
	l3->l4_off = off + (__u32)(head[0] & 0xf) * 4;
	l3->id = head[0] >> 32 & 0xffff;
	l3->proto = head[1] >> 8 & 0xff;
	l3->part = (head[0] >> 48 & bpf_htons(0x3fff)) != 0;
	l3->later = (head[0] >> 48 & bpf_htons(0x1fff)) != 0;
	return 0;
}

static __always_inline int tw_nat_read_v6(struct __sk_buff *skb, __u32 off, struct tw_nat_l3 *l3)
{
	__u64 head[5]; /* RFC 8200 */
	__u32 proto, part = 0, later = 0, id = 0;

	if (bpf_skb_load_bytes(skb, off, head, sizeof(struct ipv6hdr)))
		return -1;
	tw_addr_set_v6(&l3->src, &head[1]);
	tw_addr_set_v6(&l3->dst, &head[3]);
	proto = (__u32)(head[0] >> 48) & 0xff;
	off += sizeof(struct ipv6hdr);
#pragma clang loop unroll(disable)
	for (int i = 0; i < TW_NAT_EXTENSIONS; i++) {
		__u64 ext = 0;

		if (proto != IPPROTO_HOPOPTS && proto != IPPROTO_ROUTING && proto != IPPROTO_DSTOPTS &&
		    proto != IPPROTO_FRAGMENT)
			break;
		if (later || bpf_skb_load_bytes(skb, off, &ext, sizeof(ext)))
			break;
		if (proto == IPPROTO_FRAGMENT) {
			part = 1;
			later = (ext >> 16 & bpf_htons(0xfff8)) != 0;
			id = (__u32)(ext >> 32);
			off += 8;
		} else {
			off += ((__u32)(ext >> 8 & 0xff) + 1) * 8;
		}
		proto = (__u32)ext & 0xff;
	}
	l3->l4_off = off;
	l3->proto = proto;
	l3->part = part;
	l3->later = later;
	l3->id = id;
	return 0;
}

static __always_inline int tw_nat_read(struct __sk_buff *skb, __u32 off, __u64 v6, struct tw_nat_l3 *l3)
{
	return (int)tw_forget(skb, (__u32)(v6 ? tw_nat_read_v6(skb, off, l3) : tw_nat_read_v4(skb, off, l3)));
}

/* Ports in the place where struct tw_nat_key has them: source in the low half. */
static __always_inline __u32 tw_nat_ports_of(__be32 word)
{
	return (__u32)(bpf_ntohs((__u16)word) | (__u32)bpf_ntohs((__u16)(word >> 16)) << 16);
}

static __always_inline __u32 tw_nat_tcp_event(__u32 flags)
{
	if (flags & 0x04)
		return TW_NAT_EV_RST;
	if (flags & 0x02)
		return flags & 0x10 ? TW_NAT_EV_SYNACK : TW_NAT_EV_SYN;
	if (flags & 0x01)
		return TW_NAT_EV_FIN;
	return flags & 0x10 ? TW_NAT_EV_ACK : TW_NAT_EV_NOTHING;
}

static __always_inline int tw_nat_is_icmp(__u64 proto, __u64 v6)
{
	return proto == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

/* Has it a port, or an identifier, that we may change? */
static __always_inline int tw_nat_has_port(__u64 proto, __u64 v6)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || tw_nat_is_icmp(proto, v6);
}

static __always_inline int tw_nat_is_error(__u32 type, __u64 v6)
{
	if (v6)
		return type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAMPROB;
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

/* What ICMP asks and answers under an identifier: echo, timestamp, information and address mask of IPv4 (RFC 792, 950),
 * one bit a type; an answer's type is its question's and one, but for echo, whose other "port" is 0. */
#define TW_NAT_ICMP_ASKS    (1U << 8 | 1U << 13 | 1U << 15 | 1U << 17)
#define TW_NAT_ICMP_ANSWERS (1U << 0 | 1U << 14 | 1U << 16 | 1U << 18)

/* 1: a question, 2: an answer, 0: neither. */
static __always_inline int tw_nat_icmp_role(__u32 type, __u64 v6)
{
	__u32 bit = type < 32 ? 1U << type : 0;

	if (v6)
		return type == ICMPV6_ECHO_REQUEST ? 1 : (type == ICMPV6_ECHO_REPLY) << 1;
	return bit & TW_NAT_ICMP_ASKS ? 1 : ((bit & TW_NAT_ICMP_ANSWERS) != 0) << 1;
}

/* Ports of the packet whose network layer is `l3`, and what it does. -1: none that we can tell; 1: it is an ICMP
 * error. */
static __always_inline int tw_nat_read_l4(struct __sk_buff *skb, const struct tw_nat_l3 *l3, __u64 v6, __u32 *ports,
					  __u64 *event)
{
	__u64 head = 0;
	__u32 type, id;
	int role;

	*ports = 0;
	*event = TW_NAT_EV_DATA;
	if (l3->proto == IPPROTO_TCP || l3->proto == IPPROTO_UDP || l3->proto == TW_SCTP) {
		if (bpf_skb_load_bytes(skb, (__u32)l3->l4_off, &head, 4))
			return -1;
		*ports = tw_nat_ports_of((__be32)head);
		if (l3->proto == IPPROTO_UDP)
			return 0;
		*event = TW_NAT_EV_NOTHING; /* of a packet that is quoted there may be no more */
		if (l3->proto == TW_SCTP) {
			if (!bpf_skb_load_bytes(skb, (__u32)l3->l4_off + 12, &head, 1) && (head & 0xff) == TW_SCTP_INIT)
				*event = TW_NAT_EV_DATA;
			return 0;
		}
		if (!bpf_skb_load_bytes(skb, (__u32)l3->l4_off + 12, &head, 2)) /* RFC 9293 3.1 */
			*event = tw_nat_tcp_event((__u32)head >> 8 & 0xff);
		return 0;
	}
	if (!tw_nat_is_icmp(l3->proto, v6))
		return 0;
	if (bpf_skb_load_bytes(skb, (__u32)l3->l4_off, &head, 8))
		return -1;
	type = (__u32)head & 0xff;
	role = tw_nat_icmp_role(type, v6);
	if (!role)
		return tw_nat_is_error(type, v6) ? 1 : -1;
	id = bpf_ntohs((__u16)(head >> 32));
	if (role == 2) {
		*event = TW_NAT_EV_ANSWER;
		*ports = id << 16 | (!v6 && type ? type - 1 : 0);
	} else {
		*ports = id | (!v6 && type != ICMP_ECHO ? type : 0) << 16;
	}
	return 0;
}

static __always_inline void tw_nat_key_set(struct tw_nat_key *key, const struct tw_addr *src, const struct tw_addr *dst,
					   __u32 ports, __u64 proto)
{
	const __u64 *from = (const __u64 *)src, *to = (const __u64 *)dst;
	__u64 *word = (__u64 *)key;

	word[0] = from[0];
	word[1] = from[1];
	word[2] = to[0];
	word[3] = to[1];
	word[4] = ports | proto << 32;
}

/* Functions of their own, global ones, so that a verifier walks each once, for any arguments: what they work on is in
 * tw_nat_work. The frame has an Ethernet header. */

/* The packet, to job->pkt. 0, or -1: nothing that can be masqueraded. */
__noinline int tw_nat_parse(struct __sk_buff *skb)
{
	__be16 ethertype = tw_ethertype(skb);
	struct tw_nat_job *job = tw_nat_job();
	struct tw_nat_pkt *pkt;
	__u32 ports = 0;
	__u64 event;
	int ret;

	if (!job || (ethertype != bpf_htons(ETH_P_IP) && ethertype != bpf_htons(ETH_P_IPV6)))
		return -1;
	pkt = &job->pkt;
	pkt->quoted.l4_off = 0;
	pkt->event = TW_NAT_EV_DATA;
	pkt->v6 = ethertype == bpf_htons(ETH_P_IPV6);
	if (tw_nat_read(skb, ETH_HLEN, pkt->v6, &pkt->l3))
		return -1;
	if (pkt->v6 && (tw_addr_is_mapped(&pkt->l3.src) || tw_addr_is_mapped(&pkt->l3.dst)))
		return -1;
	if (pkt->l3.later) {
		tw_nat_key_set(&pkt->key, &pkt->l3.src, &pkt->l3.dst, 0, pkt->l3.proto);
		return 0;
	}
	ret = (int)tw_forget(skb, (__u32)tw_nat_read_l4(skb, &pkt->l3, pkt->v6, &ports, &pkt->event));
	if (ret < 0)
		return -1;
	if (!ret) {
		tw_nat_key_set(&pkt->key, &pkt->l3.src, &pkt->l3.dst, ports, pkt->l3.proto);
		return 0;
	}
	if (tw_nat_read(skb, (__u32)pkt->l3.l4_off + 8, pkt->v6, &pkt->quoted) || pkt->quoted.later)
		return -1;
	ret = tw_nat_read_l4(skb, &pkt->quoted, pkt->v6, &ports, &event);
	if (tw_forget(skb, (__u32)ret))
		return -1; /* an error about an error is none */
	tw_nat_key_set(&pkt->key, &pkt->quoted.dst, &pkt->quoted.src, ports >> 16 | ports << 16, pkt->quoted.proto);
	return 0;
}
