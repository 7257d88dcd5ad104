// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/teardown.hpp"

#include <vector>

#include "agent/dataplane/attachments.hpp"
#include "agent/dataplane/overlay_device.hpp"
#include "agent/nl/link.hpp"
#include "maps/pins.hpp"

namespace twill {

Result<> tear_down(const std::string& bpf_root, const std::string& overlay_name)
{
    Result<> outcome = Ok{};
    const auto note = [&](const Result<>& done) {
        if (!done) outcome = done.error();
    };
    const PinDir pins(bpf_root);
    TWILL_TRY_AS(socket, nl::Socket::open());
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
    note(remove_overlay(socket, overlay_name));
    note(pins.remove_all());
    return outcome;
}

} // namespace twill
