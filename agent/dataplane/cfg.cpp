// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/cfg.hpp"

#include <cstring>

#include "maps/codec.hpp"

namespace twill {

tw_cfg make_cfg(const CfgInput& input)
{
    const auto net = [](const std::optional<Cidr>& cidr) { return cidr ? to_net(*cidr) : no_net(); };
    const auto addr = [](const std::optional<Ip>& ip) { return ip ? to_abi(*ip) : tw_addr{}; };
    tw_cfg cfg;
    std::memset(&cfg, 0, sizeof(cfg)); // compared and loaded as bytes
    cfg.cluster_v4 = net(input.network.v4);
    cfg.cluster_v6 = net(input.network.v6);
    cfg.own_v4 = net(input.own_pods.v4);
    cfg.own_v6 = net(input.own_pods.v6);
    cfg.node_v4 = addr(input.node.v4);
    cfg.node_v6 = addr(input.node.v6);
    cfg.vni = input.vni.value;
    cfg.overlay = static_cast<unsigned>(input.overlay.v4.value);
    cfg.overlay6 = static_cast<unsigned>(input.overlay.v6.value);
    cfg.port = input.port;
    cfg.sport_min = input.sport_min;
    cfg.sport_max = input.sport_max;
    cfg.anti_spoof = input.anti_spoof;
    to_abi(input.vtep_mac.v4, cfg.vtep_mac);
    to_abi(input.vtep_mac.v6, cfg.vtep_mac6);
    to_abi(input.vtep_mac_old, cfg.vtep_mac_old);
    cfg.fast = input.fast;
    cfg.ct_lookup = input.features.ct_lookup;
    cfg.encap_l2_eth = input.features.encap_l2_eth;
    cfg.check_mtu = input.features.check_mtu;
    cfg.vxlan_device = input.vxlan_device;
    cfg.flannel = input.flannel;
    cfg.gbp = input.gbp;
    cfg.nat = static_cast<__u8>(input.nat);
    if (input.nat != TW_NAT_OFF) {
        cfg.nat_keep = input.nat_keep;
        cfg.nat_notes = input.nat_notes;
        cfg.nat_max = input.nat_max;
    }
    return cfg;
}

bool same_cfg(const tw_cfg& a, const tw_cfg& b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

} // namespace twill
