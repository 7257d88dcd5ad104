/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "bpf/lib/nat_make.h"
#include "bpf/lib/nat_write.h"

/* Masquerade: docs/design/masquerade.md. */

#define TW_NAT_MARK 0x4000 /* kube-proxy's: it translates this itself */

/* flannel's rules, by row of its tables: is what leaves to be masqueraded? */
static __always_inline int tw_nat_rule(const struct __sk_buff *skb, const struct tw_addr *src,
				       const struct tw_addr *dst, __u64 v6)
{
	const volatile struct tw_net *cluster = v6 ? &tw_cfg.cluster_v6 : &tw_cfg.cluster_v4;
	const volatile struct tw_net *own = v6 ? &tw_cfg.own_v6 : &tw_cfg.own_v4;
	int from_pod = tw_net_has(cluster, src), to_pod = tw_net_has(cluster, dst);
	__u32 mark = skb->mark;

	if (tw_cfg.nat == TW_NAT_NFT ? mark == TW_NAT_MARK : (mark & TW_NAT_MARK) != 0)
		return 0; /* 1 */
	if (tw_net_has(own, dst))
		return 0; /* 3, 4; and 2 */
	if (to_pod && (tw_cfg.nat == TW_NAT_NFT || tw_net_has(own, src)))
		return 0; /* 2, 4 of nft */
	if (from_pod)	  /* 5 */
		return v6 ? dst->high[0] != 0xff : (dst->low[0] & 0xf0) != 0xe0;
	return to_pod; /* 6 */
}

/* A destination that the configuration excludes. */
static __always_inline int tw_nat_is_except(const struct tw_addr *dst)
{
	const __u32 *word = (const __u32 *)dst;
	__u64 key[] = {128 | (__u64)word[0] << 32, word[1] | (__u64)word[2] << 32, word[3]};

	return bpf_map_lookup_elem(&tw_nat_except, key) != 0;
}

/* The address that what goes to `dst` by the interface gets. 0, or -1: it has none. */
static __always_inline int tw_nat_address(struct __sk_buff *skb, const struct tw_addr *dst, __u64 v6,
					  struct tw_addr *addr)
{
	const struct tw_nat_if *out = bpf_map_lookup_elem(&tw_nat_ifs, TW_KEY(tw_ifindex(skb)));
	const __u64 *from;
	__u64 *word = (__u64 *)addr;

	if (!out)
		return -1;
	from = (const __u64 *)(v6 ? &out->v6 : &out->v4);
	word[0] = from[0];
	word[1] = from[1];
#pragma unroll
	for (int i = 0; i < TW_NAT_NETS; i++)
		if (tw_net_has(&out->on_link[i], dst)) {
			from = (const __u64 *)&out->from[i];
			word[0] = from[0];
			word[1] = from[1];
			break;
		}
	return word[0] | word[1] ? 0 : -1;
}

static __always_inline void tw_nat_addr_copy(struct tw_addr *to, const struct tw_addr *from)
{
	((__u64 *)to)[0] = ((const __u64 *)from)[0];
	((__u64 *)to)[1] = ((const __u64 *)from)[1];
}

/* Fragments follow their first one: they have no ports. */
static __always_inline void tw_nat_frag_key(const struct tw_nat_l3 *l3, struct tw_nat_frag *key)
{
	const __u64 *src = (const __u64 *)&l3->src, *dst = (const __u64 *)&l3->dst;
	__u64 *word = (__u64 *)key;

	word[0] = src[0];
	word[1] = src[1];
	word[2] = dst[0];
	word[3] = dst[1];
	word[4] = (__u32)l3->id | (l3->proto & 0xff) << 32;
}

static __always_inline void tw_nat_frag_note(struct tw_nat_job *job)
{
	if (!job->pkt.l3.part)
		return;
	tw_nat_frag_key(&job->pkt.l3, &job->frag);
	bpf_map_update_elem(&tw_nat_frags, &job->frag, &job->addr, BPF_ANY);
}

