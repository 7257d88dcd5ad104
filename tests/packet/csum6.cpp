// SPDX-License-Identifier: Apache-2.0
// VXLAN over IPv6 to a peer that wants a UDP checksum, as flannel's does: the programs write the right one without
// looking at the data where that can be done, else the overlay device encapsulates.
#include <doctest/doctest.h>

#include "tests/packet/needs.hpp"
#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

constexpr std::size_t kOuterUdp = 14 + 40;

std::uint16_t at16(const Bytes& frame, std::size_t at)
{
    return static_cast<std::uint16_t>(frame[at] << 8 | frame[at + 1]);
}
std::uint16_t outer_csum(const Outcome& sent) { return at16(sent.out, kOuterUdp + 6); }

const Net& net6() { return nets()[1]; }

/// Node a to whom b is a flannel node.
Node beside_flannel(const Tweak& tweak = {})
{
    Node node = node_a(tweak);
    tw_peer flannel = peer_b(net6());
    flannel.zero_csum6 = 0;
    node.dp->add_peer(net6().pods_b, flannel);
    return node;
}

Layers host_frame(std::uint8_t ttl = 64, std::uint8_t tos = 0)
{
    return {Eth{kVtepB, kVtepA}, ip_layer(net6().pod1, net6().pod_b, ttl, tos)};
}

/// What must leave, its checksum summed up over everything by the builder; the outer source port is taken from `sent`.
Bytes with_sum(const Outcome& sent, const Layers& inner, std::uint8_t outer_tos = 0)
{
    const Udp udp{.sport = at16(sent.out, kOuterUdp), .dport = kPort, .len = {}, .csum = {}};
    return build(Layers{Eth{}, ip_layer(net6().node_a, net6().node_b, 64, outer_tos), udp, Vxlan{.vni = kVni},
                        Eth{kVtepB, kVtepA}} +
                 inner);
}

/// A frame with the transport's checksum as a socket leaves it for the device: the sum of the pseudo header.
Layers partial(const Layers& frame, std::uint16_t pseudo)
{
    Layers changed = with<Udp>(frame, [&](Udp& udp) { udp.csum = pseudo; });
    changed = with<Tcp>(changed, [&](Tcp& tcp) { tcp.csum = pseudo; });
    return with<Icmp>(changed, [&](Icmp& icmp) { icmp.csum = pseudo; });
}

} // namespace

TEST_CASE("csum6: what pods send to a flannel node leaves with the sum over the whole packet, cached and not" *
          needs_encap())
{
    const Node a = beside_flannel();
    for (const Layers& transport : transports(net6()))
        for (const std::uint8_t tos : U8s{0, 0xb8, 0x02, 0x03})
            for (const std::uint8_t ttl : U8s{2, 64, 255})
                for (int again = 0; again < 2; ++again) {
                    const Outcome sent = a.from_pod(pod_frame(net6(), net6().pod_b, ttl, tos) + transport);
                    expect(sent, kRedirect, TW_R_TO_VXLAN);
                    const Layer routed = ip_layer(net6().pod1, net6().pod_b, static_cast<std::uint8_t>(ttl - 1), tos);
                    const std::uint8_t ecn = (tos & 3U) == 3 ? 2 : tos & 3U;
                    expect_bytes(with_sum(sent, Layers{routed} + transport, ecn), sent.out, 14);
                    CHECK_FALSE(bad_checksum(sent.out).has_value());
                }
}

TEST_CASE("csum6: what the stack sends to a flannel node leaves so, too" * needs_encap())
{
    const Node a = beside_flannel();
    for (const Layers& transport : transports(net6()))
        for (const std::uint8_t tos : U8s{0, 0x02}) {
            const Layers frame = host_frame(64, tos) + transport;
            const Outcome sent = a.from_host(frame);
            expect(sent, kRedirect, TW_R_TO_VXLAN);
            expect_bytes(with_sum(sent, Layers(frame.begin() + 1, frame.end()), tos), sent.out, 14);
        }
}

TEST_CASE("csum6: the sum is right for every length, odd or even" * needs_encap())
{
    const Node a = beside_flannel();
    for (std::size_t size = 0; size <= kMtuVxlan - 48; size += size < 70 ? 1 : 97) {
        const Layers transport = {Udp{}, Payload::of(size)};
        const Outcome sent = a.from_pod(pod_frame(net6(), net6().pod_b) + transport);
        expect(sent, kRedirect, TW_R_TO_VXLAN);
        expect_bytes(with_sum(sent, Layers{ip_layer(net6().pod1, net6().pod_b, 63)} + transport), sent.out, 14);
    }
}

