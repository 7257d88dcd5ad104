// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>

namespace twill {

/// Kernel interface index in the agent's network namespace; 0 means none.
struct IfIndex {
    int value = 0;
    explicit operator bool() const { return value != 0; }
    auto operator<=>(const IfIndex&) const = default;
};

/// VXLAN network identifier (RFC 7348), 24 bits, host order.
struct Vni {
    std::uint32_t value = 1;
    static constexpr std::uint32_t kMax = (1U << 24) - 1;
    auto operator<=>(const Vni&) const = default;
};

/// rtm_protocol of every route that twill adds, so that it is known as ours after a restart without memory.
/// Not assigned in /etc/iproute2/rt_protos.
inline constexpr std::uint8_t kRouteProtocol = 116;
/// The same of the routes to single peers, which only a node on the kernel overlay has.
inline constexpr std::uint8_t kPeerRouteProtocol = 117;

} // namespace twill
