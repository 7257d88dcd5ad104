// SPDX-License-Identifier: Apache-2.0
// tw_from_wire: what becomes of VXLAN and of direct packets from honest peers.
#include <doctest/doctest.h>

#include "tests/packet/needs.hpp"
#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

/// Pod 1 gets this: routed by node a.
Bytes delivered(const Net& net, const Ip& src, const Layers& transport, std::uint8_t ttl = 63, std::uint8_t tos = 0)
{
    return build(Layers{Eth{kPod1, kGateway}, ip_layer(src, net.pod1, ttl, tos)} + transport);
}

/// The stack gets this on the overlay device: as the peer sent it, addressed to our VTEP.
Bytes handed_over(const Layers& frame)
{
    Layers inner(frame.begin() + 4, frame.end());
    std::get<Eth>(inner[0]).dst = kVtepA;
    return build(inner);
}

Layers direct_from_c(const Net& net, const Ip& dst, std::uint8_t ttl = 64)
{
    return {Eth{kWireA, kRouter}, ip_layer(net.pod_c, dst, ttl)};
}

} // namespace

TEST_CASE("from_wire: VXLAN for a local pod is stripped and delivered: MACs of pod and gateway, TTL less one")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Layers& transport : transports(net))
            for (const std::uint8_t ttl : U8s{2, 64, 255}) {
                const Outcome got = a.from_wire(from_b(net, net.pod1, ttl, 0xb8) + transport);
                expect(got, kRedirect, TW_R_TO_LOCAL);
                expect_bytes(delivered(net, net.pod_b, transport, static_cast<std::uint8_t>(ttl - 1), 0xb8), got.out);
            }
}

TEST_CASE("from_wire: an outer UDP checksum makes no difference")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const Layers frame = with<Udp>(from_b(net, net.pod1) + udp(), [](Udp& outer) { outer.csum.reset(); });
        const Outcome got = a.from_wire(frame);
        expect(got, kRedirect, TW_R_TO_LOCAL);
        expect_bytes(delivered(net, net.pod_b, udp()), got.out);
    }
}

TEST_CASE("from_wire: the sender's counters grow by one packet and its inner IP bytes")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const auto before = a.dp->stats(net.stats_b);
        a.from_wire(from_b(net, net.pod1) + udp());
        const auto after = a.dp->stats(net.stats_b);
        CHECK(after.rx_packets == before.rx_packets + 1);
        CHECK(after.rx_bytes == before.rx_bytes + net.ip_header + 8 + 32);
        CHECK(after.tx_packets == before.tx_packets);
    }
}

TEST_CASE("from_wire: decapsulated for the stack: no such pod, a flow of the stack, an expiring TTL, not from a pod")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        a.dp->add_flow(net.pod_b, 40000, net.pod2, 5001, 6, TW_VERDICT_STACK);
        for (const Layers& frame :
             {from_b(net, net.free_a) + udp(), from_b(net, net.pod2) + tcp(), from_b(net, net.pod1, 1) + udp(),
              from_b(net, net.outside) + udp(), from_b(net, net.node_a) + tcp(),
              outer(net.node_b, net.node_a) + Layers{Eth{kVtepA, kVtepB}, ip_layer(net.node_b, net.pod1)} + udp()}) {
            CAPTURE(describe(build(frame)));
            const Outcome got = a.from_wire(frame);
            expect(got, kRedirect, TW_R_TO_STACK);
            expect_bytes(handed_over(frame), got.out);
        }
    }
}

