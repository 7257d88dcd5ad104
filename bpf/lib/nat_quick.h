/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/nat.h"
#include "bpf/lib/quick.h"

/* The next packet of a masqueraded flow that goes on as it did: plain TCP or UDP, by the second packet of a second.
 * Everything else goes the long way, which alone makes flows and changes what is known of them. */

#define TW_NAT_MISS 0x4001 /* of no flow, and nothing to be noted: the long way would find nothing */

/* What the rewritten part of the headers is: of IPv4 from the checksum, of IPv6 from the source, to the ports. */
struct tw_nat_head {
	__u32 word[9];
};

/* Writes it. `in`: destination, else source; constants, as `v6`. 0 or an error. */
static __always_inline int tw_nat_quick_write(struct __sk_buff *skb, int v6, int in, const struct tw_nat_key *key,
					      const struct tw_nat_flow *half, __u16 check, __u32 ports, __u32 tcp)
{
	__u32 l4 = ETH_HLEN + tw_ip_size(v6), at = l4 + (tcp ? 16 : 6);
	const __u32 *from = (const __u32 *)(in ? &key->dst : &key->src), *to = (const __u32 *)&half->addr;
	__be16 old = (__be16)(in ? ports >> 16 : ports), new = bpf_htons(half->port);
	__u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0;
	struct tw_nat_head head;
	__s64 diff;

	ports = in ? (ports & 0xffff) | (__u32) new << 16 : (ports & ~0xffffU) | new;
	if (v6) {
		const __u32 *other = (const __u32 *)(in ? &key->src : &key->dst);

#pragma unroll
		for (int i = 0; i < 4; i++) {
			head.word[i] = in ? other[i] : to[i];
			head.word[4 + i] = in ? to[i] : other[i];
		}
		head.word[8] = ports;
		diff = bpf_csum_diff((__be32 *)from, 16, (__be32 *)to, 16, 0);
		if (bpf_l4_csum_replace(skb, at, 0, (__u64)diff, flags | BPF_F_PSEUDO_HDR))
			return -1;
		bpf_csum_update(skb, (__wsum)diff); /* see tw_nat_write_addr() */
	} else {
		__u32 was = from[3], is = to[3];

		check = (__u16)~tw_csum_fold((__u64)(__u16)~check + (__u32)~was + is);
		if (bpf_l4_csum_replace(skb, at, was, is, flags | BPF_F_PSEUDO_HDR | sizeof(is)))
			return -1;
		head.word[0] = (__u32)check << 16; /* its low half is not written */
		head.word[1] = in ? ((const __u32 *)&key->src)[3] : is;
		head.word[2] = in ? is : ((const __u32 *)&key->dst)[3];
		head.word[3] = ports;
	}
	if (old != new &&bpf_l4_csum_replace(skb, at, old, new, flags | sizeof(new)))
		return -1;
	return (int)(v6 ? bpf_skb_store_bytes(skb, ETH_HLEN + 8, &head, 36, 0)
			: bpf_skb_store_bytes(skb, ETH_HLEN + 10, (__u8 *)&head + 2, 14, 0));
}

/* Of what the rules let go: can it have nothing to do with a flow of ours? Our own VXLAN, pods among themselves, and
 * what has no port of ours. */
static __always_inline int tw_nat_quick_is_free(const struct __sk_buff *skb, const struct tw_nat_key *key)
{
	if (key->dport == tw_cfg.port && key->proto == IPPROTO_UDP && tw_is_own_node(&key->src))
		return 1;
	if (!skb->mark && tw_in_cluster(&key->src) && tw_in_cluster(&key->dst) && !tw_is_own_host(&key->src))
		return 1;
	return !tw_nat_in_range(key->sport);
}

/* NAT_IN or NAT_OUT: done. TW_LONG_WAY: not answered. TW_NAT_MISS, and going out NAT_NOT: not to be masqueraded. */
static __always_inline int tw_nat_quick(struct __sk_buff *skb, int v6, int in)
{
	const __u8 *ip = tw_header(skb, ETH_HLEN, tw_ip_size(v6) + TW_QUICK_L4);
	const struct tw_nat_flow *half;
	struct tw_quick quick;
	struct tw_nat_key key __attribute__((aligned(8)));
	__u64 event = TW_NAT_EV_DATA;
	__u16 check = 0;
	__u8 state;

	if (unlikely(!ip || !tw_quick_read(ip, v6, &quick)))
		return TW_LONG_WAY;
	if (quick.proto == IPPROTO_TCP)
		event = tw_nat_tcp_event(ip[tw_ip_size(v6) + 13]);
	if (v6) {
		tw_addr_set_v6(&key.src, (const __u64 *)(ip + 8));
		tw_addr_set_v6(&key.dst, (const __u64 *)(ip + 24));
		if (unlikely(tw_addr_is_mapped(&key.src) || tw_addr_is_mapped(&key.dst)))
			return TW_LONG_WAY;
	} else {
		check = *(const __u16 *)(ip + 10);
		tw_addr_set_v4(&key.src, *(const __be32 *)(ip + 12));
		tw_addr_set_v4(&key.dst, *(const __be32 *)(ip + 16));
	}
	((__u64 *)&key)[4] = tw_nat_ports_of(quick.ports) | (__u64)quick.proto << 32;
	if (in) {
		/* From inside the cluster only from whom it may come: that is looked at on the long way. */
		if (key.dport == tw_cfg.port || tw_in_cluster(&key.src))
			return TW_LONG_WAY;
		half = bpf_map_lookup_elem(&tw_nat_rev, &key);
		if (!half)
			return quick.proto == IPPROTO_TCP || !tw_cfg.nat_notes ? TW_NAT_MISS : TW_LONG_WAY;
	} else {
		if (!tw_nat_rule(skb, &key.src, &key.dst, (__u64)v6) && tw_nat_quick_is_free(skb, &key))
			return TW_STACK(NAT_NOT);
		half = bpf_map_lookup_elem(&tw_nat_fwd, &key);
		if (!half)
			return TW_LONG_WAY;
	}
	state = tw_nat_next(half->state, event, (__u32)in);
	if (half->plain || half->state != state || half->until != tw_nat_now() + tw_nat_timeout(tw_forget(skb, state)))
		return TW_LONG_WAY;
	if (tw_nat_quick_write(skb, v6, in, &key, half, check, quick.ports, quick.proto == IPPROTO_TCP))
		return TW_DROP(KERNEL_ERROR);
	return in ? TW_STACK(NAT_IN) : TW_STACK(NAT_OUT);
}

static __always_inline int tw_nat_quick_out_family(struct __sk_buff *skb, int v6)
{
	return tw_nat_quick(skb, v6, 0);
}

static __always_inline int tw_nat_quick_in_family(struct __sk_buff *skb, int v6)
{
	return tw_nat_quick(skb, v6, 1);
}

/* Functions of their own, for the verifier and for the room on the stack. */
__noinline int tw_nat_quick_out(struct __sk_buff *skb)
{
	return skb->vlan_present ? TW_LONG_WAY : TW_BY_FAMILY(skb, tw_nat_quick_out_family);
}

__noinline int tw_nat_quick_in(struct __sk_buff *skb)
{
	if (skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return TW_LONG_WAY;
	return TW_BY_FAMILY(skb, tw_nat_quick_in_family);
}
