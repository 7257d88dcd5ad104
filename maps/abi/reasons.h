/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps/abi/layout.h"

// clang-format off: the tables are read as tables

/* The programs, by hook. Append only: the order is the layout of struct tw_reason_count. */
#define TW_HOOKS(X) \
	X(FROM_POD, from_pod) \
	X(TO_POD, to_pod) \
	X(FROM_WIRE, from_wire) \
	X(FROM_HOST, from_host) \
	X(FROM_OVERLAY, from_overlay) \
	X(TO_WIRE, to_wire)

#define X(name, field) TW_HOOK_##name,
enum tw_hook { TW_HOOKS(X) TW_HOOK__MAX };
#undef X

/* What a program did with a packet, and why. Every packet that a program sees is counted under exactly one reason.
 * Append only: the number is a counter index and outlives upgrades.
 * X(name, class, text); class: FAST carried by the programs, STACK left or given to the kernel, DROP dropped. */
#define TW_REASONS(X) \
	X(TO_VXLAN, FAST, "encapsulated to another node") \
	X(TO_DIRECT, FAST, "routed directly to another node") \
	X(TO_LOCAL, FAST, "delivered to a pod of this node") \
	X(NOT_IP, STACK, "neither IPv4 nor IPv6 (ARP, VLAN tag, multicast frame)") \
	X(NOT_POD, STACK, "not between pods") \
	X(NOT_OURS, STACK, "neither VXLAN for this node nor a direct peer's packet") \
	X(OPTIONS, STACK, "IP options or extension headers") \
	X(FRAGMENT, STACK, "IP fragment") \
	X(TTL, STACK, "TTL or hop limit expires") \
	X(TOO_BIG, STACK, "larger than the path to the peer takes") \
	X(PROTO, STACK, "neither TCP, UDP nor ICMP echo or error") \
	X(FLOW_STACK, STACK, "flow has NAT in the kernel") \
	X(NO_ENDPOINT, STACK, "destination is no known pod of this node") \
	X(NEW_SOURCE, STACK, "source is no known pod of that interface") \
	X(HAIRPIN, STACK, "to the interface that it came from") \
	X(SHAPED, STACK, "pod's interface is shaped") \
	X(FAST_OFF, STACK, "fast path is off") \
	X(NO_WIRE, STACK, "no wire leads to the peer") \
	X(ENCAPSULATED, STACK, "is a tunnel packet already: the overlay device encapsulates") \
	X(KERNEL_ENCAP, STACK, "the overlay device encapsulates") \
	X(KERNEL_DECAP, STACK, "left to the overlay device to decapsulate") \
	X(TO_STACK, STACK, "decapsulated or taken from a direct peer, given to the kernel") \
	X(FROM_STACK, STACK, "from the kernel to a pod") \
	X(VERIFIED, STACK, "on the overlay device, checked before") \
	X(SHORT, DROP, "shorter than its headers") \
	X(BAD_VXLAN, DROP, "VXLAN header wrong, or payload not of the outer family") \
	X(BAD_VNI, DROP, "VXLAN network identifier is not ours") \
	X(BAD_MAC, DROP, "inner Ethernet destination is not ours") \
	X(SPOOF_NODE, DROP, "outer source is no node of the cluster") \
	X(SPOOF_POD, DROP, "inner source is not in the sending node's pod CIDR") \
	X(FORGED, DROP, "VXLAN made by a pod") \
	X(NO_PEER, DROP, "no node has this pod address") \
	X(ECN, DROP, "congestion mark on a flow that cannot carry it") \
	X(NO_ROOM, DROP, "no room for the outer headers") \
	X(NO_DEVICE, DROP, "needs the overlay device, which is not a vxlan device") \
	X(KERNEL_ERROR, DROP, "a kernel helper failed half way") \
	X(NO_NEIGHBOUR, STACK, "waits for a neighbour on the wire: sent again from the overlay device") \
	X(MULTICAST, DROP, "multicast of the node itself, which the overlay has not") \
	X(NOT_GATEWAY, STACK, "a pod sends it to another neighbour than its gateway") \
	X(NAT_OUT, STACK, "masqueraded, left to the kernel to send") \
	X(NAT_IN, STACK, "reply to a masqueraded flow, left to the kernel to deliver") \
	X(NAT_NOT, STACK, "not to be masqueraded") \
	X(NAT_PORTS, DROP, "no port is free for another flow to this destination") \
	X(NAT_TABLE, DROP, "as many masqueraded flows as there may be") \
	X(NAT_ADDRESS, DROP, "the interface has no address to masquerade with") \
	X(NAT_FRAGMENT, DROP, "fragment whose first one did not come before it")

#define X(name, class, text) TW_R_##name,
enum tw_reason { TW_REASONS(X) TW_R__MAX };
#undef X

/* Value of tw_reasons, one for each CPU; the key is enum tw_reason. */
#define X(name, field) __u64 field;
struct tw_reason_count {
	TW_HOOKS(X)
};
#undef X
TW_ASSERT_SIZE(struct tw_reason_count, 8 * TW_HOOK__MAX);
