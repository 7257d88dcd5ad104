// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/takeover.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "maps/carry.hpp"

namespace twill {

namespace {

/// tw_claims and tw_events hold what was reported lately: it is reported again.
constexpr std::array<std::string_view, 10> kCarried = {
    "tw_peers_v4", "tw_peers_v6",  "tw_peers_lpm4", "tw_peers_lpm6", "tw_prefixes",
    "tw_nodes",    "tw_endpoints", "tw_reasons",    "tw_peer_stats", "tw_owned",
};
constexpr std::array<std::string_view, 2> kFlows = {"tw_flows_tcp", "tw_flows_any"};
/// The other maps of masquerade are a memory of these, or written at every start.
constexpr std::array<std::string_view, 3> kNat = {"tw_nat_fwd", "tw_nat_rev", "tw_nat_slots"};

Result<> carry(const PinDir& from, const PinDir& to, std::string_view name)
{
    TWILL_TRY_AS(source, RawMap::open(from.map(name)));
    TWILL_TRY_AS(target, RawMap::open(to.map(name)));
    TWILL_TRY(carry_over(source, target));
    return Ok{};
}

} // namespace

TakeOver take_over_maps(const PinDir& pins, bool with_flows, bool with_nat)
{
    TakeOver outcome;
    const auto others = pins.others();
    // One that is not filled was never in use, or has been taken over already.
    const auto from = std::find_if(others.begin(), others.end(), [](const PinDir& other) { return other.is_filled(); });
    if (from == others.end()) return outcome;
    outcome.from = from->maps();
    std::vector<std::string_view> names(kCarried.begin(), kCarried.end());
    if (with_flows) names.insert(names.end(), kFlows.begin(), kFlows.end());
    if (with_nat) names.insert(names.end(), kNat.begin(), kNat.end());
    for (const auto name : names) {
        if (auto done = carry(*from, pins, name); done)
            outcome.carried.emplace_back(name);
        else
            outcome.left.push_back(done.error());
    }
    return outcome;
}

} // namespace twill
