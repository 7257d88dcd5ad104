// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <utility>

namespace twill {

/// Exponential delays, without jitter: the resource is the node's own kernel, nobody else retries with us.
class Backoff {
public:
    static constexpr std::chrono::milliseconds kMin{100};
    static constexpr std::chrono::milliseconds kMax{30'000};

    /// 100 ms, 200 ms, ... up to 30 s.
    std::chrono::milliseconds next() { return std::exchange(delay_, std::min(delay_ * 2, kMax)); }
    void reset() { delay_ = kMin; }

private:
    std::chrono::milliseconds delay_ = kMin;
};

} // namespace twill
