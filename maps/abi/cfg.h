/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

#include "maps/abi/addr.h"

/* How strictly VXLAN from outer sources that are no known node is refused. */
enum tw_anti_spoof {
	TW_SPOOF_OFF = 0,
	TW_SPOOF_LOOSE = 1,  /* passes when the inner Ethernet source is the VtepMAC of the inner source's node */
	TW_SPOOF_STRICT = 2, /* dropped */
};

/* Load-time constants of all programs: lives in .rodata, so the verifier removes what is off. A change means loading
 * the programs again and replacing them in place. A family that is off has nets that match nothing and zero addresses.
 */
struct tw_cfg {
	struct tw_net cluster_v4;
	struct tw_net cluster_v6;
	struct tw_net own_v4; /* this node's pod CIDR */
	struct tw_net own_v6;
	struct tw_addr node_v4; /* outer source; where VXLAN for us must go */
	struct tw_addr node_v6;
	__u32 vni;	 /* host order */
	__u32 overlay;	 /* interface index of the overlay device */
	__u32 overlay6;	 /* with `flannel`: of the one for IPv6 */
	__u16 port;	 /* VXLAN UDP port, host order */
	__u16 sport_min; /* net.ipv4.ip_local_port_range, host order */
	__u16 sport_max;
	__u16 reserved;
	enum tw_anti_spoof anti_spoof;
	__u8 vtep_mac[6];     /* of `overlay` */
	__u8 vtep_mac6[6];    /* with `flannel`: of `overlay6` */
	__u8 vtep_mac_old[6]; /* also accepted; all zero: none */
	__u8 fast;	      /* 0: everything through the stack */
	__u8 ct_lookup;	      /* bpf_skb_ct_lookup may be called */
	__u8 encap_l2_eth;    /* BPF_F_ADJ_ROOM_ENCAP_L2_ETH is known (5.13) */
	__u8 vxlan_device;    /* the overlay device is a vxlan device, with collect metadata but for `flannel` */
	__u8 flannel;	      /* devices and routes are flannel's: a VNI of their own, and a route to each peer */
	__u8 gbp;	      /* group policy extension: skb->mark travels */
	__u8 check_mtu;	      /* bpf_check_mtu may be called (5.12) */
	__u8 nat;	      /* enum tw_nat_rules */
	__u8 nat_keep;	      /* masquerade keeps a port that is free, as the kernel does without --random-fully */
	__u8 nat_notes;	      /* what comes from outside straight to a pod is noted: conntrack is not to be asked */
	__u32 nat_max;	      /* capacity of tw_nat_slots; with `nat` not 0 */
};
TW_ASSERT_SIZE(struct tw_cfg, 216);
