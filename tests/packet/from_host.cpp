// SPDX-License-Identifier: Apache-2.0
// tw_from_host: what the node's own stack sends to pods of other nodes. The stack has routed it: TTL stays.
#include <doctest/doctest.h>

#include "tests/packet/needs.hpp"
#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

std::uint16_t at16(const Bytes& frame, std::size_t at)
{
    return static_cast<std::uint16_t>(frame[at] << 8 | frame[at + 1]);
}

/// Permanent neighbour behind the overlay device, through which its routes lead.
const Mac kOverlayGateway = mac("02:74:77:74:77:74");

/// On the overlay device, from the node's own address there or from a forwarded pod.
Layers host_frame(const Ip& src, const Ip& dst, std::uint8_t ttl = 64)
{
    return {Eth{kOverlayGateway, kVtepA}, ip_layer(src, dst, ttl)};
}

/// A next hop that the kernel of node a has no neighbour entry for, on the wire like all nodes.
tw_peer unmet_peer_c(const Net& net)
{
    tw_peer peer = peer_c(net);
    peer.nexthop = abi(net.node_b);
    return peer;
}

/// What the peer receives, `inner` from its IP header on.
Bytes on_the_wire(const Net& net, const Bytes& sent, const Layers& inner)
{
    Layer ip = ip_layer(net.node_a, net.node_b);
    if (auto* v4 = std::get_if<Ip4>(&ip)) v4->id = at16(sent, 14 + 4);
    const Udp udp{.sport = at16(sent, 14 + net.ip_header), .dport = kPort, .csum = 0};
    return build(Layers{Eth{}, ip, udp, Vxlan{.vni = kVni}, Eth{kVtepB, kVtepA}} + inner);
}

/// Encapsulated by the kernel's device: MACs of the VTEPs, nothing else changed.
void expect_for_device(const Outcome& got, const Layers& sent, tw_reason reason)
{
    expect(got, kUnspec, reason);
    expect_bytes(build(with<Eth>(sent, [](Eth& eth) { eth = Eth{kVtepB, kVtepA}; })), got.out);
}

} // namespace

TEST_CASE("from_host: to a peer the packet is encapsulated with its TTL as it is" * needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Ip& src : {net.pods_a.address(), net.pod1, net.outside})
            for (const Layers& transport : transports(net))
                for (const std::uint8_t ttl : U8s{1, 64}) {
                    const Layers frame = host_frame(src, net.pod_b, ttl) + transport;
                    const Outcome got = a.from_host(frame);
                    expect(got, kRedirect, TW_R_TO_VXLAN);
                    expect_bytes(on_the_wire(net, got.out, Layers(frame.begin() + 1, frame.end())), got.out, 14);
                }
}

TEST_CASE("from_host: to a direct peer the packet goes as it is")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const Layers frame = host_frame(net.pods_a.address(), net.pod_c) + tcp();
        const Outcome got = a.from_host(frame);
        expect(got, kRedirect, TW_R_TO_DIRECT);
        expect_bytes(build(frame), got.out, 14);
    }
}

TEST_CASE("from_host: to a direct peer whose neighbour is not known the packet goes round through the overlay device")
{
    // The stack's route stays on a packet that waits for a neighbour and would then be used in place of the wire's.
    const Node a = node_a();
    for (const Net& net : nets()) {
        a.dp->add_peer(net.pods_c, unmet_peer_c(net));
        for (const Layers& transport : transports(net)) {
            const Layers frame = host_frame(net.pods_a.address(), net.pod_c) + transport;
            const auto before = a.dp->stats(net.stats_c);
            const Outcome got = a.from_host(frame);
            expect(got, kRedirect, TW_R_NO_NEIGHBOUR);
            expect_bytes(build(frame), got.out);

            const Outcome again = a.dp->run(Program::from_overlay, got.out, a.overlay);
            expect(again, kRedirect, TW_R_TO_DIRECT);
            expect_bytes(build(frame), again.out, 14);
            const auto after = a.dp->stats(net.stats_c);
            CHECK(after.tx_packets == before.tx_packets + 1);
        }
    }
}

TEST_CASE("from_host: to a direct peer over an interface that does not forward the packet goes round too")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        tw_peer elsewhere = peer_c(net);
        elsewhere.wire = a.pod2;
        a.dp->add_peer(net.pods_c, elsewhere);
        const Layers frame = host_frame(net.pods_a.address(), net.pod_c) + udp();
        const Outcome got = a.from_host(frame);
        expect(got, kRedirect, TW_R_NO_NEIGHBOUR);
        expect_bytes(build(frame), got.out);
    }
}

