// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/desired_peers.hpp"

#include <doctest/doctest.h>

using namespace twill;

namespace {

const Mac kMac = *Mac::parse("0a:00:00:00:00:07");

Cidr cidr(const char* text) { return *Cidr::parse(text); }
Ip ip(const char* text) { return *Ip::parse(text); }

Lease lease4(const char* pods, const char* node, const char* type = "vxlan")
{
    Lease made;
    made.key = cidr(pods).to_key();
    made.pods.v4 = cidr(pods);
    made.public_ip.v4 = ip(node);
    made.backend_type = type;
    made.vtep_mac.v4 = kMac;
    return made;
}

Lease dual(Lease made, const char* pods, const char* node)
{
    made.key += "&" + cidr(pods).to_key();
    made.pods.v6 = cidr(pods);
    made.public_ip.v6 = ip(node);
    made.vtep_mac.v6 = kMac;
    return made;
}

/// A node of the cluster 10.42.0.0/16 and fd00:42::/48 with some other leases; every node is on-link at first.
struct Cluster {
    PeerSettings settings;
    Underlay underlay;
    LeaseSet leases;

    Cluster()
    {
        settings.own_key = "10.42.1.0-24&fd00:42:0:1::-64";
        settings.network = {cidr("10.42.0.0/16"), cidr("fd00:42::/48")};
        settings.own_pods = {cidr("10.42.1.0/24"), cidr("fd00:42:0:1::/64")};
        settings.own_ip = {ip("192.0.2.1"), ip("2001:db8::1")};
        leases.apply(LeaseSnapshot{});
    }

    void add(const Lease& lease)
    {
        leases.apply(LeasePut{lease});
        for (const Family family : kFamilies)
            if (lease.public_ip[family]) underlay.routes[*lease.public_ip[family]] = PeerRoute{IfIndex{3}, {}, 1500};
    }
    void via(const char* node, const char* gateway) { underlay.routes[ip(node)]->gateway = ip(gateway); }
    PeerPlan plan() const { return plan_peers(leases, underlay, settings); }
    /// The reason of the only pending entry.
    std::string why() const
    {
        const auto made = plan();
        REQUIRE(made.pending.size() == 1);
        return made.pending[0].why;
    }
};

} // namespace

TEST_CASE("plan_peers: an on-link vxlan peer gets its whole entry")
{
    Cluster cluster;
    cluster.add(lease4("10.42.2.0/24", "192.0.2.2"));
    const auto plan = cluster.plan();
    CHECK(plan.pending.empty());
    REQUIRE(plan.peers.size() == 1);
    CHECK(plan.peers.at(cidr("10.42.2.0/24")) ==
          Peer{cidr("10.42.2.0/24"), ip("192.0.2.2"), ip("192.0.2.2"), IfIndex{3}, 1450, PeerMode::encap, kMac, false});
}

TEST_CASE("plan_peers: the own lease is nobody's peer, and is found by its public IP while its key is not known")
{
    Cluster cluster;
    cluster.add(dual(lease4("10.42.1.0/24", "192.0.2.1"), "fd00:42:0:1::/64", "2001:db8::1"));
    CHECK(cluster.plan().peers.empty());
    CHECK(cluster.plan().pending.empty());

    cluster.settings.own_key.clear();
    cluster.settings.own_pods = {};
    CHECK(cluster.plan().peers.empty());
    CHECK(cluster.plan().pending.empty());
    CHECK(nodes_to_resolve(cluster.leases, cluster.settings).empty());
}

TEST_CASE("plan_peers: each family of a dual-stack node is judged alone")
{
    Cluster cluster;
    cluster.add(dual(lease4("10.42.2.0/24", "192.0.2.2"), "fd00:42:0:2::/64", "2001:db8::2"));
    CHECK(cluster.plan().peers.size() == 2);
    CHECK(cluster.plan().peers.at(cidr("fd00:42:0:2::/64")).mtu == 1430);

    cluster.underlay.routes[ip("2001:db8::2")] = std::nullopt;
    CHECK(cluster.plan().peers.count(cidr("10.42.2.0/24")) == 1);
    CHECK(cluster.why() == "no route to 2001:db8::2");

    cluster.settings.network.v6 = std::nullopt; // family off: nothing to say
    CHECK(cluster.plan().pending.empty());
    CHECK(cluster.plan().peers.size() == 1);
}

