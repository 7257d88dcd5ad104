// SPDX-License-Identifier: Apache-2.0
// tw_from_pod: a pod must not make VXLAN for a node, for masquerade would give the frame a node's address.
#include <doctest/doctest.h>

#include "tests/packet/needs.hpp"
#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

Layers tunnel(const Net& net, const Ip& node, std::uint16_t dport = kPort)
{
    return pod_frame(net, node) +
           Layers{Udp{.sport = 50000, .dport = dport}, Vxlan{.vni = kVni}, Eth{kVtepB, kVtepA},
                  ip_layer(net.pod2, net.pod_b)} +
           udp();
}

} // namespace

TEST_CASE("from_pod: UDP to the overlay port of any node is dropped as forged, whoever the source says it is")
{
    for (const std::uint8_t fast : U8s{1, 0}) {
        const Node a = node_a([&](tw_cfg& cfg) { cfg.fast = fast; });
        for (const Net& net : nets())
            for (const Ip& node : {net.node_a, net.node_b, net.node_c}) {
                CAPTURE(node.to_string());
                expect(a.from_pod(tunnel(net, node)), kShot, TW_R_FORGED);
                for (const Ip& src : {net.free_a, net.outside, net.node_b}) {
                    Layers frame = tunnel(net, node);
                    frame[1] = ip_layer(src, node);
                    expect(a.from_pod(frame), kShot, TW_R_FORGED);
                }
            }
    }
}

TEST_CASE("from_pod: other ports, other protocols and other hosts are not forged tunnels" * needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        expect(a.from_pod(tunnel(net, net.node_b, 4789)), kUnspec, TW_R_NOT_POD);
        expect(a.from_pod(tunnel(net, net.outside)), kUnspec, TW_R_NOT_POD);
        const Layers stream = pod_frame(net, net.node_b) + Layers{Tcp{.dport = kPort}, Payload::of(40)};
        expect(a.from_pod(stream), kUnspec, TW_R_NOT_POD);
        // Pods may run VXLAN among themselves.
        expect(a.from_pod(tunnel(net, net.pod_b)), kRedirect, TW_R_TO_VXLAN);
    }
}

TEST_CASE("from_pod: the configured port counts, not 8472")
{
    const Node a = node_a([](tw_cfg& cfg) { cfg.port = 4789; });
    for (const Net& net : nets()) {
        expect(a.from_pod(tunnel(net, net.node_b, 4789)), kShot, TW_R_FORGED);
        expect(a.from_pod(tunnel(net, net.node_b)), kUnspec, TW_R_NOT_POD);
    }
}

TEST_CASE("from_pod: IPv4 options and fragmentation do not hide a forged tunnel")
{
    const Node a = node_a();
    const Net& net = nets()[0];
    for (std::size_t words = 1; words <= 10; ++words) {
        const Layers options = with<Ip4>(tunnel(net, net.node_b), [&](Ip4& v4) { v4.options = Bytes(words * 4, 1); });
        expect(a.from_pod(options), kShot, TW_R_FORGED);
    }
    const Layers first = with<Ip4>(tunnel(net, net.node_b), [](Ip4& v4) { v4.frag = 0x2000; });
    expect(a.from_pod(first), kShot, TW_R_FORGED);
    const Layers both = with<Ip4>(first, [](Ip4& v4) { v4.options = Bytes(8, 1); });
    expect(a.from_pod(both), kShot, TW_R_FORGED);
}

TEST_CASE("from_pod: IPv6 extension headers and fragmentation do not hide a forged tunnel")
{
    const Node a = node_a();
    const Net& net = nets()[1];
    const Ext6 first_fragment{44, {0, 1, 0, 0, 0, 9}};
    const Ext6 atomic_fragment{44, {0, 0, 0, 0, 0, 9}};
    const Ext6 longer{60, Bytes(22, 0)};
    const std::vector<std::vector<Ext6>> chains = {
        {Ext6{0}},
        {Ext6{43}},
        {Ext6{60}},
        {first_fragment},
        {atomic_fragment},
        {longer},
        {Ext6{0}, Ext6{60}, Ext6{43}, first_fragment, Ext6{60}},
        {longer, longer, first_fragment},
        {Ext6{0}, Ext6{60}, Ext6{60}, Ext6{60}, Ext6{60}, Ext6{60}, Ext6{60}, Ext6{60}, Ext6{60}}};
    for (const auto& chain : chains) {
        const Layers frame = with<Ip6>(tunnel(net, net.node_b), [&](Ip6& v6) { v6.ext = chain; });
        CAPTURE(describe(build(frame)));
        expect(a.from_pod(frame), kShot, TW_R_FORGED);
    }
}

TEST_CASE("from_pod: a first IPv6 fragment that ends before the UDP header does not hide a forged tunnel")
{
    // conntrack reassembles what the pod sent and masquerade gives the whole a node's address; RFC 7112 forbids to send
    // such fragments, so nothing honest is lost when one for a node is dropped.
    const Node a = node_a();
    const Net& net = nets()[1];
    Layers frame = pod_frame(net, net.node_b);
    frame = with<Ip6>(frame, [](Ip6& v6) {
        v6.ext = {Ext6{44, {0, 1, 0, 0, 0, 9}}, Ext6{60}};
        v6.next = 17;
    });
    expect(a.from_pod(frame), kShot, TW_R_FORGED);
}
