// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "twill/result.hpp"

namespace twill {

/// What the running kernel can do, found by doing it, never from its version (distributions carry features back).
struct KernelFeatures {
    // What twill has another way for, and may be told not to use.
    bool tcx = false;          ///< TCX links (6.6)
    bool ct_lookup = false;    ///< bpf_skb_ct_lookup from tc (5.18), nf_conntrack loaded, BTF and JIT
    bool encap_l2_eth = false; ///< BPF_F_ADJ_ROOM_ENCAP_L2_ETH (5.13)
    bool check_mtu = false;    ///< bpf_check_mtu (5.12)
    // What the programs cannot do without.
    bool redirect_peer = false;  ///< bpf_redirect_peer (5.10)
    bool redirect_neigh = false; ///< bpf_redirect_neigh (5.10)
    bool ringbuf = false;        ///< BPF ring buffers (5.8)
    // What explains the rest.
    bool tunnel_source = false; ///< a tunnel key has the outer source address (6.0)
    bool jit = false;           ///< programs are compiled (net.core.bpf_jit_enable)
    bool btf = false;           ///< the kernel describes its types (/sys/kernel/btf)
    bool conntrack = false;     ///< nf_conntrack is there
};

/// How much depends on a feature.
enum class FeatureUse : std::uint8_t {
    choice, ///< there is another way; -feature decides, and -fast-path=required demands it
    need,   ///< no programs without it
    fact,   ///< information
};

/// One feature by name, with what is lost without it.
struct FeatureInfo {
    std::string_view name;
    bool KernelFeatures::*on;
    FeatureUse use;
    std::string_view effect; ///< one line, for status
    bool is_demanded() const { return use != FeatureUse::fact; }
};
extern const std::array<FeatureInfo, 11> kFeatures;

/// Probes the kernel, once in a process: later calls give the same answer. Takes some tens of milliseconds. Loads
/// nf_conntrack where it is a module. EPERM names the capability that is missing, and is not kept.
Result<KernelFeatures> probe_features();

} // namespace twill
