// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/desired_peers.hpp"

#include <algorithm>
#include <array>
#include <set>
#include <tuple>
#include <utility>

namespace twill {

namespace {

/// Smallest MTU that an IPv4 link may have (RFC 791); below it nothing useful fits.
constexpr unsigned kMinMtu = 68;

/// One family of a lease, not yet judged.
struct Candidate {
    const Lease* lease = nullptr;
    Family family = Family::v4;
    Cidr pods;
    Ip node;
    std::uint64_t since = 0;
};

/// A candidate's reason to wait; empty: none.
using Why = std::string;

bool is_own(const Lease& lease, const PeerSettings& settings)
{
    if (!settings.own_key.empty()) return lease.key == settings.own_key;
    return std::any_of(kFamilies.begin(), kFamilies.end(), [&](Family family) {
        return lease.public_ip[family] && lease.public_ip[family] == settings.own_ip[family];
    });
}

/// All families of all leases of other nodes, those with precedence first.
std::vector<Candidate> candidates(const LeaseSet& leases, const PeerSettings& settings)
{
    std::vector<Candidate> all;
    if (settings.backend == Backend::alloc) return all; // hands out pod CIDRs, carries nothing
    for (const auto& [key, lease] : leases.leases()) {
        if (is_own(lease, settings)) continue;
        for (const Family family : kFamilies)
            if (lease.pods[family] && settings.network[family])
                all.push_back(
                    {&lease, family, *lease.pods[family], lease.public_ip[family].value_or(Ip{}), leases.since(key)});
    }
    std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
        return std::tuple(a.since, b.pods.bits()) < std::tuple(b.since, a.pods.bits());
    });
    return all;
}

Why why_node_is_unusable(const Ip& node, Family family, const PeerSettings& settings)
{
    static const std::array<std::pair<Cidr, const char*>, 6> kNoNodes = {{
        {*Cidr::parse("127.0.0.0/8"), " is a loopback address"},
        {*Cidr::parse("::1/128"), " is a loopback address"},
        {*Cidr::parse("224.0.0.0/4"), " is a multicast address"},
        {*Cidr::parse("ff00::/8"), " is a multicast address"},
        {*Cidr::parse("255.255.255.255/32"), " is the broadcast address"},
        {*Cidr::parse("fe80::/10"), " is a link-local address"},
    }};
    const auto what = [&] { return "public IP " + node.to_string(); }; // most nodes are well

    if (node.is_unspecified()) return "no public " + std::string(to_string(family)) + " address";
    if (node.family() != family) return what() + " is of the other family";
    for (const auto& [net, why] : kNoNodes)
        if (net.contains(node)) return what() + why;
    if (node == settings.own_ip[family]) return what() + " is this node's own";
    if (settings.network[family]->contains(node))
        return what() + " lies inside the cluster network " + settings.network[family]->to_string();
    return {};
}

/// What can be said of a lease alone.
Why why_unusable(const Candidate& candidate, const PeerSettings& settings)
{
    const auto& own_pods = settings.own_pods[candidate.family];
    const auto& network = *settings.network[candidate.family];
    const auto pods = [&] { return "pod CIDR " + candidate.pods.to_string(); };

    if (candidate.lease->backend_type != to_string(settings.backend)) {
        const std::string type = candidate.lease->backend_type.empty() ? "alloc" : candidate.lease->backend_type;
        return "backend type " + type + ", this node runs " + std::string(to_string(settings.backend));
    }
    if (candidate.pods.family() != candidate.family) return pods() + " is of the other family";
    if (!network.contains(candidate.pods)) return pods() + " is outside the cluster network " + network.to_string();
    if (own_pods && candidate.pods.overlaps(*own_pods))
        return pods() + " overlaps this node's own " + own_pods->to_string();
    return why_node_is_unusable(candidate.node, candidate.family, settings);
}