TEST_CASE("from_wire: inner options, extension headers, fragments and odd protocols are decapsulated for the stack")
{
    const Node a = node_a();
    std::vector<Layers> frames;
    const Layers v4 = from_b(nets()[0], nets()[0].pod1) + udp();
    const Layers v6 = from_b(nets()[1], nets()[1].pod1) + udp();
    frames.push_back(with<Ip4>(
        v4,
        [](Ip4& inner) {
            inner.options = {1, 1, 1, 1};
        },
        1));
    frames.push_back(with<Ip4>(
        v4, [](Ip4& inner) { inner.frag = 0x2000; }, 1));
    frames.push_back(with<Ip4>(
        v4, [](Ip4& inner) { inner.frag = 0x0005; }, 1));
    frames.push_back(with<Ip4>(
        v4, [](Ip4& inner) { inner.proto = 132; }, 1));
    frames.push_back(with<Ip4>(
        v4, [](Ip4& inner) { inner.proto = 4; }, 1));
    for (const std::uint8_t type : U8s{0, 43, 60})
        frames.push_back(with<Ip6>(
            v6, [&](Ip6& inner) { inner.ext = {Ext6{.type = type}}; }, 1));
    frames.push_back(with<Ip6>(
        v6,
        [](Ip6& inner) {
            inner.ext = {Ext6{44, {0, 1, 0, 0, 0, 9}}};
        },
        1));
    frames.push_back(with<Ip6>(
        v6, [](Ip6& inner) { inner.next = 132; }, 1));
    for (const Layers& frame : frames) {
        CAPTURE(describe(build(frame)));
        const Outcome got = a.from_wire(frame);
        expect(got, kRedirect, TW_R_TO_STACK);
        expect_bytes(handed_over(frame), got.out);
    }
}

TEST_CASE("from_wire: a shaped pod, a vanished interface and a switched-off fast path mean the stack" *
          needs_check_mtu())
{
    const Node a = node_a();
    const Node off = node_a([](tw_cfg& cfg) { cfg.fast = 0; });
    for (const Net& net : nets()) {
        const Layers frame = from_b(net, net.pod1) + udp();
        tw_endpoint endpoint{};
        endpoint.ifindex = a.pod1;
        endpoint.shaped = 1;
        a.dp->add_endpoint(net.pod1, endpoint);
        expect(a.from_wire(frame), kRedirect, TW_R_TO_STACK);
        endpoint.shaped = 0;
        endpoint.ifindex = 99999;
        a.dp->add_endpoint(net.pod1, endpoint);
        const Outcome gone = a.from_wire(frame);
        expect(gone, kRedirect, TW_R_TO_STACK);
        expect_bytes(handed_over(frame), gone.out);
        const Outcome slow = off.from_wire(frame);
        expect(slow, kRedirect, TW_R_TO_STACK);
        expect_bytes(handed_over(frame), slow.out);
    }
}

TEST_CASE("from_wire: VXLAN for another address, another port or another protocol is not touched")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Layers& frame :
             {outer(net.node_b, net.node_c) + Layers{Eth{kVtepA, kVtepB}, ip_layer(net.pod_b, net.pod1)} + udp(),
              from_b(net, net.pod1, 64, 0, Outer{.dport = 4789}) + udp(),
              Layers{Eth{kWireA, kRouter}, ip_layer(net.node_b, net.node_a)} + Layers{Tcp{.dport = kPort}},
              Layers{Eth{kWireA, kRouter}, ip_layer(net.outside, net.node_a)} + tcp(),
              Layers{Eth{kWireA, kRouter}, ip_layer(net.outside, net.outside)} + udp()})
            expect_untouched(a.from_wire(frame), frame, TW_R_NOT_OURS);
    const Layers arp = {Eth{kWireA, kRouter, 0x0806}, Payload::of(28)};
    expect_untouched(a.from_wire(arp), arp, TW_R_NOT_IP);
}

TEST_CASE("from_wire: a frame that is not for this host's MAC is not touched, VXLAN or not")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const char* dst : {"02:00:5e:00:53:77", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"}) {
            const Layers frame = with<Eth>(from_b(net, net.pod1) + udp(), [&](Eth& eth) { eth.dst = mac(dst); });
            expect_untouched(a.from_wire(frame), frame, TW_R_NOT_IP);
            const Layers direct =
                with<Eth>(direct_from_c(net, net.pod1) + udp(), [&](Eth& eth) { eth.dst = mac(dst); });
            expect_untouched(a.from_wire(direct), direct, TW_R_NOT_IP);
        }
}

