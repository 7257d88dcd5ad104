// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/endpoint_table.hpp"

#include <doctest/doctest.h>

#include <functional>

#include "tests/unit/reconcile/pod_node.hpp"

using namespace twill;
using namespace twill::test;

namespace {

struct Story {
    const char* name;
    std::function<void(PodNode&)> facts;
    int holder;
    std::uint64_t conflicts;
};

void check(const std::vector<Story>& stories)
{
    for (const auto& story : stories) {
        CAPTURE(story.name);
        PodNode node;
        story.facts(node);
        CHECK(node.holder() == story.holder);
        CHECK(node.addr_conflicts() == story.conflicts);
    }
}

} // namespace

TEST_CASE("endpoint_table: an endpoint carries the claim's MAC and the interface's properties, as they are now")
{
    PodNode node;
    node.claim(kIp, kMacA, kA, kPacket);
    CHECK(node.desired().at(kIp) == Endpoint{kIp, kA, kMacA, kBridge, false});

    auto changed = port(kA, "vethA");
    changed.shaped = true;
    changed.host_mac = kMacB;
    node.pod_interface_up(changed);
    node.claim(kIp, kMacB, kA, kNeighbour); // another MAC on the same port
    CHECK(node.desired().at(kIp) == Endpoint{kIp, kA, kMacB, kMacB, true});
    CHECK(node.addr_conflicts() == 0);
}

TEST_CASE("endpoint_table: claims that cannot be a pod of this node are ignored")
{
    PodNode node;
    for (const char* text : {"10.42.2.5", "10.42.1.0", "10.42.1.255", "10.42.1.1", "fd00:42:0:1::", "fd00:42:0:2::5",
                             "192.0.2.1", "224.0.0.1", "0.0.0.0", "::"}) {
        CAPTURE(text);
        node.claim(*Ip::parse(text), kMacA, kA, kPacket);
        CHECK(node.size() == 0);
    }
    node.claim(kIp, Mac{}, kA, kPacket);
    node.claim(kIp, *Mac::parse("ff:ff:ff:ff:ff:ff"), kA, kPacket);
    CHECK(node.size() == 0);
    CHECK(node.addr_conflicts() == 0);

    EndpointTable unscoped;
    unscoped.pod_interface_up(port(kA, "vethA"));
    unscoped.claim(kIp, kMacA, kA, kPacket);
    CHECK(unscoped.desired().empty());
}

TEST_CASE("endpoint_table: stories without an owner")
{
    check({
        {"the first port keeps the address",
         [](PodNode& n) {
             n.claim(kIp, kMacA, kA, kPacket);
             n.claim(kIp, kMacB, kB, kPacket);
             n.claim(kIp, kMacB, kB, kNeighbour);
         },
         11, 2},
        {"not even with the same MAC does another port get it",
         [](PodNode& n) {
             n.claim(kIp, kMacA, kA, kPacket);
             n.claim(kIp, kMacA, kB, kPacket);
         },
         11, 1},
        {"an interface takes its endpoints with it, then another may claim",
         [](PodNode& n) {
             n.claim(kIp, kMacA, kA, kPacket);
             n.pod_interface_gone(kA);
             n.claim(kIp, kMacB, kB, kPacket);
         },
         12, 0},
        {"gone with its interface",
         [](PodNode& n) {
             n.claim(kIp, kMacA, kA, kPacket);
             n.pod_interface_gone(kA);
         },
         0, 0},
        {"a host route outranks a packet",
         [](PodNode& n) {
             n.claim(kIp, kMacA, kA, kPacket);
             n.claim(kIp, Mac{}, kB, kRoute);
             n.claim(kIp, kMacB, kB, kPacket);
         },
         12, 0},
        {"a packet does not outrank a host route",
         [](PodNode& n) {
             n.claim(kIp, Mac{}, kA, kRoute);
             n.claim(kIp, kMacA, kA, kNeighbour);
             n.claim(kIp, kMacB, kB, kPacket);
         },
         11, 1},
        {"a host route for a port that sent packets before pins it there",
         [](PodNode& n) {
             n.claim(kIp, kMacA, kA, kPacket);
             n.claim(kIp, Mac{}, kA, kRoute);
             n.owner_put(kIp, {"c1", "eth0", ""});
             n.claim(kIp, kMacB, kB, kRoute);
         },
         11, 1},
        {"a host route that moved is followed",
         [](PodNode& n) {
             n.claim(kIp, kMacA, kA, kRoute);
             n.claim(kIp, kMacB, kB, kRoute);
         },
         12, 0},
        {"a host route alone is no endpoint: its MAC is not known", [](PodNode& n) { n.claim(kIp, Mac{}, kA, kRoute); },
         0, 0},
        {"CNI DEL ends an endpoint though nobody named the owner before",
         [](PodNode& n) {
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_gone(kIp);
         },
         0, 0},
    });
}