TEST_CASE("csum6: a transport checksum that the device has yet to write counts as written" * needs_encap())
{
    const Node a = beside_flannel();
    for (const Layers& transport : transports(net6())) {
        const Outcome whole = a.from_pod(pod_frame(net6(), net6().pod_b) + transport);
        for (const std::uint16_t pseudo : U16s{0x1234, 0xffff, 1}) {
            const Outcome sent = a.from_pod(partial(pod_frame(net6(), net6().pod_b) + transport, pseudo));
            expect(sent, kRedirect, TW_R_TO_VXLAN);
            CHECK(at16(sent.out, kOuterUdp) == at16(whole.out, kOuterUdp));
            CHECK(outer_csum(sent) == outer_csum(whole));
        }
    }
}

TEST_CASE("csum6: a sum that would be zero, which means none, is written as its other form" * needs_encap())
{
    const Node a = beside_flannel([](tw_cfg& cfg) { cfg.gbp = 1; });
    const Bytes frame = build(pod_frame(net6(), net6().pod_b) + udp());
    // The group is a word of the sum: by it any sum can be had.
    const Outcome one = a.dp->run(Program::from_pod, frame, a.pod1, 1);
    REQUIRE(outer_csum(one) != 0xffff);
    const Outcome none = a.dp->run(Program::from_pod, frame, a.pod1, 1U + outer_csum(one));
    expect(none, kRedirect, TW_R_TO_VXLAN);
    CHECK(outer_csum(none) == 0xffff);
    CHECK_FALSE(bad_checksum(none.out).has_value());
}

TEST_CASE("csum6: a node that takes zero gets zero, in the slot of the cache that a flannel node's packet had" *
          needs_encap())
{
    const Node a = beside_flannel();
    const Layers frame = pod_frame(net6(), net6().pod_b) + tcp();
    CHECK(outer_csum(a.from_pod(frame)) != 0);
    a.dp->add_peer(net6().pods_b, peer_b(net6()));
    CHECK(outer_csum(a.from_pod(frame)) == 0);
    CHECK(outer_csum(a.from_pod(frame)) == 0);
}

TEST_CASE("csum6: where headers do not tell the sum, the overlay device encapsulates" * needs_encap())
{
    const Node a = beside_flannel();
    const Node bare = beside_flannel([](tw_cfg& cfg) { cfg.vxlan_device = 0; });
    std::vector<Layers> hosts, pods;
    pods.push_back({Udp{.csum = 0}, Payload::of(32)});
    pods.push_back({Udp{.len = 24}, Payload::of(32)});
    pods.push_back({Udp{.len = 0}, Payload::of(32)});
    for (const Layers& transport : pods) {
        const Outcome sent = a.from_pod(pod_frame(net6(), net6().pod_b) + transport);
        expect(sent, kRedirect, TW_R_KERNEL_ENCAP);
        expect_bytes(build(Layers{Eth{kGateway, kPod1}, ip_layer(net6().pod1, net6().pod_b, 63)} + transport),
                     sent.out);
        expect(bare.from_pod(pod_frame(net6(), net6().pod_b) + transport), kShot, TW_R_NO_DEVICE);
        hosts.push_back(host_frame() + transport);
    }
    for (const std::uint8_t type : U8s{0, 43, 44, 60})
        hosts.push_back(with<Ip6>(host_frame() + udp(), [&](Ip6& v6) { v6.ext = {Ext6{.type = type}}; }));
    for (const std::uint8_t proto : U8s{50, 59, 132, 136})
        hosts.push_back(with<Ip6>(host_frame() + Layers{Payload::of(40)}, [&](Ip6& v6) { v6.next = proto; }));
    hosts.push_back(with<Ip6>(host_frame() + Layers{Payload::of(7)}, [&](Ip6& v6) { v6.next = 58; }));
    for (const Layers& frame : hosts) {
        CAPTURE(describe(build(frame)));
        const Outcome got = a.from_host(frame);
        expect(got, kUnspec, TW_R_KERNEL_ENCAP);
        expect_bytes(build(frame), got.out);
        expect(bare.from_host(frame), kShot, TW_R_NO_DEVICE);
    }
}
