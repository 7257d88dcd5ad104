// SPDX-License-Identifier: Apache-2.0
// What is written into packets: every byte, checksums, fragments, ICMP errors.
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <netinet/in.h>

#include "tests/packet/nat.hpp"

using namespace twill;
using namespace twill::test;

namespace {

/// UDP, TCP and echo between the ends, with the source's port or identifier `port` of 5353 outside.
std::vector<Layers> kinds(const Net& net, std::uint16_t sport, std::uint16_t dport, bool reply)
{
    const std::uint8_t flags = reply ? 0x12 : 0x02;
    const std::uint16_t id = reply ? dport : sport;
    const Layer echo = net.family == Family::v4
                           ? Layer{Icmp{.type = static_cast<std::uint8_t>(reply ? 0 : 8), .id = id}}
                           : Layer{Icmp6{.type = static_cast<std::uint8_t>(reply ? 129 : 128), .id = id}};
    return {{Udp{.sport = sport, .dport = dport, .len = {}, .csum = {}}, Payload::of(31)},
            {Tcp{.sport = sport, .dport = dport, .flags = flags}, Payload::of(30)},
            {echo, Payload::of(21)}};
}

Layer error_of(const Net& net)
{
    return net.family == Family::v4 ? Layer{Icmp{.type = 3, .code = 4, .id = 0, .seq = 1400}}
                                    : Layer{Icmp6{.type = 2, .code = 0, .id = 0, .seq = 1400}};
}

} // namespace

TEST_CASE("nat bytes: addresses, port and checksums change, and nothing else")
{
    const NatNode a = nat_node({}, {1029, 1029}); // one port: what comes out is known
    for (const Net& net : nets())
        for (std::size_t i = 0; i < 3; ++i) {
            a.reset({1029, 1029});
            CAPTURE(i);
            const Outcome out = a.to_wire(leaving(net.pod1, net.outside) + kinds(net, 40000, 5353, false)[i]);
            expect(out, kUnspec, TW_R_NAT_OUT);
            expect_bytes(build(leaving(net.node_a, net.outside) + kinds(net, 1029, 5353, false)[i]), out.out);
            const Outcome in = a.from_wire(arriving(net.outside, net.node_a) + kinds(net, 5353, 1029, true)[i]);
            expect(in, kUnspec, TW_R_NAT_IN);
            expect_bytes(build(arriving(net.outside, net.pod1) + kinds(net, 5353, 40000, true)[i]), in.out);
        }
}

TEST_CASE("nat bytes: UDP without a checksum stays so over IPv4")
{
    const NatNode a = nat_node({}, {1029, 1029});
    const Net& net = nets()[0];
    const auto bare = [](std::uint16_t sport) {
        Udp udp{.sport = sport, .dport = 53, .len = {}, .csum = {}};
        udp.csum = 0;
        return Layers{udp, Payload::of(12)};
    };
    const Outcome out = a.to_wire(leaving(net.pod1, net.outside) + bare(40000));
    expect(out, kUnspec, TW_R_NAT_OUT);
    expect_bytes(build(leaving(net.node_a, net.outside) + bare(1029)), out.out);
}

TEST_CASE("nat bytes: IPv4 options and IPv6 extension headers are no obstacle")
{
    const NatNode a = nat_node({}, {1029, 1029});
    for (const Net& net : nets()) {
        a.reset({1029, 1029});
        const auto odd = [](Layers layers) {
            for (Layer& layer : layers) {
                if (auto* v4 = std::get_if<Ip4>(&layer)) v4->options = {1, 1, 1, 1};
                if (auto* v6 = std::get_if<Ip6>(&layer)) v6->ext = {Ext6{.type = 0}, Ext6{.type = 60}};
            }
            return layers;
        };
        const Outcome out = a.to_wire(odd(leaving(net.pod1, net.outside)) + kinds(net, 40000, 5353, false)[0]);
        expect(out, kUnspec, TW_R_NAT_OUT);
        expect_bytes(build(odd(leaving(net.node_a, net.outside)) + kinds(net, 1029, 5353, false)[0]), out.out);
    }
}

