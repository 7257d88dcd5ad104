// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/nl/types.hpp"
#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

/// flannel's flags that choose the wire.
struct IfaceOptions {
    std::vector<std::string> names{};   ///< -iface: names or addresses, in order
    std::vector<std::string> regexes{}; ///< -iface-regex
    std::string can_reach{};            ///< -iface-can-reach: an address, or empty
    PerFamily<std::optional<Ip>> public_ip{};
    bool operator==(const IfaceOptions&) const = default;
};

/// What the kernel says of this node's interfaces.
struct IfaceView {
    std::vector<nl::Link> links;
    std::vector<nl::Address> addresses;
    std::vector<nl::Route> routes; ///< main table; only default routes are looked at
    std::function<Result<nl::RouteLookup>(const Ip& destination)> lookup; ///< for -iface-can-reach only
};

/// The interface between nodes, and this node's addresses on it.
struct WireChoice {
    nl::Link wire;
    PerFamily<std::optional<Ip>> address;   ///< of the interface; set for each family that is on
    PerFamily<std::optional<Ip>> public_ip; ///< what to publish: -public-ip*, else `address`
    bool operator==(const WireChoice&) const = default;
};

/// Chooses the wire by flannel's rules for the families that are on. Pure. ENODEV says what was tried; EOPNOTSUPP: the
/// chosen interface has no Ethernet header; EINVAL: a regular expression or an address does not parse.
Result<WireChoice> choose_wire(const IfaceOptions& options, const PerFamily<bool>& enabled, const IfaceView& view);

/// The address of `ifindex` that flannel would take: global before link-local, permanent before dynamic, temporary
/// last, deprecated never; the kernel's order otherwise.
std::optional<Ip> preferred_address(const std::vector<nl::Address>& addresses, IfIndex ifindex, Family family);

} // namespace twill
