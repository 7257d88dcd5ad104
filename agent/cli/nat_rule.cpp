// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/nat_rule.hpp"

#include "maps/abi/nat.h"
#include "maps/codec.hpp"

namespace twill::cli {

namespace {

constexpr std::uint32_t kKubeProxyMark = 0x4000;

bool is_multicast(const Ip& ip) { return ip.is_v4() ? (ip.network()[0] & 0xf0) == 0xe0 : ip.network()[0] == 0xff; }

} // namespace

bool is_in(const tw_net& net, const Ip& ip)
{
    const auto& bytes = ip.bytes();
    const auto matches = [&](const __u8* addr, const __u8* mask, std::size_t size, std::size_t from) {
        for (std::size_t i = 0; i < size; ++i)
            if ((bytes[from + i] & mask[i]) != addr[i]) return false;
        return true;
    };
    return matches(net.addr.high, net.mask.high, sizeof(net.addr.high), 0) &&
           matches(net.addr.low, net.mask.low, sizeof(net.addr.low), sizeof(net.addr.high));
}

bool is_own_host(const tw_cfg& cfg, const Ip& ip)
{
    const tw_net& own = ip.is_v4() ? cfg.own_v4 : cfg.own_v6;
    const Ip first = from_abi(own.addr);
    return is_in(own, ip) && (ip == first || ip == first.plus(1));
}

NatRule nat_rule(const tw_cfg& cfg, const Ip& src, const Ip& dst, std::uint32_t mark)
{
    const bool is_nft = cfg.nat == TW_NAT_NFT;
    const tw_net& cluster = src.is_v4() ? cfg.cluster_v4 : cfg.cluster_v6;
    const tw_net& own = src.is_v4() ? cfg.own_v4 : cfg.own_v6;
    const bool has_own = is_in(own, from_abi(own.addr)), has_cluster = is_in(cluster, from_abi(cluster.addr));
    const std::string pods = "this node's pods" + (has_own ? " (" + from_net(own).to_string() + ")" : "");
    const std::string all = "the cluster network" + (has_cluster ? " (" + from_net(cluster).to_string() + ")" : "");
    const bool from_own = is_in(own, src), to_own = is_in(own, dst);
    const bool from_cluster = is_in(cluster, src), to_cluster = is_in(cluster, dst);

    if (is_nft ? mark == kKubeProxyMark : (mark & kKubeProxyMark) != 0)
        return {1, false,
                is_nft ? "mark 0x4000: kube-proxy translates it" : "mark has 0x4000: kube-proxy translates it"};
    if (from_own && (to_cluster || to_own)) return {2, false, "from " + pods + " to " + all};
    if (to_own && from_cluster) return {3, false, "from " + all + " to " + pods};
    if (to_own && !from_cluster) return {4, false, "from outside of " + all + " to " + pods};
    if (to_cluster && is_nft) return {4, false, "not from " + pods + ", to " + all};
    if (from_cluster && is_multicast(dst)) return {0, false, "from " + all + " to multicast: no row is for it"};
    if (from_cluster) return {5, true, "from " + all + " to elsewhere, not multicast"};
    if (to_cluster) return {6, true, "from outside of " + all + " to it"};
    return {0, false, "neither from nor to " + all + ": no row is for it"};
}

} // namespace twill::cli
