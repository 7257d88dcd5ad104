// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "tests/interop/world.hpp"

namespace twill::interop {

/// The packets that are compared by name: every field that a rule of the overlay depends on, one at a time.
std::vector<Packet> table(bool is_offloaded);

/// Packets number `index` of a seed, valid and odd ones; more than one where they belong together (fragments). The same
/// for the same arguments.
std::vector<Packet> random_packets(std::uint64_t seed, std::uint64_t index, bool is_offloaded);

/// A frame of pod p or q of node a to the gateway.
Packet from_pod(char pod, const test::Layers& layers, std::string what);
/// An IP packet of node a itself.
Packet from_host(const test::Layers& layers, std::string what);
/// VXLAN from node `from` to node b around `inner`; the outer addresses by the family.
test::Layers tunnel(char from, Family family, const test::Layers& inner);
Packet from_wire(const test::Layers& layers, std::string what);
/// The same TCP or UDP frame as a super-packet of segments with `size` payload bytes, checksum not finished.
Packet as_super(Packet packet, std::uint16_t size);
/// The same TCP or UDP frame, in one piece, checksum not finished.
Packet as_partial(Packet packet);

} // namespace twill::interop
