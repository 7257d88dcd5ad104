// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/egress.hpp"

#include <doctest/doctest.h>

#include "agent/dataplane/overlay_device.hpp"

using namespace twill;

namespace {

Ip ip(const char* text) { return *Ip::parse(text); }
Cidr cidr(const char* text) { return *Cidr::parse(text); }

/// A node with an overlay device (9).
struct World {
    std::map<IfIndex, nl::Link> links;
    std::vector<nl::Address> addresses;
    std::vector<nl::Route> routes;
    EgressScope scope{{cidr("10.42.0.0/16"), cidr("fd00:42::/48")}, {IfIndex{9}}, {}, {}};

    nl::Link& link(int index, const char* kind = "", int master = 0)
    {
        nl::Link made;
        made.index = {index};
        made.name = "if" + std::to_string(index);
        made.kind = kind;
        made.type = 1;
        made.master = {master};
        return links[made.index] = made;
    }
    nl::Address& address(int ifindex, const char* text, unsigned bits)
    {
        addresses.push_back({});
        addresses.back().ifindex = {ifindex};
        addresses.back().ip = ip(text);
        addresses.back().bits = bits;
        return addresses.back();
    }
    void route(int ifindex, const char* dst, const char* gateway = nullptr)
    {
        routes.push_back({});
        routes.back().ifindex = {ifindex};
        routes.back().dst = cidr(dst);
        if (gateway != nullptr) routes.back().gateway = ip(gateway);
    }
    EgressView view() const { return {links, addresses, routes}; }
    Egress find() const { return find_egress(view(), scope); }
    std::vector<int> leading_out() const
    {
        std::vector<int> out;
        for (const auto& [ifindex, addresses_of_it] : find().interfaces) out.push_back(ifindex.value);
        return out;
    }
    /// As the programs do it: the first network that has it, else the default.
    std::string from(int ifindex, const char* to) const
    {
        const auto found = find();
        const auto& interface = found.interfaces.at(IfIndex{ifindex});
        for (const auto& [network, address] : interface.on_link)
            if (network.contains(ip(to))) return address.to_string();
        const auto& address = interface.address[ip(to).family()];
        return address ? address->to_string() : "";
    }
};

} // namespace

TEST_CASE("egress: out lead interfaces with an address or a route outside of the pods' network")
{
    World world;
    world.link(1).flags = 0x8;
    world.address(1, "127.0.0.1", 8);
    world.link(2);
    world.address(2, "192.0.2.10", 24);
    world.link(3); // no address, but a route
    world.route(3, "203.0.113.0/24", "198.51.100.1");
    world.link(4, "bridge"); // of pods
    world.address(4, "10.42.1.1", 24);
    world.route(4, "10.42.1.0/24");
    world.link(5, "bridge"); // of other containers
    world.address(5, "172.17.0.1", 16);
    world.link(6, "veth", 5); // a port of it
    world.link(7, "veth");    // a pod's, new
    world.link(8, "dummy");
    world.address(8, "10.96.0.1", 32);
    world.link(9, "vxlan"); // the overlay device
    world.address(9, "10.42.1.0", 32);
    world.link(10, "veth").alias = kOverlayAlias;
    world.address(10, "192.0.2.99", 24);
    world.link(11, "bond");
    world.address(11, "192.0.2.11", 24);
    world.link(12, "", 11);
    world.address(12, "192.0.2.12", 24);
    world.link(13, "vrf");
    world.link(14, "", 13); // of a VRF: its own way out
    world.address(14, "192.0.2.14", 24);
    world.link(15); // link-local alone
    world.route(15, "fe80::/64");
    auto& of_pod = world.link(16, "veth");
    world.address(of_pod.index.value, "192.0.2.16", 32);
    world.scope.inside.insert(IfIndex{16});
    CHECK(world.leading_out() == std::vector<int>{2, 3, 5, 11, 14});
    CHECK(world.find().overlay.at(IfIndex{9}).address.v4 == ip("10.42.1.0"));
    CHECK(needs_routes(world.view(), world.scope));
}

