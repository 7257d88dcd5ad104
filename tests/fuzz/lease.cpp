// SPDX-License-Identifier: Apache-2.0
// A file of the file store: key, newline, JSON; and a marker.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "agent/store/lease.hpp"

using namespace twill;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    const auto end = std::min(bytes.find('\n'), bytes.size());
    const auto key = bytes.substr(0, end);
    const auto value = bytes.substr(std::min(end + 1, bytes.size()));
    (void)parse_marker(value);
    const auto lease = parse_lease(key, value);
    if (lease && !parse_lease(key, format_lease(*lease, Vni{1}))) __builtin_trap();
    return 0;
}
