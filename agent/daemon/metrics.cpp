// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/metrics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <chrono>
#include <map>
#include <string_view>

#include "maps/nat_halves.hpp"

namespace twill {

namespace {

constexpr std::chrono::seconds kServesFor{5};
constexpr std::size_t kTop = 10;

struct Reason {
    std::string_view name;
    std::string_view kind;
};
#define X(name, class, text) Reason{#name, #class},
constexpr std::array kReasons = {TW_REASONS(X)};
#undef X
#define X(name, field) std::string_view{#field},
constexpr std::array kHooks = {TW_HOOKS(X)};
#undef X
static_assert(sizeof(tw_reason_count) == sizeof(std::uint64_t) * TW_HOOK__MAX);
using Counts = std::array<std::uint64_t, TW_HOOK__MAX>;

std::string lower(std::string_view text)
{
    std::string out{text};
    std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return out;
}

void head(std::string& out, std::string_view name, std::string_view type, std::string_view help)
{
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void packets(std::string& out, const std::vector<tw_reason_count>& counts)
{
    if (counts.empty()) return;
    head(out, "twill_packets_total", "counter", "Packets that the programs saw, by what became of them.");
    for (std::size_t reason = 0; reason < std::min(counts.size(), kReasons.size()); ++reason) {
        const auto by_hook = std::bit_cast<Counts>(counts[reason]);
        for (std::size_t hook = 0; hook < kHooks.size(); ++hook)
            out += fmt::format("twill_packets_total{{reason=\"{}\",class=\"{}\",hook=\"{}\"}} {}\n",
                               lower(kReasons[reason].name), lower(kReasons[reason].kind), kHooks[hook], by_hook[hook]);
    }
}

void nat(std::string& out, const MetricsView::Nat& nat)
{
    std::map<std::string, std::size_t> by_protocol = {{"icmp", 0}, {"tcp", 0}, {"udp", 0}};
    std::size_t plain = 0;
    for (const auto& flow : nat.flows) {
        if (!flow.is_alive()) continue;
        if (flow.plain)
            ++plain;
        else
            ++by_protocol[nat_protocol_name(flow.proto)];
    }
    head(out, "twill_nat_flows", "gauge", "Masqueraded flows that live.");
    for (const auto& [protocol, count] : by_protocol)
        out += fmt::format("twill_nat_flows{{protocol=\"{}\"}} {}\n", protocol, count);
    head(out, "twill_nat_plain_flows", "gauge", "Flows from outside to pods, noted so that they are not masqueraded.");
    out += fmt::format("twill_nat_plain_flows {}\n", plain);
    head(out, "twill_nat_capacity", "gauge", "How many flows, masqueraded and noted, there is room for.");
    out += fmt::format("twill_nat_capacity {}\n", nat.capacity);
    head(out, "twill_nat_ports", "gauge", "Ports for flows to one remote end.");
    out += fmt::format("twill_nat_ports {}\n", nat.ports);
    head(out, "twill_nat_destination_flows", "gauge", "Masqueraded flows to the remote ends with the most.");
    for (const auto& to : top_destinations(nat.flows, kTop))
        out += fmt::format(
            "twill_nat_destination_flows{{remote=\"{}\",remote_port=\"{}\",protocol=\"{}\",address=\"{}\"}} {}\n",
            to.remote.to_string(), to.remote_port, nat_protocol_name(to.proto), to.addr.to_string(), to.flows);
}

std::vector<tw_reason_count> read_packets(const PinDir& pins)
{
    const auto map = PerCpuArray<tw_reason_count>::open(pins.map("tw_reasons"));
    if (!map) return {};
    std::vector<tw_reason_count> counts;
    for (unsigned reason = 0; reason < TW_R__MAX; ++reason) {
        const auto cpus = map->get(reason);
        if (!cpus) break;
        Counts sum{};
        for (const auto& cpu : *cpus) {
            const auto one = std::bit_cast<Counts>(cpu);
            for (std::size_t hook = 0; hook < sum.size(); ++hook) sum[hook] += one[hook];
        }
        counts.push_back(std::bit_cast<tw_reason_count>(sum));
    }
    return counts;
}

std::optional<MetricsView::Nat> read_nat(const PinDir& pins, std::size_t capacity)
{
    const auto flows = NatFlowMap::open(pins.map("tw_nat_fwd"));
    const auto range = Map<unsigned, tw_nat_range>::open(pins.map("tw_nat_range"));
    if (!flows || !range) return std::nullopt;
    MetricsView::Nat nat;
    const auto now = nat_now();
    const auto read = for_each_flow(*flows, [&](const tw_nat_key& key, const tw_nat_flow& half) {
        nat.flows.push_back(from_forward_half(key, half, now));
    });
    if (!read) return std::nullopt;
    nat.capacity = capacity;
    std::vector<tw_nat_range> blocks(TW_NAT_RANGES);
    for (unsigned i = 0; i < blocks.size(); ++i)
        if (const auto block = range->get(i); block && *block) blocks[i] = **block;
    nat.ports = port_count(port_ranges(blocks));
    return nat;
}

} // namespace

std::string metrics_text(const MetricsView& view)
{
    std::string out;
    head(out, "twill_ready", "gauge", "1 when the node is ready.");
    out += fmt::format("twill_ready {}\n", view.is_ready ? 1 : 0);
    packets(out, view.packets);
    if (view.nat) nat(out, *view.nat);
    return out;
}

const std::string& Metrics::text(bool is_ready, std::optional<std::size_t> nat_capacity)
{
    const auto now = clock_.steady();
    if (read_ && now - *read_ < kServesFor) return text_;
    MetricsView view;
    view.is_ready = is_ready;
    view.packets = read_packets(pins_);
    if (nat_capacity) view.nat = read_nat(pins_, *nat_capacity);
    text_ = metrics_text(view);
    read_ = now;
    return text_;
}

} // namespace twill
