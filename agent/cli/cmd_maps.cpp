// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "agent/cli/map_names.hpp"
#include "agent/cli/subcommand.hpp"

namespace twill::cli {

namespace {

std::string_view text_of(std::string_view name)
{
    const auto found = std::ranges::find(kMapTexts, name, &MapText::name);
    return found == kMapTexts.end() ? std::string_view{} : found->text;
}

Result<std::vector<MapInfo>> read(const Env& env)
{
    TWILL_TRY_AS(names, env.maps.names());
    std::vector<MapInfo> maps;
    for (const auto& name : names) {
        TWILL_TRY_AS(info, env.maps.info(name));
        maps.push_back(std::move(info));
    }
    return maps;
}

template <typename T>
Json or_null(const std::optional<T>& value)
{
    return value ? Json(*value) : Json();
}

Json to_json(const MapInfo& map)
{
    return {{"name", map.name},
            {"type", map.type},
            {"id", map.id},
            {"key_bytes", map.key_bytes},
            {"value_bytes", map.value_bytes},
            {"entries", or_null(map.entries)},
            {"capacity", map.max_entries},
            {"memory_bytes", or_null(map.memory_bytes)},
            {"text", text_of(map.name)}};
}

} // namespace

Exit cmd_maps(const Env& env)
{
    const auto maps = read(env);
    if (!maps) return fail_map(env, maps.error());
    if (maps->empty()) return fail(env, Exit::not_found, "no maps under " + env.options.bpf_root);
    if (env.options.wants_json()) {
        Json list = Json::array();
        for (const auto& map : *maps) list.push_back(to_json(map));
        print_json(env, items(std::move(list)));
        return Exit::ok;
    }
    using enum Table::Align;
    Table table(
        {{"NAME", left}, {"TYPE", left}, {"ENTRIES", right}, {"CAPACITY", right}, {"MEMORY", right}, {"WHAT", left}});
    for (const auto& map : *maps)
        table.add({map.name, map.type, map.entries ? std::to_string(*map.entries) : "", std::to_string(map.max_entries),
                   map.memory_bytes ? human_bytes(*map.memory_bytes) : "", std::string(text_of(map.name))});
    table.print(env.out, !env.options.no_headers);
    return Exit::ok;
}

} // namespace twill::cli
