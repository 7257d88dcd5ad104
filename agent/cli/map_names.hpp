// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string_view>

namespace twill::cli {

struct MapText {
    std::string_view name;
    std::string_view text; ///< what it holds, for a person
};

/// Every map of maps/maps.bpf.h; a test compares the two.
inline constexpr std::array kMapTexts = {
    MapText{"tw_peers_v4", "IPv4 pod CIDR -> node"},
    MapText{"tw_peers_v6", "IPv6 pod CIDR -> node"},
    MapText{"tw_peers_lpm4", "IPv4 pod CIDRs of rare prefix lengths -> node"},
    MapText{"tw_peers_lpm6", "IPv6 pod CIDRs of rare prefix lengths -> node"},
    MapText{"tw_prefixes", "prefix lengths in use"},
    MapText{"tw_nodes", "node address -> its pod CIDR (anti-spoof)"},
    MapText{"tw_endpoints", "pod of this node -> interface"},
    MapText{"tw_flows_tcp", "TCP flow -> carried by programs or stack"},
    MapText{"tw_flows_any", "other flow -> carried by programs or stack"},
    MapText{"tw_flow_cache", "what the programs found out about a flow, each CPU"},
    MapText{"tw_flow_gen", "how often flows became the stack's"},
    MapText{"tw_epoch", "changes with every change that ends what is cached"},
    MapText{"tw_claims", "claimed addresses that were reported lately"},
    MapText{"tw_reasons", "packets by reason and hook"},
    MapText{"tw_peer_stats", "packets and bytes of each peer"},
    MapText{"tw_owned", "interfaces to which we added a qdisc"},
    MapText{"tw_nat_fwd", "masqueraded flow, by its packets"},
    MapText{"tw_nat_rev", "masqueraded flow, by its replies"},
    MapText{"tw_nat_slots", "places for masqueraded flows"},
    MapText{"tw_nat_ports", "remote end -> ports in use towards it"},
    MapText{"tw_nat_range", "ports that masquerade may use"},
    MapText{"tw_nat_ifs", "interface that leads out -> its addresses"},
    MapText{"tw_nat_except", "destinations that are not masqueraded"},
    MapText{"tw_nat_work", "room that the programs work in, each CPU"},
    MapText{"tw_nat_frags", "packet in fragments -> the address it gets"},
    MapText{"tw_events", "events for the agent; capacity in bytes"},
};

} // namespace twill::cli
