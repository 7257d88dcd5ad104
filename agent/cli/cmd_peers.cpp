// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "agent/cli/abi_text.hpp"
#include "agent/cli/subcommand.hpp"
#include "maps/abi/peer.h"

namespace twill::cli {

namespace {

struct Row {
    Cidr pods;
    tw_peer peer{};
    tw_peer_stats stats{};
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
        rows.push_back({pods, peer, slots ? sum_over_cpus<tw_peer_stats>(*slots) : tw_peer_stats{}});
    }
    return Ok{};
}

Result<std::vector<Row>> read_all(const Env& env)
{
    std::vector<Row> rows;
    TWILL_TRY(read<tw_cidr_v4>(env, "tw_peers_v4", rows));
    TWILL_TRY(read<tw_cidr_v4>(env, "tw_peers_lpm4", rows));
    TWILL_TRY(read<tw_cidr_v6>(env, "tw_peers_v6", rows));
    TWILL_TRY(read<tw_cidr_v6>(env, "tw_peers_lpm6", rows));
    // IPv4 first: as bytes an IPv4-mapped address sorts among the IPv6 ones.
    std::ranges::sort(rows, [](const Row& a, const Row& b) {
        return std::pair(a.pods.family(), a.pods) < std::pair(b.pods.family(), b.pods);
    });
    return rows;
}

Json to_json(const Env& env, const Row& row)
{
    return {{"pods", row.pods.to_string()},
            {"node", ip_of(row.peer.node).to_string()},
            {"mode", path_of(row.peer)},
            {"nexthop", ip_of(row.peer.nexthop).to_string()},
            {"ifindex", row.peer.wire},
            {"interface", env.machine.interface_name(row.peer.wire)},
            {"mtu", row.peer.mtu},
            {"vtep_mac", mac_of(row.peer.vtep_mac).to_string()},
            {"zero_csum6", row.peer.zero_csum6 != 0},
            {"tx_packets", row.stats.tx_packets},
            {"tx_bytes", row.stats.tx_bytes},
            {"rx_packets", row.stats.rx_packets},
            {"rx_bytes", row.stats.rx_bytes}};
}

} // namespace

Exit cmd_peers(const Env& env)
{
    const auto rows = read_all(env);
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
    for (const auto& [pods, peer, stats] : *rows) {
        const Mac mac = mac_of(peer.vtep_mac);
        table.add({pods.to_string(), ip_of(peer.node).to_string(), path_of(peer), ip_of(peer.nexthop).to_string(),
                   show_interface(env, peer.wire), std::to_string(peer.mtu), mac.is_zero() ? "" : mac.to_string(),
                   std::to_string(stats.tx_packets), std::to_string(stats.tx_bytes), std::to_string(stats.rx_packets),
                   std::to_string(stats.rx_bytes)});
    }
    table.print(env.out, !env.options.no_headers);
    return Exit::ok;
}

} // namespace twill::cli
