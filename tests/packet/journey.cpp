// SPDX-License-Identifier: Apache-2.0
// From pod to pod over two nodes: what tw_from_pod sends on one is what tw_from_wire gets on the other.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/packet/needs.hpp"
#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

/// What neighbour resolution does between the two programs: Ethernet addresses of the wire.
Bytes across(Bytes frame, const Mac& to, const Mac& from)
{
    std::copy(to.bytes.begin(), to.bytes.end(), frame.begin());
    std::copy(from.bytes.begin(), from.bytes.end(), frame.begin() + 6);
    return frame;
}

} // namespace

TEST_CASE(
    "journey: over VXLAN a packet arrives as it was sent but for two hops of TTL and the MACs, and so does the reply" *
    needs_encap())
{
    const Node a = node_a();
    const Node b = node_b();
    for (const Net& net : nets())
        for (const Layers& transport : transports(net))
            for (const std::uint8_t tos : U8s{0, 0xb8, 0x02, 0x03}) {
                const Outcome sent = a.from_pod(pod_frame(net, net.pod_b, 64, tos) + transport);
                expect(sent, kRedirect, TW_R_TO_VXLAN);
                const Outcome got = b.dp->run(Program::from_wire, across(sent.out, kWireB, kWireA), b.wire);
                expect(got, kRedirect, TW_R_TO_LOCAL);
                const Layers arrived =
                    Layers{Eth{kPodB, kGatewayB}, ip_layer(net.pod1, net.pod_b, 62, tos)} + transport;
                expect_bytes(build(arrived), got.out);

                const Layers reply = Layers{Eth{kGatewayB, kPodB}, ip_layer(net.pod_b, net.pod1, 64, tos)} + transport;
                const Outcome back = b.from_pod(reply);
                expect(back, kRedirect, TW_R_TO_VXLAN);
                const Outcome home = a.dp->run(Program::from_wire, across(back.out, kWireA, kWireB), a.wire);
                expect(home, kRedirect, TW_R_TO_LOCAL);
                expect_bytes(build(Layers{Eth{kPod1, kGateway}, ip_layer(net.pod_b, net.pod1, 62, tos)} + transport),
                             home.out);
            }
}

TEST_CASE("journey: every size from an empty datagram to the MTU arrives whole" * needs_encap())
{
    const Node a = node_a();
    const Node b = node_b();
    for (const Net& net : nets())
        for (std::size_t size = 0; size <= kMtuVxlan - net.ip_header - 8; size += size < 64 ? 1 : 97) {
            const Layers transport = {Udp{}, Payload::of(size)};
            const Outcome sent = a.from_pod(pod_frame(net, net.pod_b) + transport);
            expect(sent, kRedirect, TW_R_TO_VXLAN);
            const Outcome got = b.dp->run(Program::from_wire, across(sent.out, kWireB, kWireA), b.wire);
            expect(got, kRedirect, TW_R_TO_LOCAL);
            expect_bytes(build(Layers{Eth{kPodB, kGatewayB}, ip_layer(net.pod1, net.pod_b, 62)} + transport), got.out);
        }
}

TEST_CASE("journey: the host's packet to a pod of another node reaches that node's stack with its TTL, and its source "
          "is accepted" *
          needs_encap())
{
    const Node a = node_a();
    const Node b = node_b();
    for (const Net& net : nets()) {
        const Layers frame = Layers{Eth{kVtepB, kVtepA}, ip_layer(net.pods_a.address(), net.pod_b, 64)} + tcp();
        const Outcome sent = a.from_host(frame);
        expect(sent, kRedirect, TW_R_TO_VXLAN);
        const Outcome got = b.dp->run(Program::from_wire, across(sent.out, kWireB, kWireA), b.wire);
        // The overlay device's address lies in the pod CIDR: for the other node it is a pod like any other.
        expect(got, kRedirect, TW_R_TO_LOCAL);
        expect_bytes(build(Layers{Eth{kPodB, kGatewayB}, ip_layer(net.pods_a.address(), net.pod_b, 63)} + tcp()),
                     got.out);
    }
}

TEST_CASE("journey: with the group policy extension on both nodes the mark arrives" * needs_encap())
{
    const Node a = node_a([](tw_cfg& cfg) { cfg.gbp = 1; });
    const Node b = node_b([](tw_cfg& cfg) { cfg.gbp = 1; });
    for (const Net& net : nets()) {
        const Outcome sent = a.dp->run(Program::from_pod, build(pod_frame(net, net.pod_b) + udp()), a.pod1, 0x42);
        const Outcome got = b.dp->run(Program::from_wire, across(sent.out, kWireB, kWireA), b.wire);
        expect(got, kRedirect, TW_R_TO_LOCAL);
        CHECK(got.mark == 0x42);
    }
}
