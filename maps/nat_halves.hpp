// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "maps/abi/nat.h"
#include "maps/map.hpp"
#include "twill/result.hpp"

namespace twill {

using NatFlowMap = Map<tw_nat_key, tw_nat_flow>;

/// Visits all entries of tw_nat_fwd or tw_nat_rev, some thousands at a time: a tenth of a second for 100,000. One that
/// comes or goes meanwhile may be missed or seen twice. `visit` may delete entries, but not of this map.
Result<> for_each_flow(const NatFlowMap& map, const std::function<void(const tw_nat_key&, const tw_nat_flow&)>& visit);

/// CLOCK_MONOTONIC in seconds, as tw_nat_flow has it.
std::uint32_t nat_now();
/// Its time is not over.
bool is_alive(const tw_nat_flow& half, std::uint32_t now);

/// The key of the other half: of `key` in tw_nat_rev that in tw_nat_fwd (`reply`), and the reverse. A plain one has
/// none.
tw_nat_key other_half(const tw_nat_key& key, const tw_nat_flow& half, bool reply);

/// Flows in tw_nat_fwd whose time is not over. Not counted: plain ones, and TCP connections that are closed and only
/// remembered.
Result<std::size_t> count_flows(const NatFlowMap& fwd);

} // namespace twill
