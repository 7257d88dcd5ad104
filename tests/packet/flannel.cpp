// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cstring>

#include "tests/packet/needs.hpp"
#include "tests/packet/world.hpp"

// A node whose devices are flannel's: one for each family, with a VNI and a MAC of its own, and a route for each peer.
namespace twill::test {

namespace {

const Mac kVtep6 = mac("0e:00:00:00:0a:06");

const Mac& vtep(const Net& net) { return net.family == Family::v4 ? kVtepA : kVtep6; }

Node flannel_node(const Tweak& tweak = {})
{
    const auto second = private_interface("overlay6", kVtep6);
    REQUIRE(second);
    return node_a([&](tw_cfg& cfg) {
        cfg.flannel = 1;
        cfg.overlay6 = *second;
        std::memcpy(cfg.vtep_mac6, kVtep6.bytes.data(), 6);
        std::memcpy(cfg.vtep_mac_old, kVtep6.bytes.data(), 6); // as the agent does: either MAC is ours
        if (tweak) tweak(cfg);
    });
}

std::uint32_t overlay(const Node& node, const Net& net)
{
    return net.family == Family::v4 ? node.overlay : node.dp->cfg().overlay6;
}

/// What the device took out of VXLAN from node b.
Layers decapsulated(const Net& net, const Ip& src, const Ip& dst)
{
    return Layers{Eth{vtep(net), kVtepB}, ip_layer(src, dst)} + udp();
}

} // namespace

TEST_CASE("flannel's devices: what the stack gets comes by the device of its family, with that device's MAC")
{
    const Node a = flannel_node();
    for (const Net& net : nets()) {
        const Layers frame = with<Eth>(
                                 from_b(net, net.free_a), [&](Eth& inner) { inner.dst = vtep(net); }, 1) +
                             udp();
        const Outcome got = a.from_wire(frame);
        expect(got, kRedirect, TW_R_TO_STACK);
        const Bytes mac(vtep(net).bytes.begin(), vtep(net).bytes.end());
        CHECK(Bytes(got.out.begin(), got.out.begin() + 6) == mac);
    }
}

TEST_CASE("flannel's devices: a pod gets VXLAN for the MAC of its family's device")
{
    const Node a = flannel_node();
    for (const Net& net : nets())
        for (int i = 0; i < 2; ++i) { // the cache answers the second
            const Layers frame = with<Eth>(
                                     from_b(net, net.pod1), [&](Eth& inner) { inner.dst = vtep(net); }, 1) +
                                 udp();
            expect(a.from_wire(frame), kRedirect, TW_R_TO_LOCAL);
        }
}

TEST_CASE("flannel's devices: VXLAN carries the MAC of its family's device" * needs_encap())
{
    const Node a = flannel_node();
    for (const Net& net : nets())
        for (int i = 0; i < 2; ++i) {
            const Outcome got = a.from_pod(pod_frame(net, net.pod_b) + udp());
            if (got.reason() == TW_R_KERNEL_ENCAP) continue; // IPv6 to a node that wants a checksum
            expect(got, kRedirect, TW_R_TO_VXLAN);
            const std::size_t inner = net.overhead + 6;
            const Bytes mac(vtep(net).bytes.begin(), vtep(net).bytes.end());
            CHECK(Bytes(got.out.begin() + static_cast<long>(inner), got.out.begin() + static_cast<long>(inner) + 6) ==
                  mac);
        }
}

TEST_CASE("flannel's devices: a frame that the device is to encapsulate has both MACs, and goes on")
{
    const Node a = flannel_node();
    for (const Net& net : nets()) {
        // Larger than the path takes: the outer fragments are the kernel's.
        const Layers frame =
            Layers{Eth{kRouter, kRouter}, ip_layer(net.pods_a.address(), net.pod_b), Udp{}, Payload::of(kMtuVxlan)};
        const Outcome got = a.dp->run(Program::from_host, build(frame), overlay(a, net));
        expect(got, kUnspec, TW_R_TOO_BIG);
        Bytes macs(kVtepB.bytes.begin(), kVtepB.bytes.end());
        macs.insert(macs.end(), vtep(net).bytes.begin(), vtep(net).bytes.end());
        CHECK(Bytes(got.out.begin(), got.out.begin() + 12) == macs);
    }
}

TEST_CASE("flannel's devices: what the kernel decapsulated is held to its inner source")
{
    const Node a = flannel_node();
    for (const Net& net : nets()) {
        const auto from_overlay = [&](const Layers& frame) {
            return a.dp->run(Program::from_overlay, build(frame), overlay(a, net));
        };
        const auto before = a.dp->stats(net.stats_b);
        expect(from_overlay(decapsulated(net, net.pod_b, net.pod1)), kRedirect, TW_R_TO_LOCAL);
        CHECK(a.dp->stats(net.stats_b).rx_packets == before.rx_packets + 1);
        expect(from_overlay(decapsulated(net, net.pod_b, net.free_a)), kUnspec, TW_R_TO_STACK);
        // A node's own address, as of what it masqueraded.
        expect(from_overlay(decapsulated(net, net.node_b, net.free_a)), kUnspec, TW_R_TO_STACK);
        expect(from_overlay(decapsulated(net, net.pod1, net.pod2)), kShot, TW_R_SPOOF_POD);
        expect(from_overlay(decapsulated(net, net.free_cluster, net.pod1)), kShot, TW_R_SPOOF_POD);
        const Layers other = with<Eth>(decapsulated(net, net.pod_b, net.pod1), [](Eth& eth) { eth.dst = kVtepB; });
        expect(from_overlay(other), kShot, TW_R_BAD_MAC);
    }
}

TEST_CASE("flannel's devices: a packet of the other family was never put into this device's VXLAN by a flannel node")
{
    const Node a = flannel_node();
    const Net& n4 = nets()[0];
    const Net& n6 = nets()[1];
    const auto on = [&](const Net& device, const Net& inner) {
        return a.dp->run(Program::from_overlay, build(decapsulated(inner, inner.pod_b, inner.pod1)),
                         overlay(a, device));
    };
    expect(on(n4, n6), kShot, TW_R_BAD_VXLAN);
    expect(on(n6, n4), kShot, TW_R_BAD_VXLAN);
}

TEST_CASE("flannel's devices: without anti-spoof every inner source passes")
{
    const Node a = flannel_node([](tw_cfg& cfg) { cfg.anti_spoof = TW_SPOOF_OFF; });
    for (const Net& net : nets())
        expect(
            a.dp->run(Program::from_overlay, build(decapsulated(net, net.free_cluster, net.free_a)), overlay(a, net)),
            kUnspec, TW_R_TO_STACK);
}

TEST_CASE("flannel's devices: what their socket would take past our checks must come from a node")
{
    const Node a = flannel_node([](tw_cfg& cfg) { cfg.anti_spoof = TW_SPOOF_STRICT; });
    const Node off = flannel_node([](tw_cfg& cfg) { cfg.anti_spoof = TW_SPOOF_OFF; });
    const Net& n4 = nets()[0];
    const Net& n6 = nets()[1];
    const auto options = [](Ip4& ip) { ip.options = Bytes(4, 1); };
    const auto fragment = [](Ip4& ip) { ip.frag = 0x2000; };
    const auto header = [](Ip6& ip) { ip.ext = {Ext6{.type = 60}}; };
    const Layers inside = from_b(n4, n4.pod1) + udp();
    const Layers inside6 = from_b(n6, n6.pod1) + udp();
    const auto from = [](const Layers& frame, const Ip& src) {
        return with<Ip6>(with<Ip4>(frame,
                                   [&](Ip4& ip) {
                                       if (src.family() == Family::v4) ip.src = src;
                                   }),
                         [&](Ip6& ip) {
                             if (src.family() == Family::v6) ip.src = src;
                         });
    };
    const Layers frames[] = {with<Ip4>(inside, options), with<Ip4>(inside, fragment), with<Ip6>(inside6, header)};
    for (const Layers& frame : frames) {
        const Net& net = &frame == &frames[2] ? n6 : n4;
        CHECK(a.from_wire(frame).verdict == kUnspec); // from node b
        expect(a.from_wire(from(frame, net.outside)), kShot, TW_R_SPOOF_NODE);
        CHECK(off.from_wire(from(frame, net.outside)).verdict == kUnspec);
    }
    // To an address of the node that is not the cluster's, as link-local ones are.
    const Ip local = ip("fe80::1");
    const Layers aside = with<Ip6>(from(inside6, n6.outside), [&](Ip6& outer) { outer.dst = local; });
    expect(a.from_wire(aside), kShot, TW_R_SPOOF_NODE);
    const Layers pods = with<Ip6>(pod_frame(n6, n6.outside) + Layers{Udp{.dport = kPort}, Payload::of(60)},
                                  [&](Ip6& outer) { outer.dst = local; });
    expect(a.from_pod(pods), kShot, TW_R_FORGED);
}

TEST_CASE("flannel's devices: another VNI on the port is another device's business")
{
    const Node a = flannel_node();
    for (const Net& net : nets()) {
        const Layers frame = from_b(net, net.pod1, 64, 0, {.vni = 77}) + udp();
        expect_untouched(a.from_wire(frame), frame, TW_R_NOT_OURS);
        expect(node_a().from_wire(frame), kShot, TW_R_BAD_VNI);
    }
}

TEST_CASE("flannel's routes without its device: nothing that the overlay device receives was decapsulated")
{
    const Node a = flannel_node([](tw_cfg& cfg) { cfg.vxlan_device = 0; });
    for (const Net& net : nets()) {
        const Layers frame =
            with<Eth>(decapsulated(net, net.free_cluster, net.pod1), [](Eth& eth) { eth.dst = kVtepB; });
        expect_untouched(a.dp->run(Program::from_overlay, build(frame), overlay(a, net)), frame, TW_R_VERIFIED);
    }
}

TEST_CASE("flannel's devices: a direct peer's packet that is the stack's stays on the wire")
{
    const Node a = flannel_node();
    for (const Net& net : nets()) {
        const Layers frame = Layers{Eth{kWireA, kWireC}, ip_layer(net.pod_c, net.free_a)} + udp();
        expect_untouched(a.from_wire(frame), frame, TW_R_TO_STACK);
    }
}

} // namespace twill::test
