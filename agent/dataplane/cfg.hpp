// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "agent/dataplane/features.hpp"
#include "maps/abi/cfg.h"
#include "maps/abi/nat.h"
#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/mac.hpp"

namespace twill {

/// What the programs' constants are made of.
struct CfgInput {
    PerFamily<std::optional<Cidr>> network;  ///< the cluster's pods
    PerFamily<std::optional<Cidr>> own_pods; ///< this node's
    PerFamily<std::optional<Ip>> node;       ///< own address on the wire
    Vni vni;
    std::uint16_t port = 8472;                          ///< host order
    std::uint16_t sport_min = 32768, sport_max = 60999; ///< host order
    PerFamily<IfIndex> overlay;                         ///< by family of the pods' addresses
    PerFamily<Mac> vtep_mac;                            ///< of these devices
    Mac vtep_mac_old;                                   ///< also accepted; zero: none
    tw_anti_spoof anti_spoof = TW_SPOOF_LOOSE;
    bool fast = true;
    bool vxlan_device = true;
    bool flannel = false; ///< devices and routes are flannel's
    bool gbp = false;
    tw_nat_rules nat = TW_NAT_OFF;
    bool nat_keep = false;  ///< a port that is free is kept
    bool nat_notes = false; ///< conntrack cannot tell who began a flow
    unsigned nat_max = 0;   ///< flows that there is room for
    KernelFeatures features;
};

tw_cfg make_cfg(const CfgInput& input);
/// Same constants: loading again would change nothing.
bool same_cfg(const tw_cfg& a, const tw_cfg& b);

} // namespace twill
