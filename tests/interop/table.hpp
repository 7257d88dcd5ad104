// SPDX-License-Identifier: Apache-2.0
// What the files of the table share.
#pragma once

#include <fmt/format.h>

#include <array>
#include <utility>

#include "tests/interop/cluster.hpp"
#include "tests/interop/packets.hpp"

namespace twill::interop {

inline constexpr std::array kPods = {'p', 'q'};
inline constexpr std::array kPeers = {'b', 'c', 'd'};

inline const char* text(Family family) { return family == Family::v4 ? "IPv4" : "IPv6"; }
inline std::size_t ip_header(Family family) { return family == Family::v4 ? 20 : 40; }
/// What fits into VXLAN on a wire of 1500.
inline std::size_t path_mtu(Family family) { return family == Family::v4 ? 1450 : 1430; }

/// Collects packets; every flow gets a source port of its own, so that conntrack knows nothing about it.
struct Cases {
    std::vector<Packet> packets;
    std::uint16_t port = 20000;

    test::Udp udp() { return {.sport = port++, .dport = 5001}; }
    test::Tcp tcp(std::uint8_t flags = 0x10) { return {.sport = port++, .dport = 5001, .flags = flags}; }
    void add(Packet packet) { packets.push_back(std::move(packet)); }
    void valid(Packet packet)
    {
        packet.is_valid = true;
        add(std::move(packet));
    }
    /// From a pod of node a to a pod of a peer.
    static test::Layer ip(Family family, char pod = 'p', char peer = 'b', std::uint8_t ttl = 64, std::uint8_t tos = 0)
    {
        return test::ip_layer(pod_ip('a', family, pod == 'p' ? 2 : 3), pod_ip(peer, family, 2), ttl, tos);
    }
};

void pod_cases(Cases& cases, Family family);
void odd_cases(Cases& cases, Family family);
void frame_cases(Cases& cases, Family family);
void wire_cases(Cases& cases, Family family);

} // namespace twill::interop
