// SPDX-License-Identifier: Apache-2.0
// tw_from_wire: what no honest peer sends is dropped and named.
#include <doctest/doctest.h>

#include <cstring>

#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

Node with_spoof(tw_anti_spoof mode)
{
    return node_a([&](tw_cfg& cfg) { cfg.anti_spoof = mode; });
}

Layers tunnel(const Ip& outer_src, const Net& net, const Ip& inner_src, const Mac& inner_mac)
{
    return outer(outer_src, net.node_a) + Layers{Eth{kVtepA, inner_mac}, ip_layer(inner_src, net.pod1)} + udp();
}

} // namespace

TEST_CASE("from_wire: strict: an outer source that is no node is dropped, whatever is inside")
{
    const Node a = with_spoof(TW_SPOOF_STRICT);
    for (const Net& net : nets()) {
        for (const Ip& inner : {net.pod_b, net.outside, net.pod2})
            expect(a.from_wire(tunnel(net.outside, net, inner, kVtepB)), kShot, TW_R_SPOOF_NODE);
        expect(a.from_wire(tunnel(net.node_b, net, net.pod_b, kVtepB)), kRedirect, TW_R_TO_LOCAL);
    }
}

TEST_CASE("from_wire: loose: an unknown outer source passes only with the VtepMAC of the inner source's node")
{
    const Node a = with_spoof(TW_SPOOF_LOOSE);
    for (const Net& net : nets()) {
        const auto before = a.dp->stats(net.stats_b);
        expect(a.from_wire(tunnel(net.outside, net, net.pod_b, kVtepB)), kRedirect, TW_R_TO_LOCAL);
        CHECK(a.dp->stats(net.stats_b).rx_packets == before.rx_packets + 1);
        expect(a.from_wire(tunnel(net.outside, net, net.pod_b, kVtepC)), kShot, TW_R_SPOOF_NODE);
        for (const Ip& inner : {net.outside, net.free_cluster, net.pod2, net.node_b})
            for (const Mac& mac : {kVtepA, kVtepB, kVtepC})
                expect(a.from_wire(tunnel(net.outside, net, inner, mac)), kShot, TW_R_SPOOF_NODE);
    }
}

TEST_CASE("from_wire: a node may not speak for another node's pods, nor for ours")
{
    for (const auto mode : {TW_SPOOF_LOOSE, TW_SPOOF_STRICT}) {
        const Node a = with_spoof(mode);
        for (const Net& net : nets()) {
            for (const Ip& inner : {net.pod_c, net.pod2, net.free_a, net.free_cluster})
                expect(a.from_wire(tunnel(net.node_b, net, inner, kVtepB)), kShot, TW_R_SPOOF_POD);
            // What is not in the cluster network has no owner: host traffic of the node, for the stack to judge.
            expect(a.from_wire(tunnel(net.node_b, net, net.outside, kVtepB)), kRedirect, TW_R_TO_STACK);
        }
    }
}

TEST_CASE("from_wire: off: unknown sources and foreign pods pass, but a pod is never a node")
{
    const Node a = with_spoof(TW_SPOOF_OFF);
    for (const Net& net : nets()) {
        expect(a.from_wire(tunnel(net.outside, net, net.pod_b, kVtepC)), kRedirect, TW_R_TO_LOCAL);
        expect(a.from_wire(tunnel(net.node_b, net, net.pod_c, kVtepB)), kRedirect, TW_R_TO_LOCAL);
        expect(a.from_wire(tunnel(net.pod_b, net, net.pod_b, kVtepB)), kShot, TW_R_SPOOF_NODE);
    }
}

TEST_CASE("from_wire: an outer source inside the cluster network is no node in any mode")
{
    for (const auto mode : {TW_SPOOF_OFF, TW_SPOOF_LOOSE, TW_SPOOF_STRICT}) {
        const Node a = with_spoof(mode);
        for (const Net& net : nets())
            for (const Ip& src : {net.pod1, net.pod_b, net.free_cluster})
                expect(a.from_wire(tunnel(src, net, net.pod_b, kVtepB)), kShot, TW_R_SPOOF_NODE);
    }
}

TEST_CASE("from_wire: another VNI is dropped")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const std::uint32_t vni : {0U, 2U, 0x100U, 0x10000U, 0xffffffU})
            expect(a.from_wire(from_b(net, net.pod1, 64, 0, Outer{.vni = vni}) + udp()), kShot, TW_R_BAD_VNI);
}

