// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/kernel_overlay.hpp"

#include <doctest/doctest.h>

#include <cerrno>

using namespace twill;

namespace {

Ip ip(const char* text) { return *Ip::parse(text); }
Cidr cidr(const char* text) { return *Cidr::parse(text); }
const Mac kMac = *Mac::parse("02:00:00:00:00:02");
const Mac kOther = *Mac::parse("02:00:00:00:00:03");
constexpr IfIndex kWire{2};
constexpr IfIndex kDevice{7};

KernelOverlaySpec spec_of(KernelForm form, const PerFamily<KernelTunnel>& tunnel)
{
    KernelOverlaySpec spec;
    spec.v4 = KernelFamily{cidr("10.42.0.0/16"), cidr("10.42.1.0/24"), form, tunnel.v4, true};
    spec.v6 = KernelFamily{cidr("fd00:42::/48"), cidr("fd00:42:0:1::/64"), form, tunnel.v6, true};
    return spec;
}

KernelOverlaySpec external()
{
    return spec_of(KernelForm::twill, {KernelTunnel{kDevice, Vni{5}, ip("192.0.2.10")},
                                       KernelTunnel{kDevice, Vni{5}, ip("2001:db8::10")}});
}

/// flannel.1 and flannel-v6.1.
KernelOverlaySpec flannel()
{
    return spec_of(KernelForm::flannel, {KernelTunnel{{7}, {}, {}}, KernelTunnel{{8}, {}, {}}});
}

Peer encap(const char* pods, const char* node)
{
    return {
        .pods = cidr(pods), .node = ip(node), .nexthop = ip("192.0.2.1"), .wire = kWire, .mtu = 1450, .vtep_mac = kMac};
}

/// As the kernel would show it.
void add(KernelTables& tables, const KernelEntry& entry)
{
    tables.routes.push_back(entry.route);
    if (entry.neighbour) tables.neighbours.push_back(*entry.neighbour);
    if (entry.vtep) tables.vteps.push_back(*entry.vtep);
}

} // namespace

TEST_CASE("kernel overlay: in flannel's form a route that flannel would not make is somebody else's")
{
    auto spec = flannel();
    const auto direct = [] {
        auto peer = encap("10.42.2.0/24", "192.0.2.11");
        peer.mode = PeerMode::direct;
        return peer;
    }();
    const auto is_ours = [&](const nl::Route& route) {
        return find_peers({.routes = {route}, .neighbours = {}, .vteps = {}}, spec).entries.size() == 1;
    };
    const nl::Route tunnel = kernel_entry(encap("10.42.2.0/24", "192.0.2.11"), spec)->route;
    const nl::Route via_node = kernel_entry(direct, spec)->route;
    const auto with = [](nl::Route route, auto change) {
        change(route);
        return route;
    };
    CHECK(is_ours(tunnel));
    CHECK(is_ours(via_node));
    for (const auto& route : {tunnel, via_node}) {
        CHECK_FALSE(is_ours(with(route, [](nl::Route& r) { r.metric = 500; })));
        CHECK_FALSE(is_ours(with(route, [](nl::Route& r) { r.table = 100; })));
        CHECK_FALSE(is_ours(with(route, [](nl::Route& r) { r.gateway.reset(); })));
        CHECK_FALSE(is_ours(with(route, [](nl::Route& r) { r.dst = cidr("10.43.2.0/24"); })));
    }
    CHECK_FALSE(is_ours(with(tunnel, [](nl::Route& r) { r.gateway = ip("10.42.2.7"); })));
    CHECK_FALSE(is_ours(with(via_node, [](nl::Route& r) { r.dst = cidr("10.42.2.0/25"); })));
    CHECK_FALSE(is_ours(with(via_node, [](nl::Route& r) { r.dst = cidr("10.42.1.0/24"); })));
    CHECK_FALSE(is_ours(with(via_node, [](nl::Route& r) { r.protocol = 4; })));
    spec.v4->has_direct = false;
    CHECK(is_ours(tunnel));
    CHECK_FALSE(is_ours(via_node));
}

TEST_CASE("kernel overlay: on a collect-metadata device the route tells the far end")
{
    const auto entry = kernel_entry(encap("10.42.2.0/24", "192.0.2.11"), external());
    REQUIRE(entry);
    CHECK(entry->route.dst == cidr("10.42.2.0/24"));
    CHECK(entry->route.gateway == ip("10.42.2.0"));
    CHECK(entry->route.ifindex == kDevice);
    CHECK(entry->route.onlink);
    CHECK(entry->route.prefsrc == ip("10.42.1.0"));
    CHECK(entry->route.mtu == 1450);
    CHECK(entry->route.protocol == kPeerRouteProtocol);
    CHECK(entry->route.encap == nl::Encap{.dst = ip("192.0.2.11"), .src = ip("192.0.2.10"), .id = 5, .csum = false});
    CHECK(entry->neighbour == nl::Neighbour{.ifindex = kDevice, .ip = ip("10.42.2.0"), .mac = kMac, .state = 0x80});
    CHECK_FALSE(entry->vtep);
}

TEST_CASE("kernel overlay: over IPv6 packets carry a checksum, which flannel's device wants")
{
    const auto entry = kernel_entry(encap("fd00:42:0:2::/64", "2001:db8::11"), external());
    REQUIRE(entry);
    CHECK(entry->route.metric == 1024);
    CHECK(entry->route.encap->csum);
    CHECK(entry->route.encap->src == ip("2001:db8::10"));
}