TEST_CASE("nat bytes: an ICMP error about a packet of ours is one about the pod's packet")
{
    const NatNode a = nat_node({}, {1029, 1029});
    for (const Net& net : nets())
        for (std::size_t i = 0; i < 3; ++i) {
            a.reset({1029, 1029});
            CAPTURE(i);
            expect(a.to_wire(leaving(net.pod1, net.outside) + kinds(net, 40000, 5353, false)[i]), kUnspec,
                   TW_R_NAT_OUT);
            const Outcome in = a.from_wire(arriving(net.node_b, net.node_a) +
                                           Layers{error_of(net), ip_layer(net.node_a, net.outside)} +
                                           kinds(net, 1029, 5353, false)[i]);
            expect(in, kUnspec, TW_R_NAT_IN);
            expect_bytes(build(arriving(net.node_b, net.pod1) + Layers{error_of(net), ip_layer(net.pod1, net.outside)} +
                               kinds(net, 40000, 5353, false)[i]),
                         in.out);
        }
}

TEST_CASE("nat bytes: an ICMP error of a pod, or of this node, about a reply is one about what the other side sent")
{
    const NatNode a = nat_node({}, {1029, 1029});
    for (const Net& net : nets())
        for (const Ip& from : {net.pod1, net.node_a})
            for (std::size_t i = 0; i < 3; ++i) {
                a.reset({1029, 1029});
                CAPTURE(i);
                expect(a.to_wire(leaving(net.pod1, net.outside) + kinds(net, 40000, 5353, false)[i]), kUnspec,
                       TW_R_NAT_OUT);
                const Outcome out =
                    a.to_wire(leaving(from, net.outside) + Layers{error_of(net), ip_layer(net.outside, net.pod1)} +
                              kinds(net, 5353, 40000, true)[i]);
                expect(out, kUnspec, TW_R_NAT_OUT);
                expect_bytes(build(leaving(net.node_a, net.outside) +
                                   Layers{error_of(net), ip_layer(net.outside, net.node_a)} +
                                   kinds(net, 5353, 1029, true)[i]),
                             out.out);
            }
}

TEST_CASE("nat bytes: an ICMP error about a packet of nobody goes as it is")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        const Layers in = arriving(net.node_b, net.node_a) + Layers{error_of(net), ip_layer(net.node_a, net.outside)} +
                          kinds(net, 1029, 5353, false)[0];
        expect_untouched(a.from_wire(in), in, TW_R_NOT_OURS);
    }
}

TEST_CASE("nat bytes: fragments follow their first one, and the rest of a packet that was not seen stays here")
{
    const NatNode a = nat_node({}, {1029, 1029});
    for (const Net& net : nets()) {
        a.reset({1029, 1029});
        const auto part = [&](Layers layers, bool first) {
            for (Layer& layer : layers) {
                if (auto* v4 = std::get_if<Ip4>(&layer)) {
                    v4->frag = first ? 0x2000 : 8;
                    v4->proto = 17;
                }
                if (auto* v6 = std::get_if<Ip6>(&layer)) {
                    v6->ext = {Ext6{.type = 44, .body = {0, static_cast<std::uint8_t>(first ? 1 : 64), 1, 2, 3, 4}}};
                    v6->next = 17;
                }
            }
            return layers;
        };
        // The checksum is over what follows too: any will do.
        const auto head = [](std::uint16_t sport, std::uint16_t dport) {
            Udp udp{.sport = sport, .dport = dport, .len = {}, .csum = {}};
            udp.len = 200;
            return Layers{udp, Payload::of(56)};
        };
        const Layers rest{Payload::of(64)};
        expect(a.to_wire(part(leaving(net.pod1, net.outside), false) + rest), kShot, TW_R_NAT_FRAGMENT);
        const Outcome first = a.to_wire(part(leaving(net.pod1, net.outside), true) + head(40000, 5353));
        expect(first, kUnspec, TW_R_NAT_OUT);
        expect_bytes(build(part(leaving(net.node_a, net.outside), true) + head(1029, 5353)), first.out);
        const Outcome second = a.to_wire(part(leaving(net.pod1, net.outside), false) + rest);
        expect(second, kUnspec, TW_R_NAT_OUT);
        expect_bytes(build(part(leaving(net.node_a, net.outside), false) + rest), second.out);

        const Outcome reply = a.from_wire(part(arriving(net.outside, net.node_a), true) + head(5353, 1029));
        expect(reply, kUnspec, TW_R_NAT_IN);
        const Outcome last = a.from_wire(part(arriving(net.outside, net.node_a), false) + rest);
        expect(last, kUnspec, TW_R_NAT_IN);
        expect_bytes(build(part(arriving(net.outside, net.pod1), false) + rest), last.out);
    }
}
