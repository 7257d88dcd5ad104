// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/dataplane/dataplane.hpp"
#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/mac.hpp"

namespace twill {

/// Host side of a pod's interface.
struct PodInterface {
    IfIndex ifindex;
    std::string name;
    Mac host_mac;        ///< the gateway as the pod sees it: the bridge's MAC for a port, its own for a routed veth
    bool shaped = false; ///< a qdisc on it must see the packets
    bool is_bridge_port = false;
    bool operator==(const PodInterface&) const = default;
};

/// Where a claim comes from: a packet's source, the neighbour table, or a host route made by a CNI plugin.
enum class ClaimSource : std::uint8_t { packet, neighbour, route };

/// What host-local's allocation file says of an address.
struct Owner {
    std::string container_id;
    std::string ifname;         ///< inside the pod
    std::string host_interface; ///< from the CNI result cache; empty: not known
    bool operator==(const Owner&) const = default;
};

/// Claims of one interface that changed nothing because the address belongs to another.
struct Conflict {
    Ip ip;
    IfIndex owner; ///< the interface that has the address; 0: none yet
    IfIndex claimant;
    std::uint64_t count = 0;
    bool operator==(const Conflict&) const = default;
};

/// Which addresses may be pods of this node.
struct EndpointScope {
    PerFamily<std::optional<Cidr>> own_pods;
    std::set<Ip> local_ips; ///< addresses of the node's own interfaces
    bool operator==(const EndpointScope&) const = default;
};

/// Discovers this node's pods: facts in, endpoints out. Pure; any order of facts is fine.
///
/// An endpoint appears with the first accepted claim that brings a MAC. It goes with its interface, with its owner (CNI
/// DEL) or by a contradiction that the rules below accept; never because a neighbour entry aged.
/// - The owner's host interface, where known, is the only one whose claims count.
/// - Else the first interface that claims under an owner keeps the address as long as it lives and the container is the
///   same. An interface that holds an address of one container cannot take one of another container.
/// - Without an owner the first interface keeps the address as long as it lives.
/// - A host route outranks packets and neighbours, but not the owner's known interface.
/// - Claims that lose are counted and listed.
class EndpointTable {
public:
    /// Addresses without an owner that one interface may hold: what a pod that invents sources can cost.
    static constexpr std::size_t kMaxUnownedPerInterface = 64;
    /// Interfaces whose claims are kept until they are up, and claims of each.
    static constexpr std::size_t kMaxEarlyInterfaces = 256;
    static constexpr std::size_t kMaxEarlyPerInterface = 64;

    /// To be called first: claims outside the scope are ignored, endpoints that fall out of it go.
    void set_scope(EndpointScope scope);

    /// The interface appeared, or something of it changed.
    void pod_interface_up(const PodInterface& interface);
    void pod_interface_gone(IfIndex ifindex);

    /// Somebody used `ip` from `port`. `mac` is zero where the source does not tell (routes). A claim by an interface
    /// that is not up yet is kept until it is.
    void claim(const Ip& ip, const Mac& mac, IfIndex port, ClaimSource source);

    /// The address is allocated. Another container than before means that the old one is gone.
    void owner_put(const Ip& ip, const Owner& owner);
    /// The address is free again: its endpoint goes at once, and its old interface cannot claim it any more.
    void owner_gone(const Ip& ip);

    /// After a restart: brings `live` up and keeps those of `from_maps` whose interface lives and that no fact
    /// contradicts. Owners may be told before or after.
    void restore(const Endpoints& from_maps, const std::vector<PodInterface>& live);

    /// What the endpoint map should hold.
    Endpoints desired() const;
    /// Sorted by address and claimant.
    std::vector<Conflict> conflicts() const;
    /// Claims that lost, ever.
    std::uint64_t addr_conflicts() const { return addr_conflicts_; }

private:
    /// Who has an address.
    struct Binding {
        IfIndex port;
        Mac mac; ///< zero: not known yet, so no endpoint
        ClaimSource source = ClaimSource::packet;
        std::string container_id; ///< of the owner under which it was accepted; empty: none
    };
    struct Claim {
        Mac mac;
        ClaimSource source = ClaimSource::packet;
    };
    /// An interface that lost an address by CNI DEL.
    struct Release {
        IfIndex port;
        std::string container_id;
    };

    bool in_scope(const Ip& ip) const;
    const Owner* owner_of(const Ip& ip) const;
    bool may_take(const Ip& ip, const Binding* holder, const PodInterface& claimant, ClaimSource source) const;
    bool is_released(const Ip& ip, const PodInterface& claimant) const;
    bool is_full(IfIndex port) const;
    std::string container_on(IfIndex port) const;
    bool is_contradicted(const Ip& ip, const Binding& binding) const;
    void bind(const Ip& ip, const Claim& accepted, IfIndex port);
    void unbind(const Ip& ip);
    void keep_early(const Ip& ip, const Claim& early, IfIndex port);
    void forget_conflicts(const Ip& ip);

    EndpointScope scope_;
    std::map<IfIndex, PodInterface> interfaces_;
    std::map<Ip, Owner> owners_;
    std::map<Ip, Binding> bindings_;
    std::map<IfIndex, std::set<Ip>> by_port_; ///< keys of bindings_
    std::map<Ip, Release> released_;
    std::map<IfIndex, std::map<Ip, Claim>> early_; ///< by interfaces that are not up yet
    std::map<std::pair<Ip, IfIndex>, std::uint64_t> conflicts_;
    std::uint64_t addr_conflicts_ = 0;
};

} // namespace twill
