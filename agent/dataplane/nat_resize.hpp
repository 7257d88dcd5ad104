// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "maps/abi/cfg.h"
#include "maps/map.hpp"
#include "maps/pins.hpp"
#include "twill/result.hpp"

struct bpf_object;
struct bpf_map;

namespace twill {

/// The NAT maps have the size that the configuration asks for, one entry without masquerade. A pinned map of another
/// size makes room for a new one while the programs of before go on with it.
class NatResize {
public:
    explicit NatResize(const PinDir& pins) : pins_(pins) {}
    /// What was unpinned is pinned again, unless carry() was reached.
    ~NatResize();
    NatResize(const NatResize&) = delete;
    NatResize& operator=(const NatResize&) = delete;

    /// Before an object is loaded: sizes its maps, and unpins those that are of another size.
    Result<> prepare(bpf_object* object, const tw_cfg& cfg);
    /// Once it is loaded: the flows of maps that were replaced go on in the new ones, as far as there is room. Returns
    /// how many.
    Result<std::size_t> carry(const tw_cfg& cfg);

private:
    const RawMap* replaced(std::string_view name) const;
    Result<> make_room(const bpf_map* map);

    const PinDir& pins_;
    std::vector<RawMap> replaced_;
    bool is_done_ = false;
};

} // namespace twill
