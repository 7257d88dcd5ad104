// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/discovery.hpp"

#include <doctest/doctest.h>

using namespace twill;

namespace {

constexpr IfIndex kWire{2}, kBridge{4}, kPort1{5}, kPort2{6}, kRouted{7};
const Mac kBridgeMac{{2, 0, 0, 0, 0, 4}};
const Mac kRoutedMac{{2, 0, 0, 0, 0, 7}};
const Mac kPod1{{2, 0, 0, 0, 1, 1}};
const Ip kPod1Ip = Ip::v4(10, 42, 1, 2);

nl::Link link_of(IfIndex index, const char* name, const char* kind, Mac mac)
{
    nl::Link link;
    link.index = index;
    link.name = name;
    link.kind = kind;
    link.type = 1;
    link.mac = mac;
    link.flags = 1;
    return link;
}

nl::Link port_of(IfIndex index, const char* name)
{
    auto link = link_of(index, name, "veth", {{2, 0, 0, 0, 0, static_cast<std::uint8_t>(index.value)}});
    link.master = kBridge;
    link.is_bridge_port = true;
    link.lower_netns = 1;
    return link;
}

nl::Address address_of(IfIndex ifindex, const char* ip)
{
    nl::Address address;
    address.ifindex = ifindex;
    address.ip = *Ip::parse(ip);
    return address;
}

/// A node with cni0 and one port, as flannel's CNI plugin leaves it.
struct World {
    EndpointTable table;
    Discovery discovery{table};

    World()
    {
        PerFamily<std::optional<Cidr>> pods;
        pods.v4 = *Cidr::parse("10.42.1.0/24");
        discovery.set_scope(pods, {kWire});
        discovery.load(KernelView{.links = {link_of(kWire, "eth0", "veth", {{2, 0, 0, 0, 0, 2}}),
                                            link_of(kBridge, "cni0", "bridge", kBridgeMac), port_of(kPort1, "veth1")},
                                  .addresses = {address_of(kWire, "192.0.2.10"), address_of(kBridge, "10.42.1.1")},
                                  .routes = {},
                                  .neighbours = {},
                                  .fdb = {},
                                  .qdiscs = {}});
    }

    nl::Neighbour neighbour(IfIndex ifindex, Mac mac, std::uint16_t state = 2) const
    {
        return {ifindex, kPod1Ip, mac, state};
    }
};

} // namespace

TEST_CASE("discovery: ports of the bridge that has an address of the own pods are pods', seen through the bridge's MAC")
{
    World world;
    REQUIRE(world.discovery.pod_interfaces().size() == 1);
    CHECK(world.discovery.pod_interfaces().at(kPort1).host_mac == kBridgeMac);

    world.discovery.on_link(port_of(kPort2, "veth2"), false);
    world.discovery.settle();
    CHECK(world.discovery.pod_interfaces().count(kPort2) == 1);
    world.discovery.on_link(port_of(kPort2, "veth2"), true);
    world.discovery.settle();
    CHECK(world.discovery.pod_interfaces().count(kPort2) == 0);
}

TEST_CASE(
    "discovery: a tap, or a veth with both ends here, is no pod's interface: redirect_peer would lose its packets")
{
    World world;
    auto tap = port_of(kPort2, "tap0");
    tap.kind = "tun";
    world.discovery.on_link(tap, false);
    auto here = port_of(kRouted, "veth7");
    here.lower_netns = -1;
    world.discovery.on_link(here, false);
    world.discovery.settle();
    CHECK(world.discovery.pod_interfaces().size() == 1);
}

TEST_CASE("discovery: a bridge gets its pods with its address, whichever comes first")
{
    World world;
    world.discovery.on_address(address_of(kBridge, "10.42.1.1"), true);
    world.discovery.settle();
    CHECK(world.discovery.pod_interfaces().empty());
    world.discovery.on_address(address_of(kBridge, "10.42.1.1"), false);
    world.discovery.settle();
    CHECK(world.discovery.pod_interfaces().size() == 1);
}

TEST_CASE("discovery: a neighbour behind the bridge is an endpoint once the forwarding entry names its port")
{
    World world;
    CHECK(world.discovery.on_neighbour(world.neighbour(kBridge, kPod1), false));
    CHECK(world.table.desired().empty());
    CHECK(world.discovery.on_fdb({kPod1, kPort1, kBridge, false}, false));
    const auto endpoints = world.table.desired();
    REQUIRE(endpoints.count(kPod1Ip) == 1);
    CHECK(endpoints.at(kPod1Ip).ifindex == kPort1);
    CHECK(endpoints.at(kPod1Ip).mac == kPod1);
    CHECK(endpoints.at(kPod1Ip).host_mac == kBridgeMac);
}

TEST_CASE("discovery: an entry that ages ends no endpoint, the interface's end does")
{
    World world;
    world.discovery.on_fdb({kPod1, kPort1, kBridge, false}, false);
    world.discovery.on_neighbour(world.neighbour(kBridge, kPod1), false);
    REQUIRE(world.table.desired().size() == 1);
    CHECK_FALSE(world.discovery.on_neighbour(world.neighbour(kBridge, kPod1, 0x20), false)); // NUD_FAILED
    world.discovery.on_neighbour(world.neighbour(kBridge, kPod1), true);
    world.discovery.on_fdb({kPod1, kPort1, kBridge, false}, true);
    CHECK(world.table.desired().size() == 1);
    world.discovery.on_link(port_of(kPort1, "veth1"), true);
    CHECK(world.table.desired().empty());
}

TEST_CASE("discovery: a host route to a pod makes its veth a pod's interface, with its own MAC")
{
    World world;
    auto veth = link_of(kRouted, "veth7", "veth", kRoutedMac);
    veth.lower_netns = 1;
    world.discovery.on_link(veth, false);
    nl::Route route;
    route.dst = *Cidr::parse("10.42.1.2/32");
    route.ifindex = kRouted;
    world.discovery.on_route(route, false);
    world.discovery.settle();
    REQUIRE(world.discovery.pod_interfaces().count(kRouted) == 1);
    CHECK(world.discovery.pod_interfaces().at(kRouted).host_mac == kRoutedMac);
    world.discovery.on_neighbour(world.neighbour(kRouted, kPod1), false);
    CHECK(world.table.desired().count(kPod1Ip) == 1);
}

TEST_CASE("discovery: the wire's own neighbours and addresses outside the pods are of no interest")
{
    World world;
    CHECK_FALSE(world.discovery.on_neighbour(world.neighbour(kWire, kPod1), false));
    nl::Neighbour outside{kBridge, Ip::v4(192, 0, 2, 1), kPod1, 2};
    CHECK_FALSE(world.discovery.on_neighbour(outside, false));
    CHECK(world.table.desired().empty());
}

TEST_CASE("discovery: a qdisc that shapes flags the pod")
{
    World world;
    world.discovery.set_qdiscs({{kPort1, "tbf", 0xffffffffU, 0x10000}});
    world.discovery.settle();
    CHECK(world.discovery.pod_interfaces().at(kPort1).shaped);
}
