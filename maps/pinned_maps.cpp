// SPDX-License-Identifier: Apache-2.0
#include "maps/pinned_maps.hpp"

#include <bpf/bpf.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace twill {

namespace {

bool is_there(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

} // namespace

Result<PinnedMaps> PinnedMaps::open(const PinDir& pins)
{
    PinnedMaps all(pins);
    for (const auto& name : pins.list_maps()) {
        TWILL_TRY_AS(map, RawMap::open(pins.map(name)));
        all.maps_.push_back(std::move(map));
    }
    return all;
}

bool PinnedMaps::is_complete() const
{
    return std::all_of(maps_.begin(), maps_.end(), [&](const RawMap& map) { return is_there(pins_.map(map.name())); });
}

Result<unsigned> PinnedMaps::restore() const
{
    unsigned restored = 0;
    for (const auto& map : maps_) {
        const std::string path = pins_.map(map.name());
        if (is_there(path)) continue;
        if (bpf_obj_pin(map.fd(), path.c_str()) != 0) return Error{errno, "pin " + path + ": " + std::strerror(errno)};
        ++restored;
    }
    return restored;
}

} // namespace twill