TEST_CASE("plan_peers: leases that cannot be peers wait with the reason, and cost nobody else")
{
    struct Row {
        const char* name;
        Lease lease;
        const char* why;
    };
    Lease no_mac = lease4("10.42.9.0/24", "192.0.2.9");
    no_mac.vtep_mac.v4 = std::nullopt;
    Lease multicast_mac = lease4("10.42.9.0/24", "192.0.2.9");
    multicast_mac.vtep_mac.v4 = *Mac::parse("01:00:5e:00:00:01");
    Lease no_ip = lease4("10.42.9.0/24", "192.0.2.9");
    no_ip.public_ip.v4 = std::nullopt;
    Lease mapped = dual(lease4("10.43.0.0/24", "192.0.2.9"), "fd00:42:0:9::/64", "::ffff:192.0.2.9");
    mapped.pods.v4 = std::nullopt;
    const Row rows[] = {
        {"other backend", lease4("10.42.9.0/24", "192.0.2.9", "host-gw"), "backend type host-gw, this node runs vxlan"},
        {"alloc", lease4("10.42.9.0/24", "192.0.2.9", ""), "backend type alloc, this node runs vxlan"},
        {"outside", lease4("10.43.9.0/24", "192.0.2.9"),
         "pod CIDR 10.43.9.0/24 is outside the cluster network 10.42.0.0/16"},
        {"wider than the network", lease4("10.0.0.0/8", "192.0.2.9"),
         "pod CIDR 10.0.0.0/8 is outside the cluster network 10.42.0.0/16"},
        {"own pods", lease4("10.42.1.128/25", "192.0.2.9"),
         "pod CIDR 10.42.1.128/25 overlaps this node's own 10.42.1.0/24"},
        {"own IP", lease4("10.42.9.0/24", "192.0.2.1"), "public IP 192.0.2.1 is this node's own"},
        {"inside", lease4("10.42.9.0/24", "10.42.9.9"),
         "public IP 10.42.9.9 lies inside the cluster network 10.42.0.0/16"},
        {"loopback", lease4("10.42.9.0/24", "127.0.0.9"), "public IP 127.0.0.9 is a loopback address"},
        {"multicast", lease4("10.42.9.0/24", "224.0.0.9"), "public IP 224.0.0.9 is a multicast address"},
        {"broadcast", lease4("10.42.9.0/24", "255.255.255.255"), "public IP 255.255.255.255 is the broadcast address"},
        {"unspecified", lease4("10.42.9.0/24", "0.0.0.0"), "no public IPv4 address"},
        {"no address", no_ip, "no public IPv4 address"},
        {"mapped", mapped, "public IP 192.0.2.9 is of the other family"},
        {"no MAC", no_mac, "no VtepMAC in the lease"},
        {"multicast MAC", multicast_mac, "VtepMAC 01:00:5e:00:00:01 is not a unicast address"},
    };
    for (const auto& row : rows) {
        CAPTURE(row.name);
        Cluster cluster;
        cluster.add(lease4("10.42.2.0/24", "192.0.2.2"));
        cluster.add(row.lease);
        CHECK(cluster.why() == row.why);
        CHECK(cluster.plan().peers.size() == 1);
        CHECK(cluster.plan().peers.count(cidr("10.42.2.0/24")) == 1);
    }
}

TEST_CASE("plan_peers: IPv6 public addresses that are no node's are refused")
{
    for (const char* address : {"::", "::1", "ff02::1", "fe80::1", "fd00:42::99"}) {
        CAPTURE(address);
        Cluster cluster;
        Lease lease = dual(lease4("10.42.9.0/24", "192.0.2.9"), "fd00:42:0:9::/64", address);
        cluster.add(lease);
        CHECK(cluster.plan().peers.size() == 1);
        CHECK(cluster.plan().pending.size() == 1);
    }
}

TEST_CASE("plan_peers: overlapping pod CIDRs: who came first stays, whatever the key")
{
    Cluster cluster;
    cluster.add(lease4("10.42.200.0/24", "192.0.2.2"));
    SUBCASE("wider")
    {
        cluster.add(lease4("10.42.128.0/17", "192.0.2.9"));
        CHECK(cluster.why() == "overlaps pod CIDR 10.42.200.0/24 of lease 10.42.200.0-24");
    }
    SUBCASE("narrower")
    {
        cluster.add(lease4("10.42.200.64/26", "192.0.2.9"));
        CHECK(cluster.why() == "overlaps pod CIDR 10.42.200.0/24 of lease 10.42.200.0-24");
    }
    CHECK(cluster.plan().peers.count(cidr("10.42.200.0/24")) == 1);
}

