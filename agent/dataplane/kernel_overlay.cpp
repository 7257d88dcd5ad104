// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/kernel_overlay.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/nl/neigh.hpp"
#include "agent/nl/route.hpp"

namespace twill {
namespace {

constexpr std::uint16_t kPermanent = 0x80;   // NUD_PERMANENT
constexpr std::uint32_t kMetric6 = 1024;     // what IPv6 makes of no metric (IP6_RT_PRIO_USER)
constexpr std::uint8_t kFlannelProtocol = 3; // RTPROT_BOOT: what flannel's routes have
constexpr std::uint32_t kMainTable = 254;

const KernelFamily* family_of(const KernelOverlaySpec& spec, Family family)
{
    return spec[family] ? &*spec[family] : nullptr;
}

const KernelTunnel* tunnel_of(const KernelOverlaySpec& spec, Family family)
{
    const auto* part = family_of(spec, family);
    return part != nullptr && part->tunnel ? &*part->tunnel : nullptr;
}

bool is_flannels(const KernelFamily* part) { return part != nullptr && part->form == KernelForm::flannel; }

std::uint32_t metric_of(Family family) { return family == Family::v4 ? 0 : kMetric6; }

/// The address that stands for a peer on the tunnel device: its node's own there.
Ip gateway_of(const Cidr& pods) { return pods.address(); }

bool is_ours(const nl::Route& route, const KernelOverlaySpec& spec)
{
    if (route.protocol == kPeerRouteProtocol) return true;
    const auto* part = family_of(spec, route.dst.family());
    if (!is_flannels(part) || !route.gateway || route.table != kMainTable ||
        route.metric != metric_of(route.dst.family()) || !part->network.contains(route.dst) ||
        route.dst.bits() <= part->network.bits())
        return false;
    if (part->tunnel && route.ifindex == part->tunnel->device) return route.gateway == gateway_of(route.dst);
    return part->has_direct && route.protocol == kFlannelProtocol && route.dst.bits() == part->own.bits() &&
           route.dst != part->own;
}

bool is_ours(const nl::Neighbour& neighbour, const KernelOverlaySpec& spec)
{
    const auto* part = family_of(spec, neighbour.ip.family());
    return part != nullptr && part->tunnel && neighbour.ifindex == part->tunnel->device &&
           (neighbour.state & kPermanent) != 0 && part->network.contains(neighbour.ip);
}

bool is_ours(const nl::VtepEntry& vtep, const KernelOverlaySpec& spec)
{
    const auto* part = family_of(spec, vtep.node.family());
    return is_flannels(part) && part->tunnel && vtep.device == part->tunnel->device;
}

/// As far as the kernel's entry tells; for the reconciler, which only asks whether it is as desired.
Peer to_peer(const Cidr& pods, const KernelEntry& entry)
{
    Peer peer;
    peer.pods = pods;
    peer.wire = entry.route.ifindex;
    peer.mtu = entry.route.mtu;
    peer.mode = entry.neighbour ? PeerMode::encap : PeerMode::direct;
    if (entry.neighbour) peer.vtep_mac = entry.neighbour->mac;
    if (entry.route.encap)
        peer.node = entry.route.encap->dst;
    else if (entry.vtep)
        peer.node = entry.vtep->node;
    else if (!entry.neighbour && entry.route.gateway)
        peer.node = *entry.route.gateway;
    peer.nexthop = peer.node;
    return peer;
}

} // namespace

Result<KernelEntry> kernel_entry(const Peer& peer, const KernelOverlaySpec& spec)
{
    const Family family = peer.pods.family();
    const auto* part = family_of(spec, family);
    const auto* tunnel = tunnel_of(spec, family);
    KernelEntry entry;
    auto& route = entry.route;
    route.dst = peer.pods;
    route.metric = metric_of(family);
    route.protocol = is_flannels(part) ? kFlannelProtocol : kPeerRouteProtocol;
    if (part != nullptr && !is_flannels(part)) {
        route.prefsrc = part->own.address();
        route.mtu = peer.mtu;
    }
    if (peer.mode == PeerMode::direct) {
        route.ifindex = peer.wire;
        route.gateway = peer.nexthop;
        return entry;
    }
    if (tunnel == nullptr) return Error{ENOTSUP, "the kernel overlay needs a vxlan device, and there is none"};
    route.ifindex = tunnel->device;
    route.gateway = gateway_of(peer.pods);
    route.onlink = true;
    entry.neighbour = nl::Neighbour{
        .ifindex = tunnel->device, .ip = gateway_of(peer.pods), .mac = peer.vtep_mac, .state = kPermanent};
    if (!is_flannels(part))
        // flannel's device wants a checksum over IPv6 and takes none over IPv4 (RFC 7348, 5; RFC 6935).
        route.encap =
            nl::Encap{.dst = peer.node, .src = tunnel->local, .id = tunnel->vni.value, .csum = family == Family::v6};
    else
        entry.vtep = nl::VtepEntry{.device = tunnel->device, .mac = peer.vtep_mac, .node = peer.node};
    return entry;
}

KernelPeers find_peers(const KernelTables& tables, const KernelOverlaySpec& spec)
{
    KernelPeers view;
    std::map<std::pair<IfIndex, Ip>, const nl::Neighbour*> neighbours;
    std::map<std::pair<IfIndex, Mac>, const nl::VtepEntry*> vteps;
    for (const auto& neighbour : tables.neighbours)
        if (is_ours(neighbour, spec)) neighbours.emplace(std::pair(neighbour.ifindex, neighbour.ip), &neighbour);
    for (const auto& vtep : tables.vteps)
        if (is_ours(vtep, spec)) vteps.emplace(std::pair(vtep.device, vtep.mac), &vtep);

    std::set<const void*> used;
    for (const auto& route : tables.routes) {
        if (!is_ours(route, spec)) continue;
        KernelEntry entry;
        entry.route = route;
        if (route.gateway)
            if (const auto found = neighbours.find({route.ifindex, *route.gateway}); found != neighbours.end()) {
                entry.neighbour = *found->second;
                used.insert(found->second);
            }
        if (entry.neighbour)
            if (const auto found = vteps.find({route.ifindex, entry.neighbour->mac}); found != vteps.end()) {
                entry.vtep = *found->second;
                used.insert(found->second);
            }
        // Of two to one CIDR (other metrics) one is too many.
        if (const auto [at, is_new] = view.entries.emplace(route.dst, entry); !is_new)
            view.stale.routes.push_back(route);
    }
    for (const auto& [key, neighbour] : neighbours)
        if (!used.contains(neighbour)) view.stale.neighbours.push_back(*neighbour);
    for (const auto& [key, vtep] : vteps)
        if (!used.contains(vtep)) view.stale.vteps.push_back(*vtep);
    return view;
}

bool is_right(const KernelEntry& have, const KernelEntry& want)
{
    if (want.route.protocol == kPeerRouteProtocol) return have == want;
    KernelEntry same = have;
    same.route.protocol = want.route.protocol;
    same.route.prefsrc = want.route.prefsrc;
    same.route.mtu = want.route.mtu;
    return same == want;
}

Result<KernelTables> KernelOverlay::read_tables()
{
    KernelTables tables;
    TWILL_TRY_AS(routes, nl::routes(socket_));
    tables.routes = std::move(routes);
    for (const Family family : kFamilies) {
        const auto* tunnel = tunnel_of(spec_, family);
        if (tunnel == nullptr || !is_flannels(family_of(spec_, family))) continue;
        TWILL_TRY_AS(vteps, nl::vteps(socket_, tunnel->device));
        tables.vteps.insert(tables.vteps.end(), vteps.begin(), vteps.end());
    }
    TWILL_TRY_AS(neighbours, nl::neighbours(socket_));
    tables.neighbours = std::move(neighbours);
    return tables;
}

Result<Peers> KernelOverlay::read_peers()
{
    TWILL_TRY_AS(tables, read_tables());
    const auto view = find_peers(tables, spec_);
    for (const auto& route : view.stale.routes) TWILL_TRY(nl::del_route(socket_, route));
    for (const auto& neighbour : view.stale.neighbours) TWILL_TRY(nl::del_neighbour(socket_, neighbour));
    for (const auto& vtep : view.stale.vteps) TWILL_TRY(nl::del_vtep(socket_, vtep));
    entries_.clear();
    by_gateway_.clear();
    Peers peers;
    for (const auto& [pods, entry] : view.entries) {
        peers.emplace(pods, to_peer(pods, entry));
        note(pods, entry);
    }
    return peers;
}

void KernelOverlay::note(const Cidr& pods, const KernelEntry& entry)
{
    by_gateway_.insert_or_assign(gateway_of(pods), pods);
    entries_.insert_or_assign(pods, entry);
}

void KernelOverlay::forget(const Cidr& pods)
{
    entries_.erase(pods);
    const auto holder = by_gateway_.find(gateway_of(pods));
    if (holder != by_gateway_.end() && holder->second == pods) by_gateway_.erase(holder);
}

Result<> KernelOverlay::write(const KernelEntry& want, const KernelEntry* have)
{
    if (want.vtep && (have == nullptr || have->vtep != want.vtep)) TWILL_TRY(nl::put_vtep(socket_, *want.vtep));
    if (want.neighbour && (have == nullptr || have->neighbour != want.neighbour))
        TWILL_TRY(nl::put_neighbour(socket_, *want.neighbour));
    // An IPv6 route of another metric is another route.
    if (have == nullptr || !is_right({have->route, {}, {}}, {want.route, {}, {}})) TWILL_TRY(put_route(want.route));
    return Ok{};
}

Result<> KernelOverlay::put_route(const nl::Route& route)
{
    auto done = nl::put_route(socket_, route);
    if (done || done.error().code != EINVAL || !route.onlink || route.dst.family() == Family::v4) return done;
    // IPv6 looks where the gateway is now, and refuses when that is another device than the route's
    // (ip6_route_check_nh_onlink): by the very route that is to be replaced.
    TWILL_TRY_AS(present, nl::routes(socket_, Family::v6));
    for (const auto& other : present)
        if (other.dst == route.dst && other.metric == route.metric) TWILL_TRY(nl::del_route(socket_, other));
    return nl::put_route(socket_, route);
}

Result<> KernelOverlay::drop(const KernelEntry& old, const KernelEntry* now)
{
    if (now == nullptr || now->route.metric != old.route.metric) TWILL_TRY(nl::del_route(socket_, old.route));
    const auto same_neighbour = [&](const nl::Neighbour& other) {
        return other.ifindex == old.neighbour->ifindex && other.ip == old.neighbour->ip;
    };
    const auto holder = by_gateway_.find(gateway_of(old.route.dst));
    const bool is_holder = holder != by_gateway_.end() && holder->second == old.route.dst;
    if (old.neighbour && is_holder && (now == nullptr || !now->neighbour || !same_neighbour(*now->neighbour)))
        TWILL_TRY(nl::del_neighbour(socket_, *old.neighbour));
    const auto same_vtep = [&](const nl::VtepEntry& other) {
        return other.device == old.vtep->device && other.mac == old.vtep->mac;
    };
    if (old.vtep && (now == nullptr || !now->vtep || !same_vtep(*now->vtep))) TWILL_TRY(drop_vtep(*old.vtep));
    return Ok{};
}

Result<> KernelOverlay::drop_vtep(const nl::VtepEntry& vtep)
{
    // A MAC that moved to another pod CIDR was put there before.
    const auto users = std::count_if(entries_.begin(), entries_.end(), [&](const auto& entry) {
        const auto& other = entry.second.vtep;
        return other && other->device == vtep.device && other->mac == vtep.mac;
    });
    if (users > 1) return Ok{};
    return nl::del_vtep(socket_, vtep);
}

Result<> KernelOverlay::put_peer(const Peer& peer)
{
    TWILL_TRY_AS(want, kernel_entry(peer, spec_));
    const auto found = entries_.find(peer.pods);
    const auto* have = found == entries_.end() ? nullptr : &found->second;
    if (have != nullptr && is_right(*have, want)) return Ok{};
    failed_.insert_or_assign(peer.pods, want);
    TWILL_TRY(write(want, have));
    if (have != nullptr) TWILL_TRY(drop(*have, &want));
    failed_.erase(peer.pods);
    note(peer.pods, want);
    return Ok{};
}

Result<> KernelOverlay::del_peer(const Cidr& pods)
{
    failed_.erase(pods);
    const auto found = entries_.find(pods);
    if (found == entries_.end()) return Ok{};
    TWILL_TRY(drop(found->second, nullptr));
    forget(pods);
    return Ok{};
}

Result<> KernelOverlay::put_endpoint(const Endpoint& endpoint)
{
    endpoints_.insert_or_assign(endpoint.ip, endpoint);
    return Ok{};
}

Result<> KernelOverlay::del_endpoint(const Ip& ip)
{
    endpoints_.erase(ip);
    return Ok{};
}

bool KernelOverlay::disturbs(const nl::Route& route, bool gone) const
{
    const auto found = entries_.find(route.dst);
    if (found == entries_.end()) return !gone && is_ours(route, spec_);
    const auto& known = found->second.route;
    if (route.metric != known.metric) return false;
    return gone == (route == known);
}

bool KernelOverlay::disturbs(const nl::Neighbour& neighbour, bool gone) const
{
    const auto pods = by_gateway_.find(neighbour.ip);
    if (pods == by_gateway_.end()) return false;
    const auto& known = entries_.at(pods->second).neighbour;
    if (!known || known->ifindex != neighbour.ifindex) return false;
    return gone == (neighbour == *known);
}

bool KernelOverlay::disturbs(const nl::VtepEntry& vtep, bool gone) const
{
    if (!is_ours(vtep, spec_)) return false;
    const auto has = [&](const auto& entries) {
        return std::any_of(entries.begin(), entries.end(),
                           [&](const auto& entry) { return entry.second.vtep == vtep; });
    };
    return gone ? has(entries_) : !has(entries_) && !has(failed_);
}

Result<> KernelOverlay::clear()
{
    TWILL_TRY(read_peers()); // deletes what is no peer's
    while (!entries_.empty()) TWILL_TRY(del_peer(Cidr(entries_.begin()->first)));
    return Ok{};
}

} // namespace twill