TEST_CASE("endpoint_table: stories with an owner whose host interface is known")
{
    const Owner owned{"c1", "eth0", "vethB"};
    check({
        {"only its interface may claim",
         [&](PodNode& n) {
             n.owner_put(kIp, owned);
             n.claim(kIp, kMacA, kA, kPacket);
             n.claim(kIp, kMacA, kA, kRoute);
         },
         0, 2},
        {"and is not stopped by who came first",
         [&](PodNode& n) {
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_put(kIp, owned);
             n.claim(kIp, kMacB, kB, kPacket);
             n.claim(kIp, kMacA, kA, kPacket);
         },
         12, 1},
        {"an endpoint of another interface goes as soon as the owner is known",
         [&](PodNode& n) {
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_put(kIp, owned);
         },
         0, 0},
        {"the result cache may come after the allocation",
         [&](PodNode& n) {
             n.owner_put(kIp, {"c1", "eth0", ""});
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_put(kIp, owned);
             n.claim(kIp, kMacB, kB, kPacket);
         },
         12, 0},
        {"the name that was known stays known",
         [&](PodNode& n) {
             n.owner_put(kIp, owned);
             n.owner_put(kIp, {"c1", "eth0", ""});
             n.claim(kIp, kMacA, kA, kPacket);
         },
         0, 1},
        {"an interface of that name with another index takes over",
         [&](PodNode& n) {
             n.owner_put(kIp, owned);
             n.claim(kIp, kMacB, kB, kPacket);
             n.pod_interface_up(port(IfIndex{13}, "vethB"));
             n.claim(kIp, kMacB, IfIndex{13}, kPacket);
         },
         13, 0},
        {"a renamed interface loses what belongs to its old name",
         [&](PodNode& n) {
             n.owner_put(kIp, owned);
             n.claim(kIp, kMacB, kB, kPacket);
             n.pod_interface_up(port(kB, "vethC"));
         },
         0, 0},
    });
}

