// SPDX-License-Identifier: Apache-2.0
// Frames as the differential test of masquerade sees them: who talks to whom, and the same frame with the ports that a
// translator chose replaced by those that the pod had.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "tests/support/packet.hpp"

namespace twill::interop::nat {

using test::Bytes;

/// What the headers from `l3` on say.
struct View {
    bool v6 = false;
    Ip src, dst;
    std::uint8_t proto = 0;
    std::size_t l3 = 0, l4 = 0;
    bool part = false, later = false;
    std::uint16_t sport = 0, dport = 0; ///< of ICMP queries the identifier on the side that asks
    std::size_t quote = 0;              ///< of an ICMP error: where the quoted packet is
};
/// nullopt: no IP, or cut off.
std::optional<View> view(const Bytes& frame, std::size_t l3 = 14);

bool is_icmp(const View& view);
/// Where the transport checksum is in the frame; 0: it has none, or is not there.
std::size_t check_at(const View& view);
/// RFC 9260 section 6.8, over the whole packet from `at`, its own field taken as 0.
std::uint32_t crc32c(const Bytes& bytes, std::size_t at);
bool is_right_sctp(const Bytes& frame, std::size_t l4);

/// Ports and identifiers outside, and what they stand for.
class Names {
public:
    void add(std::uint8_t proto, std::uint16_t outside, std::uint16_t name) { names_[{proto, outside}] = name; }
    std::optional<std::uint16_t> find(std::uint8_t proto, std::uint16_t outside) const;
    void add_address(const Ip& ip) { ours_.insert(ip); }
    bool is_ours(const Ip& ip) const { return ours_.contains(ip); }
    /// The frame with names for ports, its checksums made good by that much. `partial`: they are left to the NIC, and
    /// do not cover the ports yet.
    Bytes canonical(Bytes frame, bool partial) const;

private:
    std::map<std::pair<std::uint8_t, std::uint16_t>, std::uint16_t> names_;
    std::set<Ip> ours_;
};

} // namespace twill::interop::nat
