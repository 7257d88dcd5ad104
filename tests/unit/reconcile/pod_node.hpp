// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "agent/reconcile/endpoint_table.hpp"

namespace twill::test {

inline const Mac kMacA = *Mac::parse("0a:00:00:00:00:0a");
inline const Mac kMacB = *Mac::parse("0a:00:00:00:00:0b");
inline const Mac kBridge = *Mac::parse("0a:00:00:00:00:01");
inline const Ip kIp = *Ip::parse("10.42.1.5");
inline const Ip kIp6 = *Ip::parse("fd00:42:0:1::5");
inline constexpr IfIndex kA{11};
inline constexpr IfIndex kB{12};
inline constexpr auto kPacket = ClaimSource::packet;
inline constexpr auto kNeighbour = ClaimSource::neighbour;
inline constexpr auto kRoute = ClaimSource::route;

inline PodInterface port(IfIndex ifindex, const char* name) { return {ifindex, name, kBridge, false, true}; }

/// A table with two pod interfaces, vethA and vethB, of a node with 10.42.1.0/24 and fd00:42:0:1::/64.
struct PodNode : EndpointTable {
    PodNode()
    {
        set_scope({{*Cidr::parse("10.42.1.0/24"), *Cidr::parse("fd00:42:0:1::/64")}, {*Ip::parse("10.42.1.1")}});
        pod_interface_up(port(kA, "vethA"));
        pod_interface_up(port(kB, "vethB"));
    }
    /// The interface that has `ip`; 0: no endpoint.
    int holder(const Ip& ip = kIp) const
    {
        const auto all = desired();
        const auto it = all.find(ip);
        return it == all.end() ? 0 : it->second.ifindex.value;
    }
    std::size_t size() const { return desired().size(); }
};

} // namespace twill::test
