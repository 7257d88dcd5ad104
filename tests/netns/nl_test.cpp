// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "agent/nl/addr.hpp"
#include "agent/nl/link.hpp"
#include "agent/nl/neigh.hpp"
#include "agent/nl/qdisc.hpp"
#include "agent/nl/route.hpp"
#include "tests/netns/nl_sandbox.hpp"

namespace twill::nl {
namespace {

using test::Namespace;
using test::output;
using test::shell;

Ip ip(const char* text) { return *Ip::parse(text); }
Cidr cidr(const char* text) { return *Cidr::parse(text); }
Mac mac(const char* text) { return *Mac::parse(text); }

// A namespace with `wire`, up, 192.0.2.1/24 and 2001:db8::1/64, whose other end is `far`.
struct Wired : Namespace {
    IfIndex wire;
    Wired()
    {
        shell(
            "ip link add wire type veth peer far; ip link set wire addrgenmode none; ip link set far addrgenmode none;"
            "ip link set far up; ip link set wire up; ip addr add 192.0.2.1/24 dev wire;"
            "ip addr add 2001:db8::1/64 dev wire nodad");
        wire = (*link(socket(), "wire"))->index;
    }
};

template <typename T>
bool has(const Result<std::vector<T>>& all, const T& one)
{
    REQUIRE_MESSAGE(all, all.error().what);
    return std::find(all->begin(), all->end(), one) != all->end();
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("nl: a created veth pair is what was asked for, down, with an alias and no group")
{
    Namespace ns;
    REQUIRE(create_veth_pair(ns.socket(), {.name = "v0",
                                           .peer_name = "v1",
                                           .mac = mac("02:00:00:00:00:01"),
                                           .mtu = 1400,
                                           .alias = "ours",
                                           .noarp = true}));
    const auto near = link(ns.socket(), "v0");
    const auto far = link(ns.socket(), "v1");
    REQUIRE(near);
    REQUIRE(*near);
    REQUIRE(*far);
    CHECK((*near)->mac == mac("02:00:00:00:00:01"));
    for (const Link& end : {**near, **far}) {
        CHECK(end.kind == "veth");
        CHECK(end.mtu == 1400);
        CHECK(end.alias == "ours");
        CHECK(end.group == 0);
        CHECK((end.flags & 0x80U) != 0); // IFF_NOARP
        CHECK_FALSE(end.is_up());
    }
    CHECK((*near)->lower == (*far)->index);
    CHECK((*near)->lower_netns == -1);
    CHECK(*link(ns.socket(), (*far)->index) == *far);
    CHECK(has(links(ns.socket()), **near));
    CHECK(create_veth_pair(ns.socket(),
                           {.name = "v0", .peer_name = "v2", .mac = mac("02:00:00:00:00:02"), .mtu = 1400, .alias = ""})
              .error()
              .code == EEXIST);

    REQUIRE(del_link(ns.socket(), (*near)->index));
    CHECK_FALSE(*link(ns.socket(), "v1"));
    CHECK(del_link(ns.socket(), (*near)->index));
}

TEST_CASE("nl: the other end of a veth in another namespace is told as such")
{
    Wired ns;
    shell("mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip netns add pod && ip link set far netns pod");
    const auto wire = *link(ns.socket(), ns.wire);
    CHECK(wire->lower);
    CHECK(wire->lower_netns >= 0);
    shell("ip netns del pod && umount /run/netns");
}

TEST_CASE("nl: an interface that is not there is a value, by name and by index")
{
    Namespace ns;
    const auto by_name = link(ns.socket(), "nobody");
    REQUIRE(by_name);
    CHECK_FALSE(*by_name);
    const auto by_index = link(ns.socket(), IfIndex{4711});
    REQUIRE(by_index);
    CHECK_FALSE(*by_index);
}

TEST_CASE("nl: an error carries the operation, its subject and the kernel's own words")
{
    Wired ns;
    Route route;
    route.dst = cidr("198.51.100.0/24");
    route.ifindex = ns.wire;
    route.gateway = ip("203.0.113.1");
    const auto refused = put_route(ns.socket(), route);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ENETUNREACH);
    CHECK(contains(refused.error().what, "198.51.100.0/24"));
    CHECK(contains(refused.error().what, "Nexthop has invalid gateway"));
    CHECK(set_up(ns.socket(), IfIndex{4711}).error().code == ENODEV);
    CHECK(link(ns.socket(), ns.wire)); // the socket is in step after errors
}

TEST_CASE("nl: addresses of both families are put, listed and deleted")
{
    Wired ns;
    for (const auto& [text, bits] : {std::pair{"10.42.1.0", 32U}, {"fd00:42::", 128U}}) {
        Address address;
        address.ifindex = ns.wire;
        address.ip = ip(text);
        address.bits = bits;
        CHECK(put_address(ns.socket(), address));
        CHECK(put_address(ns.socket(), address));
        CHECK(has(addresses(ns.socket()), address));
        CHECK(del_address(ns.socket(), address));
        CHECK_FALSE(has(addresses(ns.socket()), address));
        CHECK(del_address(ns.socket(), address));
    }
}

TEST_CASE("nl: a route reads back as it was put, is replaced and deleted")
{
    Wired ns;
    Route v4;
    v4.dst = cidr("10.42.0.0/16");
    v4.ifindex = ns.wire;
    v4.gateway = ip("169.254.116.1");
    v4.prefsrc = ip("192.0.2.1");
    v4.mtu = 1450;
    v4.protocol = kRouteProtocol;
    v4.onlink = true;
    Route v6 = v4;
    v6.dst = cidr("fd00:42::/48");
    v6.gateway = ip("fe80::74:1");
    v6.prefsrc = ip("2001:db8::1");
    v6.metric = 1024;
    Route via6 = v4;
    via6.dst = cidr("10.43.0.0/16");
    via6.gateway = ip("fe80::74:1");
    for (Route route : {v4, v6, via6}) {
        const Family family = route.dst.family();
        auto done = put_route(ns.socket(), route);
        REQUIRE_MESSAGE(done, done.error().what);
        CHECK(has(routes(ns.socket(), family), route));
        const std::size_t count = routes(ns.socket(), family)->size();
        route.mtu = 1400;
        REQUIRE(put_route(ns.socket(), route));
        CHECK(has(routes(ns.socket(), family), route));
        CHECK(routes(ns.socket(), family)->size() == count);
        CHECK(del_route(ns.socket(), route));
        CHECK_FALSE(has(routes(ns.socket(), family), route));
        CHECK(del_route(ns.socket(), route));
    }
}

TEST_CASE("nl: a route to a collect-metadata device keeps the far end, and is replaced with it")
{
    Wired ns;
    shell("ip link add vx type vxlan external dstport 4789; ip link set vx up");
    const IfIndex device = (*link(ns.socket(), "vx"))->index;
    for (const bool is_v4 : {true, false}) {
        Route route;
        route.dst = cidr(is_v4 ? "10.42.2.0/24" : "fd00:42:0:2::/64");
        route.ifindex = device;
        route.gateway = route.dst.address();
        route.metric = is_v4 ? 0 : 1024;
        route.protocol = kPeerRouteProtocol;
        route.onlink = true;
        route.encap = Encap{.dst = ip(is_v4 ? "192.0.2.7" : "2001:db8::7"), .src = {}, .id = 0x123456, .csum = false};
        REQUIRE(put_route(ns.socket(), route));
        CHECK(has(routes(ns.socket(), route.dst.family()), route));
        CHECK(contains(output("ip route; ip -6 route"), is_v4 ? "encap ip id 1193046" : "encap ip6 id 1193046"));
        route.encap->src = ip(is_v4 ? "192.0.2.1" : "2001:db8::1");
        route.encap->csum = true;
        REQUIRE(put_route(ns.socket(), route));
        const auto all = routes(ns.socket(), route.dst.family());
        CHECK(has(all, route));
        CHECK(std::count_if(all->begin(), all->end(), [&](const Route& one) { return one.dst == route.dst; }) == 1);
        CHECK(del_route(ns.socket(), route));
        CHECK_FALSE(has(routes(ns.socket(), route.dst.family()), route));
        CHECK(del_route(ns.socket(), route));
    }
}

TEST_CASE("nl: only the main table is listed, with thousands of routes whole")
{
    Wired ns;
    shell("ip route add 203.0.113.0/24 dev wire table 77");
    shell("for i in $(seq 0 2999); do echo route add 10.$((i / 256)).$((i % 256)).0/24 dev wire; done | ip -batch -");
    const auto all = routes(ns.socket(), Family::v4);
    REQUIRE(all);
    CHECK(all->size() == 3001); // and the wire's own
    CHECK(std::all_of(all->begin(), all->end(), [](const Route& route) { return route.table == 254; }));
}

TEST_CASE("nl: lookup tells the way that a packet would take, or that there is none")
{
    Wired ns;
    shell("ip route add 198.51.100.0/24 via 192.0.2.9 mtu 1300; ip -6 route add 2001:db8:1::/48 via 2001:db8::9;"
          "ip route add unreachable 10.1.0.0/16; ip route add blackhole 10.2.0.0/16; ip route add prohibit 10.3.0.0/16;"
          "ip -6 route add unreachable fd00:1::/32; ip -6 route add blackhole fd00:2::/32;"
          "ip -6 route add prohibit fd00:3::/32");
    const auto v4 = lookup(ns.socket(), ip("198.51.100.7"));
    REQUIRE_MESSAGE(v4, v4.error().what);
    REQUIRE(*v4);
    CHECK(**v4 == RouteLookup{.ifindex = ns.wire, .gateway = ip("192.0.2.9"), .source = ip("192.0.2.1"), .mtu = 1300});
    const auto v6 = lookup(ns.socket(), ip("2001:db8:1::7"));
    REQUIRE_MESSAGE(v6, v6.error().what);
    REQUIRE(*v6);
    CHECK((*v6)->gateway == ip("2001:db8::9"));
    CHECK((*v6)->source == ip("2001:db8::1"));
    const auto on_link = lookup(ns.socket(), ip("192.0.2.7"));
    REQUIRE(*on_link);
    CHECK_FALSE((*on_link)->gateway);
    CHECK((*lookup(ns.socket(), ip("192.0.2.1")))->type == kRouteLocal);
    CHECK((*lookup(ns.socket(), ip("2001:db8::1")))->type == kRouteLocal);
    for (const char* nowhere :
         {"203.0.113.1", "10.1.0.1", "10.2.0.1", "10.3.0.1", "2001:db9::1", "fd00:1::1", "fd00:2::1", "fd00:3::1"}) {
        CAPTURE(std::string{nowhere});
        const auto found = lookup(ns.socket(), ip(nowhere));
        REQUIRE_MESSAGE(found, found.error().what);
        CHECK_FALSE(*found);
    }
}

TEST_CASE("nl: permanent neighbours of both families are put, replaced and deleted")
{
    Wired ns;
    for (const char* text : {"169.254.116.1", "fe80::74:1"}) {
        Neighbour neighbour{.ifindex = ns.wire, .ip = ip(text), .mac = mac("02:74:77:6c:00:02"), .state = 0x80};
        REQUIRE(put_neighbour(ns.socket(), neighbour));
        neighbour.mac = mac("02:74:77:6c:00:01");
        REQUIRE(put_neighbour(ns.socket(), neighbour));
        CHECK(has(neighbours(ns.socket()), neighbour));
        CHECK(neighbour.is_usable());
        CHECK(del_neighbour(ns.socket(), neighbour));
        CHECK_FALSE(has(neighbours(ns.socket()), neighbour));
        CHECK(del_neighbour(ns.socket(), neighbour));
    }
}

TEST_CASE("nl: a bridge's entries are listed with their port, and a vxlan device's own are not")
{
    Namespace ns;
    shell("ip link add cni0 type bridge; ip link set cni0 up; ip link add pod type veth peer podp; ip link set pod up;"
          "ip link set podp up; ip link set pod master cni0; bridge fdb add 02:00:00:00:00:42 dev pod master static;"
          "ip link add vx type vxlan id 5 dstport 4789; bridge fdb append 02:00:00:00:00:43 dev vx dst 192.0.2.7");
    const Link pod = **link(ns.socket(), "pod");
    const Link bridge = **link(ns.socket(), "cni0");
    CHECK(pod.master == bridge.index);
    CHECK(pod.is_bridge_port);
    CHECK_FALSE(bridge.is_bridge_port);
    const auto entries = fdb(ns.socket());
    CHECK(has(entries, {.mac = mac("02:00:00:00:00:42"), .port = pod.index, .bridge = bridge.index}));
    CHECK(has(entries, {.mac = pod.mac, .port = pod.index, .bridge = bridge.index, .is_local = true}));
    CHECK(std::none_of(entries->begin(), entries->end(),
                       [](const FdbEntry& entry) { return entry.mac == mac("02:00:00:00:00:43"); }));
}

TEST_CASE("nl: a vxlan device's own entries are put, replaced and deleted; learned and default ones are not listed")
{
    Wired ns;
    shell("ip link add vx type vxlan id 5 dev wire local 192.0.2.1 dstport 4789 nolearning;"
          "ip link add other type vxlan id 6 dev wire local 192.0.2.1 dstport 4789 nolearning;"
          "bridge fdb append 00:00:00:00:00:00 dev vx dst 192.0.2.9;"
          "bridge fdb append 02:00:00:00:00:44 dev vx dst 192.0.2.9 dynamic;"
          "bridge fdb append 02:00:00:00:00:45 dev other dst 192.0.2.9 permanent");
    const IfIndex device = (*link(ns.socket(), "vx"))->index;
    VtepEntry entry{.device = device, .mac = mac("02:00:00:00:00:43"), .node = ip("192.0.2.7")};
    CHECK(vteps(ns.socket(), device)->empty());
    REQUIRE(put_vtep(ns.socket(), entry));
    entry.node = ip("192.0.2.8");
    REQUIRE(put_vtep(ns.socket(), entry));
    CHECK(*vteps(ns.socket(), device) == std::vector{entry});
    CHECK(contains(output("bridge fdb show dev vx"), "02:00:00:00:00:43 dst 192.0.2.8 self permanent"));
    entry.node = ip("192.0.2.9");
    CHECK(del_vtep(ns.socket(), entry));
    CHECK(vteps(ns.socket(), device)->empty());
    CHECK(del_vtep(ns.socket(), entry));
}

TEST_CASE("nl: an interface that the bandwidth plugin shapes is seen as shaped")
{
    Wired ns;
    CHECK_FALSE(is_shaped(*qdiscs(ns.socket()), ns.wire));
    if (std::system("tc qdisc add dev wire root tbf rate 10mbit burst 100k latency 50ms 2>/dev/null") == 0) {
        CHECK(is_shaped(*qdiscs(ns.socket()), ns.wire));
        shell("tc qdisc del dev wire root");
    } else {
        MESSAGE("no tbf in this kernel: the root qdisc is tested by unit_nl only");
    }
    CHECK_FALSE(is_shaped(*qdiscs(ns.socket()), ns.wire));
    shell("tc qdisc add dev wire clsact");
    CHECK_FALSE(is_shaped(*qdiscs(ns.socket()), ns.wire));
    CHECK(has_qdisc(*qdiscs(ns.socket()), ns.wire, "clsact"));
    shell("tc qdisc del dev wire clsact; tc qdisc add dev wire ingress");
    CHECK(is_shaped(*qdiscs(ns.socket()), ns.wire));
    CHECK(has_qdisc(*qdiscs(ns.socket()), ns.wire, "ingress"));
    CHECK_FALSE(has_qdisc(*qdiscs(ns.socket()), ns.wire, "clsact"));
}

} // namespace twill::nl
