// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tests/interop/world.hpp"

namespace twill::interop {

/// A frame with what may differ set to zero; `wrong` says what it must not be, whatever the other side made of it.
struct Masked {
    Bytes bytes;
    std::string wrong;
};

/// What may differ: the IPv4 identification of a packet that the node itself made (the outer one, or that of an ICMP
/// error) and the IPv4 header checksum that follows from it; the identification of IPv6 fragments, which the kernel
/// makes anew when it has put a packet together for conntrack, and the outer UDP checksum that follows from that; the
/// IPv4 outer UDP checksum, which is 0 of twill and never of flannel. That checksums hold, and are 0 of whom they
/// should be, is checked here. `is_offloaded`: the wire
/// finishes checksums.
Masked mask(const Frame& frame, const World& world, bool is_offloaded);

/// Is it VXLAN over the wire? Then where the inner IP header starts; 0 otherwise. Not for later outer fragments.
std::size_t inner_offset(const Bytes& frame);

} // namespace twill::interop
