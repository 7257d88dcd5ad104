// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cctype>

#include "agent/cli/subcommand.hpp"
#include "maps/abi/reasons.h"

namespace twill::cli {

namespace {

struct Reason {
    std::string_view name;
    std::string_view kind; ///< "FAST", "STACK", "DROP"
    std::string_view text;
};

#define X(name, class, text) Reason{#name, #class, text},
constexpr std::array kReasons = {TW_REASONS(X)};
#undef X
#define X(name, field) std::string_view{#field},
constexpr std::array kHooks = {TW_HOOKS(X)};
#undef X

std::string lower(std::string_view text)
{
    std::string out{text};
    std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return out;
}

std::string upper(std::string_view text)
{
    std::string out{text};
    std::ranges::transform(out, out.begin(),
                           [](unsigned char c) { return c == '_' ? '-' : static_cast<char>(std::toupper(c)); });
    return out;
}

/// Packets of one reason, by hook.
using Counts = std::array<std::uint64_t, TW_HOOK__MAX>;

std::uint64_t total(const Counts& counts)
{
    std::uint64_t sum = 0;
    for (const auto count : counts) sum += count;
    return sum;
}

Result<std::vector<Counts>> read(const Env& env)
{
    std::vector<Counts> all;
    for (std::uint32_t reason = 0; reason < kReasons.size(); ++reason) {
        TWILL_TRY_AS(slots, env.maps.lookup("tw_reasons", bytes_of(reason)));
        static_assert(sizeof(tw_reason_count) == sizeof(Counts));
        // A map of an older version is shorter: its missing reasons never happened.
        all.push_back(slots ? sum_over_cpus<Counts>(*slots) : Counts{});
    }
    return all;
}

Json to_json(const Reason& reason, const Counts& counts)
{
    Json hooks = Json::object();
    for (std::size_t i = 0; i < kHooks.size(); ++i) hooks[std::string(kHooks[i])] = counts[i];
    return {{"reason", lower(reason.name)},
            {"class", lower(reason.kind)},
            {"text", reason.text},
            {"packets", total(counts)},
            {"hooks", std::move(hooks)}};
}

} // namespace

Exit cmd_drops(const Env& env)
{
    const auto counts = read(env);
    if (!counts) return fail_map(env, counts.error());
    if (env.options.wants_json()) {
        Json list = Json::array();
        for (std::size_t i = 0; i < kReasons.size(); ++i) list.push_back(to_json(kReasons[i], (*counts)[i]));
        print_json(env, items(std::move(list)));
        return Exit::ok;
    }
    using enum Table::Align;
    std::vector<Table::Column> columns = {{"REASON", left}, {"CLASS", left}, {"PACKETS", right}};
    for (const auto hook : kHooks) columns.push_back({upper(hook), right});
    columns.push_back({"MEANING", left});
    Table table(std::move(columns));
    for (std::size_t i = 0; i < kReasons.size(); ++i) {
        const Counts& row = (*counts)[i];
        if (total(row) == 0 && !env.options.all) continue;
        std::vector<std::string> cells = {lower(kReasons[i].name), lower(kReasons[i].kind), std::to_string(total(row))};
        for (const auto count : row) cells.push_back(std::to_string(count));
        cells.emplace_back(kReasons[i].text);
        table.add(std::move(cells));
    }
    table.print(env.out, !env.options.no_headers);
    return Exit::ok;
}

} // namespace twill::cli
