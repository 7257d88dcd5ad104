// SPDX-License-Identifier: Apache-2.0
// tw_from_pod: the bytes of what it sends.
#include <doctest/doctest.h>

#include <set>

#include "tests/packet/needs.hpp"
#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

std::uint16_t at16(const Bytes& frame, std::size_t at)
{
    return static_cast<std::uint16_t>(frame[at] << 8 | frame[at + 1]);
}

/// The frame that node b must receive for `inner`, a packet of pod 1. Source port and IPv4 identification are free:
/// they are taken from `sent`.
Bytes on_the_wire(const Net& net, const Bytes& sent, std::uint8_t outer_tos, const Layers& inner)
{
    const std::size_t udp_at = 14 + net.ip_header;
    Layer ip = ip_layer(net.node_a, net.node_b, 64, outer_tos);
    if (auto* v4 = std::get_if<Ip4>(&ip)) v4->id = at16(sent, 14 + 4);
    const Udp udp{.sport = at16(sent, udp_at), .dport = kPort, .csum = 0};
    return build(Layers{Eth{}, ip, udp, Vxlan{.vni = kVni}, Eth{kVtepB, kVtepA}} + inner);
}

std::uint16_t source_port(const Net& net, const Bytes& sent) { return at16(sent, 14 + net.ip_header); }

} // namespace

TEST_CASE(
    "from_pod: VXLAN to a peer is what the kernel's device sends: outer headers, own and peer's VtepMAC, TTL less one" *
    needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Layers& transport : transports(net))
            for (const std::uint8_t ttl : U8s{2, 64, 255}) {
                const Outcome sent = a.from_pod(pod_frame(net, net.pod_b, ttl) + transport);
                expect(sent, kRedirect, TW_R_TO_VXLAN);
                const Layers inner =
                    Layers{ip_layer(net.pod1, net.pod_b, static_cast<std::uint8_t>(ttl - 1))} + transport;
                expect_bytes(on_the_wire(net, sent.out, 0, inner), sent.out, 14);
                CHECK(at16(sent.out, 12) == (net.family == Family::v4 ? 0x0800 : 0x86dd));
                CHECK_FALSE(bad_checksum(sent.out).has_value());
                CHECK(source_port(net, sent.out) >= 32768);
                CHECK(source_port(net, sent.out) < 60999);
            }
}

TEST_CASE("from_pod: ECN goes outwards as in RFC 6040, a congestion mark as ECT(0); DSCP does not" * needs_encap())
{
    const Node a = node_a();
    const std::uint8_t outer_of[] = {0, 1, 2, 2};
    for (const Net& net : nets())
        for (const std::uint8_t dscp : U8s{0, 0x28, 0xfc})
            for (unsigned ecn = 0; ecn < 4; ++ecn) {
                const auto tos = static_cast<std::uint8_t>(dscp | ecn);
                const Outcome sent = a.from_pod(pod_frame(net, net.pod_b, 64, tos) + tcp());
                const Layers inner = Layers{ip_layer(net.pod1, net.pod_b, 63, tos)} + tcp();
                expect_bytes(on_the_wire(net, sent.out, outer_of[ecn], inner), sent.out, 14);
            }
}

TEST_CASE(
    "from_pod: the inner IPv4 checksum after TTL - 1 is the one that a router writes, for every value that it can have")
{
    const Node a = node_a();
    const Net& net = nets()[0];
    for (unsigned id = 0; id < 65536; id += 13) {
        const Layers frame =
            with<Ip4>(pod_frame(net, net.pod_c) + udp(), [&](Ip4& v4) { v4.id = static_cast<std::uint16_t>(id); });
        const Layers routed = with<Ip4>(frame, [](Ip4& v4) { v4.ttl = 63; });
        const Outcome sent = a.dp->run_only(Program::from_pod, build(frame), a.pod1);
        if (diff(build(routed), sent.out, 14).empty()) continue;
        CAPTURE(id);
        expect_bytes(build(routed), sent.out, 14);
    }
}

TEST_CASE("from_pod: a sum of 0xfeff becomes 0, not 0xffff, when the TTL falls")
{
    // RFC 1624 section 3: the negative zero that the shorter formula gives is no valid result, and not what routers
    // send.
    const Node a = node_a();
    const Net& net = nets()[0];
    for (unsigned id = 0; id < 65536; ++id) {
        const Layers frame =
            with<Ip4>(pod_frame(net, net.pod_c) + udp(), [&](Ip4& v4) { v4.id = static_cast<std::uint16_t>(id); });
        const Bytes bytes = build(frame);
        if (at16(bytes, 14 + 10) != 0xfeff) continue;
        const Outcome sent = a.from_pod(frame);
        CHECK(at16(sent.out, 14 + 10) == 0);
        return;
    }
    FAIL("no identification gives the sum");
}

TEST_CASE("from_pod: the source port follows the flow, so that a flow keeps its path and flows spread")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        std::set<std::uint16_t> ports;
        for (std::uint16_t sport = 40000; sport < 40064; ++sport) {
            const Layers frame = pod_frame(net, net.pod_b) + Layers{Udp{.sport = sport}, Payload::of(8)};
            const auto first = source_port(net, a.from_pod(frame).out);
            CHECK(first == source_port(net, a.from_pod(frame).out));
            ports.insert(first);
        }
        CHECK(ports.size() > 48);
    }
}

