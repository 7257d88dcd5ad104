// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <string>

#include "agent/dataplane/kernel_overlay.hpp"
#include "agent/dataplane/overlay_device.hpp"
#include "agent/nl/link.hpp"
#include "tests/netns/nl_sandbox.hpp"

namespace twill {
namespace {

using test::difference_from;
using test::everything;
using test::Namespace;
using test::output;
using test::shell;

Ip ip(const char* text) { return *Ip::parse(text); }
Cidr cidr(const char* text) { return *Cidr::parse(text); }
const Mac kMac = *Mac::parse("02:00:00:00:00:02");
const Mac kOther = *Mac::parse("02:00:00:00:00:03");

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// A node with `eth0`, and its overlay: twill0, or what flannel makes (backend/vxlan/device.go of v0.28.9).
struct Node : Namespace {
    IfIndex wire;
    KernelOverlaySpec spec;

    explicit Node(bool is_flannel)
    {
        shell("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.addr_gen_mode=1;"
              "ip link add eth0 type veth peer name far; ip link set far up; ip link set eth0 up;"
              "ip addr add 192.0.2.10/24 dev eth0; ip addr add 2001:db8::10/64 dev eth0 nodad");
        wire = index("eth0");
        const auto form = is_flannel ? KernelForm::flannel : KernelForm::twill;
        spec.v4 = KernelFamily{cidr("10.42.0.0/16"), cidr("10.42.1.0/24"), form, {}, true};
        spec.v6 = KernelFamily{cidr("fd00:42::/48"), cidr("fd00:42:0:1::/64"), form, {}, true};
        if (is_flannel) {
            shell("ip link add flannel.1 type vxlan id 1 dev eth0 local 192.0.2.10 dstport 8472 nolearning;"
                  "ip link add flannel-v6.1 type vxlan id 1 dev eth0 local 2001:db8::10 dstport 8472 nolearning;"
                  "ip addr add 10.42.1.0/32 dev flannel.1; ip link set flannel.1 up;"
                  "ip addr add fd00:42:0:1::/128 dev flannel-v6.1 nodad; ip link set flannel-v6.1 up");
            spec.v4->tunnel = KernelTunnel{index("flannel.1"), {}, {}};
            spec.v6->tunnel = KernelTunnel{index("flannel-v6.1"), {}, {}};
        } else {
            ensure();
            spec.v4->tunnel = KernelTunnel{index("twill0"), Vni{1}, ip("192.0.2.10")};
            spec.v6->tunnel = KernelTunnel{index("twill0"), Vni{1}, ip("2001:db8::10")};
        }
    }
    IfIndex index(const char* name) { return (*nl::link(socket(), name))->index; }
    void ensure()
    {
        OverlaySpec device;
        device.name = "twill0";
        device.mac = kOther;
        device.family.v4 = OverlayFamily{cidr("10.42.0.0/16"), cidr("10.42.1.0/24"), 1450};
        device.family.v6 = OverlayFamily{cidr("fd00:42::/48"), cidr("fd00:42:0:1::/64"), 1430};
        const auto done = ensure_overlay(socket(), device);
        REQUIRE_MESSAGE(done, done.error().what);
    }