TEST_CASE("plan_peers: of overlapping leases that came together the narrower stays, so that a wide one costs itself")
{
    Cluster cluster;
    std::vector<Lease> all = {lease4("10.42.0.0/17", "192.0.2.9")};
    for (const char* pods : {"10.42.2.0/24", "10.42.3.0/24"})
        all.push_back(lease4(pods, cidr(pods).address() == ip("10.42.2.0") ? "192.0.2.2" : "192.0.2.3"));
    for (const auto& lease : all) cluster.add(lease);
    cluster.leases = LeaseSet{};
    cluster.settings.own_pods.v4 = cidr("10.42.250.0/24");
    cluster.leases.apply(LeaseSnapshot{all, {}});
    CHECK(cluster.plan().peers.size() == 2);
    CHECK(cluster.plan().pending.at(0).pods == cidr("10.42.0.0/17"));
}

TEST_CASE("plan_peers: a second lease with one public IP waits, and takes over when the first is gone")
{
    Cluster cluster;
    cluster.add(lease4("10.42.3.0/24", "192.0.2.2"));
    cluster.add(lease4("10.42.2.0/24", "192.0.2.2"));
    CHECK(cluster.why() == "public IP 192.0.2.2 belongs to lease 10.42.3.0-24");
    cluster.leases.apply(LeaseGone{"10.42.3.0-24"});
    CHECK(cluster.plan().pending.empty());
    CHECK(cluster.plan().peers.count(cidr("10.42.2.0/24")) == 1);
}

TEST_CASE("plan_peers: a lease that is refused does not hold its CIDR or address against others")
{
    Cluster cluster;
    cluster.add(lease4("10.42.2.0/24", "192.0.2.2", "wireguard"));
    Lease good = lease4("10.42.2.0/24", "192.0.2.2");
    good.key = "10.42.2.0-24&junk";
    cluster.add(good);
    CHECK(cluster.plan().peers.size() == 1);
}

TEST_CASE("plan_peers: direct routing needs the setting and an on-link node")
{
    Cluster cluster;
    cluster.add(lease4("10.42.2.0/24", "192.0.2.2"));
    cluster.add(lease4("10.42.3.0/24", "198.51.100.3"));
    cluster.via("198.51.100.3", "192.0.2.254");
    CHECK(cluster.plan().peers.at(cidr("10.42.2.0/24")).mode == PeerMode::encap);

    cluster.settings.direct_routing = true;
    const auto plan = cluster.plan();
    CHECK(plan.peers.at(cidr("10.42.2.0/24")).mode == PeerMode::direct);
    CHECK(plan.peers.at(cidr("10.42.2.0/24")).mtu == 1500);
    CHECK(plan.peers.at(cidr("10.42.3.0/24")).mode == PeerMode::encap);
    CHECK(plan.peers.at(cidr("10.42.3.0/24")).mtu == 1450);
    CHECK(plan.peers.at(cidr("10.42.3.0/24")).nexthop == ip("192.0.2.254"));

    cluster.via("192.0.2.2", "192.0.2.254"); // the route changed
    CHECK(cluster.plan().peers.at(cidr("10.42.2.0/24")).mode == PeerMode::encap);
}

TEST_CASE("plan_peers: host-gw is always direct and refuses nodes behind a router")
{
    Cluster cluster;
    cluster.settings.backend = Backend::host_gw;
    Lease lease = lease4("10.42.2.0/24", "192.0.2.2", "host-gw");
    lease.vtep_mac = {};
    cluster.add(lease);
    CHECK(cluster.plan().peers.at(cidr("10.42.2.0/24")).mode == PeerMode::direct);
    CHECK(cluster.plan().peers.at(cidr("10.42.2.0/24")).vtep_mac.is_zero());
    CHECK(cluster.plan().peers.at(cidr("10.42.2.0/24")).mtu == 1500);

    cluster.via("192.0.2.2", "192.0.2.254");
    CHECK(cluster.why() == "192.0.2.2 is not on-link: the route goes via 192.0.2.254, which host-gw cannot use");
}

TEST_CASE("plan_peers: alloc plans nothing")
{
    Cluster cluster;
    cluster.settings.backend = Backend::alloc;
    cluster.add(lease4("10.42.2.0/24", "192.0.2.2", ""));
    CHECK(cluster.plan().peers.empty());
    CHECK(cluster.plan().pending.empty());
}

