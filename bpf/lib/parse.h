/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/common.h"

/* ICMP types: RFC 792, RFC 4443. linux/icmp.h brings in libc headers that clang cannot use for this target. */
enum {
	ICMP_ECHOREPLY = 0,
	ICMP_DEST_UNREACH = 3,
	ICMP_ECHO = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETERPROB = 12,
	ICMPV6_DEST_UNREACH = 1,
	ICMPV6_PKT_TOOBIG = 2,
	ICMPV6_TIME_EXCEED = 3,
	ICMPV6_PARAMPROB = 4,
	ICMPV6_ECHO_REQUEST = 128,
	ICMPV6_ECHO_REPLY = 129,
};

/* What is known of one IP packet. Offsets count from the start of the frame; ports and lengths in host order. Values,
 * no packet pointers: the next tw_header() may move the packet. */
struct tw_pkt {
	struct tw_addr src __attribute__((aligned(8)));
	struct tw_addr dst;
	/* Ends of the flow that the packet belongs to: its own, or those of the packet that an ICMP error is about. */
	struct tw_addr flow_src;
	struct tw_addr flow_dst;
	/* The facts: whole words. */
	__u16 sport __attribute__((aligned(8)));
	__u16 dport;
	__u32 l3_off;
	__u32 l3_len; /* by the IP header, header included */
	__u32 l4_off;
	__u32 hdr_len; /* IP and transport header, for the size of GSO segments */
	__u8 v6;
	__u8 proto;	 /* transport; for IPv6 the first next header */
	__u8 flow_proto; /* IPPROTO_TCP, IPPROTO_UDP; 0: no flow state (ICMP echo) */
	__u8 ttl;
	__u8 tos;
	__u8 odd;   /* 0, or the TW_R_* reason why only the kernel may carry it */
	__u8 later; /* a fragment that is not the first: no transport header */
	__u8 first; /* a TCP connection request */
};

#define TW_PKT_FACTS ((sizeof(struct tw_pkt) - __builtin_offsetof(struct tw_pkt, sport)) / 8)

