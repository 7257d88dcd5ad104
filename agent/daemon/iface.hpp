// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/nl/socket.hpp"
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

/// Reads it; `socket` must outlive the view's `lookup`.
Result<IfaceView> read_iface_view(nl::Socket& socket);

/// The interface between nodes, and this node's addresses on it.
struct WireChoice {
    nl::Link wire;
    PerFamily<std::optional<Ip>> address;   ///< of the interface; set for each family that is on
    PerFamily<std::optional<Ip>> public_ip; ///< what to publish: -public-ip*, else `address`
    std::vector<std::string> passed_over;   ///< selectors that came first and did not serve, and why
    bool operator==(const WireChoice&) const = default;
};

/// Chooses the wire by flannel's rules for the families that are on. Pure. A selector that does not serve, or does not
/// parse, is passed over. Errors name what was tried: ENODEV; with one selector also EOPNOTSUPP: its interface has no
/// Ethernet header, and EINVAL: it is no regular expression, or no address.
///
/// flannel's rules: without a selector -public-ip is one, else -public-ipv6, else the default routes. An empty selector
/// means the default routes. A regular expression is tried on the addresses of each interface, where every family that
/// is on must match, then on names; twill then takes an interface of which one family matches.
Result<WireChoice> choose_wire(const IfaceOptions& options, const PerFamily<bool>& enabled, const IfaceView& view);

/// The address of `ifindex` that flannel would take: global before link-local, permanent before dynamic, temporary
/// last, deprecated never; the kernel's order otherwise.
std::optional<Ip> preferred_address(const std::vector<nl::Address>& addresses, IfIndex ifindex, Family family);

} // namespace twill