TEST_CASE("egress: what is a bridge, and what is no wire, is told to the programs")
{
    World world;
    world.link(2);
    world.address(2, "192.0.2.10", 24);
    world.link(5, "bridge");
    world.address(5, "172.17.0.1", 16);
    const auto flags = [&](int ifindex) { return to_abi(world.find().interfaces.at(IfIndex{ifindex})).flags; };
    CHECK(flags(2) == 0);
    CHECK(flags(5) == TW_NAT_IF_BRIDGE); // which interfaces are wires is not known yet
    world.scope.wires = {IfIndex{2}};
    CHECK(flags(2) == 0);
    CHECK(flags(5) == (TW_NAT_IF_BRIDGE | TW_NAT_IF_ASIDE));
}

TEST_CASE("egress: what has no Ethernet header is named")
{
    World world;
    world.link(2).type = 65534;
    world.address(2, "192.0.2.10", 24);
    CHECK(world.find().interfaces.empty());
    CHECK(world.find().without_ethernet == std::vector{IfIndex{2}});
}

TEST_CASE("egress: IPv4 addresses as inet_select_addr() takes them, by the next hop")
{
    World world;
    world.link(2);
    world.address(2, "192.0.2.10", 24);
    CHECK_FALSE(needs_routes(world.view(), world.scope));
    world.address(2, "192.0.2.11", 24).is_secondary = true;
    world.address(2, "198.51.100.10", 24);
    world.address(2, "169.254.3.3", 16).scope = 253;
    CHECK(needs_routes(world.view(), world.scope));
    CHECK(world.from(2, "203.0.113.1") == "192.0.2.10");
    CHECK(world.from(2, "198.51.100.7") == "198.51.100.10");
    world.route(2, "0.0.0.0/0", "198.51.100.1");
    world.route(2, "0.0.0.0/0", "192.0.2.1"); // of a worse metric
    CHECK(world.from(2, "203.0.113.1") == "198.51.100.10");
    CHECK(world.from(2, "192.0.2.7") == "192.0.2.10");
    world.route(2, "203.0.113.0/24", "192.0.2.1");
    CHECK(world.from(2, "203.0.113.1") == "192.0.2.10");
    CHECK(world.from(2, "203.0.114.1") == "198.51.100.10");
    // A narrower network inside of a wider one.
    world.route(2, "203.0.113.128/25", "198.51.100.1");
    CHECK(world.from(2, "203.0.113.200") == "198.51.100.10");
}

TEST_CASE("egress: IPv6 addresses as RFC 6724 takes them")
{
    World world;
    world.link(2);
    world.address(2, "fd00:1::1", 64);
    world.address(2, "2001:db8::9", 64).is_deprecated = true;
    world.address(2, "2001:db8::8", 64).is_tentative = true;
    world.address(2, "2001:db8::7", 64).is_temporary = true;
    world.address(2, "2001:db8::1", 64);
    world.address(2, "2001:db8:5::1", 64);
    CHECK(world.from(2, "2600::1") == "2001:db8::1");
    CHECK(world.from(2, "fd00:1::7") == "fd00:1::1");
    CHECK(world.from(2, "fd00:2::7") == "fd00:1::1");
    CHECK(world.from(2, "2001:db8:5::7") == "2001:db8:5::1");
}

TEST_CASE("egress: an interface without an address uses the first of another one, none of the pods'")
{
    World world;
    world.link(1).flags = 0x8;
    world.address(1, "127.0.0.1", 8).scope = 254;
    world.link(2);
    world.route(2, "0.0.0.0/0", "192.0.2.1");
    world.link(3, "bridge");
    world.address(3, "10.42.1.1", 24);
    world.link(4);
    CHECK(world.from(2, "203.0.113.1").empty());
    world.address(1, "192.0.2.77", 32);
    CHECK(world.from(2, "203.0.113.1") == "192.0.2.77");
    CHECK(world.from(2, "2600::1").empty());
}