TEST_CASE("from_host: fragments, options, extension headers and odd protocols are encapsulated too" * needs_encap())
{
    const Node a = node_a();
    std::vector<std::pair<const Net*, Layers>> frames;
    const Net& n4 = nets()[0];
    const Net& n6 = nets()[1];
    const Layers v4 = host_frame(n4.pod1, n4.pod_b) + udp();
    const Layers v6 = host_frame(n6.pod1, n6.pod_b) + udp();
    for (const std::uint16_t frag : U16s{0x2000, 0x2010, 0x0010})
        frames.emplace_back(&n4, with<Ip4>(v4, [&](Ip4& inner) { inner.frag = frag; }));
    frames.emplace_back(&n4, with<Ip4>(v4, [](Ip4& inner) { inner.options = Bytes(40, 1); }));
    for (const std::uint8_t proto : U8s{2, 50, 132, 253}) {
        frames.emplace_back(&n4, with<Ip4>(v4, [&](Ip4& inner) { inner.proto = proto; }));
        frames.emplace_back(&n6, with<Ip6>(v6, [&](Ip6& inner) { inner.next = proto; }));
    }
    for (const std::uint8_t type : U8s{0, 43, 60})
        frames.emplace_back(&n6, with<Ip6>(v6, [&](Ip6& inner) { inner.ext = {Ext6{.type = type}}; }));
    frames.emplace_back(&n6, with<Ip6>(v6, [](Ip6& inner) { inner.ext = {Ext6{44, {0, 9, 0, 0, 0, 9}}}; }));
    for (const auto& [net, frame] : frames) {
        const Outcome got = a.from_host(frame);
        expect(got, kRedirect, TW_R_TO_VXLAN);
        expect_bytes(on_the_wire(*net, got.out, Layers(frame.begin() + 1, frame.end())), got.out, 14);
    }
}

TEST_CASE("from_host: an address of no peer is dropped: passed on it would come back")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        for (const Ip& dst : {net.free_cluster, net.outside, net.free_a})
            expect(a.from_host(host_frame(net.pods_a.address(), dst) + udp()), kShot, TW_R_NO_PEER);
        tw_peer wireless = peer_b(net);
        wireless.wire = 0;
        a.dp->add_peer(net.pods_b, wireless);
        expect(a.from_host(host_frame(net.pod1, net.pod_b) + udp()), kShot, TW_R_NO_PEER);
    }
    expect(a.from_host(Layers{Eth{kVtepB, kVtepA, 0x0806}, Payload::of(28)}), kShot, TW_R_NO_PEER);
}

TEST_CASE("from_host: a packet larger than the path takes is the overlay device's, which fragments outside" *
          needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const std::size_t fits = kMtuVxlan - net.ip_header - 8;
        expect(a.from_host(host_frame(net.pod1, net.pod_b) + Layers{Udp{}, Payload::of(fits)}), kRedirect,
               TW_R_TO_VXLAN);
        const Layers frame = host_frame(net.pod1, net.pod_b) + Layers{Udp{}, Payload::of(fits + 1)};
        expect_for_device(a.from_host(frame), frame, TW_R_TOO_BIG);
    }
}

TEST_CASE("from_host: without ENCAP_L2_ETH the overlay device encapsulates everything, or nothing can")
{
    const Node a = node_a([](tw_cfg& cfg) { cfg.encap_l2_eth = 0; });
    const Node bare = node_a([](tw_cfg& cfg) {
        cfg.encap_l2_eth = 0;
        cfg.vxlan_device = 0;
    });
    for (const Net& net : nets()) {
        const Layers frame = host_frame(net.pod1, net.pod_b) + tcp();
        expect_for_device(a.from_host(frame), frame, TW_R_KERNEL_ENCAP);
        expect(bare.from_host(frame), kShot, TW_R_NO_DEVICE);
    }
}

TEST_CASE("from_host: the peer's counters grow by one packet and its IP bytes, whoever encapsulates")
{
    for (const std::uint8_t own : U8s{1, 0}) {
        const Node a = node_a([&](tw_cfg& cfg) { cfg.encap_l2_eth = own; });
        for (const Net& net : nets()) {
            const auto before = a.dp->stats(net.stats_b);
            a.from_host(host_frame(net.pod1, net.pod_b) + udp());
            const auto after = a.dp->stats(net.stats_b);
            CHECK(after.tx_packets == before.tx_packets + 1);
            CHECK(after.tx_bytes == before.tx_bytes + net.ip_header + 8 + 32);
        }
    }
}

TEST_CASE("from_host: with the fast path off it still carries: there is no other way out" * needs_encap())
{
    const Node a = node_a([](tw_cfg& cfg) { cfg.fast = 0; });
    for (const Net& net : nets())
        expect(a.from_host(host_frame(net.pod1, net.pod_b) + udp()), kRedirect, TW_R_TO_VXLAN);
}