/* Of an IP header without options or extensions. */
static __always_inline __u32 tw_ip_size(int v6)
{
	return v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

/* A GSO packet of more than 64 KiB has no length in its header (BIG TCP): no tunnel takes it whole. */
static __always_inline int tw_big_tcp(struct __sk_buff *skb, struct tw_pkt *pkt)
{
	pkt->l3_len = skb->len - pkt->l3_off;
	pkt->odd = TW_R_TOO_BIG;
	return 0;
}

static __always_inline int tw_parse_v4(struct __sk_buff *skb, struct tw_pkt *pkt)
{
	const struct iphdr *ip = tw_header(skb, pkt->l3_off, sizeof(*ip));
	__be16 frag_off;
	__u32 ihl;

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return TW_DROP(SHORT);
	ihl = ip->ihl * 4U;
	frag_off = ip->frag_off;
	tw_addr_set_v4(&pkt->src, ip->saddr);
	tw_addr_set_v4(&pkt->dst, ip->daddr);
	pkt->l3_len = bpf_ntohs(ip->tot_len);
	pkt->l4_off = pkt->l3_off + ihl;
	pkt->proto = ip->protocol;
	pkt->ttl = ip->ttl;
	pkt->tos = ip->tos;
	if (ihl != sizeof(*ip))
		pkt->odd = TW_R_OPTIONS;
	if (frag_off & bpf_htons(0x3fff)) /* more fragments, or an offset */
		pkt->odd = TW_R_FRAGMENT;
	pkt->later = (frag_off & bpf_htons(0x1fff)) != 0;
	if (!pkt->l3_len && skb->gso_size)
		return tw_big_tcp(skb, pkt);
	return pkt->l3_len < ihl ? TW_DROP(SHORT) : 0;
}

static __always_inline int tw_parse_v6(struct __sk_buff *skb, struct tw_pkt *pkt)
{
	const struct ipv6hdr *ip = tw_header(skb, pkt->l3_off, sizeof(*ip));
	__u32 payload_len;

	if (!ip || ip->version != 6)
		return TW_DROP(SHORT);
	tw_addr_set_v6(&pkt->src, &ip->saddr);
	tw_addr_set_v6(&pkt->dst, &ip->daddr);
	if (tw_addr_is_mapped(&pkt->src) || tw_addr_is_mapped(&pkt->dst))
		return TW_STACK(PROTO); /* the kernel drops it */
	payload_len = bpf_ntohs(ip->payload_len);
	pkt->l3_len = payload_len + sizeof(*ip);
	pkt->l4_off = pkt->l3_off + sizeof(*ip);
	pkt->proto = ip->nexthdr;
	pkt->ttl = ip->hop_limit;
	pkt->tos = (__u8)(ip->priority << 4 | ip->flow_lbl[0] >> 4);
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		pkt->odd = TW_R_FRAGMENT;
	if (!payload_len && skb->gso_size)
		return tw_big_tcp(skb, pkt);
	return 0;
}

/* 0, but the verifier cannot know. A number that is combined with it is followed no longer: paths on which it has
 * different values meet again, where the rest of the program would be walked once for each. This is what keeps the
 * programs small for verifiers, by far. */
static __always_inline __u32 tw_fog(const struct __sk_buff *skb)
{
	return (__u32)((__s32)skb->len >> 31);
}

/* `value`, followed no longer. For what decides later: ways that differ in it alone are one from here on. */
static __always_inline __u32 tw_forget(const struct __sk_buff *skb, __u32 value)
{
	value ^= tw_fog(skb);
	asm volatile("" : "+r"(value)); /* or clang would decide here, once for each way */
	return value;
}

/* The same for whole words in memory: see TW_KEY for what becomes of them on the stack. */
static __always_inline void tw_forget_words(const struct __sk_buff *skb, void *at, __u32 words)
{
	__u64 fog = (__u64)(__s64)(__s32)tw_fog(skb);

#pragma unroll
	for (__u32 i = 0; i < words; i++)
		((volatile __u64 *)at)[i] ^= fog;
}

/* skb->protocol, network order; what was found out about it before is forgotten. */
static __always_inline __be16 tw_ethertype(const struct __sk_buff *skb)
{
	return (__be16)(*(const volatile __u32 *)&skb->protocol ^ tw_fog(skb));
}

/* Network layer of the packet at `l3_off`, whose ethertype is `ethertype` (network order). A packet that is valid but
 * not for the fast path has `odd` set. Returns 0, NOT_IP, or drops with SHORT. */
static __always_inline int tw_parse_l3(struct __sk_buff *skb, __be16 ethertype, __u32 l3_off, struct tw_pkt *pkt)
{
	int ret;

	__builtin_memset(pkt, 0, sizeof(*pkt));
	pkt->l3_off = l3_off;
	if (ethertype == bpf_htons(ETH_P_IP)) {
		ret = tw_parse_v4(skb, pkt);
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		pkt->v6 = 1;
		ret = tw_parse_v6(skb, pkt);
	} else {
		return TW_STACK(NOT_IP);
	}
	tw_forget_words(skb, &pkt->src, 2 * TW_WORDS(struct tw_addr));
	tw_forget_words(skb, &pkt->sport, TW_PKT_FACTS);
	/* The length field may be smaller than the frame (padding), never larger. */
	if (!ret && l3_off + pkt->l3_len > skb->len)
		return TW_DROP(SHORT);
	return ret;
}

/* The first `len` bytes of the transport header of a packet without `odd`, or NULL; what lies behind the IP length
 * (Ethernet padding) is none. */
static __always_inline const void *tw_l4_header(struct __sk_buff *skb, const struct tw_pkt *pkt, __u32 len)
{
	__u32 l3_size = tw_ip_size(pkt->v6);

	return l3_size + len > pkt->l3_len ? 0 : tw_header(skb, pkt->l3_off + l3_size, len);
}

/* Ports and flow of the packet quoted by an ICMP error at `off`: RFC 792, RFC 4443 section 2.4. The flow is what
 * conntrack and the flow maps know; an error about a packet that is no plain TCP or UDP is the kernel's. */
static __always_inline int tw_parse_quoted(struct __sk_buff *skb, __u32 off, struct tw_pkt *pkt)
{
	__be32 ports[2] __attribute__((aligned(8))); /* both in the first; the rest is filling */

	tw_fresh(ports, TW_WORDS(ports));
	if (pkt->v6) {
		struct ipv6hdr ip __attribute__((aligned(8)));

		tw_fresh(&ip, TW_WORDS(ip));
		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)))
			return TW_R_PROTO;
		tw_addr_set_v6(&pkt->flow_src, &ip.saddr);
		tw_addr_set_v6(&pkt->flow_dst, &ip.daddr);
		pkt->flow_proto = ip.nexthdr;
		off += sizeof(ip);
	} else {
		struct {
			struct iphdr v4;
			__u32 filling;
		} word __attribute__((aligned(8)));
		struct iphdr *ip = &word.v4;

		tw_fresh(&word, TW_WORDS(word));
		if (bpf_skb_load_bytes(skb, off, ip, sizeof(*ip)))
			return TW_R_PROTO;
		if (ip->ihl != 5 || ip->frag_off & bpf_htons(0x1fff))
			return TW_R_PROTO;
		tw_addr_set_v4(&pkt->flow_src, ip->saddr);
		tw_addr_set_v4(&pkt->flow_dst, ip->daddr);
		pkt->flow_proto = ip->protocol;
		off += sizeof(*ip);
	}
	if (pkt->flow_proto == pkt->proto) { /* about an echo */
		pkt->flow_proto = 0;
		return 0;
	}
	if (pkt->flow_proto != IPPROTO_TCP && pkt->flow_proto != IPPROTO_UDP)
		return TW_R_PROTO;
	if (bpf_skb_load_bytes(skb, off, ports, sizeof(ports[0])))
		return TW_R_PROTO;
	pkt->sport = (__u16)(bpf_ntohl(ports[0]) >> 16);
	pkt->dport = (__u16)bpf_ntohl(ports[0]);
	return 0;
}

