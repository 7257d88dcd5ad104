// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <utility>

#include "agent/reconcile/endpoint_table.hpp"
#include "tests/unit/reconcile/pod_node.hpp"

using namespace twill;
using namespace twill::test;

TEST_CASE("endpoint_table: a claim that comes before its interface is kept until then")
{
    PodNode node;
    node.claim(kIp, Mac{}, IfIndex{20}, kRoute);
    node.claim(kIp, kMacA, IfIndex{20}, kNeighbour);
    node.claim(kIp6, kMacA, IfIndex{21}, kPacket);
    CHECK(node.size() == 0);
    node.claim(kIp, kMacB, kB, kPacket);
    node.pod_interface_up(port(IfIndex{20}, "veth20")); // still a host route: it outranks
    CHECK(node.holder() == 20);

    node.pod_interface_gone(IfIndex{21}); // it never came up
    node.pod_interface_up(port(IfIndex{21}, "veth21"));
    CHECK(node.holder(kIp6) == 0);
}

TEST_CASE("endpoint_table: a pod that invents sources holds a bounded number of addresses; allocated ones always fit")
{
    PodNode node;
    const Ip base = *Ip::parse("fd00:42:0:1::1:0");
    for (unsigned i = 0; i < 1000; ++i) node.claim(base.plus(i), kMacA, kA, kPacket);
    CHECK(node.size() == EndpointTable::kMaxUnownedPerInterface);

    node.owner_put(kIp, {"c1", "eth0", "vethA"});
    node.claim(kIp, kMacA, kA, kPacket);
    CHECK(node.holder() == kA.value);
    node.claim(base.plus(5000), kMacB, kB, kPacket);
    CHECK(node.holder(base.plus(5000)) == kB.value);

    for (unsigned i = 0; i < 1000; ++i) node.claim(base.plus(i), kMacA, IfIndex{30}, kPacket);
    node.pod_interface_up(port(IfIndex{30}, "veth30"));
    CHECK(node.size() <= 2 + 2 * EndpointTable::kMaxUnownedPerInterface);
}

TEST_CASE("endpoint_table: a change of scope ends endpoints outside, and lets others come")
{
    PodNode node;
    node.claim(kIp, kMacA, kA, kPacket);
    node.claim(kIp6, kMacA, kA, kPacket);
    EndpointScope scope;
    scope.own_pods.v4 = *Cidr::parse("10.42.7.0/24");
    node.set_scope(scope);
    CHECK(node.size() == 0);
    node.claim(*Ip::parse("10.42.7.1"), kMacA, kA, kPacket);
    CHECK(node.size() == 1);
}

TEST_CASE("endpoint_table: in a /31 both addresses but the first are pods")
{
    EndpointTable table;
    EndpointScope scope;
    scope.own_pods.v4 = *Cidr::parse("10.42.1.4/31");
    table.set_scope(scope);
    table.pod_interface_up(port(kA, "vethA"));
    table.claim(*Ip::parse("10.42.1.4"), kMacA, kA, kPacket);
    table.claim(kIp, kMacA, kA, kPacket);
    CHECK(table.desired().size() == 1);
}

TEST_CASE("endpoint_table: a restart keeps what the maps held, if the interface lives and nothing contradicts")
{
    const Ip second = *Ip::parse("10.42.1.6");
    const Ip third = *Ip::parse("10.42.1.7");
    const Ip outside = *Ip::parse("10.42.2.7");
    Endpoints from_maps;
    for (const auto& [ip, ifindex] :
         {std::pair{kIp, kA}, std::pair{second, kB}, std::pair{third, IfIndex{99}}, std::pair{outside, kA}})
        from_maps[ip] = {ip, ifindex, kMacA, kMacB, false};
    const Owner wrong{"c2", "eth0", "vethX"};
    PodNode node;

    SUBCASE("owners told before")
    {
        node.owner_put(second, wrong);
        node.restore(from_maps, {port(kA, "vethA"), port(kB, "vethB")});
    }
    SUBCASE("owners told after")
    {
        node.restore(from_maps, {port(kA, "vethA"), port(kB, "vethB")});
        CHECK(node.size() == 2);
        node.owner_put(second, wrong);
    }
    CHECK(node.desired() == Endpoints{{kIp, Endpoint{kIp, kA, kMacA, kBridge, false}}}); // the MAC as the link has it

    node.owner_put(kIp, {"c1", "eth0", ""});
    node.claim(kIp, kMacB, kB, kPacket);
    CHECK(node.holder() == kA.value);
    CHECK(node.addr_conflicts() == 1);
}

TEST_CASE("endpoint_table: what was learnt before the restore is newer than the maps")
{
    PodNode node;
    node.claim(kIp, kMacB, kB, kPacket);
    node.restore({{kIp, Endpoint{kIp, kA, kMacA, kBridge, false}}}, {port(kA, "vethA")});
    CHECK(node.holder() == kB.value);
}

TEST_CASE("endpoint_table: an endpoint waits for the gateway's MAC")
{
    PodNode node;
    auto bare = port(kA, "vethA");
    bare.host_mac = {};
    node.pod_interface_up(bare);
    node.claim(kIp, kMacA, kA, kPacket);
    CHECK(node.size() == 0);
    node.pod_interface_up(port(kA, "vethA"));
    CHECK(node.size() == 1);
}