static __always_inline struct tw_addr *tw_nat_frag_find(struct tw_nat_job *job)
{
	tw_nat_frag_key(&job->pkt.l3, &job->frag);
	return bpf_map_lookup_elem(&tw_nat_frags, &job->frag);
}

/* Gives the packet the address job->addr, and the port. */
static __always_inline int tw_nat_apply(struct __sk_buff *skb, struct tw_nat_job *job, int dst, __u16 port)
{
	tw_nat_frag_note(job);
	if (tw_nat_write(skb, (__u32)dst, port))
		return TW_DROP(KERNEL_ERROR);
	return dst ? TW_STACK(NAT_IN) : TW_STACK(NAT_OUT);
}

/* May the packet begin a flow? Of TCP only a bare SYN, of SCTP an INIT: anything else belongs to a connection that
 * began without us. */
static __always_inline int tw_nat_begins(const struct tw_nat_pkt *pkt)
{
	if (pkt->quoted.l4_off || pkt->event == TW_NAT_EV_ANSWER)
		return 0;
	return pkt->event == (pkt->key.proto == IPPROTO_TCP ? TW_NAT_EV_SYN : TW_NAT_EV_DATA);
}

/* Of what is not to be masqueraded, the host's own packets may still need it: when a masqueraded flow has their port
 * already, the newcomer gets another, as the kernel does it. *wish is the port to try first. */
static __always_inline int tw_nat_clashes(struct tw_nat_job *job, __u32 *wish)
{
	const struct tw_nat_key *key = &job->pkt.key;
	struct tw_nat_flow *has;

	if (!tw_addr_eq(&key->src, &job->addr))
		return 0;
	/* No socket tells whose an echo's identifier is: that of the host is kept like a pod's. */
	if (tw_nat_is_icmp(key->proto, job->pkt.v6)) {
		*wish = key->sport;
		return 1;
	}
	tw_nat_key_set(&job->turned, &key->dst, &key->src, key->dport | (__u32)key->sport << 16, key->proto);
	has = bpf_map_lookup_elem(&tw_nat_rev, &job->turned);
	*wish = TW_NAT_SOME_PORT;
	return has && tw_nat_is_alive(has, job->now);
}

/* Is the packet a reply that tw_from_wire has given its old destination, on its way on to there? */
static __always_inline int tw_nat_is_reply(struct tw_nat_job *job)
{
	const struct tw_nat_key *key = &job->pkt.key;
	const struct tw_nat_flow *half;

	tw_nat_key_set(&job->turned, &key->dst, &key->src, key->dport | (__u32)key->sport << 16, key->proto);
	half = bpf_map_lookup_elem(&tw_nat_fwd, &job->turned);
	return half && !half->plain && tw_nat_is_alive(half, job->now);
}

/* Could a port of ours be this one? */
static __always_inline int tw_nat_in_range(__u32 port)
{
	return (tw_nat_range_ports(port / 64) >> (port & 63) & 1) != 0;
}

/* A packet that begins a flow and leaves by skb->ifindex. */
static __always_inline int tw_nat_begin(struct __sk_buff *skb, struct tw_nat_job *job, int rule)
{
	const struct tw_nat_pkt *pkt = &job->pkt;
	__u32 wish = TW_NAT_SOME_PORT;
	int port;

	if (tw_nat_address(skb, &pkt->key.dst, pkt->v6, &job->addr))
		return rule ? TW_DROP(NAT_ADDRESS) : TW_STACK(NAT_NOT);
	if (!rule) {
		if (!tw_nat_clashes(job, &wish))
			return TW_STACK(NAT_NOT);
	} else {
		if (tw_nat_is_except(&pkt->key.dst) || tw_nat_is_reply(job))
			return TW_STACK(NAT_NOT);
		/* A reply to who came straight to the pod. */
		if (tw_cfg.ct_lookup && (pkt->key.proto == IPPROTO_TCP || pkt->key.proto == IPPROTO_UDP) &&
		    tw_ct_direction(skb, &pkt->key, (int)pkt->v6) == 2)
			return TW_STACK(NAT_NOT);
		if (!tw_nat_has_port(pkt->key.proto, pkt->v6) || (tw_cfg.nat_keep && tw_nat_in_range(pkt->key.sport)))
			wish = pkt->key.sport;
	}
	port = (int)tw_forget(skb, (__u32)tw_nat_make(skb, wish));
	return port < 0 ? port : tw_nat_apply(skb, job, 0, (__u16)port);
}

