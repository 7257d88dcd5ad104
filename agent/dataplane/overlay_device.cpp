// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/overlay_device.hpp"

#include <fcntl.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "agent/nl/addr.hpp"
#include "agent/nl/link.hpp"
#include "agent/nl/neigh.hpp"
#include "agent/nl/route.hpp"
#include "twill/fd.hpp"

namespace twill {
namespace {

constexpr std::uint8_t kAddrGenNone = 1;   // IN6_ADDR_GEN_MODE_NONE
constexpr std::uint16_t kPermanent = 0x80; // NUD_PERMANENT
constexpr std::uint32_t kMetric6 = 1024;   // what IPv6 makes of no metric (IP6_RT_PRIO_USER)
constexpr unsigned kIpv6MinMtu = 1280;     // RFC 8200, 5
constexpr unsigned kEthernet = 1;          // ARPHRD_ETHER
constexpr std::uint32_t kLocalTable = 255; // RT_TABLE_LOCAL
constexpr std::uint8_t kHostScope = 254;   // RT_SCOPE_HOST

bool is_ours(const nl::Link& link) { return link.alias == kOverlayAlias || link.group == nl::kUnfinishedGroup; }

std::string peer_name(const OverlaySpec& spec) { return spec.name + "p"; }

unsigned device_mtu(const OverlaySpec& spec)
{
    unsigned mtu = 0;
    for (const Family family : kFamilies)
        if (spec.family[family]) mtu = std::max(mtu, spec.family[family]->mtu);
    return mtu;
}

Result<> check(const OverlaySpec& spec)
{
    const std::string subject = "overlay device " + spec.name + ": ";
    const std::size_t longest = IFNAMSIZ - 1 - (spec.kind == OverlayKind::veth ? 1 : 0);
    if (spec.name.empty() || spec.name.size() > longest || spec.name == "." || spec.name == ".." ||
        spec.name.find_first_of("/: \t\n%") != std::string::npos)
        return Error{EINVAL, subject + "not an interface name of at most " + std::to_string(longest) + " characters"};
    if (!spec.mac.is_unicast()) return Error{EINVAL, subject + "mac " + spec.mac.to_string() + " is not unicast"};
    if (spec.kind == OverlayKind::vxlan && spec.port == 0) return Error{EINVAL, subject + "UDP port 0"};
    if (device_mtu(spec) == 0) return Error{EINVAL, subject + "no family, or mtu 0"};
    for (const Family family : kFamilies) {
        const auto& part = spec.family[family];
        if (part && (part->network.family() != family || part->pods.family() != family))
            return Error{EINVAL, subject + "network or pod CIDR is not " + std::string{to_string(family)}};
    }
    return Ok{};
}

// Writes a sysctl of our own device when it is there and has another value.
Result<> set_device_sysctl(const std::string& device, const char* name, const std::string& value)
{
    const std::string path = "/proc/sys/net/ipv6/conf/" + device + "/" + name;
    std::array<char, 16> now{};
    const Fd reading{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    const ssize_t got = reading ? ::read(reading.get(), now.data(), now.size()) : -1;
    if (got < 1) return Ok{}; // no IPv6 here
    if (std::string_view{now.data(), static_cast<std::size_t>(got)} == value + "\n") return Ok{};
    const Fd writing{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
    if (!writing || ::write(writing.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
        const int code = errno;
        return Error{code, "sysctl " + path + ": " + std::strerror(code)};
    }
    return Ok{};
}

Error port_taken(nl::Socket& socket, const OverlaySpec& spec)
{
    std::string user = "another program";
    if (const auto links = nl::links(socket))
        for (const auto& link : *links)
            if (link.vxlan && link.vxlan->port == spec.port && link.name != spec.name)
                user = "vxlan device " + link.name;
    return {EADDRINUSE, "overlay device " + spec.name + ": UDP port " + std::to_string(spec.port) + " is in use by " +
                            user + " (-overlay=veth needs no port)"};
}

// Whether the device can be corrected in place; what cannot be changed after creation decides.
Result<bool> fits(nl::Socket& socket, const nl::Link& link, const OverlaySpec& spec)
{
    if (link.group == nl::kUnfinishedGroup || link.type != kEthernet || link.kind != to_string(spec.kind)) return false;
    if (spec.kind == OverlayKind::vxlan)
        return link.vxlan == nl::Vxlan{.port = spec.port,
                                       .vni = 0,
                                       .collect_metadata = true,
                                       .learning = false,
                                       .zero_csum6_rx = true,
                                       .zero_csum6_tx = false,
                                       .gbp = spec.gbp};
    TWILL_TRY_AS(peer, nl::link(socket, peer_name(spec)));
    return peer && peer->lower == link.index && link.lower == peer->index && link.lower_netns < 0 && is_ours(*peer);
}

Result<> create(nl::Socket& socket, const OverlaySpec& spec)
{
    const std::string alias{kOverlayAlias};
    if (spec.kind == OverlayKind::veth) {
        TWILL_TRY_AS(taken, nl::link(socket, peer_name(spec)));
        if (taken) return Error{EEXIST, "overlay device " + peer_name(spec) + ": an interface of that name exists"};
        return nl::create_veth_pair(socket, {.name = spec.name,
                                             .peer_name = peer_name(spec),
                                             .mac = spec.mac,
                                             .mtu = device_mtu(spec),
                                             .alias = alias,
                                             .noarp = true});
    }
    auto created = nl::create_vxlan(socket, {.name = spec.name,
                                             .mac = spec.mac,
                                             .mtu = device_mtu(spec),
                                             .port = spec.port,
                                             .gbp = spec.gbp,
                                             .alias = alias});
    // The name was free, so it is the port that another collect-metadata device has.
    if (!created && (created.error().code == EEXIST || created.error().code == EADDRINUSE))
        return port_taken(socket, spec);
    return created;
}

// The device itself, whichever end of a pair it is, so that nothing appears when it comes up.
Result<> settle(nl::Socket& socket, const nl::Link& link, const OverlaySpec& spec)
{
    if (link.mtu != device_mtu(spec)) TWILL_TRY(nl::set_mtu(socket, link.index, device_mtu(spec)));
    if (spec.kind == OverlayKind::veth && (link.flags & IFF_NOARP) == 0) TWILL_TRY(nl::set_noarp(socket, link.index));
    if (link.addr_gen_mode != kAddrGenNone) TWILL_TRY(nl::set_addr_gen_none(socket, link.index));
    TWILL_TRY(set_device_sysctl(link.name, "accept_ra", "0"));
    if (spec.family.v6) TWILL_TRY(set_device_sysctl(link.name, "disable_ipv6", "0"));
    if (!link.is_up()) TWILL_TRY(nl::set_up(socket, link.index));
    return Ok{};
}

Result<> settle_device(nl::Socket& socket, const nl::Link& link, const OverlaySpec& spec)
{
    if (link.mac != spec.mac) TWILL_TRY(nl::set_mac(socket, link.index, spec.mac));
    if (spec.kind == OverlayKind::veth) {
        TWILL_TRY_AS(peer, nl::link(socket, peer_name(spec)));
        if (!peer) return Error{ENODEV, "overlay device " + peer_name(spec) + ": gone while it was set up"};
        TWILL_TRY(settle(socket, *peer, spec));
    }
    auto settled = settle(socket, link, spec);
    if (!settled && settled.error().code == EADDRINUSE) return port_taken(socket, spec);
    if (!settled) return settled;
    // The device's MTU is the larger one, of IPv4. The kernel forwards IPv6 by the interface's own MTU, not by the
    // route's, and would tell a pod one that is too large. It forgets the value when a device gets its carrier: a pair
    // does so later.
    if (spec.kind == OverlayKind::vxlan && spec.family.v6 && spec.family.v6->mtu >= kIpv6MinMtu)
        return set_device_sysctl(link.name, "mtu", std::to_string(spec.family.v6->mtu));
    return Ok{};
}

Result<IfIndex> ensure_device(nl::Socket& socket, const OverlaySpec& spec)
{
    TWILL_TRY_AS(link, nl::link(socket, spec.name));
    if (link && !is_ours(*link))
        return Error{EEXIST, "overlay device " + spec.name + ": an interface of that name exists and is not twill's" +
                                 (link->alias.empty() ? "" : " (alias \"" + link->alias + "\")")};
    if (link) {
        TWILL_TRY_AS(is_fit, fits(socket, *link, spec));
        if (!is_fit) {
            TWILL_TRY(nl::del_link(socket, link->index));
            link.reset();
        }
    }
    const bool is_new = !link;
    if (is_new) {
        TWILL_TRY(create(socket, spec));
        TWILL_TRY_AS(created, nl::link(socket, spec.name));
        if (!created) return Error{ENODEV, "overlay device " + spec.name + ": gone while it was set up"};
        link = std::move(created);
    }
    if (auto settled = settle_device(socket, *link, spec); !settled) {
        // Down, a new one serves nobody; the first error is the one to tell. One that was in use may still serve.
        if (is_new) (void)nl::del_link(socket, link->index);
        return settled.error();
    }
    return link->index;
}

/// What one family needs on the device.
struct Wanted {
    std::vector<nl::Address> addresses;
    std::vector<nl::Neighbour> neighbours;
    std::vector<nl::Route> routes;
};

Wanted wanted_of(const OverlayFamily& part, IfIndex device)
{
    const bool is_v4 = part.pods.family() == Family::v4;
    const Ip own = part.pods.address();
    const Ip gateway = is_v4 ? kOverlayGateway4 : kOverlayGateway6;
    nl::Address address;
    address.ifindex = device;
    address.ip = own;
    address.bits = is_v4 ? 32 : 128;
    nl::Route network;
    network.dst = part.network;
    network.ifindex = device;
    network.gateway = gateway;
    network.prefsrc = own;
    network.mtu = part.mtu;
    network.metric = is_v4 ? 0 : kMetric6;
    network.protocol = kRouteProtocol;
    network.onlink = true;
    nl::Route unreachable;
    unreachable.dst = part.pods;
    unreachable.metric = kUnreachableMetric;
    unreachable.type = nl::kRouteUnreachable;
    unreachable.protocol = kRouteProtocol;
    return {.addresses = {address},
            .neighbours = {{.ifindex = device, .ip = gateway, .mac = kOverlayGatewayMac, .state = kPermanent}},
            .routes = {network, unreachable}};
}

// The kernel shows an unreachable IPv6 route as one of the loopback device.
bool same(const nl::Route& a, const nl::Route& b)
{
    nl::Route left = a;
    nl::Route right = b;
    if (left.type == nl::kRouteUnreachable) left.ifindex = right.ifindex = {};
    return left == right;
}

bool same_slot(const nl::Route& a, const nl::Route& b) { return a.dst == b.dst && a.metric == b.metric; }

template <typename T, typename Same>
bool has(const std::vector<T>& all, const T& one, Same is_same)
{
    return std::any_of(all.begin(), all.end(), [&](const T& other) { return is_same(one, other); });
}

constexpr auto kEqual = [](const auto& a, const auto& b) { return a == b; };

bool same_address(const nl::Address& a, const nl::Address& b)
{
    return a.ifindex == b.ifindex && a.ip == b.ip && a.bits == b.bits;
}

bool same_neighbour(const nl::Neighbour& a, const nl::Neighbour& b) { return a.ifindex == b.ifindex && a.ip == b.ip; }

// Neighbours inside the cluster network are KernelOverlay's.
bool is_peer(const nl::Neighbour& neighbour, const Wanted& wanted)
{
    return std::any_of(wanted.routes.begin(), wanted.routes.end(), [&](const nl::Route& route) {
        return route.type == nl::kRouteUnicast && route.dst.contains(neighbour.ip);
    });
}

// The address of the device as the first of the local table's entries for it.
nl::Route own_address_route(IfIndex device, const Ip& own)
{
    nl::Route route;
    route.dst = *Cidr::make(own, 32);
    route.ifindex = device;
    route.table = kLocalTable;
    route.type = nl::kRouteLocal;
    route.scope = kHostScope;
    route.protocol = kRouteProtocol;
    return route;
}

Result<> put_route(nl::Socket& socket, const nl::Route& route, const std::vector<nl::Route>& present)
{
    if (has(present, route, same)) return Ok{};
    for (const auto& other : present)
        if (same_slot(other, route) && other.protocol != kRouteProtocol)
            return Error{EEXIST, "route " + route.dst.to_string() + ": one that is not twill's exists (ifindex " +
                                     std::to_string(other.ifindex.value) + ", protocol " +
                                     std::to_string(other.protocol) + ")"};
    auto done = nl::put_route(socket, route);
    if (done || done.error().code != EINVAL || !route.prefsrc || route.dst.family() == Family::v6) return done;
    // Before 5.14 the lowest address of a subnet is a broadcast address of it. On a node that had cni0 before us it is
    // cni0's, and no source: the first entry of the local table decides.
    TWILL_TRY(nl::prepend_route(socket, own_address_route(route.ifindex, *route.prefsrc)));
    return nl::put_route(socket, route);
}

// Ours, but no longer asked for. A route of the same slot was replaced already.
Result<> remove_stale_routes(nl::Socket& socket, IfIndex device, const Wanted& wanted,
                             const std::vector<nl::Route>& present)
{
    for (const auto& route : present) {
        const bool is_mine =
            route.protocol == kRouteProtocol && (route.ifindex == device || route.type == nl::kRouteUnreachable);
        if (is_mine && !has(wanted.routes, route, same_slot)) TWILL_TRY(nl::del_route(socket, route));
    }
    return Ok{};
}

Result<> ensure_family(nl::Socket& socket, IfIndex device, Family family, const Wanted& wanted)
{
    TWILL_TRY_AS(addresses, nl::addresses(socket));
    TWILL_TRY_AS(neighbours, nl::neighbours(socket));
    TWILL_TRY_AS(routes, nl::routes(socket, family));
    for (const auto& address : wanted.addresses)
        if (!has(addresses, address, same_address)) TWILL_TRY(nl::put_address(socket, address));
    for (const auto& neighbour : wanted.neighbours)
        if (!has(neighbours, neighbour, kEqual)) TWILL_TRY(nl::put_neighbour(socket, neighbour));
    for (const auto& route : wanted.routes) TWILL_TRY(put_route(socket, route, routes));

    TWILL_TRY(remove_stale_routes(socket, device, wanted, routes));
    for (const auto& address : addresses)
        if (address.ifindex == device && address.ip.family() == family &&
            !has(wanted.addresses, address, same_address)) {
            TWILL_TRY(nl::del_address(socket, address));
            if (family == Family::v4) TWILL_TRY(nl::del_route(socket, own_address_route(device, address.ip)));
        }
    for (const auto& neighbour : neighbours)
        if (neighbour.ifindex == device && neighbour.ip.family() == family && neighbour.state == kPermanent &&
            !has(wanted.neighbours, neighbour, same_neighbour) && !is_peer(neighbour, wanted))
            TWILL_TRY(nl::del_neighbour(socket, neighbour));
    return Ok{};
}

} // namespace

std::string_view to_string(OverlayKind kind) { return kind == OverlayKind::vxlan ? "vxlan" : "veth"; }

Result<IfIndex> ensure_overlay(nl::Socket& socket, const OverlaySpec& spec)
{
    TWILL_TRY(check(spec));
    TWILL_TRY_AS(device, ensure_device(socket, spec));
    for (const Family family : kFamilies) {
        const auto& part = spec.family[family];
        TWILL_TRY(ensure_family(socket, device, family, part ? wanted_of(*part, device) : Wanted{}));
    }
    return device;
}

Result<std::optional<nl::Link>> find_overlay(nl::Socket& socket, std::string_view name)
{
    TWILL_TRY_AS(link, nl::link(socket, name));
    if (link && !is_ours(*link)) link.reset();
    return link;
}

Result<> remove_overlay(nl::Socket& socket, std::string_view name)
{
    TWILL_TRY_AS(link, find_overlay(socket, name));
    if (link) TWILL_TRY(nl::del_link(socket, link->index));
    TWILL_TRY_AS(routes, nl::routes(socket));
    for (const auto& route : routes)
        if (route.protocol == kRouteProtocol || route.protocol == kPeerRouteProtocol)
            TWILL_TRY(nl::del_route(socket, route));
    return Ok{};
}

} // namespace twill