TEST_CASE("from_wire: outer fragments and outer options are the kernel's to decapsulate")
{
    const Node a = node_a();
    const Node bare = node_a([](tw_cfg& cfg) { cfg.vxlan_device = 0; });
    const Layers v4 = from_b(nets()[0], nets()[0].pod1) + udp();
    for (const std::uint16_t frag : U16s{0x2000, 0x2010, 0x0010}) {
        const Layers fragment = with<Ip4>(v4, [&](Ip4& ip4) { ip4.frag = frag; });
        expect_untouched(a.from_wire(fragment), fragment, TW_R_FRAGMENT);
    }
    const Layers options = with<Ip4>(v4, [](Ip4& ip4) { ip4.options = {1, 1, 1, 1}; });
    expect_untouched(a.from_wire(options), options, TW_R_KERNEL_DECAP);
    expect(bare.from_wire(options), kShot, TW_R_NO_DEVICE);
    const Layers v6 = from_b(nets()[1], nets()[1].pod1) + udp();
    for (const std::uint8_t type : U8s{0, 43, 44, 60}) {
        const Layers extended = with<Ip6>(v6, [&](Ip6& ip6) { ip6.ext = {Ext6{.type = type}}; });
        const Outcome got = a.from_wire(extended);
        CHECK(got.verdict == kUnspec);
        CHECK(class_of(got.reason()) == 'S');
        expect_bytes(build(extended), got.out);
    }
}

TEST_CASE("from_wire: where inner and outer length do not fit together the kernel decapsulates")
{
    const Node a = node_a();
    const Node bare = node_a([](tw_cfg& cfg) { cfg.vxlan_device = 0; });
    for (const Net& net : nets()) {
        // Padding of the inner frame, as a small Ethernet frame has it.
        const Layers padded = from_b(net, net.pod1) + Layers{Udp{.len = 8 + 32}, Payload::of(32 + 6)};
        const Layers shorter = net.family == Family::v4 ? with<Ip4>(
                                                              padded, [](Ip4& inner) { inner.len = 20 + 8 + 32; }, 1)
                                                        : with<Ip6>(
                                                              padded, [](Ip6& inner) { inner.len = 8 + 32; }, 1);
        expect_untouched(a.from_wire(shorter), shorter, TW_R_KERNEL_DECAP);
        expect(bare.from_wire(shorter), kShot, TW_R_NO_DEVICE);
    }
}

TEST_CASE("from_wire: a UDP length that contradicts the IP length is no tunnel for the fast path")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const int wrong : {-1, 1, 8}) {
            const Layers plain = from_b(net, net.pod1) + udp();
            const std::size_t right = build(plain).size() - 14 - net.ip_header;
            const Layers frame = with<Udp>(
                plain, [&](Udp& outer) { outer.len = static_cast<std::uint16_t>(static_cast<int>(right) + wrong); });
            CHECK(class_of(a.from_wire(frame).reason()) != 'F');
        }
}

TEST_CASE("from_wire: a congestion mark on the way reaches the pod, or costs a packet that cannot carry it (RFC 6040)")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const std::uint8_t dscp : U8s{0, 0xb8})
            for (std::uint8_t inner = 0; inner < 4; ++inner)
                for (std::uint8_t out = 0; out < 4; ++out) {
                    const auto tos = static_cast<std::uint8_t>(dscp | inner);
                    const Outcome got = a.from_wire(from_b(net, net.pod1, 64, tos, Outer{.tos = out}) + tcp());
                    CAPTURE(int{inner});
                    CAPTURE(int{out});
                    if (inner == 0 && out == 3) {
                        expect(got, kShot, TW_R_ECN);
                        continue;
                    }
                    if (out == 1 && inner == 2) continue; // the next case
                    const auto now = static_cast<std::uint8_t>(dscp | (out == 3 ? 3 : inner));
                    expect(got, kRedirect, TW_R_TO_LOCAL);
                    expect_bytes(delivered(net, net.pod_b, tcp(), 63, now), got.out);
                }
}

TEST_CASE("from_wire: ECT(1) outside makes ECT(0) inside ECT(1) (RFC 6040 figure 4; the kernel since 5.8)")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const Outcome got = a.from_wire(from_b(net, net.pod1, 64, 2, Outer{.tos = 1}) + tcp());
        expect_bytes(delivered(net, net.pod_b, tcp(), 63, 1), got.out);
    }
}

