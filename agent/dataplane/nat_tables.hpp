// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bitset>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "maps/abi/nat.h"
#include "maps/map.hpp"
#include "maps/pins.hpp"
#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

/// Addresses that what leaves by an interface gets.
struct NatInterface {
    PerFamily<std::optional<Ip>> address;     ///< nullopt: none, what needs one is refused
    std::vector<std::pair<Cidr, Ip>> on_link; ///< for these destinations instead, the first that matches
    bool is_bridge = false;                   ///< br_netfilter may show conntrack what arrives
    bool is_aside = false;                    ///< no wire: what arrives is no peer's
    bool operator==(const NatInterface&) const = default;
};

/// The value of tw_nat_ifs; of on_link what there is room for.
tw_nat_if to_abi(const NatInterface& interface);
/// The values of tw_nat_range.
std::vector<tw_nat_range> to_ranges(const std::bitset<65536>& ports);

/// The maps that tell the programs how to masquerade, and the flows. Writes only what differs. Control thread.
class NatTables {
public:
    /// The pinned maps; they have their sizes when masquerade is on.
    static Result<NatTables> open(const PinDir& pins);

    Result<> set_ports(const std::bitset<65536>& ports);
    Result<> set_except(const std::vector<Cidr>& networks);
    /// Those that are not in `interfaces` are removed. ENOSPC: too many.
    Result<> set_interfaces(const std::map<IfIndex, NatInterface>& interfaces);
    /// Flows whose address is none of these end: their replies cannot come any more. Returns how many.
    Result<std::size_t> keep_flows(const std::set<Ip>& addresses);
    /// Flows that somebody still uses; see maps/nat_halves.hpp.
    Result<std::size_t> count_flows() const;

private:
    Map<tw_nat_key, tw_nat_flow> fwd_;
    Map<tw_nat_key, tw_nat_flow> rev_;
    Map<unsigned, tw_nat_range> range_;
    Map<unsigned, tw_nat_if> interfaces_;
    Map<tw_cidr_v6, unsigned> except_;
};

} // namespace twill