TEST_CASE("from_pod: VNI and port are the configured ones" * needs_encap())
{
    const Node a = node_a([](tw_cfg& cfg) {
        cfg.vni = 0xabcdef;
        cfg.port = 4789;
    });
    for (const Net& net : nets()) {
        const Outcome sent = a.from_pod(pod_frame(net, net.pod_b) + udp());
        const std::size_t udp_at = 14 + net.ip_header;
        CHECK(at16(sent.out, udp_at + 2) == 4789);
        CHECK(at16(sent.out, udp_at + 12) == 0xabcd);
        CHECK(at16(sent.out, udp_at + 14) == 0xef00);
    }
}

TEST_CASE("from_pod: with the group policy extension the mark travels in the header, without it never" * needs_encap())
{
    const Node plain = node_a();
    const Node gbp = node_a([](tw_cfg& cfg) { cfg.gbp = 1; });
    for (const Net& net : nets()) {
        const Bytes frame = build(pod_frame(net, net.pod_b) + udp());
        const std::size_t vxlan_at = 14 + net.ip_header + 8;
        const Outcome marked = gbp.dp->run(Program::from_pod, frame, gbp.pod1, 0x1234);
        CHECK(marked.out[vxlan_at] == 0x88);
        CHECK(at16(marked.out, vxlan_at + 2) == 0x1234);
        const Outcome unmarked = gbp.dp->run(Program::from_pod, frame, gbp.pod1);
        CHECK(unmarked.out[vxlan_at] == 0x08);
        const Outcome without = plain.dp->run(Program::from_pod, frame, plain.pod1, 0x1234);
        CHECK(without.out[vxlan_at] == 0x08);
        CHECK(at16(without.out, vxlan_at + 2) == 0);
    }
}

TEST_CASE("from_pod: to a direct peer the packet goes as it is, TTL less one")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Layers& transport : transports(net)) {
            const Outcome sent = a.from_pod(pod_frame(net, net.pod_c, 64, 0xb9) + transport);
            expect(sent, kRedirect, TW_R_TO_DIRECT);
            expect_bytes(build(pod_frame(net, net.pod_c, 63, 0xb9) + transport), sent.out, 14);
        }
}

TEST_CASE("from_pod: to a pod of this node through the gateway the packet is routed: MACs and TTL")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Layers& transport : transports(net)) {
            const Outcome sent = a.from_pod(pod_frame(net, net.pod2) + transport);
            expect(sent, kRedirect, TW_R_TO_LOCAL);
            expect_bytes(build(Layers{Eth{kPod2, kGateway}, ip_layer(net.pod1, net.pod2, 63)} + transport), sent.out);
        }
}

TEST_CASE("from_pod: a frame that carries the other pod's own MAC was bridged: not a byte changes, whatever its TTL")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const std::uint8_t ttl : U8s{1, 64}) {
            const Layers frame = Layers{Eth{kPod2, kPod1}, ip_layer(net.pod1, net.pod2, ttl)} + tcp();
            const Outcome sent = a.from_pod(frame);
            expect(sent, kRedirect, TW_R_TO_LOCAL);
            expect_bytes(build(frame), sent.out);
        }
}

TEST_CASE("from_pod: Ethernet padding is not part of the packet and does not travel in the tunnel")
{
    // A pod behind an emulated NIC pads to 60 bytes. A router trims that; a receiver that compares lengths would have
    // to leave the packet to its kernel, and without a vxlan device would drop it.
    const Node a = node_a();
    const Net& net = nets()[0];
    const Layers small = pod_frame(net, net.pod_b) + Layers{Udp{}, Payload::of(4)};
    Bytes padded = build(small);
    padded.resize(60, 0);
    const Outcome sent = a.dp->run(Program::from_pod, padded, a.pod1);
    if (sent.reason() == TW_R_TO_VXLAN)
        expect_bytes(on_the_wire(net, sent.out, 0, Layers{ip_layer(net.pod1, net.pod_b, 63), Udp{}, Payload::of(4)}),
                     sent.out, 14);
    else
        CHECK(class_of(sent.reason()) == 'S');
}

TEST_CASE("from_pod: where the kernel's helper lacks ENCAP_L2_ETH the overlay device encapsulates, TTL less one")
{
    const Node a = node_a([](tw_cfg& cfg) { cfg.encap_l2_eth = 0; });
    const Node bare = node_a([](tw_cfg& cfg) {
        cfg.encap_l2_eth = 0;
        cfg.vxlan_device = 0;
    });
    for (const Net& net : nets()) {
        const Outcome sent = a.from_pod(pod_frame(net, net.pod_b) + udp());
        expect(sent, kRedirect, TW_R_KERNEL_ENCAP);
        expect_bytes(build(pod_frame(net, net.pod_b, 63) + udp()), sent.out, 14);
        expect(bare.from_pod(pod_frame(net, net.pod_b) + udp()), kShot, TW_R_NO_DEVICE);
    }
}

TEST_CASE("from_pod: outer IPv4 identifications follow each other without repeating" * needs_encap())
{
    const Net& net = nets()[0];
    const Node a = node_a();
    std::set<unsigned> seen;
    for (int i = 0; i < 200; ++i) {
        const Outcome outcome = a.from_pod(pod_frame(net, net.pod_b) + udp());
        REQUIRE(outcome.out.size() > 20);
        seen.insert(outcome.out[18] * 256U + outcome.out[19]);
    }
    CHECK(seen.size() == 200);
}