TEST_CASE("from_wire: the congestion mark is set on what the stack gets too")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const Layers marked = from_b(net, net.free_a, 64, 3) + udp();
        const Outcome got = a.from_wire(from_b(net, net.free_a, 64, 2, Outer{.tos = 3}) + udp());
        expect(got, kRedirect, TW_R_TO_STACK);
        expect_bytes(handed_over(marked), got.out);
    }
}

TEST_CASE("from_wire: a direct peer's packet is delivered, TTL less one, or handed to the stack")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        for (const Layers& transport : transports(net)) {
            const Outcome got = a.from_wire(direct_from_c(net, net.pod1) + transport);
            expect(got, kRedirect, TW_R_TO_LOCAL);
            expect_bytes(delivered(net, net.pod_c, transport), got.out);
        }
        for (const Layers& frame : {direct_from_c(net, net.free_a) + udp(), direct_from_c(net, net.pod1, 1) + udp()}) {
            const Outcome got = a.from_wire(frame);
            expect(got, kRedirect, TW_R_TO_STACK);
            expect_bytes(build(frame), got.out, 14);
        }
    }
}

// The stack's route back to the pod is the overlay device: on the wire such a packet failed the reverse path filter.
TEST_CASE("from_wire: what a direct peer's pod says to this node itself reaches the stack by the overlay device")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        std::vector<Layers> frames;
        for (const Layers& transport : transports(net)) frames.push_back(direct_from_c(net, net.node_a) + transport);
        frames.push_back(direct_from_c(net, net.node_a, 1) + tcp());
        if (net.family == Family::v4) {
            for (const std::uint16_t frag : U16s{0x2000, 0x2010, 0x0010})
                frames.push_back(with<Ip4>(frames[0], [&](Ip4& ip4) { ip4.frag = frag; }));
            frames.push_back(with<Ip4>(frames[1], [](Ip4& ip4) { ip4.options = {1, 1, 1, 1}; }));
        } else {
            for (const std::uint8_t type : U8s{0, 43, 44, 60})
                frames.push_back(with<Ip6>(frames[0], [&](Ip6& ip6) { ip6.ext = {Ext6{.type = type}}; }));
        }
        for (const Layers& frame : frames) {
            CAPTURE(describe(build(frame)));
            const auto before = a.dp->stats(net.stats_c);
            const Outcome got = a.from_wire(frame);
            expect(got, kRedirect, TW_R_TO_STACK);
            expect_bytes(build(with<Eth>(frame, [](Eth& eth) { eth.dst = kVtepA; })), got.out);
            CHECK(a.dp->stats(net.stats_c).rx_packets == before.rx_packets + 1);
        }
    }
}

TEST_CASE("from_wire: to this node itself only a direct peer's pod is taken off the wire, and no tunnel of its own")
{
    for (const auto mode : {TW_SPOOF_OFF, TW_SPOOF_LOOSE, TW_SPOOF_STRICT}) {
        const Node a = node_a([&](tw_cfg& cfg) { cfg.anti_spoof = mode; });
        for (const Net& net : nets()) {
            for (const Ip& src : {net.pod_b, net.outside, net.free_cluster, net.node_c, net.pod2, net.free_a}) {
                CAPTURE(src.to_string());
                const Layers frame = Layers{Eth{kWireA, kRouter}, ip_layer(src, net.node_a)} + tcp();
                expect_untouched(a.from_wire(frame), frame, TW_R_NOT_OURS);
            }
            const Layers other = direct_from_c(net, net.node_b) + tcp();
            expect_untouched(a.from_wire(other), other, TW_R_NOT_OURS);
            const Layers forged =
                outer(net.pod_c, net.node_a) + Layers{Eth{kVtepA, kVtepC}, ip_layer(net.pod_c, net.pod1)} + udp();
            expect(a.from_wire(forged), kShot, TW_R_SPOOF_NODE);
        }
    }
}

TEST_CASE("from_wire: without tunnel only a direct peer reaches a pod past the stack")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Ip& src : {net.pod_b, net.outside, net.free_cluster, net.node_c, net.pod2}) {
            CAPTURE(src.to_string());
            const Layers frame = Layers{Eth{kWireA, kRouter}, ip_layer(src, net.pod1)} + tcp();
            expect_untouched(a.from_wire(frame), frame, TW_R_NOT_OURS);
        }
}