/// What the leases accepted so far hold. Their pod CIDRs are disjoint, so that neighbours in order tell all.
class Claimed {
public:
    /// Takes the candidate's CIDR and address, or says who has them.
    Why take(const Candidate& candidate)
    {
        const auto next = pods_.lower_bound(candidate.pods.address());
        if (next != pods_.end() && next->second->pods.overlaps(candidate.pods)) return overlap(*next->second);
        if (next != pods_.begin())
            if (const auto* below = std::prev(next)->second; below->pods.overlaps(candidate.pods))
                return overlap(*below);
        const auto [holder, is_new] = nodes_.emplace(candidate.node, &candidate);
        if (!is_new)
            return "public IP " + candidate.node.to_string() + " belongs to lease " + holder->second->lease->key;
        pods_.emplace_hint(next, candidate.pods.address(), &candidate);
        return {};
    }

private:
    static Why overlap(const Candidate& holder)
    {
        return "overlaps pod CIDR " + holder.pods.to_string() + " of lease " + holder.lease->key;
    }

    std::map<Ip, const Candidate*> pods_; ///< by first address
    std::map<Ip, const Candidate*> nodes_;
};

/// The path to an accepted candidate's node. On a reason `peer` is not to be used.
Why plan_path(const Candidate& candidate, const Underlay& underlay, const PeerSettings& settings, Peer& peer)
{
    const auto found = underlay.routes.find(candidate.node);
    if (found == underlay.routes.end() || !found->second || !found->second->wire)
        return "no route to " + candidate.node.to_string();
    const PeerRoute& route = *found->second;
    const auto wire = [&] {
        return route.wire_name.empty() ? "interface " + std::to_string(route.wire.value) : route.wire_name;
    };

    if (!route.is_ethernet) return wire() + " has no Ethernet header";
    if (settings.backend == Backend::host_gw && route.gateway)
        return candidate.node.to_string() + " is not on-link: the route goes via " + route.gateway->to_string() +
               ", which host-gw cannot use";

    const bool is_direct = settings.backend == Backend::host_gw || (settings.direct_routing && !route.gateway);
    const unsigned overhead = is_direct ? 0 : encap_overhead(candidate.family);
    const unsigned mtu = settings.mtu.value_or(route.mtu);
    if (mtu < overhead + kMinMtu) return "MTU " + std::to_string(mtu) + " of " + wire() + " is too small";

    peer.nexthop = route.gateway.value_or(candidate.node);
    peer.wire = route.wire;
    peer.mtu = mtu - overhead;
    peer.mode = is_direct ? PeerMode::direct : PeerMode::encap;
    return {};
}

Why plan_peer(const Candidate& candidate, const Underlay& underlay, const PeerSettings& settings, Peer& peer)
{
    peer.pods = candidate.pods;
    peer.node = candidate.node;
    if (auto why = plan_path(candidate, underlay, settings, peer); !why.empty()) return why;
    if (settings.backend == Backend::host_gw) return {};

    peer.vtep_mac = candidate.lease->vtep_mac[candidate.family].value_or(Mac{});
    if (peer.vtep_mac.is_zero()) return "no VtepMAC in the lease";
    if (!peer.vtep_mac.is_unicast()) return "VtepMAC " + peer.vtep_mac.to_string() + " is not a unicast address";
    peer.zero_csum6 = candidate.family == Family::v6 && candidate.lease->marker && candidate.lease->marker->zero_csum6;
    return {};
}

} // namespace

PeerPlan plan_peers(const LeaseSet& leases, const Underlay& underlay, const PeerSettings& settings)
{
    PeerPlan plan;
    Claimed claimed;
    const auto all = candidates(leases, settings);
    for (const auto& candidate : all) {
        Peer peer;
        auto why = why_unusable(candidate, settings);
        if (why.empty()) why = claimed.take(candidate);
        if (why.empty()) why = plan_peer(candidate, underlay, settings, peer);
        if (why.empty())
            plan.peers.emplace(peer.pods, peer);
        else
            plan.pending.push_back({candidate.pods, candidate.node, std::move(why)});
    }
    return plan;
}

std::vector<Ip> nodes_to_resolve(const LeaseSet& leases, const PeerSettings& settings)
{
    std::set<Ip> nodes;
    for (const auto& candidate : candidates(leases, settings))
        if (why_unusable(candidate, settings).empty()) nodes.insert(candidate.node);
    return {nodes.begin(), nodes.end()};
}

} // namespace twill