TEST_CASE("to_pod: never holds a packet up, and changes nothing")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        for (const Layers& transport : transports(net)) {
            const Layers frame = Layers{Eth{kPod1, kGateway}, ip_layer(net.outside, net.pod1, 1)} + transport;
            expect_untouched(a.to_pod(frame), frame, TW_R_FROM_STACK);
        }
        Layers odd = Layers{Eth{kPod1, kGateway}, ip_layer(net.outside, net.pod1)} + Layers{Payload::of(40)};
        odd = with<Ip4>(odd, [](Ip4& v4) { v4.frag = 0x0007; });
        expect_untouched(a.to_pod(odd), odd, TW_R_FROM_STACK);
    }
    const Layers arp = {Eth{kPod1, kGateway, 0x0806}, Payload::of(28)};
    expect_untouched(a.to_pod(arp), arp, TW_R_NOT_IP);
}

TEST_CASE("to_pod and from_host: without a conntrack lookup a flow seen from the stack stays with the stack")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        a.to_pod(Layers{Eth{kPod1, kGateway}, ip_layer(net.pod_b, net.pod1)} + tcp());
        CHECK(a.dp->flow(net.pod1, 5001, net.pod_b, 40000, 6) == TW_VERDICT_STACK);
        const Layers reply = pod_frame(net, net.pod_b) + Layers{Tcp{.sport = 5001, .dport = 40000}, Payload::of(3)};
        expect_untouched(a.from_pod(reply), reply, TW_R_FLOW_STACK);

        a.from_host(host_frame(net.pod1, net.pod_b) + udp());
        CHECK(a.dp->flow(net.pod1, 40000, net.pod_b, 5001, 17) == TW_VERDICT_STACK);
        expect(a.from_wire(from_b(net, net.pod1) + Layers{Udp{.sport = 5001, .dport = 40000}, Payload::of(3)}),
               kRedirect, TW_R_TO_STACK);
    }
}

TEST_CASE(
    "to_pod and from_host: without a conntrack lookup a flow that was fast becomes the stack's when it is seen there" *
    needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Layers& transport : {udp(), tcp()}) {
            const std::uint8_t proto = std::holds_alternative<Tcp>(transport[0]) ? 6 : 17;
            const Layers frame = pod_frame(net, net.pod_b) + transport;
            expect(a.from_pod(frame), kRedirect, TW_R_TO_VXLAN);
            CHECK(a.dp->flow(net.pod1, 40000, net.pod_b, 5001, proto) == TW_VERDICT_FAST);
            a.from_host(host_frame(net.pod1, net.pod_b) + transport);
            CHECK(a.dp->flow(net.pod1, 40000, net.pod_b, 5001, proto) == TW_VERDICT_STACK);
            expect_untouched(a.from_pod(frame), frame, TW_R_FLOW_STACK);

            const Layers local = pod_frame(net, net.pod2) + transport;
            expect(a.from_pod(local), kRedirect, TW_R_TO_LOCAL);
            a.to_pod(Layers{Eth{kPod2, kGateway}, ip_layer(net.pod1, net.pod2)} + transport);
            expect_untouched(a.from_pod(local), local, TW_R_FLOW_STACK);
        }
}

TEST_CASE("to_pod: with a conntrack lookup a TCP verdict holds until the next connection request")
{
    if (!kernel_has("bpf_skb_ct_lookup", "nf_conntrack")) {
        MESSAGE("not tested: this kernel has no bpf_skb_ct_lookup");
        return;
    }
    const Node a = node_a([](tw_cfg& cfg) { cfg.ct_lookup = 1; });
    for (const Net& net : nets()) {
        const Layers frame = pod_frame(net, net.pod_b) + tcp();
        expect(a.from_pod(frame), kRedirect, TW_R_TO_VXLAN);
        a.from_host(host_frame(net.pod1, net.pod_b) + tcp());
        expect(a.from_pod(frame), kRedirect, TW_R_TO_VXLAN);
        a.dp->add_flow(net.pod1, 40000, net.pod_b, 5001, 6, TW_VERDICT_STACK);
        a.from_host(host_frame(net.pod1, net.pod_b) + tcp());
        expect_untouched(a.from_pod(frame), frame, TW_R_FLOW_STACK);
    }
}

TEST_CASE("from_overlay: without a tunnel key the packet was checked by tw_from_wire")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const Layers frame = Layers{Eth{kVtepA, kVtepB}, ip_layer(net.pod_b, net.pod1)} + udp();
        expect_untouched(a.from_overlay(frame), frame, TW_R_VERIFIED);
        // Its own MAC says that tw_from_wire sent it: an address of a direct peer does not make it go out again.
        const Layers foreign = Layers{Eth{kVtepA, kVtepC}, ip_layer(net.pod_b, net.pod_c)} + udp();
        expect_untouched(a.from_overlay(foreign), foreign, TW_R_VERIFIED);
        // Only direct peers' packets are sent round; for others there is nothing to do here.
        for (const Ip& dst : {net.pod_b, net.pod1, net.outside}) {
            const Layers stray = host_frame(net.pods_a.address(), dst) + udp();
            expect_untouched(a.from_overlay(stray), stray, TW_R_VERIFIED);
        }
    }
    expect(a.from_overlay(Layers{Eth{kVtepA, kVtepB, 0x0806}, Payload::of(28)}), kShot, TW_R_BAD_VXLAN);
}
