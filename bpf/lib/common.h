/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What every program includes: kernel types, configuration, and the vocabulary of verdicts. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps/abi/cfg.h"
#include "maps/maps.bpf.h"

/* Set by the agent before loading; constant for the verifier. */
const volatile struct tw_cfg tw_cfg = {};

/* Different for each load of the programs: a run of the ones before, overtaken by their replacement, must not leave its
 * findings to these. */
const volatile __u64 tw_generation = 0;

/* Some helpers are for GPL-compatible programs only. */
char tw_license[] SEC("license") = "Dual BSD/GPL";

/* include/linux/errno.h of the kernel, not in the UAPI of every release. */
#define TW_EALREADY 114

/* Keeps the code of the usual way together: what is not executed should not be fetched. */
#define likely(condition)   __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* Older verifiers (6.1) see that what lay on the stack does not matter any more only where a whole word of 8 bytes is
 * written at once; else every way to have come here counts as another, and a program takes ten times as long to load.
 * So keys of 4 bytes are passed in a word, and what is written in parts is made fresh before. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "TW_KEY: the low half comes first");
#define TW_KEY(value) (&(__u64){value})

#define TW_WORDS(type) ((sizeof(type) + 7) / 8)

static __always_inline void tw_fresh(void *at, __u32 words)
{
#pragma unroll
	for (__u32 i = 0; i < words; i++)
		((volatile __u64 *)at)[i] = 0;
}

/* Steps return 0 to go on, or the packet's verdict: a drop reason negated, or one of these. */
#define TW_STACK(reason) (0x1000 | TW_R_##reason) /* leave it to the kernel and to programs behind us */
#define TW_SENT(reason)	 (0x2000 | TW_R_##reason) /* a redirect helper has been called */
#define TW_DROP(reason)	 (-TW_R_##reason)

/* The only exit of every program: counts the packet once and turns the verdict into a TC action. Left to the stack is
 * TC_ACT_UNSPEC, never OK: OK would hide the user's own programs and filters. */
static __always_inline int tw_finish(enum tw_hook hook, int verdict)
{
	__u32 reason = verdict < 0 ? -verdict : verdict & 0xfff;
	struct tw_reason_count *count = bpf_map_lookup_elem(&tw_reasons, TW_KEY(reason));

	if (likely(count))
		((__u64 *)count)[hook] += 1; /* per-CPU slot: no atomic */
	if (verdict < 0)
		return TC_ACT_SHOT;
	return verdict & 0x2000 ? TC_ACT_REDIRECT : TC_ACT_UNSPEC;
}

/* These two: `addr` is on the stack, aligned to 8. */
static __always_inline void tw_addr_set_v4(struct tw_addr *addr, __be32 v4)
{
	__u64 *word = (__u64 *)addr;

	word[0] = 0;
	word[1] = bpf_htonl(0xffff) | (__u64)v4 << 32;
}

/* `from`: 16 bytes anywhere. */
static __always_inline void tw_addr_set_v6(struct tw_addr *addr, const void *from)
{
	__u64 *word = (__u64 *)addr;

	word[0] = *(const volatile __u64 *)from;
	word[1] = *(const volatile __u64 *)(from + 8);
}

static __always_inline __be32 tw_addr_v4(const struct tw_addr *addr)
{
	return ((const __u32 *)addr)[3];
}

static __always_inline int tw_addr_eq(const struct tw_addr *a, const volatile struct tw_addr *b)
{
	const volatile __u64 *y = (const volatile __u64 *)b;
	const __u64 *x = (const __u64 *)a;

	return !((x[1] ^ y[1]) | (x[0] ^ y[0]));
}

/* IPv4 in disguise (RFC 4291 2.5.5.2): must not be on a wire, and would be taken for the IPv4 address in our maps. */
static __always_inline int tw_addr_is_mapped(const struct tw_addr *addr)
{
	const __u32 *word = (const __u32 *)addr;

	return !word[0] && !word[1] && word[2] == bpf_htonl(0xffff);
}

/* A packet pointer from the context. In C these fields are 32 bits wide: clang would copy them as such, and the
 * verifier forget what they are. */
#define TW_PACKET(skb, field) \
	({ \
		void *at; \
		asm volatile("%0 = *(u32 *)(%1 + %2)" \
			     : "=r"(at) \
			     : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, field))); \
		at; \
	})

/* skb->ifindex. Read in two places, clang would keep its address, and the verifier wants the context itself. */
static __always_inline __u32 tw_ifindex(const struct __sk_buff *skb)
{
	__u32 ifindex;

	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(ifindex)
		     : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, ifindex)));
	return ifindex;
}

/* `len` bytes of the frame at `off`, or NULL if it ends before. Headers that a driver left outside of the linear part
 * are pulled in, no more than that: it is what the stack would do next. So a call may move the packet: no pointer from
 * an earlier one may be used after it. */
