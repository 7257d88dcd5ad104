// SPDX-License-Identifier: Apache-2.0
#include "maps/nat_halves.hpp"

#include <bpf/bpf.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <vector>

namespace twill {

Result<> for_each_flow(const NatFlowMap& map, const std::function<void(const tw_nat_key&, const tw_nat_flow&)>& visit)
{
    constexpr __u32 kBatch = 4096; // more than any bucket has
    std::vector<tw_nat_key> keys(kBatch);
    std::vector<tw_nat_flow> values(kBatch);
    __u32 position = 0;
    for (bool is_first = true;; is_first = false) {
        __u32 count = kBatch;
        const int rc = bpf_map_lookup_batch(map.raw().fd(), is_first ? nullptr : &position, &position, keys.data(),
                                            values.data(), &count, nullptr);
        if (rc != 0 && errno != ENOENT)
            return Error{errno, "map " + map.raw().name() + ": list: " + std::strerror(errno)};
        for (__u32 i = 0; i < count; ++i) visit(keys[i], values[i]);
        if (rc != 0) return Ok{};
    }
}

std::uint32_t nat_now()
{
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint32_t>(now.tv_sec);
}

bool is_alive(const tw_nat_flow& half, std::uint32_t now) { return static_cast<std::int32_t>(half.until - now) > 0; }

tw_nat_key other_half(const tw_nat_key& key, const tw_nat_flow& half, bool reply)
{
    tw_nat_key other{};
    other.src = reply ? half.addr : key.dst;
    other.dst = reply ? key.src : half.addr;
    other.sport = reply ? half.port : key.dport;
    other.dport = reply ? key.sport : half.port;
    other.proto = key.proto;
    return other;
}

Result<std::size_t> count_flows(const NatFlowMap& fwd)
{
    std::size_t count = 0;
    const auto now = nat_now();
    TWILL_TRY(for_each_flow(fwd, [&](const tw_nat_key&, const tw_nat_flow& half) {
        const bool is_closed = half.state == TW_NAT_TIME_WAIT || half.state == TW_NAT_CLOSE;
        if (half.plain == 0 && !is_closed && is_alive(half, now)) ++count;
    }));
    return count;
}

} // namespace twill
