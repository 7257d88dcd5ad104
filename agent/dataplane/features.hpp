// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "twill/result.hpp"

namespace twill {

/// What the running kernel can do, found by doing it, never from its version (distributions carry features back).
struct KernelFeatures {
    bool tcx = false;          ///< TCX links (6.6)
    bool ct_lookup = false;    ///< bpf_skb_ct_lookup from tc (5.18), nf_conntrack loaded
    bool encap_l2_eth = false; ///< BPF_F_ADJ_ROOM_ENCAP_L2_ETH (5.13)
    bool check_mtu = false;    ///< bpf_check_mtu (5.12)
};

/// One feature by name, with what is lost without it.
struct FeatureInfo {
    std::string_view name;
    bool KernelFeatures::*on;
    std::string_view effect; ///< one line, for status
};
extern const std::array<FeatureInfo, 4> kFeatures;

/// Probes the kernel. Takes some tens of milliseconds. EPERM names the capability that is missing.
Result<KernelFeatures> probe_features();

} // namespace twill