static __always_inline void *tw_header(struct __sk_buff *skb, __u32 off, __u32 len)
{
	void *header;

	off &= 0xff; /* no header that we read begins further in; for the verifier */
	header = TW_PACKET(skb, data) + off;
	asm volatile("" : "+r"(header)); /* newer clang would compute it twice, and the verifier knows one of them */
	if (unlikely(header + len > TW_PACKET(skb, data_end))) {
		if (off + len > skb->len || bpf_skb_pull_data(skb, off + len))
			return 0;
		header = TW_PACKET(skb, data) + off;
		asm volatile("" : "+r"(header));
		if (header + len > TW_PACKET(skb, data_end))
			return 0;
	}
	return header;
}

/* Writes 32 bits of a header. Headers are aligned to two bytes, which our CPUs do not mind; clang, told the truth,
 * would write halves. */
static __always_inline void tw_put(void *at, __u32 off, __be32 word)
{
	*(__be32 *)(at + off) = word;
}

/* An Ethernet address to keep while packet pointers go. */
struct tw_mac {
	__u8 bytes[ETH_ALEN];
	__u8 pad[2];
} __attribute__((aligned(8)));

static __always_inline void tw_put_mac(void *at, const volatile __u8 *mac)
{
	tw_put(at, 0, *(const volatile __u32 *)mac);
	*(__u16 *)(at + 4) = *(const volatile __u16 *)(mac + 4);
}

/* Notes of one of our programs to another, in the packet's control block. IP has its own there, and writes them anew
 * for each packet that it receives. */
#define TW_NOTE		0x8e1d5a37
#define TW_NOTE_CARRIED 0x74770001 /* by tw_from_pod, to the overlay device: nothing that the stack forwards */
#define TW_NOTE_CHECKED 0x74770002 /* put onto the overlay device: not decapsulated by it */
#define TW_NOTE_ROUND	0x74770003 /* by tw_from_wire, to itself: has its old destination */

static __always_inline void tw_note_put(struct __sk_buff *skb, __u32 note)
{
	skb->cb[0] = note;
	skb->cb[1] = TW_NOTE;
}

static __always_inline int tw_note_is(const struct __sk_buff *skb, __u32 note)
{
	return skb->cb[0] == note && skb->cb[1] == TW_NOTE;
}

static __always_inline struct tw_mac tw_mac_at(const __u8 *header)
{
	struct tw_mac mac = {};

	tw_put_mac(mac.bytes, header);
	return mac;
}

static __always_inline int tw_mac_eq(const __u8 *a, const volatile __u8 *b)
{
	return *(const __u32 *)a == *(const volatile __u32 *)b &&
	       *(const __u16 *)(a + 4) == *(const volatile __u16 *)(b + 4);
}

static __always_inline int tw_net_has(const volatile struct tw_net *net, const struct tw_addr *addr)
{
	const volatile __u64 *mask = (const volatile __u64 *)&net->mask;
	const volatile __u64 *base = (const volatile __u64 *)&net->addr;
	const __u64 *x = (const __u64 *)addr;

	return !(((x[1] & mask[1]) ^ base[1]) | ((x[0] & mask[0]) ^ base[0]));
}

static __always_inline int tw_in_cluster(const struct tw_addr *addr)
{
	return tw_net_has(&tw_cfg.cluster_v4, addr) || tw_net_has(&tw_cfg.cluster_v6, addr);
}

static __always_inline int tw_in_own_pods(const struct tw_addr *addr)
{
	return tw_net_has(&tw_cfg.own_v4, addr) || tw_net_has(&tw_cfg.own_v6, addr);
}

/* The node's own addresses inside the pod network: the overlay device has the first of its pod CIDR, the pods' gateway
 * the one after, by flannel's convention. In this and what is above and below a comparison is one branch, not one for
 * each word: the verifier follows all. */
static __always_inline int tw_is_own_host(const struct tw_addr *addr)
{
	const __u64 last = (__u64)bpf_htonl(1) << 32;
	const volatile __u64 *v4 = (const volatile __u64 *)&tw_cfg.own_v4.addr;
	const volatile __u64 *v6 = (const volatile __u64 *)&tw_cfg.own_v6.addr;
	const __u64 *x = (const __u64 *)addr;

	return !((x[0] ^ v4[0]) | ((x[1] ^ v4[1]) & ~last)) || !((x[0] ^ v6[0]) | ((x[1] ^ v6[1]) & ~last));
}

static __always_inline int tw_is_own_node(const struct tw_addr *addr)
{
	return tw_addr_eq(addr, &tw_cfg.node_v4) || tw_addr_eq(addr, &tw_cfg.node_v6);
}

/* Interface and MAC of the overlay device: flannel has one for each family. */
static __always_inline __u32 tw_overlay(int v6)
{
	return tw_cfg.flannel && v6 ? tw_cfg.overlay6 : tw_cfg.overlay;
}

static __always_inline const volatile __u8 *tw_own_vtep(int v6)
{
	return tw_cfg.flannel && v6 ? tw_cfg.vtep_mac6 : tw_cfg.vtep_mac;
}

/* During a change of the own VtepMAC both are taken: peers learn of it seconds apart. */
static __always_inline int tw_is_own_mac(const __u8 *mac)
{
	const volatile __u8 *old = tw_cfg.vtep_mac_old;

	return tw_mac_eq(mac, tw_cfg.vtep_mac) ||
	       ((*(const volatile __u32 *)old || *(const volatile __u16 *)(old + 4)) && tw_mac_eq(mac, old));
}
