// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "maps/map.hpp"
#include "maps/pins.hpp"
#include "twill/result.hpp"

namespace twill {

/// The maps that are pinned in a directory, held open. When somebody removes a pin the programs go on with the map, but
/// twillctl, the next agent and the next generation of the programs would not find it, or make an empty one.
class PinnedMaps {
public:
    /// All maps of `pins` as they are now. Errors: those of bpf(2), named by the path.
    static Result<PinnedMaps> open(const PinDir& pins);

    /// Is every map pinned still?
    bool is_complete() const;
    /// Pins again what is not; the directory must be there. Returns how many that were.
    Result<unsigned> restore() const;

private:
    explicit PinnedMaps(PinDir pins) : pins_(std::move(pins)) {}

    PinDir pins_;
    std::vector<RawMap> maps_;
};

} // namespace twill
