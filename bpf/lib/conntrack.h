/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/common.h"
#include "maps/abi/nat.h"

/* Asks conntrack. */

/* Local view of the kernel's types (net/netfilter/nf_conntrack_bpf.c); sizes are the ABI, fields are relocated. */
struct nf_conn {
	unsigned long status;
} __attribute__((preserve_access_index));

struct bpf_ct_opts___tw {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 tuple_size,
					 struct bpf_ct_opts___tw *opts, __u32 opts_size) __weak __ksym;
extern void bpf_ct_release(struct nf_conn *conn) __weak __ksym;

#define TW_CT_NAT 0x30 /* IPS_SRC_NAT | IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h */

/* The connection one of whose two directions is src:sport -> dst:dport, to be released; NULL: none. *reply: it is the
 * second direction (5.19). */
static __always_inline struct nf_conn *tw_ct_find(struct __sk_buff *skb, const struct tw_addr *src,
						  const struct tw_addr *dst, __u16 sport, __u16 dport, __u8 proto,
						  int v6, __u8 *reply)
{
	struct bpf_ct_opts___tw opts = {.netns_id = BPF_F_CURRENT_NETNS, .l4proto = proto};
	struct bpf_sock_tuple tuple = {};
	struct nf_conn *conn;

	if (v6) {
		__builtin_memcpy(tuple.ipv6.saddr, src, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, dst, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = bpf_htons(sport);
		tuple.ipv6.dport = bpf_htons(dport);
		conn = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv6), &opts, sizeof(opts));
	} else {
		tuple.ipv4.saddr = tw_addr_v4(src);
		tuple.ipv4.daddr = tw_addr_v4(dst);
		tuple.ipv4.sport = bpf_htons(sport);
		tuple.ipv4.dport = bpf_htons(dport);
		conn = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));
	}
	*reply = opts.dir;
	return conn;
}

static __always_inline int tw_ct_has_nat(struct __sk_buff *skb, const struct tw_addr *src, const struct tw_addr *dst,
					 __u16 sport, __u16 dport, __u8 proto, int v6)
{
	unsigned long status;
	struct nf_conn *conn;
	__u8 reply;

	conn = tw_ct_find(skb, src, dst, sport, dport, proto, v6, &reply);
	if (!conn)
		return 0;
	status = conn->status;
	bpf_ct_release(conn);
	return (status & TW_CT_NAT) != 0;
}

static __always_inline int tw_ct_direction(struct __sk_buff *skb, const struct tw_nat_key *key, int v6)
{
	struct nf_conn *conn;
	__u8 reply;

	conn = tw_ct_find(skb, &key->src, &key->dst, key->sport, key->dport, key->proto, v6, &reply);
	if (!conn)
		return 0;
	bpf_ct_release(conn);
	return reply ? 2 : 1;
}
