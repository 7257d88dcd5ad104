// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "twill/ip.hpp"
#include "twill/mac.hpp"

namespace twill::test {

using Bytes = std::vector<std::uint8_t>;

/// Address or MAC from text that the test itself wrote; aborts with the text when it is wrong.
Ip ip(const std::string& text);
Mac mac(const std::string& text);

// Layers of a packet. Lengths, checksums and "what comes next" are filled in from the layers that follow, unless the
// test sets them: an optional field that holds a value is written as it is, right or wrong.

struct Eth {
    Mac dst, src;
    std::optional<std::uint16_t> type = {};
};

/// 802.1Q tag; comes after Eth.
struct Vlan {
    std::uint16_t id = 1;
};

struct Ip4 {
    Ip src, dst;
    std::uint8_t ttl = 64;
    std::uint8_t tos = 0;
    std::uint16_t id = 0x1234;
    std::uint16_t frag =
        0;              ///< flags and offset as in RFC 791, host order: 0x2000 more fragments, 0x4000 do not fragment
    Bytes options = {}; ///< padded to a multiple of four with "end of options"
    std::optional<std::uint8_t> proto = {}, version = {}, ihl = {};
    std::optional<std::uint16_t> len = {}, csum = {};
};

/// One IPv6 extension header: 0 hop-by-hop, 43 routing, 44 fragment, 60 destination options. `body` follows the two
/// bytes "next header" and "length" and is padded to a multiple of eight; for 44 it is the reserved byte's successor:
/// offset, flags and identification (6 bytes).
struct Ext6 {
    std::uint8_t type = 0;
    Bytes body = {1, 4, 0, 0, 0, 0}; ///< a PadN option
};

struct Ip6 {
    Ip src, dst;
    std::uint8_t hop = 64;
    std::uint8_t tclass = 0;
    std::uint32_t label = 0;
    std::vector<Ext6> ext = {};
    std::optional<std::uint8_t> next = {}, version = {};
    std::optional<std::uint16_t> len = {};
};

struct Udp {
    std::uint16_t sport = 40000, dport = 5001;
    std::optional<std::uint16_t> len = {}, csum = {};
};

struct Tcp {
    std::uint16_t sport = 40000, dport = 5001;
    std::uint8_t flags = 0x10; ///< ACK
    std::uint32_t seq = 1, ack = 1;
    std::optional<std::uint16_t> csum = {};
};

struct Icmp {
    std::uint8_t type = 8, code = 0;
    std::uint16_t id = 7, seq = 1;
    std::optional<std::uint16_t> csum = {};
};

struct Icmp6 {
    std::uint8_t type = 128, code = 0;
    std::uint16_t id = 7, seq = 1;
    std::optional<std::uint16_t> csum = {};
};

struct Vxlan {
    std::uint32_t vni = 1;
    std::uint8_t flags = 0x08;
    std::uint32_t reserved = 0; ///< the 24 bits after the flags
    std::uint8_t reserved2 = 0; ///< the last byte
};

struct Payload {
    Bytes bytes;
    /// `size` bytes of a fixed pattern.
    static Payload of(std::size_t size);
};

using Layer = std::variant<Eth, Vlan, Ip4, Ip6, Udp, Tcp, Icmp, Icmp6, Vxlan, Payload>;
using Layers = std::vector<Layer>;

/// Layers one after the other, the outermost first.
Layers operator+(Layers a, const Layers& b);

/// The bytes on the wire. A zero UDP checksum comes out as 0xffff (RFC 768).
Bytes build(const Layers& layers);

/// IP of either family by the family of `src`; `ttl` and `tos` are hop limit and traffic class there.
Layer ip_layer(const Ip& src, const Ip& dst, std::uint8_t ttl = 64, std::uint8_t tos = 0);
/// Echo request of the family.
Layer echo_layer(Family family);

/// RFC 1071 sum over `size` bytes, folded, not complemented.
std::uint16_t ones_sum(const std::uint8_t* data, std::size_t size, std::uint32_t start = 0);
/// Whether every checksum in the frame holds, VXLAN contents on port `overlay_port` included. Checksums that are zero
/// where zero means "none" (UDP) hold. Names the first wrong one otherwise.
std::optional<std::string> bad_checksum(const Bytes& frame, std::uint16_t overlay_port = 8472);

/// One line per layer, for failure messages.
std::string describe(const Bytes& frame, std::uint16_t overlay_port = 8472);
/// Empty when equal; otherwise both descriptions and the rows of hex that differ. Bytes before `from` are not compared.
std::string diff(const Bytes& expected, const Bytes& actual, std::size_t from = 0);

} // namespace twill::test
