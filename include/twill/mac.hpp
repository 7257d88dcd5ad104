// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "twill/result.hpp"

namespace twill {

/// One Ethernet address (IEEE 802 EUI-48), first octet on the wire first. Default: 00:00:00:00:00:00.
struct Mac {
    std::array<std::uint8_t, 6> bytes{};

    /// Six pairs of hex digits joined by colons, either case. EINVAL names the text.
    static Result<Mac> parse(std::string_view text);
    /// A fresh unicast, locally administered address from the kernel's random source, as flannel makes VtepMACs.
    static Mac random();

    bool is_zero() const { return *this == Mac{}; }
    /// Neither multicast nor zero.
    bool is_unicast() const { return !is_zero() && (bytes[0] & 1) == 0; }
    /// Lower-case hex with colons.
    std::string to_string() const;
    auto operator<=>(const Mac&) const = default;
};

} // namespace twill
