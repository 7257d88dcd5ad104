// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "agent/cli/nat.hpp"
#include "maps/abi/reasons.h"

namespace twill::cli {

namespace {

constexpr std::size_t kTop = 10;

/// Counters that tell of masquerade; those with a class of drop are refusals.
struct Counter {
    tw_reason reason;
    const char* name;
    const char* text;
};
#define X(name, class, text) text,
constexpr const char* kReasonTexts[] = {TW_REASONS(X)};
#undef X
constexpr std::array kRefusals = {Counter{TW_R_NAT_PORTS, "nat_ports", kReasonTexts[TW_R_NAT_PORTS]},
                                  Counter{TW_R_NAT_TABLE, "nat_table", kReasonTexts[TW_R_NAT_TABLE]},
                                  Counter{TW_R_NAT_ADDRESS, "nat_address", kReasonTexts[TW_R_NAT_ADDRESS]},
                                  Counter{TW_R_NAT_FRAGMENT, "nat_fragment", kReasonTexts[TW_R_NAT_FRAGMENT]}};

struct Stats {
    std::optional<tw_cfg> cfg; ///< nullopt: no program is loaded, or of another version
    std::uint64_t capacity = 0;
    std::uint64_t live = 0, plain = 0, expired = 0, lone_halves = 0;
    std::map<std::string, std::uint64_t> protocols, states;
    std::array<std::uint64_t, kRefusals.size()> refusals{};
    std::uint64_t packets_out = 0, packets_in = 0;
    std::vector<PortRange> ranges;
    std::vector<NatDestination> destinations;