/* Is job->addr none of the interface's? */
__noinline int tw_nat_is_strange(struct __sk_buff *skb)
{
	const struct tw_nat_if *out = bpf_map_lookup_elem(&tw_nat_ifs, TW_KEY(tw_ifindex(skb)));
	struct tw_nat_job *job = tw_nat_job();
	const __u64 *addr, *from;
	int known;

	if (!out || !job)
		return 0;
	addr = (const __u64 *)&job->addr;
	from = (const __u64 *)&out->v4;
	known = !((from[0] ^ addr[0]) | (from[1] ^ addr[1])) | !((from[2] ^ addr[0]) | (from[3] ^ addr[1]));
	from = (const __u64 *)out->from;
#pragma unroll
	for (int i = 0; i < TW_NAT_NETS; i++)
		known |= !((from[2 * i] ^ addr[0]) | (from[2 * i + 1] ^ addr[1]));
	return !known;
}

/* Does a flow go on by an interface that has not its address? As with the kernel it is a new one then. TCP would not
 * begin anew: it goes on as it is. */
static __always_inline int tw_nat_has_moved(struct __sk_buff *skb, struct tw_nat_job *job,
					    const struct tw_nat_flow *half)
{
	if (half->plain || job->pkt.quoted.l4_off || job->pkt.key.proto == IPPROTO_TCP)
		return 0;
	tw_nat_addr_copy(&job->addr, &half->addr);
	return (int)tw_forget(skb, (__u32)tw_nat_is_strange(skb));
}

/* A packet that leaves by skb->ifindex. `overlay`: that is the overlay device, where what pods of this node send is no
 * matter of masquerade. */
__noinline int tw_nat_leave(struct __sk_buff *skb, __u32 overlay)
{
	struct tw_nat_job *job = tw_nat_job();
	struct tw_nat_pkt *pkt;
	struct tw_nat_flow *half;
	struct tw_addr *whole;
	__u32 now;
	int rule;

	if (!job)
		return TW_DROP(KERNEL_ERROR);
	pkt = &job->pkt;
	if (tw_nat_parse(skb))
		return TW_STACK(NAT_NOT);
	if (overlay && tw_in_own_pods(&pkt->l3.src) && !tw_is_own_host(&pkt->l3.src))
		return TW_STACK(NAT_NOT);
	rule = (int)tw_forget(skb, (__u32)tw_nat_rule(skb, &pkt->l3.src, &pkt->l3.dst, pkt->v6));
	if (pkt->l3.later) {
		whole = tw_nat_frag_find(job);
		if (!whole)
			return rule ? TW_DROP(NAT_FRAGMENT) : TW_STACK(NAT_NOT);
		tw_nat_addr_copy(&job->addr, whole);
		return tw_nat_apply(skb, job, 0, 0);
	}
	if (!rule && !pkt->quoted.l4_off && !tw_nat_in_range(pkt->key.sport) &&
	    !tw_nat_is_icmp(pkt->key.proto, pkt->v6))
		return TW_STACK(NAT_NOT);
	if (pkt->event == TW_NAT_EV_ANSWER)
		return TW_STACK(NAT_NOT);
	job->now = now = tw_nat_now();
	half = bpf_map_lookup_elem(&tw_nat_fwd, &pkt->key);
	if (half && rule && tw_nat_has_moved(skb, job, half)) {
		bpf_map_delete_elem(&tw_nat_fwd, &pkt->key); /* its other half ends by itself */
		half = 0;
	}
	if (half && tw_nat_is_alive(half, now) && (pkt->quoted.l4_off || tw_nat_touch(skb, job, half, 0))) {
		if (half->plain)
			return TW_STACK(NAT_NOT);
		tw_nat_addr_copy(&job->addr, &half->addr);
		return tw_nat_apply(skb, job, 0, half->port);
	}
	return tw_nat_begins(pkt) ? tw_nat_begin(skb, job, rule) : TW_STACK(NAT_NOT);
}