TEST_CASE("plan_peers: the MTU is that of the route or of the setting, less the outer headers of the family")
{
    Cluster cluster;
    cluster.add(dual(lease4("10.42.2.0/24", "192.0.2.2"), "fd00:42:0:2::/64", "2001:db8::2"));
    cluster.underlay.routes[ip("192.0.2.2")]->mtu = 9000;
    cluster.underlay.routes[ip("2001:db8::2")]->mtu = 9000;
    CHECK(cluster.plan().peers.at(cidr("10.42.2.0/24")).mtu == 8950);
    CHECK(cluster.plan().peers.at(cidr("fd00:42:0:2::/64")).mtu == 8930);

    cluster.settings.mtu = 1400;
    CHECK(cluster.plan().peers.at(cidr("10.42.2.0/24")).mtu == 1350);
    CHECK(cluster.plan().peers.at(cidr("fd00:42:0:2::/64")).mtu == 1330);

    cluster.settings.mtu = 60; // would wrap
    CHECK(cluster.plan().peers.empty());
    CHECK(cluster.plan().pending.at(0).why == "MTU 60 of interface 3 is too small");
}

TEST_CASE("plan_peers: no route, or none asked for yet, or a wire without Ethernet header, waits by name")
{
    Cluster cluster;
    cluster.add(lease4("10.42.9.0/24", "192.0.2.9"));
    auto& route = cluster.underlay.routes[ip("192.0.2.9")];
    route->is_ethernet = false;
    route->wire_name = "wg0";
    CHECK(cluster.why() == "wg0 has no Ethernet header");
    route = std::nullopt;
    CHECK(cluster.why() == "no route to 192.0.2.9");
    cluster.underlay.routes.clear();
    CHECK(cluster.why() == "no route to 192.0.2.9");
}

TEST_CASE("plan_peers: zero checksums over IPv6 only to nodes that are marked for it")
{
    Cluster cluster;
    Lease lease = dual(lease4("10.42.2.0/24", "192.0.2.2"), "fd00:42:0:2::/64", "2001:db8::2");
    cluster.add(lease);
    CHECK_FALSE(cluster.plan().peers.at(cidr("fd00:42:0:2::/64")).zero_csum6);
    lease.marker = Marker{false};
    cluster.add(lease);
    CHECK_FALSE(cluster.plan().peers.at(cidr("fd00:42:0:2::/64")).zero_csum6);
    lease.marker = Marker{true};
    cluster.add(lease);
    CHECK(cluster.plan().peers.at(cidr("fd00:42:0:2::/64")).zero_csum6);
    CHECK_FALSE(cluster.plan().peers.at(cidr("10.42.2.0/24")).zero_csum6);
}

TEST_CASE("plan_peers: a flannel node has a VtepMAC for each family, each entry its own")
{
    Cluster cluster;
    Lease lease = dual(lease4("10.42.2.0/24", "192.0.2.2"), "fd00:42:0:2::/64", "2001:db8::2");
    lease.vtep_mac.v6 = *Mac::parse("0a:00:00:00:00:66");
    cluster.add(lease);
    CHECK(cluster.plan().peers.at(cidr("10.42.2.0/24")).vtep_mac == kMac);
    CHECK(cluster.plan().peers.at(cidr("fd00:42:0:2::/64")).vtep_mac == *lease.vtep_mac.v6);
}

TEST_CASE("nodes_to_resolve: every node that may become a peer, once, junk not")
{
    Cluster cluster;
    cluster.add(dual(lease4("10.42.2.0/24", "192.0.2.2"), "fd00:42:0:2::/64", "2001:db8::2"));
    cluster.add(lease4("10.42.3.0/24", "192.0.2.2"));
    cluster.add(lease4("10.42.4.0/24", "127.0.0.1"));
    cluster.add(lease4("10.42.5.0/24", "192.0.2.5", "host-gw"));
    CHECK(nodes_to_resolve(cluster.leases, cluster.settings) == std::vector{ip("192.0.2.2"), ip("2001:db8::2")});
}

TEST_CASE("plan_peers: 10,000 leases become 10,000 peers")
{
    Cluster cluster;
    cluster.settings.network.v4 = cidr("10.0.0.0/8");
    for (unsigned i = 0; i < 10'000; ++i) {
        const auto high = static_cast<std::uint8_t>(i / 250);
        const auto low = static_cast<std::uint8_t>(i % 250);
        Lease lease = lease4("10.42.2.0/24", "192.0.2.2");
        lease.pods.v4 = *Cidr::make(Ip::v4(10, static_cast<std::uint8_t>(100 + high), low, 0), 24);
        lease.public_ip.v4 = Ip::v4(172, 16, high, low);
        lease.key = lease.pods.v4->to_key();
        cluster.add(lease);
    }
    const auto plan = cluster.plan();
    CHECK(plan.peers.size() == 10'000);
    CHECK(plan.pending.empty());
}
