// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "maps/abi/nat.h"
#include "tests/packet/world.hpp"

// What the tests of masquerade share: node a with addresses on its wire and overlay device, ports, and its flows.
namespace twill::test {

/// Ports that masquerade may use, both included.
struct Ports {
    std::uint16_t first = 1024, last = 1087;
};

/// Of one packet behind the Ethernet header.
struct Seen {
    Ip src, dst;
    std::uint8_t proto = 0;
    std::uint16_t sport = 0, dport = 0; ///< of ICMP echo the identifier, twice
    bool operator==(const Seen&) const = default;
};
Seen seen(const Bytes& frame);

struct NatNode : Node {
    NatNode(const Node& node) : Node(node) {}
    /// All flows end, ports and addresses are those of nat_node().
    void reset(const Ports& ports = {}) const;
    void set_ports(const Ports& ports) const;
    void set_address(std::uint32_t ifindex, const Ip& v4, const Ip& v6) const;
    /// Makes all halves `seconds` older.
    void pass(std::uint32_t seconds) const;
    std::vector<std::pair<tw_nat_key, tw_nat_flow>> halves(const char* map) const;
    std::size_t count(const char* map) const { return halves(map).size(); }
    /// Leaves by the wire. The packet that comes out, if it was masqueraded.
    std::optional<Seen> send(const Layers& layers) const;
    std::optional<Seen> receive(const Layers& layers) const;
};

/// Node a with masquerade by iptables' rules and 64 ports unless `tweak` says otherwise.
NatNode nat_node(const Tweak& tweak = {}, const Ports& ports = {});

/// From a pod to where it leads, with an Ethernet header as the stack would write.
Layers leaving(const Ip& src, const Ip& dst);
/// From outside to the node.
Layers arriving(const Ip& src, const Ip& dst);
tw_nat_key nat_key(const Ip& src, const Ip& dst, std::uint16_t sport, std::uint16_t dport, std::uint8_t proto);
Ip ip_of(const tw_addr& addr);
/// The node's address and another outside, of the family.
Ip overlay_address(const Net& net);
/// Fails the test when a checksum of the frame is wrong.
void expect_sums(const Bytes& frame);

} // namespace twill::test
