/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Version of everything in this folder: part of the pin path, so that programs never meet a map of another layout.
 * Raise it with any change of a key, a value or a map's type. */
#define TW_SCHEMA 1

#define TW_PEERS_MAX	 16384 /* pod CIDRs of other nodes, each family */
#define TW_ENDPOINTS_MAX 8192  /* addresses of this node's pods */
#define TW_FLOWS_TCP_MAX 131072
#define TW_FLOWS_ANY_MAX 65536
#define TW_CACHED_MAX	 1024	/* flows in one direction, each CPU; a power of two */
#define TW_GENS_MAX	 4096	/* counters that flows share; a power of two */
#define TW_CLAIMS_MAX	 1024	/* addresses whose claim was reported lately */
#define TW_EVENTS_BYTES	 262144 /* ring buffer; a power of two and a multiple of the page size */
#define TW_PREFIXES_MAX	 4	/* prefix lengths looked up by hash; further ones are in the trie */
#define TW_OWNED_MAX	 4096	/* interfaces on which we made a qdisc */
#define TW_NAT_MAX	 100000 /* masqueraded flows */
#define TW_NAT_BLOCKS	 8192	/* blocks of ports whose use is known; a power of two */
#define TW_NAT_RANGES	 1024	/* blocks of 64 ports that there are */
#define TW_NAT_IFS_MAX	 256	/* interfaces that lead out */
#define TW_NAT_NETS	 4	/* networks of an interface besides the one of its first address */
#define TW_NAT_EXCEPT	 1024	/* prefixes that are not masqueraded */
#define TW_NAT_FRAGS	 4096	/* packets in fragments, at one time */
