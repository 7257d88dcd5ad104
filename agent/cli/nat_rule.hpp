// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "maps/abi/cfg.h"
#include "twill/ip.hpp"

namespace twill::cli {

/// Which row of the table in docs/design/masquerade.md decides about a packet that begins a flow, as bpf/lib/nat.h
/// does.
struct NatRule {
    unsigned row = 0; ///< 0: none does, so the packet stays as it is
    bool masquerades = false;
    std::string text; ///< the row with this node's networks
};
NatRule nat_rule(const tw_cfg& cfg, const Ip& src, const Ip& dst, std::uint32_t mark);

/// Is the address in the network? One that stands for "none" has nothing in it.
bool is_in(const tw_net& net, const Ip& ip);
/// The overlay device or first pod address of this node.
bool is_own_host(const tw_cfg& cfg, const Ip& ip);

} // namespace twill::cli
