/* SPDX-License-Identifier: Apache-2.0 */
/* Somebody else's program: counts packets and lets the next one decide (TCX_NEXT, TC_ACT_UNSPEC). */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 1);
} user_count SEC(".maps");

SEC("tc")
int user_prog(struct __sk_buff* skb)
{
    __u32 zero = 0;
    __u64* count = bpf_map_lookup_elem(&user_count, &zero);

    if (count) __sync_fetch_and_add(count, 1);
    return -1;
}

char user_license[] SEC("license") = "Dual BSD/GPL";