    double fill() const { return capacity == 0 ? 0 : static_cast<double>(live) / static_cast<double>(capacity); }
    /// How much of the ports is in use towards it; nullopt: nothing that is limited.
    std::optional<double> ports_in_use(const NatDestination& to) const
    {
        const auto ports = port_count(ranges);
        if (ports == 0 || !nat_has_ports(to.proto)) return std::nullopt;
        return static_cast<double>(to.flows) / static_cast<double>(ports);
    }
};

Result<std::uint64_t> packets(const Env& env, tw_reason reason)
{
    TWILL_TRY_AS(slots, env.maps.lookup("tw_reasons", bytes_of(std::uint32_t{reason})));
    if (!slots) return std::uint64_t{0}; // a map of an older version is shorter
    std::uint64_t sum = 0;
    using Counts = std::array<std::uint64_t, TW_HOOK__MAX>;
    for (const auto count : sum_over_cpus<Counts>(*slots)) sum += count;
    return sum;
}

Result<std::vector<PortRange>> read_ranges(const Env& env)
{
    TWILL_TRY_AS(entries, env.maps.entries("tw_nat_range"));
    std::vector<tw_nat_range> blocks(entries.size());
    for (const auto& entry : entries) {
        TWILL_TRY_AS(index, as<std::uint32_t>(entry.key));
        TWILL_TRY_AS(block, as<tw_nat_range>(entry.value));
        if (index < blocks.size()) blocks[index] = block;
    }
    return port_ranges(blocks);
}

void count(Stats& stats, const std::vector<NatFlow>& flows)
{
    for (const auto& flow : flows) {
        if (!flow.is_alive()) {
            ++stats.expired;
            continue;
        }
        ++stats.live;
        ++stats.protocols[nat_protocol_name(flow.proto)];
        if (flow.plain)
            ++stats.plain;
        else
            ++stats.states[nat_state_name(flow.state)];
        if (!flow.plain && flow.halves != NatFlow::Halves::both) ++stats.lone_halves;
    }
}

Result<Stats> read(const Env& env, std::size_t top)
{
    Stats stats;
    TWILL_TRY_AS(flows, read_nat_flows(env));
    count(stats, flows);
    stats.destinations = top_destinations(flows, top);
    TWILL_TRY_AS(ranges, read_ranges(env));
    stats.ranges = ranges;
    if (const auto cfg = env.maps.config()) stats.cfg = *cfg;
    if (stats.cfg && stats.cfg->nat_max != 0) {
        stats.capacity = stats.cfg->nat_max;
    } else {
        TWILL_TRY_AS(info, env.maps.info("tw_nat_slots"));
        stats.capacity = info.max_entries;
    }
    for (std::size_t i = 0; i < kRefusals.size(); ++i) {
        TWILL_TRY_AS(number, packets(env, kRefusals[i].reason));
        stats.refusals[i] = number;
    }
    TWILL_TRY_AS(out, packets(env, TW_R_NAT_OUT));
    TWILL_TRY_AS(in, packets(env, TW_R_NAT_IN));
    stats.packets_out = out;
    stats.packets_in = in;
    return stats;
}

Json to_json(const Stats& stats)
{
    Json refused = Json::object(), ranges = Json::array(), destinations = Json::array();
    for (std::size_t i = 0; i < kRefusals.size(); ++i) refused[kRefusals[i].name] = stats.refusals[i];
    for (const auto& range : stats.ranges) ranges.push_back({{"first", range.first}, {"last", range.last}});
    for (const auto& to : stats.destinations) {
        const auto share = stats.ports_in_use(to);
        destinations.push_back({{"remote", to.remote.to_string()},
                                {"remote_port", to.remote_port},
                                {"protocol", nat_protocol_name(to.proto)},
                                {"address", to.addr.to_string()},
                                {"flows", to.flows},
                                {"ports_in_use", share ? Json(*share) : Json()}});
    }
    return {{"rules", stats.cfg ? Json(nat_rules_name(stats.cfg->nat)) : Json()},
            {"flows",
             {{"live", stats.live},
              {"plain", stats.plain},
              {"lone_halves", stats.lone_halves},
              {"expired", stats.expired},
              {"capacity", stats.capacity},
              {"fill", stats.fill()}}},
            {"protocols", Json(stats.protocols)},
            {"states", Json(stats.states)},
            {"packets", {{"out", stats.packets_out}, {"in", stats.packets_in}}},
            {"refused", std::move(refused)},
            {"ports",
             {{"ranges", std::move(ranges)},
              {"count", port_count(stats.ranges)},
              {"keep", stats.cfg ? Json(stats.cfg->nat_keep != 0) : Json()}}},
            {"destinations", std::move(destinations)}};
}

/// One "name  text" line; names of one width.
void line(const Env& env, std::string name, const std::string& value)
{
    name.resize(14, ' ');
    env.out << name << value << '\n';
}

std::string percent(double share) { return fmt::format("{:.1f} %", share * 100); }

std::string joined(const std::map<std::string, std::uint64_t>& counts)
{
    std::string out;
    for (const auto& [name, number] : counts) out += (out.empty() ? "" : ", ") + name + " " + std::to_string(number);
    return out.empty() ? "-" : out;
}

std::string joined(const std::vector<PortRange>& ranges)
{
    std::string out;
    for (const auto& range : ranges) {
        out += (out.empty() ? "" : ", ") + std::to_string(range.first);
        if (range.last != range.first) out += "-" + std::to_string(range.last);
    }
    return out.empty() ? "none" : out;
}

std::string rules_text(const Stats& stats)
{
    if (!stats.cfg) return "unknown: no program of this version is loaded";
    if (stats.cfg->nat == TW_NAT_OFF) return "off: nothing is masqueraded by twill";
    return "on, by the rules that flannel has with " + std::string(nat_rules_name(stats.cfg->nat));
}

void print_summary(const Env& env, const Stats& stats)
{
    line(env, "masquerade", rules_text(stats));
    line(env, "flows",
         fmt::format("{} of {} ({}), and {} that are over, whose places are free", stats.live, stats.capacity,
                     percent(stats.fill()), stats.expired));
    if (stats.plain > 0)
        line(env, "", std::to_string(stats.plain) + " of them came from outside and are not masqueraded");
    if (stats.lone_halves > 0)
        line(env, "", std::to_string(stats.lone_halves) + " of them are halves (twillctl nat list shows which)");
    line(env, "by protocol", joined(stats.protocols));
    line(env, "by state", joined(stats.states));
    line(env, "packets", fmt::format("{} out, {} in", stats.packets_out, stats.packets_in));
    for (std::size_t i = 0; i < kRefusals.size(); ++i)
        line(env, i == 0 ? "refused" : "",
             fmt::format("{} {}: {}", stats.refusals[i], kRefusals[i].name, kRefusals[i].text));
    std::string how;
    if (stats.cfg) how = stats.cfg->nat_keep != 0 ? "; a pod's own port is kept where it is free" : "; taken at random";
    line(env, "ports",
         joined(stats.ranges) + fmt::format(" ({} for each remote end and protocol{})", port_count(stats.ranges), how));
}

void print_destinations(const Env& env, const Stats& stats)
{
    if (stats.destinations.empty()) return;
    env.out << '\n';
    using enum Table::Align;
    Table table({{"REMOTE", left}, {"PROTO", left}, {"FROM", left}, {"FLOWS", right}, {"PORTS-IN-USE", right}});
    for (const auto& to : stats.destinations) {
        const auto share = stats.ports_in_use(to);
        table.add({show_end(to.remote, to.remote_port), nat_protocol_name(to.proto), to.addr.to_string(),
                   std::to_string(to.flows), share ? percent(*share) : ""});
    }
    table.print(env.out, !env.options.no_headers);
}

} // namespace

Exit nat_stats(const Env& env)
{
    std::size_t top = kTop;
    const std::string& text = env.options.nat.top;
    const char* const last = text.data() + text.size();
    if (!text.empty())
        if (const auto read = std::from_chars(text.data(), last, top); read.ec != std::errc{} || read.ptr != last)
            return fail(env, Exit::usage, "--top \"" + text + "\" is no number");
    const auto stats = read(env, top);
    if (!stats) return fail_map(env, stats.error());
    if (env.options.wants_json()) {
        print_json(env, to_json(*stats));
        return Exit::ok;
    }
    print_summary(env, *stats);
    print_destinations(env, *stats);
    return Exit::ok;
}

} // namespace twill::cli
