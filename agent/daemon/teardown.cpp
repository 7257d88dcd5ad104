// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/teardown.hpp"

#include <vector>

#include "agent/daemon/forward_table.hpp"
#include "agent/dataplane/attachments.hpp"
#include "agent/dataplane/overlay_device.hpp"
#include "agent/nl/link.hpp"
#include "maps/pins.hpp"

namespace twill {

Result<> take_programs_off(nl::Socket& socket, const PinDir& pins)
{
    Result<> outcome = Ok{};
    const auto note = [&](const Result<>& done) {
        if (!done) outcome = done.error();
    };
    TWILL_TRY_AS(links, nl::links(socket));
    std::vector<IfIndex> interfaces;
    interfaces.reserve(links.size());
    for (const auto& link : links) interfaces.push_back(link.index);

    // Also what another version attached: each knows the qdiscs that it made. Without the map (pins lost) our filters
    // are still known by their handle; a qdisc of ours then stays.
    auto schemas = pins.others();
    schemas.push_back(pins);
    for (const auto& schema : schemas) {
        auto owned = Map<unsigned, tw_owned>::open(schema.map("tw_owned"));
        if (!owned && owned.error().code != ENOENT) note(owned.error());
        Attachments attachments(socket, pins, owned ? *std::move(owned) : Map<unsigned, tw_owned>{}, true);
        note(attachments.sweep({}, interfaces));
    }
    const bool has_pins = pins.is_filled() || !pins.list_maps().empty() || !pins.others().empty();
    if (has_pins) note(pins.remove_all());
    return outcome;
}

Result<> tear_down(const std::string& bpf_root, const std::string& overlay_name)
{
    const PinDir pins(bpf_root);
    TWILL_TRY_AS(socket, nl::Socket::open());
    Result<> outcome = take_programs_off(socket, pins);
    if (auto done = del_forward_table(); !done) outcome = done;
    if (auto done = remove_overlay(socket, overlay_name); !done) outcome = done;
    if (auto done = pins.remove_all(); !done) outcome = done; // what a start that failed left
    return outcome;
}

} // namespace twill
