// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "agent/cli/abi_text.hpp"
#include "agent/cli/subcommand.hpp"
#include "maps/abi/endpoint.h"

namespace twill::cli {

namespace {

using Row = std::pair<Ip, tw_endpoint>;

Result<std::vector<Row>> read(const Env& env)
{
    TWILL_TRY_AS(entries, env.maps.entries("tw_endpoints"));
    std::vector<Row> rows;
    for (const auto& entry : entries) {
        TWILL_TRY_AS(addr, as<tw_addr>(entry.key));
        TWILL_TRY_AS(endpoint, as<tw_endpoint>(entry.value));
        rows.emplace_back(ip_of(addr), endpoint);
    }
    std::ranges::sort(rows, [](const Row& a, const Row& b) {
        return std::pair(a.first.family(), a.first) < std::pair(b.first.family(), b.first);
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
        for (const auto& [ip, endpoint] : *rows)
            list.push_back({{"ip", ip.to_string()},
                            {"ifindex", endpoint.ifindex},
                            {"interface", env.machine.interface_name(endpoint.ifindex)},
                            {"mac", mac_of(endpoint.mac).to_string()},
                            {"host_mac", mac_of(endpoint.host_mac).to_string()},
                            {"shaped", endpoint.shaped != 0}});
        print_json(env, items(std::move(list)));
        return Exit::ok;
    }
    using enum Table::Align;
    Table table({{"IP", left}, {"INTERFACE", left}, {"MAC", left}, {"HOST-MAC", left}, {"SHAPED", left}});
    for (const auto& [ip, endpoint] : *rows)
        table.add({ip.to_string(), show_interface(env, endpoint.ifindex), mac_of(endpoint.mac).to_string(),
                   mac_of(endpoint.host_mac).to_string(), endpoint.shaped != 0 ? "yes" : "no"});
    table.print(env.out, !env.options.no_headers);
    return Exit::ok;
}

} // namespace twill::cli
