// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "agent/dataplane/dataplane.hpp"
#include "agent/nl/socket.hpp"
#include "agent/nl/types.hpp"
#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

/// What a peer's entries look like.
enum class KernelForm : std::uint8_t {
    twill,   ///< the tunnel collects metadata: the route to a peer tells the far end
    flannel, ///< the tunnel has one VNI: its own table (fdb) tells it
};

/// The vxlan device through which the kernel reaches one family's peers.
struct KernelTunnel {
    IfIndex device;
    Vni vni;                 ///< of KernelForm::twill
    std::optional<Ip> local; ///< own outer address, of KernelForm::twill
    bool operator==(const KernelTunnel&) const = default;
};

/// One family's part.
struct KernelFamily {
    Cidr network; ///< the cluster's pods; peers' pod CIDRs lie in it
    Cidr own;     ///< this node's
    KernelForm form = KernelForm::twill;
    std::optional<KernelTunnel> tunnel;
    bool has_direct = false; ///< of flannel's form: it makes routes via nodes, too (host-gw, DirectRouting)
    bool operator==(const KernelFamily&) const = default;
};
using KernelOverlaySpec = PerFamily<std::optional<KernelFamily>>;

/// What the kernel needs for one peer: a route; for one behind the tunnel also a permanent neighbour that stands for
/// all of its pods, and on a device with one VNI an entry in its table.
struct KernelEntry {
    nl::Route route;
    std::optional<nl::Neighbour> neighbour;
    std::optional<nl::VtepEntry> vtep;
    bool operator==(const KernelEntry&) const = default;
};
/// Pure. ENOTSUP: the peer is behind a tunnel, and there is no device for one.
Result<KernelEntry> kernel_entry(const Peer& peer, const KernelOverlaySpec& spec);

/// Pure: what the kernel's tables hold of ours.
struct KernelTables {
    std::vector<nl::Route> routes;
    std::vector<nl::Neighbour> neighbours;
    std::vector<nl::VtepEntry> vteps;
};
struct KernelPeers {
    std::map<Cidr, KernelEntry> entries; ///< by pod CIDR
    KernelTables stale;                  ///< of ours, and no peer's
};
KernelPeers find_peers(const KernelTables& tables, const KernelOverlaySpec& spec);
/// Routes that flannel made have less in them: they are right as they are.
bool is_right(const KernelEntry& have, const KernelEntry& want);

/// Carries peers without programs, by the kernel's vxlan device, as flannel does: a node on which none can be loaded or
/// none is wanted, and the device of a flannel node that was taken over.
///
/// API: a Dataplane. read_peers() first; again after set_spec(), or when disturbs() says that somebody else changed
///   what is ours. A put writes what differs from what was read, so that a restart changes nothing that is right.
///   Pods are reached by what their CNI plugin made: endpoints are only remembered.
/// Ours: routes of protocol kPeerRouteProtocol and permanent neighbours on the tunnel inside the cluster network. In
///   flannel's form, which marks nothing, also routes of its metric inside the network: on the tunnel by their first
///   address, and with has_direct elsewhere via a gateway, of protocol boot and as long as the own pod CIDR; and every
///   entry of the tunnel's table.
/// Order: a peer's route is put last and deleted first, so that no packet meets half an entry.
/// Threading: control thread.
class KernelOverlay final : public Dataplane {
public:
    /// `socket` must outlive it.
    KernelOverlay(nl::Socket& socket, const KernelOverlaySpec& spec) : socket_(socket), spec_(spec) {}

    void set_spec(const KernelOverlaySpec& spec) { spec_ = spec; }
    const KernelOverlaySpec& spec() const { return spec_; }

    Result<Peers> read_peers() override;
    Result<Endpoints> read_endpoints() override { return endpoints_; }
    /// A route to the same pod CIDR that is somebody else's is replaced, as flannel does.
    Result<> put_peer(const Peer& peer) override;
    Result<> del_peer(const Cidr& pods) override;
    Result<> put_endpoint(const Endpoint& endpoint) override;
    Result<> del_endpoint(const Ip& ip) override;

    /// Is this event news, that is, neither an own write nor somebody else's business?
    bool disturbs(const nl::Route& route, bool gone) const;
    bool disturbs(const nl::Neighbour& neighbour, bool gone) const;
    bool disturbs(const nl::VtepEntry& vtep, bool gone) const;

    /// Takes everything of ours away, also what an earlier run left.
    Result<> clear();

private:
    Result<KernelTables> read_tables();
    Result<> put_route(const nl::Route& route);
    Result<> write(const KernelEntry& want, const KernelEntry* have);
    /// What `old` has and `now` has not.
    Result<> drop(const KernelEntry& old, const KernelEntry* now);
    Result<> drop_vtep(const nl::VtepEntry& vtep);
    void note(const Cidr& pods, const KernelEntry& entry);
    void forget(const Cidr& pods);

    nl::Socket& socket_;
    KernelOverlaySpec spec_;
    std::map<Cidr, KernelEntry> entries_; ///< what the kernel holds, as far as known
    std::map<Ip, Cidr> by_gateway_;       ///< of two pod CIDRs with one first address, the later
    std::map<Cidr, KernelEntry> failed_;  ///< written in part: their events are no news
    Endpoints endpoints_;
};

} // namespace twill
