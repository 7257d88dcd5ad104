// SPDX-License-Identifier: Apache-2.0
#include "twill/mac.hpp"

#include <sys/random.h>

#include <charconv>
#include <cstdio>

namespace twill {

Result<Mac> Mac::parse(std::string_view text)
{
    const Error bad{EINVAL, "\"" + std::string(text) + "\" is not a MAC address such as 0a:1b:2c:3d:4e:5f"};
    if (text.size() != 17) return bad;
    Mac mac;
    for (std::size_t i = 0; i < 6; ++i) {
        const char* pair = text.data() + i * 3;
        const auto [end, error] = std::from_chars(pair, pair + 2, mac.bytes[i], 16);
        if (error != std::errc{} || end != pair + 2 || (i < 5 && pair[2] != ':')) return bad;
    }
    return mac;
}

Mac Mac::random()
{
    Mac mac;
    // getrandom() of so few bytes neither fails nor stops short once the pool is ready (random(7)).
    while (getrandom(mac.bytes.data(), mac.bytes.size(), 0) != static_cast<ssize_t>(mac.bytes.size())) {
    }
    mac.bytes[0] = static_cast<std::uint8_t>((mac.bytes[0] & 0xfe) | 0x02);
    return mac;
}

std::string Mac::to_string() const
{
    char text[18];
    std::snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4],
                  bytes[5]);
    return text;
}

} // namespace twill