TEST_CASE("from_wire: VXLAN flags other than 0x08 and reserved bits are dropped")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const Layers plain = from_b(net, net.pod1) + udp();
        for (unsigned flags = 0; flags < 256; ++flags) {
            if (flags == 0x08) continue;
            const Layers frame =
                with<Vxlan>(plain, [&](Vxlan& vxlan) { vxlan.flags = static_cast<std::uint8_t>(flags); });
            expect(a.from_wire(frame), kShot, TW_R_BAD_VXLAN);
        }
        for (unsigned bit = 0; bit < 24; ++bit) {
            const Layers frame = with<Vxlan>(plain, [&](Vxlan& vxlan) { vxlan.reserved = 1U << bit; });
            expect(a.from_wire(frame), kShot, TW_R_BAD_VXLAN);
        }
        for (unsigned bit = 0; bit < 8; ++bit) {
            const Layers frame =
                with<Vxlan>(plain, [&](Vxlan& vxlan) { vxlan.reserved2 = static_cast<std::uint8_t>(1U << bit); });
            expect(a.from_wire(frame), kShot, TW_R_BAD_VXLAN);
        }
    }
}

TEST_CASE("from_wire: with the group policy extension its flag and group are taken, other bits are not")
{
    const Node a = node_a([](tw_cfg& cfg) { cfg.gbp = 1; });
    for (const Net& net : nets()) {
        const Layers plain = from_b(net, net.free_a) + udp();
        const auto run = [&](std::uint8_t flags, std::uint32_t group) {
            return a.from_wire(with<Vxlan>(plain, [&](Vxlan& vxlan) {
                vxlan.flags = flags;
                vxlan.reserved = group;
            }));
        };
        const Outcome got = run(0x88, 0x1234);
        expect(got, kRedirect, TW_R_TO_STACK);
        CHECK(got.mark == 0x1234);
        CHECK(run(0x08, 0).mark == 0);
        expect(run(0x89, 0x1234), kShot, TW_R_BAD_VXLAN);
        expect(run(0x80, 0x1234), kShot, TW_R_BAD_VXLAN);
    }
}

TEST_CASE("from_wire: an inner frame for another MAC is dropped, our old one is taken while it changes")
{
    const Mac old = mac("02:74:77:00:00:1a");
    const Node a = node_a();
    const Node changing = node_a([&](tw_cfg& cfg) { std::memcpy(cfg.vtep_mac_old, old.bytes.data(), 6); });
    for (const Net& net : nets()) {
        const auto addressed = [&](const Mac& dst) {
            return with<Eth>(
                from_b(net, net.pod1) + udp(), [&](Eth& eth) { eth.dst = dst; }, 1);
        };
        for (const Mac& other : {kVtepB, old, kPod1, Mac{}, mac("ff:ff:ff:ff:ff:ff"), mac("02:74:77:00:00:0e")})
            expect(a.from_wire(addressed(other)), kShot, TW_R_BAD_MAC);
        expect(changing.from_wire(addressed(old)), kRedirect, TW_R_TO_LOCAL);
        expect(changing.from_wire(addressed(kVtepA)), kRedirect, TW_R_TO_LOCAL);
        expect(changing.from_wire(addressed(Mac{})), kShot, TW_R_BAD_MAC);
    }
}

TEST_CASE("from_wire: an inner frame that is not IP of the outer family is dropped")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const Net& other = nets()[net.family == Family::v4 ? 1 : 0];
        for (const std::uint16_t type : U16s{0x0806, 0x8100, 0x88cc, 0}) {
            const Layers frame = with<Eth>(
                from_b(net, net.pod1) + udp(), [&](Eth& eth) { eth.type = type; }, 1);
            expect(a.from_wire(frame), kShot, TW_R_BAD_VXLAN);
        }
        const Layers crossed =
            outer(net.node_b, net.node_a) + Layers{Eth{kVtepA, kVtepB}, ip_layer(other.pod_b, other.pod1)} + udp();
        expect(a.from_wire(crossed), kShot, TW_R_BAD_VXLAN);
    }
}

TEST_CASE("from_wire: a source in the CIDR of an encapsulating peer is not a direct peer's, in any anti-spoof mode")
{
    for (const auto mode : {TW_SPOOF_OFF, TW_SPOOF_LOOSE, TW_SPOOF_STRICT}) {
        const Node a = with_spoof(mode);
        for (const Net& net : nets()) {
            const Layers frame = Layers{Eth{kWireA, kRouter}, ip_layer(net.pod_b, net.pod1)} + udp();
            expect_untouched(a.from_wire(frame), frame, TW_R_NOT_OURS);
        }
    }
}
