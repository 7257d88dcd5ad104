// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "agent/nl/socket.hpp"
#include "agent/nl/types.hpp"
#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/mac.hpp"
#include "twill/result.hpp"

namespace twill {

/// What carries the overlay device: a collect-metadata vxlan device, or a veth pair where none may be or can be.
enum class OverlayKind : std::uint8_t { vxlan, veth };
/// "vxlan" or "veth".
std::string_view to_string(OverlayKind kind);

/// By this alias the device is known as ours after a restart.
inline constexpr std::string_view kOverlayAlias = "twill overlay";
/// The gateway of the cluster network's route: one neighbour stands for all pods elsewhere, or the kernel would keep
/// one for each. Programs overwrite its MAC.
inline constexpr Ip kOverlayGateway4 = Ip::v4(169, 254, 116, 1);
inline constexpr Ip kOverlayGateway6 = Ip::from_bytes({0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x74, 0, 0x01});
inline constexpr Mac kOverlayGatewayMac{{0x02, 0x74, 0x77, 0x6c, 0x00, 0x01}};
/// Metric of the route that makes pod addresses without a pod unreachable: behind every other route.
inline constexpr std::uint32_t kUnreachableMetric = 0xffffffffU;

/// One family's part of the overlay device.
struct OverlayFamily {
    Cidr network;     ///< the cluster's pod network
    Cidr pods;        ///< this node's; its first address becomes the device's
    unsigned mtu = 0; ///< of the route, bytes of inner IP packet
    bool operator==(const OverlayFamily&) const = default;
};

struct OverlaySpec {
    std::string name;
    OverlayKind kind = OverlayKind::vxlan;
    Mac mac;                   ///< own VtepMAC
    std::uint16_t port = 8472; ///< UDP, host order; unused by veth
    bool gbp = false;
    PerFamily<std::optional<OverlayFamily>> family;
    bool operator==(const OverlaySpec&) const = default;
};

/// Creates or corrects the device, its addresses, routes and neighbours; writes only what differs, so repeating it is
/// free. Addresses and routes of ours that `spec` does not ask for are removed last. Returns the device's index.
/// Errors: EEXIST a device of that name, or a route to the cluster network, belongs to somebody else; EADDRINUSE the
/// UDP port is taken; EINVAL the spec. A device that cannot be brought up is not left behind.
Result<IfIndex> ensure_overlay(nl::Socket& socket, const OverlaySpec& spec);

/// The device as it is now, if it is there and ours: its MAC is kept over a restart.
Result<std::optional<nl::Link>> find_overlay(nl::Socket& socket, std::string_view name);

/// Removes the device if it is ours, and every route of ours. Succeeds when nothing is there.
Result<> remove_overlay(nl::Socket& socket, std::string_view name);

} // namespace twill
