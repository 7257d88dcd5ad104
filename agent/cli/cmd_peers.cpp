// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <utility>

#include "agent/cli/abi_text.hpp"
#include "agent/cli/subcommand.hpp"
#include "maps/abi/peer.h"

namespace twill::cli {

namespace {

struct Row {
    Cidr pods;
    std::string node, mode, nexthop, vtep_mac;
    std::uint32_t ifindex = 0;
    unsigned mtu = 0;
    bool zero_csum6 = false;
    std::optional<tw_peer_stats> stats; ///< nullopt: the kernel overlay counts nothing for a peer
};

const char* path_of(const tw_peer& peer) { return peer.mode == TW_MODE_DIRECT ? "direct" : "vxlan"; }

template <typename Key>
Result<Cidr> cidr_of(const Bytes& bytes)
{
    TWILL_TRY_AS(key, as<Key>(bytes));
    TWILL_TRY_AS(ip, Ip::from_network(key.addr, sizeof(key.addr)));
    return Cidr::make(ip, key.bits);
}

/// Adds the peers of one map with their counters.
template <typename Key>
Result<> read(const Env& env, const std::string& map, std::vector<Row>& rows)
{
    TWILL_TRY_AS(entries, env.maps.entries(map));
    for (const auto& entry : entries) {
        TWILL_TRY_AS(pods, cidr_of<Key>(entry.key));
        TWILL_TRY_AS(peer, as<tw_peer>(entry.value));
        TWILL_TRY_AS(slots, env.maps.lookup("tw_peer_stats", bytes_of(peer.stats)));
        Row row;
        row.pods = pods;
        row.node = ip_of(peer.node).to_string();
        row.mode = path_of(peer);
        row.nexthop = ip_of(peer.nexthop).to_string();
        row.vtep_mac = mac_of(peer.vtep_mac).to_string();
        row.ifindex = peer.wire;
        row.mtu = peer.mtu;
        row.zero_csum6 = peer.zero_csum6 != 0;
        row.stats = slots ? sum_over_cpus<tw_peer_stats>(*slots) : tw_peer_stats{};
        rows.push_back(std::move(row));
    }
    return Ok{};
}

Result<std::vector<Row>> ask(const Env& env)
{
    TWILL_TRY_AS(list, ask_items(env, "/v1/peers"));
    std::vector<Row> rows;
    for (const auto& item : list) {
        TWILL_TRY_AS(pods, Cidr::parse(text(item, "pods")));
        Row row;
        row.pods = pods;
        row.node = text(item, "node");
        row.mode = text(item, "mode");
        row.nexthop = text(item, "nexthop");
        row.vtep_mac = text(item, "vtep_mac");
        row.ifindex = static_cast<std::uint32_t>(number(item, "ifindex"));
        row.mtu = static_cast<unsigned>(number(item, "mtu"));
        row.zero_csum6 = flag(item, "zero_csum6");
        rows.push_back(std::move(row));
    }
    return rows;
}

Result<std::vector<Row>> read_maps(const Env& env)
{
    std::vector<Row> rows;
    TWILL_TRY(read<tw_cidr_v4>(env, "tw_peers_v4", rows));
    TWILL_TRY(read<tw_cidr_v4>(env, "tw_peers_lpm4", rows));
    TWILL_TRY(read<tw_cidr_v6>(env, "tw_peers_v6", rows));
    TWILL_TRY(read<tw_cidr_v6>(env, "tw_peers_lpm6", rows));
    return rows;
}

Json to_json(const Env& env, const Row& row)
{
    const auto count = [&](auto member) { return row.stats ? Json((*row.stats).*member) : Json(nullptr); };
    return {{"pods", row.pods.to_string()},
            {"node", row.node},
            {"mode", row.mode},
            {"nexthop", row.nexthop},
            {"ifindex", row.ifindex},
            {"interface", env.machine.interface_name(row.ifindex)},
            {"mtu", row.mtu},
            {"vtep_mac", row.vtep_mac},
            {"zero_csum6", row.zero_csum6},
            {"tx_packets", count(&tw_peer_stats::tx_packets)},
            {"tx_bytes", count(&tw_peer_stats::tx_bytes)},
            {"rx_packets", count(&tw_peer_stats::rx_packets)},
            {"rx_bytes", count(&tw_peer_stats::rx_bytes)}};
}

} // namespace

Exit cmd_peers(const Env& env)
{
    const auto rows = from_maps_or_agent(env, read_maps, ask, &Row::pods);
    if (!rows) return fail_map(env, rows.error());
    if (env.options.wants_json()) {
        Json list = Json::array();
        for (const Row& row : *rows) list.push_back(to_json(env, row));
        print_json(env, items(std::move(list)));
        return Exit::ok;
    }
    using enum Table::Align;
    Table table({{"PODS", left},
                 {"NODE", left},
                 {"PATH", left},
                 {"NEXTHOP", left},
                 {"INTERFACE", left},
                 {"MTU", right},
                 {"VTEP-MAC", left},
                 {"TX-PACKETS", right},
                 {"TX-BYTES", right},
                 {"RX-PACKETS", right},
                 {"RX-BYTES", right}});
    for (const auto& row : *rows) {
        const auto count = [&](auto member) { return row.stats ? std::to_string((*row.stats).*member) : "-"; };
        table.add({row.pods.to_string(), row.node, row.mode, row.nexthop, show_interface(env, row.ifindex),
                   std::to_string(row.mtu), row.vtep_mac == Mac{}.to_string() ? "" : row.vtep_mac,
                   count(&tw_peer_stats::tx_packets), count(&tw_peer_stats::tx_bytes),
                   count(&tw_peer_stats::rx_packets), count(&tw_peer_stats::rx_bytes)});
    }
    table.print(env.out, !env.options.no_headers);
    return Exit::ok;
}

} // namespace twill::cli
