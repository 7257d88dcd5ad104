// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "agent/nl/socket.hpp"
#include "maps/pins.hpp"
#include "twill/result.hpp"

namespace twill {

/// Takes programs, qdiscs of ours and pins away, of all versions; the overlay device stays. Goes on after errors and
/// returns the last one.
Result<> take_programs_off(nl::Socket& socket, const PinDir& pins);

/// Takes the data plane away and leaves the node as it was before the first start: programs, qdiscs of ours, the
/// overlay device with its routes and addresses, routes to peers, pins. Knows ours by pins, handles, alias and route
/// protocol, so it works without a running agent. Goes on after errors and returns the last one.
Result<> tear_down(const std::string& bpf_root, const std::string& overlay_name);

} // namespace twill