TEST_CASE("endpoint_table: stories with an owner whose host interface is not known")
{
    const Owner one{"c1", "eth0", ""};
    const Owner two{"c2", "eth0", ""};
    check({
        {"the first that claims under the owner keeps the address",
         [&](PodNode& n) {
             n.owner_put(kIp, one);
             n.claim(kIp, kMacA, kA, kPacket);
             n.claim(kIp, kMacB, kB, kPacket);
             n.claim(kIp, kMacB, kB, kNeighbour);
         },
         11, 2},
        {"a claim a moment before the allocation is seen counts as one under the owner",
         [&](PodNode& n) {
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_put(kIp, one);
             n.claim(kIp, kMacB, kB, kPacket);
         },
         11, 1},
        {"a new container: the next claim from another port is accepted",
         [&](PodNode& n) {
             n.owner_put(kIp, one);
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_put(kIp, two);
             n.claim(kIp, kMacB, kB, kPacket);
             n.claim(kIp, kMacA, kA, kPacket);
         },
         12, 0},
        {"the dying pod's last packets do not win the address back before the new pod speaks",
         [&](PodNode& n) {
             n.owner_put(kIp, one);
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_gone(kIp);
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_put(kIp, two);
             n.claim(kIp, kMacA, kA, kPacket);
         },
         0, 0},
        {"an allocation that comes back as it was restores the right to claim",
         [&](PodNode& n) {
             n.owner_put(kIp, one);
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_gone(kIp);
             n.owner_put(kIp, one);
             n.claim(kIp, kMacA, kA, kPacket);
         },
         11, 0},
        {"an empty allocation file says nothing new",
         [&](PodNode& n) {
             n.owner_put(kIp, {});
             n.owner_put(kIp, one);
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_put(kIp, {});
             n.claim(kIp, kMacB, kB, kPacket);
         },
         11, 1},
        {"CNI DEL ends the endpoint at once",
         [&](PodNode& n) {
             n.owner_put(kIp, one);
             n.claim(kIp, kMacA, kA, kPacket);
             n.owner_gone(kIp);
         },
         0, 0},
        {"the interface went: another may claim under the same owner",
         [&](PodNode& n) {
             n.owner_put(kIp, one);
             n.claim(kIp, kMacA, kA, kPacket);
             n.pod_interface_gone(kA);
             n.claim(kIp, kMacB, kB, kPacket);
         },
         12, 0},
        {"a host route takes it from who only sent packets",
         [&](PodNode& n) {
             n.owner_put(kIp, one);
             n.claim(kIp, kMacA, kA, kPacket);
             n.claim(kIp, kMacB, kB, kRoute);
         },
         12, 0},
    });
}

TEST_CASE("endpoint_table: an interface of one container cannot take an address of another container")
{
    const Ip other = *Ip::parse("10.42.1.6");
    PodNode node;
    node.owner_put(other, {"c1", "eth0", ""});
    node.claim(other, kMacA, kA, kPacket);

    SUBCASE("allocated, not yet spoken")
    {
        node.owner_put(kIp, {"c2", "eth0", ""});
        node.claim(kIp, kMacA, kA, kPacket);
        CHECK(node.holder() == 0);
        CHECK(node.conflicts() == std::vector{Conflict{kIp, IfIndex{}, kA, 1}});
    }
    SUBCASE("squatted before it is allocated")
    {
        node.claim(kIp, kMacA, kA, kPacket);
        CHECK(node.holder() == kA.value);
        node.owner_put(kIp, {"c2", "eth0", ""});
        CHECK(node.holder() == 0);
    }
    node.claim(kIp, kMacB, kB, kPacket);
    CHECK(node.holder() == kB.value);
    CHECK(node.holder(other) == kA.value);
    CHECK(node.conflicts().empty() == (node.addr_conflicts() == 0));

    // Both families of one pod belong to one container.
    node.owner_put(kIp6, {"c1", "eth0", ""});
    node.claim(kIp6, kMacA, kA, kPacket);
    CHECK(node.holder(kIp6) == kA.value);
}

TEST_CASE("endpoint_table: conflicts are listed with owner, claimant and count, until one of them goes")
{
    PodNode node;
    node.claim(kIp, kMacA, kA, kPacket);
    for (int i = 0; i < 3; ++i) node.claim(kIp, kMacB, kB, kPacket);
    CHECK(node.conflicts() == std::vector{Conflict{kIp, kA, kB, 3}});
    CHECK(node.addr_conflicts() == 3);

    SUBCASE("claimant") { node.pod_interface_gone(kB); }
    SUBCASE("owner") { node.pod_interface_gone(kA); }
    SUBCASE("allocation") { node.owner_gone(kIp); }
    CHECK(node.conflicts().empty());
    CHECK(node.addr_conflicts() == 3); // a counter
}

TEST_CASE("endpoint_table: the owner of a conflict is the interface that the allocation names, once it is there")
{
    PodNode node;
    node.owner_put(kIp, {"c1", "eth0", "vethB"});
    node.claim(kIp, kMacA, kA, kPacket);
    CHECK(node.conflicts() == std::vector{Conflict{kIp, kB, kA, 1}});
}