static __always_inline int tw_parse_icmp(struct __sk_buff *skb, struct tw_pkt *pkt)
{
	const __u32 size = 8; /* type, code, checksum, rest: the same in both versions */
	const __u8 *head = tw_l4_header(skb, pkt, size);

	if (!head)
		return TW_DROP(SHORT);
	pkt->hdr_len = pkt->l4_off - pkt->l3_off + size;
	switch (head[0]) {
	case ICMP_ECHO:
	case ICMP_ECHOREPLY:
		if (pkt->v6)
			break; /* these numbers are no ICMPv6 types */
		return 0;
	case ICMPV6_ECHO_REQUEST:
	case ICMPV6_ECHO_REPLY:
		if (!pkt->v6)
			break;
		return 0;
	case ICMP_DEST_UNREACH:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETERPROB:
		if (pkt->v6 && head[0] != ICMPV6_TIME_EXCEED)
			break;
		pkt->odd = tw_parse_quoted(skb, pkt->l4_off + size, pkt);
		return 0;
	case ICMPV6_DEST_UNREACH:
	case ICMPV6_PKT_TOOBIG:
	case ICMPV6_PARAMPROB:
		if (!pkt->v6)
			break;
		pkt->odd = tw_parse_quoted(skb, pkt->l4_off + size, pkt);
		return 0;
	}
	pkt->odd = TW_R_PROTO;
	return 0;
}

/* Transport layer and flow of a packet without `odd`. Returns 0 (perhaps with `odd` now set) or drops with SHORT. */
static __always_inline int tw_parse_l4(struct __sk_buff *skb, struct tw_pkt *pkt)
{
	pkt->flow_src = pkt->src;
	pkt->flow_dst = pkt->dst;
	if (pkt->proto == (pkt->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return tw_parse_icmp(skb, pkt);

	if (pkt->proto == IPPROTO_TCP) {
		const __u8 *tcp = tw_l4_header(skb, pkt, 14); /* up to and with the flags, RFC 9293 3.1 */

		if (!tcp)
			return TW_DROP(SHORT);
		pkt->sport = bpf_ntohs(((const __be16 *)tcp)[0]);
		pkt->dport = bpf_ntohs(((const __be16 *)tcp)[1]);
		pkt->hdr_len = pkt->l4_off - pkt->l3_off + (tcp[12] >> 4) * 4;
		pkt->first = (tcp[13] & 0x17) == 0x02; /* of FIN SYN RST ACK only SYN */
	} else if (pkt->proto == IPPROTO_UDP) {
		const struct udphdr *udp = tw_l4_header(skb, pkt, sizeof(*udp));

		if (!udp)
			return TW_DROP(SHORT);
		pkt->sport = bpf_ntohs(udp->source);
		pkt->dport = bpf_ntohs(udp->dest);
		pkt->hdr_len = pkt->l4_off - pkt->l3_off + sizeof(*udp);
	} else {
		/* IPv6 extension headers come here too: their numbers are no transport that we know. */
		pkt->odd = pkt->v6 && (pkt->proto == IPPROTO_HOPOPTS || pkt->proto == IPPROTO_ROUTING ||
				       pkt->proto == IPPROTO_DSTOPTS)
				   ? TW_R_OPTIONS
				   : TW_R_PROTO;
		return 0;
	}
	pkt->flow_proto = pkt->proto;
	return 0;
}

/* tw_parse_l4() for a packet that may have `odd`: that is the kernel's, and not parsed further. Its result, too, is
 * nothing that the verifier needs to remember. */
static __always_inline int tw_parse_l4_all(struct __sk_buff *skb, struct tw_pkt *pkt)
{
	int ret = pkt->odd ? 0 : tw_parse_l4(skb, pkt);

	tw_forget_words(skb, &pkt->flow_src, 2 * TW_WORDS(struct tw_addr));
	tw_forget_words(skb, &pkt->sport, TW_PKT_FACTS);
	return (int)tw_forget(skb, (__u32)ret);
}
