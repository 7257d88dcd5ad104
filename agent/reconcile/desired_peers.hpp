// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/dataplane/dataplane.hpp"
#include "agent/reconcile/lease_set.hpp"
#include "agent/store/net_conf.hpp"
#include "twill/ids.hpp"
#include "twill/ip.hpp"

namespace twill {

/// The kernel's route to one node.
struct PeerRoute {
    IfIndex wire;
    std::optional<Ip> gateway;  ///< nullopt: the node is on-link
    unsigned mtu = 0;           ///< of the route, else of the wire; bytes
    bool is_ethernet = true;    ///< frames of the wire have an Ethernet header
    std::string wire_name = {}; ///< for reasons; may be left out
    bool operator==(const PeerRoute&) const = default;
};

/// Routes to the nodes of nodes_to_resolve(). nullopt, or an address that is not listed: no route.
struct Underlay {
    std::map<Ip, std::optional<PeerRoute>> routes;
};

/// What this node knows of itself and of the cluster.
struct PeerSettings {
    std::string own_key; ///< of the own lease; empty while it is not known: then the own public IPs tell
    PerFamily<std::optional<Cidr>> network;
    PerFamily<std::optional<Cidr>> own_pods;
    PerFamily<std::optional<Ip>> own_ip; ///< published
    Backend backend = Backend::vxlan;
    bool direct_routing = false;
    std::optional<unsigned> mtu; ///< of the underlay, from net-conf.json; overrides the routes'
};

/// One family of a lease, or a peer, that is not in the maps yet, and why; or one that could not be deleted.
struct PendingPeer {
    Cidr pods;
    Ip node;
    std::string why;
    bool operator==(const PendingPeer&) const = default;
};

struct PeerPlan {
    Peers peers;
    std::vector<PendingPeer> pending;
};

/// Outer headers that encapsulation adds, inner Ethernet included (RFC 7348 over IPv4 and over IPv6).
constexpr unsigned encap_overhead(Family family) { return family == Family::v4 ? 50 : 70; }

/// What the peer maps should hold. Each family of a lease is judged alone. Where leases contradict each other (pod
/// CIDRs overlap, or one public IP twice) the one known for longer stays; of those that came with one snapshot the
/// narrower pod CIDR, then the lower key, so that one wrong lease costs few others.
PeerPlan plan_peers(const LeaseSet& leases, const Underlay& underlay, const PeerSettings& settings);

/// The nodes whose route plan_peers() needs, sorted, each once.
std::vector<Ip> nodes_to_resolve(const LeaseSet& leases, const PeerSettings& settings);

} // namespace twill
