// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/cli/abi_text.hpp"
#include "agent/cli/subcommand.hpp"
#include "maps/abi/endpoint.h"

namespace twill::cli {

namespace {

struct Row {
    Ip ip;
    std::uint32_t ifindex = 0;
    std::string mac, host_mac;
    bool shaped = false;
};

Result<std::vector<Row>> read_maps(const Env& env)
{
    TWILL_TRY_AS(entries, env.maps.entries("tw_endpoints"));
    std::vector<Row> rows;
    for (const auto& entry : entries) {
        TWILL_TRY_AS(addr, as<tw_addr>(entry.key));
        TWILL_TRY_AS(endpoint, as<tw_endpoint>(entry.value));
        rows.push_back({ip_of(addr), endpoint.ifindex, mac_of(endpoint.mac).to_string(),
                        mac_of(endpoint.host_mac).to_string(), endpoint.shaped != 0});
    }
    return rows;
}

/// As the agent tells them: a node on the kernel overlay has no maps.
Result<std::vector<Row>> ask(const Env& env)
{
    TWILL_TRY_AS(list, ask_items(env, "/v1/endpoints"));
    std::vector<Row> rows;
    for (const auto& item : list) {
        TWILL_TRY_AS(ip, Ip::parse(item.text("ip")));
        rows.push_back({ip, item.number("ifindex"), item.text("mac"), item.text("host_mac"), item.flag("shaped")});
    }
    return rows;
}

Result<std::vector<Row>> read(const Env& env)
{
    auto rows = read_maps(env);
    if (!rows && rows.error().code == ENOENT)
        if (auto asked = ask(env)) rows = std::move(asked);
    if (!rows) return rows;
    std::ranges::sort(*rows, [](const Row& a, const Row& b) {
        return std::pair(a.ip.family(), a.ip) < std::pair(b.ip.family(), b.ip);
    });
    return rows;
}

} // namespace

Exit cmd_endpoints(const Env& env)
{
    const auto rows = read(env);
    if (!rows) return fail_map(env, rows.error());
    if (env.options.wants_json()) {
        Json list = Json::array();
        for (const auto& row : *rows)
            list.push_back({{"ip", row.ip.to_string()},
                            {"ifindex", row.ifindex},
                            {"interface", env.machine.interface_name(row.ifindex)},
                            {"mac", row.mac},
                            {"host_mac", row.host_mac},
                            {"shaped", row.shaped}});
        print_json(env, items(std::move(list)));
        return Exit::ok;
    }
    using enum Table::Align;
    Table table({{"IP", left}, {"INTERFACE", left}, {"MAC", left}, {"HOST-MAC", left}, {"SHAPED", left}});
    for (const auto& row : *rows)
        table.add(
            {row.ip.to_string(), show_interface(env, row.ifindex), row.mac, row.host_mac, row.shaped ? "yes" : "no"});
    table.print(env.out, !env.options.no_headers);
    return Exit::ok;
}

} // namespace twill::cli
