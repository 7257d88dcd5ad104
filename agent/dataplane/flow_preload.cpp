// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/flow_preload.hpp"

#include <netinet/in.h>

#include "agent/nl/conntrack.hpp"
#include "maps/codec.hpp"
#include "maps/map.hpp"

namespace twill {

namespace {

bool is_inside(const nl::Tuple& tuple, const PerFamily<std::optional<Cidr>>& network)
{
    const auto& pods = network[tuple.src.family()];
    return pods && pods->contains(tuple.src) && pods->contains(tuple.dst);
}

} // namespace

Result<std::size_t> preload_flows(const PinDir& pins, const PerFamily<std::optional<Cidr>>& network)
{
    const auto is_wanted = [&](const nl::Connection& connection) {
        return connection.is_translated &&
               (is_inside(connection.original, network) || is_inside(connection.reply, network));
    };
    TWILL_TRY_AS(connections, nl::connections(is_wanted));
    using Flows = Map<tw_flow, tw_flow_state>;
    TWILL_TRY_AS(tcp, Flows::open(pins.map("tw_flows_tcp")));
    TWILL_TRY_AS(any, Flows::open(pins.map("tw_flows_any")));
    for (const auto& connection : connections)
        for (const auto* tuple : {&connection.original, &connection.reply}) {
            if (!is_inside(*tuple, network)) continue;
            const auto key = to_flow(tuple->src, tuple->sport, tuple->dst, tuple->dport, connection.proto);
            TWILL_TRY((connection.proto == IPPROTO_TCP ? tcp : any).put(key, tw_flow_state{TW_VERDICT_STACK}));
        }
    return connections.size();
}

Result<> forget_flows(const PerFamily<std::optional<Cidr>>& network)
{
    TWILL_TRY_AS(connections, nl::connections([&](const nl::Connection& connection) {
                     return connection.proto == IPPROTO_TCP && !connection.is_translated &&
                            is_inside(connection.original, network);
                 }));
    return nl::forget(connections);
}

} // namespace twill
