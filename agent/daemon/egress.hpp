// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "agent/dataplane/nat_tables.hpp"
#include "agent/nl/types.hpp"
#include "twill/ids.hpp"
#include "twill/ip.hpp"

namespace twill {

/// What decides about the interfaces that lead out, at one moment. Addresses in the kernel's order.
struct EgressView {
    const std::map<IfIndex, nl::Link>& links;
    std::vector<nl::Address> addresses;
    std::vector<nl::Route> routes; ///< main table
};

/// What does not lead out.
struct EgressScope {
    PerFamily<std::optional<Cidr>> network; ///< the cluster's pods
    std::set<IfIndex> overlay;              ///< get an entry all the same: the node's way to other nodes' pods
    std::set<IfIndex> inside;               ///< pods' interfaces
    std::optional<std::set<IfIndex>> wires; ///< by which peers are reached; nullopt: not known yet
};

struct Egress {
    std::map<IfIndex, NatInterface> interfaces; ///< that lead out
    std::map<IfIndex, NatInterface> overlay;    ///< overlay devices
    std::vector<IfIndex> without_ethernet; ///< would lead out, but their packets have no Ethernet header: no program
};

/// Do routes matter? An interface without an address leads out by a route; of several addresses routes decide.
bool needs_routes(const EgressView& view, const EgressScope& scope);

/// Pure. Out leads what has an address, or a route, outside of the pods' network; of a bridge or bond that, not its
/// ports. Its addresses are those that the kernel's MASQUERADE would choose: IPv4 by the next hop (inet_select_addr),
/// IPv6 by RFC 6724. Where an interface has none, the node's first.
Egress find_egress(const EgressView& view, const EgressScope& scope);

} // namespace twill
