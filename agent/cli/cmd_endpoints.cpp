// SPDX-License-Identifier: Apache-2.0
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

Result<std::vector<Row>> ask(const Env& env)
{
    TWILL_TRY_AS(list, ask_items(env, "/v1/endpoints"));
    std::vector<Row> rows;
    for (const auto& item : list) {
        TWILL_TRY_AS(ip, Ip::parse(text(item, "ip")));
        rows.push_back({ip, static_cast<std::uint32_t>(number(item, "ifindex")), text(item, "mac"),
                        text(item, "host_mac"), flag(item, "shaped")});
    }
    return rows;
}

} // namespace

Exit cmd_endpoints(const Env& env)
{
    const auto rows = from_maps_or_agent(env, read_maps, ask, &Row::ip);
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
