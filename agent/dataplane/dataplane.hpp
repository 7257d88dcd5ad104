// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string_view>

#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/mac.hpp"
#include "twill/result.hpp"

namespace twill {

/// How packets reach a peer: VXLAN, or plain IP to a node on the same L2.
enum class PeerMode : std::uint8_t { encap, direct };
/// "vxlan" or "direct", as twillctl shows it.
std::string_view to_string(PeerMode mode);

/// One pod CIDR of another node, as the programs need it. Inner and outer family are the same.
struct Peer {
    Cidr pods;
    Ip node;          ///< outer destination
    Ip nexthop;       ///< neighbour on the wire: the node itself or a gateway
    IfIndex wire;     ///< interface that leads there
    unsigned mtu = 0; ///< largest inner IP packet, bytes
    PeerMode mode = PeerMode::encap;
    Mac vtep_mac; ///< zero for host-gw peers
    bool zero_csum6 = false;
    bool operator==(const Peer&) const = default;
};

/// One address of a pod of this node.
struct Endpoint {
    Ip ip;
    IfIndex ifindex;     ///< host side of the pod's interface
    Mac mac;             ///< the pod's own
    Mac host_mac;        ///< the gateway as the pod sees it
    bool shaped = false; ///< a qdisc on the interface must see the packets
    bool operator==(const Endpoint&) const = default;
};

using Peers = std::map<Cidr, Peer>;
using Endpoints = std::map<Ip, Endpoint>;

/// The kernel's side of reconcile: maps that the programs read. Each call is one write, idempotent, on the control
/// thread. A failed put changes nothing. Errors: ENOSPC map full, E2BIG the same for a hash, EPERM, ENOMEM.
class Dataplane {
public:
    virtual ~Dataplane() = default;

    /// What the maps hold now, e.g. from before a restart.
    virtual Result<Peers> read_peers() = 0;
    virtual Result<Endpoints> read_endpoints() = 0;

    virtual Result<> put_peer(const Peer& peer) = 0;
    /// Deleting what is absent succeeds. What is kept by node address goes only if it still belongs to `pods`: a node
    /// that moved to another CIDR was put there before this call.
    virtual Result<> del_peer(const Cidr& pods) = 0;
    virtual Result<> put_endpoint(const Endpoint& endpoint) = 0;
    virtual Result<> del_endpoint(const Ip& ip) = 0;
};

} // namespace twill