TEST_CASE("kernel overlay: on flannel's device it is flannel's three entries, with nothing of ours in them")
{
    for (const auto& [pods, node, device] :
         {std::tuple("10.42.2.0/24", "192.0.2.11", 7), std::tuple("fd00:42:0:2::/64", "2001:db8::11", 8)}) {
        const auto entry = kernel_entry(encap(pods, node), flannel());
        REQUIRE(entry);
        CHECK(entry->route.ifindex == IfIndex{device});
        CHECK(entry->route.gateway == cidr(pods).address());
        CHECK(entry->route.onlink);
        CHECK_FALSE(entry->route.encap);
        CHECK_FALSE(entry->route.prefsrc);
        CHECK(entry->route.mtu == 0);
        CHECK(entry->route.protocol == 3); // RTPROT_BOOT
        CHECK(entry->neighbour->ip == cidr(pods).address());
        CHECK(entry->vtep == nl::VtepEntry{.device = {device}, .mac = kMac, .node = ip(node)});
    }
}

TEST_CASE("kernel overlay: a direct peer is a route via its node")
{
    auto peer = encap("10.42.2.0/24", "192.0.2.11");
    peer.mode = PeerMode::direct;
    peer.nexthop = peer.node;
    peer.mtu = 1500;
    auto spec = external();
    spec.v4->tunnel.reset(); // host-gw has no device
    const auto entry = kernel_entry(peer, spec);
    REQUIRE(entry);
    CHECK(entry->route.ifindex == kWire);
    CHECK(entry->route.gateway == ip("192.0.2.11"));
    CHECK_FALSE(entry->route.onlink);
    CHECK_FALSE(entry->route.encap);
    CHECK_FALSE(entry->neighbour);
    CHECK(kernel_entry(encap("10.42.2.0/24", "192.0.2.11"), spec).error().code == ENOTSUP);
}

TEST_CASE("kernel overlay: what it wrote is found again, whole")
{
    for (const auto& spec : {external(), flannel()}) {
        const auto one = *kernel_entry(encap("10.42.2.0/24", "192.0.2.11"), spec);
        const auto two = *kernel_entry(encap("fd00:42:0:2::/64", "2001:db8::11"), spec);
        KernelTables tables;
        add(tables, one);
        add(tables, two);
        const auto found = find_peers(tables, spec);
        CHECK(found.entries.size() == 2);
        CHECK(found.entries.at(cidr("10.42.2.0/24")) == one);
        CHECK(found.entries.at(cidr("fd00:42:0:2::/64")) == two);
        CHECK(found.stale.routes.empty());
        CHECK(found.stale.neighbours.empty());
        CHECK(found.stale.vteps.empty());
    }
}

TEST_CASE("kernel overlay: what belongs to no route is stale, what is not ours is not looked at")
{
    const auto spec = flannel();
    KernelTables tables;
    add(tables, *kernel_entry(encap("10.42.2.0/24", "192.0.2.11"), spec));
    const nl::Neighbour lone{.ifindex = kDevice, .ip = ip("10.42.9.0"), .mac = kOther, .state = 0x80};
    const nl::VtepEntry old{.device = kDevice, .mac = kOther, .node = ip("192.0.2.11")};
    tables.neighbours.push_back(lone);
    tables.neighbours.push_back({.ifindex = kWire, .ip = ip("10.42.9.0"), .mac = kOther, .state = 0x80});
    tables.neighbours.push_back({.ifindex = kDevice, .ip = ip("169.254.116.1"), .mac = kOther, .state = 0x80});
    tables.neighbours.push_back({.ifindex = kDevice, .ip = ip("10.42.8.0"), .mac = kOther, .state = 0x04});
    tables.vteps.push_back(old);
    nl::Route network; // flannel-wg's or a user's: the whole network
    network.dst = cidr("10.42.0.0/16");
    network.ifindex = kDevice;
    network.gateway = ip("10.42.7.0");
    tables.routes.push_back(network);
    const auto found = find_peers(tables, spec);
    CHECK(found.entries.size() == 1);
    CHECK(found.stale.routes.empty());
    CHECK(found.stale.neighbours == std::vector{lone});
    CHECK(found.stale.vteps == std::vector{old});
}

TEST_CASE("kernel overlay: flannel's own route is right as it is, ours only when it is exactly ours")
{
    const auto peer = encap("10.42.2.0/24", "192.0.2.11");
    const auto wanted = *kernel_entry(peer, flannel());
    auto have = wanted;
    have.route.mtu = 1400;
    CHECK(is_right(have, wanted));
    have.vtep->node = ip("192.0.2.12");
    CHECK_FALSE(is_right(have, wanted));
    have = wanted;
    have.neighbour->mac = kOther;
    CHECK_FALSE(is_right(have, wanted));
    have = wanted;
    have.route.onlink = false;
    CHECK_FALSE(is_right(have, wanted));

    const auto ours = *kernel_entry(peer, external());
    have = ours;
    CHECK(is_right(have, ours));
    have.route.mtu = 1400;
    CHECK_FALSE(is_right(have, ours));
    have = ours;
    have.route.encap->src = ip("192.0.2.99");
    CHECK_FALSE(is_right(have, ours));
}
