// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "maps/abi/reasons.h"
#include "maps/nat_view.hpp"
#include "maps/pins.hpp"
#include "twill/clock.hpp"
#include "twill/result.hpp"

namespace twill {

/// What GET /metrics tells.
struct MetricsView {
    bool is_ready = false;
    std::vector<tw_reason_count> packets; ///< by reason; empty where there are no programs
    struct Nat {
        std::vector<NatFlow> flows; ///< as tw_nat_fwd has them
        std::size_t capacity = 0, ports = 0;
    };
    std::optional<Nat> nat; ///< nullopt: nothing is masqueraded
};
/// Prometheus' text format, version 0.0.4.
std::string metrics_text(const MetricsView& view);

/// Reads the pinned maps. Anybody may ask, and 100,000 flows are to be read: an answer serves for some seconds.
class Metrics {
public:
    Metrics(const Clock& clock, PinDir pins) : clock_(clock), pins_(std::move(pins)) {}
    /// `nat_capacity`: nullopt while nothing is masqueraded.
    const std::string& text(bool is_ready, std::optional<std::size_t> nat_capacity);

private:
    const Clock& clock_;
    PinDir pins_;
    std::optional<SteadyTime> read_;
    std::string text_;
};

} // namespace twill
