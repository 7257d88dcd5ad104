// SPDX-License-Identifier: Apache-2.0
// Addresses of worlds.sh.
#pragma once

#include <string>

#include "tests/support/packet.hpp"

namespace twill::interop {

inline constexpr std::uint16_t kOverlayPort = 8472;
/// Size of a frame's outer headers, outer Ethernet included.
inline constexpr std::size_t kOuter4 = 14 + 50, kOuter6 = 14 + 70;

inline Ip public_ip(char node, Family family)
{
    const std::string number = std::to_string(node - 'a' + 10);
    if (node == 'd') return test::ip(family == Family::v4 ? "198.51.100.13" : "2001:db8:2::13");
    return test::ip((family == Family::v4 ? "192.0.2." : "2001:db8:1::") + number);
}

/// Address number `host` of the node's pod CIDR: 0 the node itself, 1 cni0, 2 pod p, 3 pod q.
inline Ip pod_ip(char node, Family family, unsigned host)
{
    const std::string number = std::to_string(node - 'a' + 10);
    if (family == Family::v4) return test::ip("10.42." + number + "." + std::to_string(host));
    return test::ip("fd00:42:0:" + number + "::").plus(host);
}

inline Mac numbered_mac(const char* prefix, char node) { return test::mac(prefix + std::to_string(node - 'a' + 10)); }

inline Mac vtep_mac(char node) { return numbered_mac("0a:aa:00:00:00:", node); }
inline Mac wire_mac(char node) { return numbered_mac("02:aa:00:00:01:", node); }
/// Pod 'p' or 'q', and whom it sends to.
inline Mac pod_mac(char node, char pod)
{
    return numbered_mac(pod == 'p' ? "02:bb:00:00:02:" : "02:bb:00:00:03:", node);
}
inline Mac gateway_mac(char node, char pod)
{
    return numbered_mac(pod == 'p' ? "02:cc:00:00:00:" : "02:bb:00:00:13:", node);
}
/// Next hops on the wire: the bench.
inline Mac far_mac() { return test::mac("02:ee:00:00:00:11"); }

} // namespace twill::interop
