// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstring>

#include "maps/abi/addr.h"
#include "twill/ip.hpp"
#include "twill/mac.hpp"

namespace twill::cli {

/// An address of the maps as one of ours.
inline Ip ip_of(const tw_addr& addr)
{
    std::array<std::uint8_t, 16> bytes{};
    std::memcpy(bytes.data(), &addr, sizeof(addr));
    return Ip::from_bytes(bytes);
}

/// A MAC of the maps as one of ours.
inline Mac mac_of(const __u8 (&bytes)[6])
{
    Mac mac;
    std::copy(std::begin(bytes), std::end(bytes), mac.bytes.begin());
    return mac;
}

} // namespace twill::cli
