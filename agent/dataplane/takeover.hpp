// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "maps/pins.hpp"
#include "twill/result.hpp"

namespace twill {

/// What maps of another schema gave to ours.
struct TakeOver {
    std::string from; ///< directory of the maps; empty: no other version ran here
    std::vector<std::string> carried;
    std::vector<Error> left; ///< maps that stay as they are, and why
};

/// Fills our maps, which are new and which no program uses yet, from those of the version that ran before: what nobody
/// could tell again (pods known by their packets, counters, qdiscs that are ours), and peers, so that their counters
/// keep their indexes. What cannot be carried over is filled by reconcile or starts at zero. `with_flows`: flows too,
/// for kernels whose conntrack cannot be asked; `with_nat`: what is masqueraded.
TakeOver take_over_maps(const PinDir& pins, bool with_flows, bool with_nat);

} // namespace twill
