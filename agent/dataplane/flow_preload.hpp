// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>

#include "maps/pins.hpp"
#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

/// Marks the flows that conntrack translates as the stack's, in the pinned flow maps: for programs that cannot ask
/// conntrack themselves, before they carry anything. Only flows with both ends in `network` could be carried.
/// Returns how many connections there were.
Result<std::size_t> preload_flows(const PinDir& pins, const PerFamily<std::optional<Cidr>>& network);

/// Makes conntrack forget the TCP connections between two addresses of `network` that it does not translate: it did not
/// see what programs carried of them, or will not.
Result<> forget_flows(const PerFamily<std::optional<Cidr>>& network);

} // namespace twill