/* Do packets of the protocol say themselves whether they may begin a flow? */
static __always_inline int tw_nat_tells(__u64 proto, __u64 v6)
{
	return proto == IPPROTO_TCP || proto == TW_SCTP || tw_nat_is_icmp(proto, v6);
}

/* What comes from outside straight to a pod, where conntrack cannot tell: so that its replies go as they are. Of TCP,
 * SCTP and ICMP the packets themselves tell; of protocols without ports conntrack is never asked. With iptables' rules
 * what leads to other nodes' pods is masqueraded. */
static __always_inline void tw_nat_note(struct __sk_buff *skb, struct tw_nat_job *job)
{
	const struct tw_nat_key *key = &job->pkt.key;
	__u64 state = key->proto == IPPROTO_UDP ? TW_NAT_UDP_BOTH : TW_NAT_OTHER;
	__u32 until = job->now + tw_nat_timeout((__u32)state);
	struct tw_nat_flow *half;
	int at;

	if (key->proto == IPPROTO_UDP ? !tw_cfg.nat_notes : tw_nat_tells(key->proto, job->pkt.v6))
		return;
	if (job->pkt.quoted.l4_off || tw_in_cluster(&key->src) ||
	    !(tw_cfg.nat == TW_NAT_NFT ? tw_in_cluster(&key->dst) : tw_in_own_pods(&key->dst)))
		return;
	tw_nat_key_set(&job->turned, &key->dst, &key->src, key->dport | (__u32)key->sport << 16, key->proto);
	half = bpf_map_lookup_elem(&tw_nat_fwd, &job->turned);
	if (half && tw_nat_is_alive(half, job->now)) {
		if (half->plain)
			half->until = until;
		return;
	}
	at = tw_nat_place(skb, 1);
	if (at < 0)
		return;
	job->half[0] = job->half[1] = 0;
	job->half[2] = state << 16 | 1 << 24 | (__u64)until << 32;
	job->half[3] = (__u32)at;
	if (!bpf_map_update_elem(&tw_nat_fwd, &job->turned, job->half, BPF_ANY))
		tw_nat_settle(at, &job->turned, 1);
}

/* A packet that came in: NAT_IN if it was a reply to a masqueraded flow, else what
 * `ret` says, which the caller would do with it. */
static __always_inline int tw_nat_arrive(struct __sk_buff *skb, int ret)
{
	struct tw_nat_job *job = tw_nat_job();
	struct tw_nat_pkt *pkt;
	struct tw_nat_flow *half;
	struct tw_addr *whole;
	__u32 now;

	if (!job)
		return ret;
	pkt = &job->pkt;
	if (tw_nat_parse(skb))
		return ret;
	if (pkt->l3.later) {
		whole = tw_nat_frag_find(job);
		if (!whole)
			return ret;
		tw_nat_addr_copy(&job->addr, whole);
		return tw_nat_apply(skb, job, 1, 0);
	}
	if (!pkt->quoted.l4_off && tw_nat_is_icmp(pkt->key.proto, pkt->v6) && pkt->event != TW_NAT_EV_ANSWER)
		return ret;
	job->now = now = tw_nat_now();
	half = bpf_map_lookup_elem(&tw_nat_rev, &pkt->key);
	if (!half || !tw_nat_is_alive(half, now) || (!pkt->quoted.l4_off && !tw_nat_touch(skb, job, half, 1))) {
		tw_nat_note(skb, job);
		return ret;
	}
	tw_nat_addr_copy(&job->addr, &half->addr);
	return tw_nat_apply(skb, job, 1, half->port);
}