    Peer peer(const char* pods, const char* node, PeerMode mode = PeerMode::encap) const
    {
        return {.pods = cidr(pods),
                .node = ip(node),
                .nexthop = ip(node),
                .wire = wire,
                .mtu = cidr(pods).family() == Family::v4 ? 1450U : 1430U,
                .mode = mode,
                .vtep_mac = kMac};
    }
    std::vector<Peer> peers() const
    {
        return {peer("10.42.2.0/24", "192.0.2.11"), peer("fd00:42:0:2::/64", "2001:db8::11"),
                peer("10.42.3.0/24", "192.0.2.12", PeerMode::direct),
                peer("fd00:42:0:3::/64", "2001:db8::12", PeerMode::direct)};
    }
};

void put_all(KernelOverlay& overlay, const std::vector<Peer>& peers)
{
    for (const auto& peer : peers) {
        const auto done = overlay.put_peer(peer);
        REQUIRE_MESSAGE(done, done.error().what);
    }
}

// flannel's calls for a peer of each family (vxlan_network.go).
void flannel_peer(const std::string& mac)
{
    shell("ip neigh replace 10.42.2.0 lladdr " + mac +
          " dev flannel.1 nud permanent;"
          "bridge fdb replace " +
          mac +
          " dev flannel.1 dst 192.0.2.11 self permanent;"
          "ip route replace 10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink;"
          "ip neigh replace fd00:42:0:2:: lladdr " +
          mac +
          " dev flannel-v6.1 nud permanent;"
          "bridge fdb replace " +
          mac +
          " dev flannel-v6.1 dst 2001:db8::11 self permanent;"
          "ip route replace fd00:42:0:2::/64 via fd00:42:0:2:: dev flannel-v6.1 onlink");
}

std::string fdb(const char* device) { return output("bridge fdb show dev " + std::string(device)); }

} // namespace

TEST_CASE("kernel overlay: what a put that fails wrote is no news, and goes with the peer")
{
    Node node(true);
    KernelOverlay overlay(node.socket(), node.spec);
    REQUIRE(overlay.read_peers());
    shell("ip addr add 10.42.2.0/32 dev lo"); // the kernel takes no gateway that is an own address
    const auto peer = node.peer("10.42.2.0/24", "192.0.2.11");
    const nl::VtepEntry vtep{.device = node.index("flannel.1"), .mac = kMac, .node = ip("192.0.2.11")};
    CHECK(overlay.disturbs(vtep, false));
    CHECK_FALSE(overlay.put_peer(peer));
    CHECK(contains(fdb("flannel.1"), kMac.to_string()));
    CHECK_FALSE(overlay.disturbs(vtep, false));
    shell("ip addr del 10.42.2.0/32 dev lo");
    CHECK(overlay.put_peer(peer));
    CHECK(overlay.disturbs(vtep, true));
    CHECK(overlay.del_peer(peer.pods));
    CHECK_FALSE(contains(fdb("flannel.1"), kMac.to_string()));
    CHECK(overlay.disturbs(vtep, false));
}

TEST_CASE("kernel overlay: what is put reads back as the same, on either kind of device, and goes without a trace")
{
    for (const bool is_flannel : {false, true}) {
        CAPTURE(is_flannel);
        Node node(is_flannel);
        const std::string before = everything();
        KernelOverlay overlay(node.socket(), node.spec);
        REQUIRE(overlay.read_peers());
        put_all(overlay, node.peers());
        const std::string written = everything();
        CHECK(written != before);

        // Another agent: it finds all peers and changes nothing.
        KernelOverlay next(node.socket(), node.spec);
        const auto found = next.read_peers();
        REQUIRE(found);
        CHECK(found->size() == 4);
        put_all(next, node.peers());
        CHECK(difference_from(written) == "");
        if (!is_flannel) {
            node.ensure(); // the device's own part leaves the peers' alone
            CHECK(difference_from(written) == "");
        }
        for (const auto& peer : node.peers()) CHECK(next.del_peer(peer.pods));
        CHECK(difference_from(before) == "");
        CHECK(next.del_peer(cidr("10.42.2.0/24")));
    }
}

TEST_CASE("kernel overlay: a peer whose MAC, node or way changed leaves nothing of before")
{
    for (const bool is_flannel : {false, true}) {
        CAPTURE(is_flannel);
        Node node(is_flannel);
        KernelOverlay overlay(node.socket(), node.spec);
        REQUIRE(overlay.read_peers());
        put_all(overlay, node.peers());
        const std::string written = everything();
        auto changed = node.peers();
        for (auto& peer : changed) {
            peer.vtep_mac = kOther;
            peer.mode = peer.mode == PeerMode::encap ? PeerMode::direct : PeerMode::encap;
        }
        put_all(overlay, changed);
        for (auto& peer : changed) peer.mode = PeerMode::encap;
        changed[0].node = ip("192.0.2.77");
        put_all(overlay, changed);
        CHECK(contains(output("ip neigh"), "10.42.2.0 dev"));
        CHECK(contains(output("ip neigh; bridge fdb"), kOther.to_string()));
        CHECK_FALSE(contains(output("ip neigh; bridge fdb"), kMac.to_string()));
        CHECK(contains(output("ip route; bridge fdb"), "dst 192.0.2.77"));
        put_all(overlay, node.peers());
        CHECK(difference_from(written) == "");
    }
}

TEST_CASE("kernel overlay: what somebody deleted or replaced is told by its event and mended")
{
    for (const bool is_flannel : {false, true}) {
        CAPTURE(is_flannel);
        Node node(is_flannel);
        const std::string device = is_flannel ? "flannel.1" : "twill0";
        KernelOverlay overlay(node.socket(), node.spec);
        REQUIRE(overlay.read_peers());
        put_all(overlay, node.peers());
        const std::string written = everything();

        const auto wanted = *kernel_entry(node.peers()[0], node.spec);
        CHECK_FALSE(overlay.disturbs(wanted.route, false));
        CHECK_FALSE(overlay.disturbs(*wanted.neighbour, false));
        CHECK(overlay.disturbs(wanted.route, true));
        CHECK(overlay.disturbs(*wanted.neighbour, true));
        auto foreign = wanted;
        foreign.neighbour->mac = kOther;
        foreign.route.gateway = ip("192.0.2.1");
        CHECK(overlay.disturbs(foreign.route, false));
        CHECK(overlay.disturbs(*foreign.neighbour, false));
        CHECK_FALSE(overlay.disturbs(foreign.route, true));

        shell("ip route del 10.42.2.0/24; ip neigh replace fd00:42:0:2:: lladdr 02:00:00:00:00:66 dev " +
              (is_flannel ? std::string("flannel-v6.1") : device) +
              " nud permanent; ip neigh replace 10.42.99.0 lladdr 02:00:00:00:00:67 dev " + device +
              " nud permanent; ip route replace 10.42.3.0/24 via 192.0.2.1 dev eth0; "
              "ip route replace fd00:42:0:2::/64 via 2001:db8::1 dev eth0");
        REQUIRE(overlay.read_peers());
        put_all(overlay, node.peers());
        CHECK(difference_from(written) == "");
    }
}

TEST_CASE("kernel overlay: of a flannel node's entries the right ones stay as they are, stale ones go")
{
    Node node(true);
    flannel_peer("02:00:00:00:00:03"); // an old VtepMAC: its fdb entry stays for ever with flannel
    flannel_peer("02:00:00:00:00:02");
    const std::string before = everything();
    // A node that left while flanneld was down.
    shell("ip neigh replace 10.42.9.0 lladdr 02:00:00:00:00:09 dev flannel.1 nud permanent;"
          "bridge fdb replace 02:00:00:00:00:09 dev flannel.1 dst 192.0.2.19 self permanent;"
          "ip route replace 10.42.9.0/24 via 10.42.9.0 dev flannel.1 onlink");
    CHECK(contains(fdb("flannel.1"), "02:00:00:00:00:03 dst 192.0.2.11"));

    KernelOverlay overlay(node.socket(), node.spec);
    const auto found = overlay.read_peers();
    REQUIRE(found);
    CHECK(found->size() == 3);
    CHECK(found->at(cidr("10.42.2.0/24")).node == ip("192.0.2.11"));
    CHECK(found->at(cidr("10.42.2.0/24")).vtep_mac == kMac);
    put_all(overlay, {node.peer("10.42.2.0/24", "192.0.2.11"), node.peer("fd00:42:0:2::/64", "2001:db8::11")});
    REQUIRE(overlay.del_peer(cidr("10.42.9.0/24")));
    CHECK_FALSE(contains(fdb("flannel.1"), "02:00:00:00:00:03"));
    CHECK_FALSE(contains(fdb("flannel-v6.1"), "02:00:00:00:00:03"));
    CHECK_FALSE(contains(fdb("flannel.1"), "02:00:00:00:00:09"));
    shell("bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.0.2.11 self permanent;"
          "bridge fdb replace 02:00:00:00:00:03 dev flannel-v6.1 dst 2001:db8::11 self permanent");
    CHECK(difference_from(before) == "");
}

TEST_CASE(
    "kernel overlay: nodes of one VtepMAC, or CIDRs with one first address, do not take each other's entries along")
{
    Node node(true);
    KernelOverlay overlay(node.socket(), node.spec);
    REQUIRE(overlay.read_peers());
    auto old = node.peer("10.42.4.0/24", "192.0.2.11");
    auto now = node.peer("10.42.4.0/23", "192.0.2.11");
    put_all(overlay, {old, now});
    REQUIRE(overlay.del_peer(old.pods)); // the lease moved to a wider CIDR: put first, then deleted
    CHECK(contains(output("ip neigh show dev flannel.1"), "10.42.4.0"));
    CHECK(contains(fdb("flannel.1"), "02:00:00:00:00:02 dst 192.0.2.11"));
    CHECK_FALSE(contains(output("ip route"), "10.42.4.0/24"));
    REQUIRE(overlay.clear());
    CHECK_FALSE(contains(output("ip neigh show dev flannel.1"), "10.42.4.0"));
    CHECK_FALSE(contains(fdb("flannel.1"), "02:00:00:00:00:02"));
}

} // namespace twill
