// SPDX-License-Identifier: Apache-2.0
// tw_flow_cache: the second packet of a flow asks no other map. So whatever its answer rests on must end it: a packet
// that differs in anything, a change that the agent announces, a flow that became the stack's, a connection request.
#include <doctest/doctest.h>

#include <random>
#include <string>

#include "tests/packet/needs.hpp"
#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

Node node_on_one_cpu(const Tweak& tweak = {})
{
    stay_on_one_cpu();
    return node_a(tweak);
}

/// The endpoint goes behind the programs' back, as no agent does it: only what is cached still knows it.
void lose_endpoint(const Node& node, const Ip& pod)
{
    const tw_addr key = abi(pod);
    REQUIRE(bpf_map_delete_elem(node.dp->map("tw_endpoints"), &key) == 0);
}

void lose_node(const Node& node, const Ip& address)
{
    const tw_addr key = abi(address);
    REQUIRE(bpf_map_delete_elem(node.dp->map("tw_nodes"), &key) == 0);
}

Layers to_b(const Net& net, const Layers& transport) { return pod_frame(net, net.pod_b) + transport; }

} // namespace

TEST_CASE("cache: from_pod: an answer serves the flow until the agent says that something changed" * needs_encap())
{
    for (const auto& net : nets())
        for (const auto& transport : {udp(), tcp()}) {
            CAPTURE(net.name);
            const Node a = node_on_one_cpu();
            expect(a.from_pod(to_b(net, transport)), kRedirect, TW_R_TO_VXLAN);
            lose_endpoint(a, net.pod1);
            expect(a.from_pod(to_b(net, transport)), kRedirect, TW_R_TO_VXLAN);
            a.dp->changed();
            expect(a.from_pod(to_b(net, transport)), kUnspec, TW_R_NEW_SOURCE);
        }
}

TEST_CASE("cache: from_pod: a peer that moved gets the next packet" * needs_encap())
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        const std::size_t outer_dst = 14 + net.ip_header - net.node_b.network_size();
        const auto sent_to = [&] {
            const Outcome outcome = a.from_pod(to_b(net, udp()));
            expect(outcome, kRedirect, TW_R_TO_VXLAN);
            return Bytes(outcome.out.begin() + static_cast<std::ptrdiff_t>(outer_dst),
                         outcome.out.begin() + static_cast<std::ptrdiff_t>(outer_dst + net.node_b.network_size()));
        };
        const auto bytes_of = [](const Ip& ip) { return Bytes(ip.network(), ip.network() + ip.network_size()); };
        CHECK(sent_to() == bytes_of(net.node_b));
        CHECK(sent_to() == bytes_of(net.node_b));
        tw_peer moved = peer_b(net);
        moved.node = abi(net.node_c);
        a.dp->add_peer(net.pods_b, moved);
        CHECK(sent_to() == bytes_of(net.node_c));
    }
}

TEST_CASE("cache: from_pod: the answer is for one interface: another pod cannot borrow it" * needs_encap())
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        const Layers frame = to_b(net, tcp());
        expect(a.from_pod(frame), kRedirect, TW_R_TO_VXLAN);
        expect(a.dp->run(Program::from_pod, build(frame), a.pod2), kUnspec, TW_R_NEW_SOURCE);
        expect(a.from_pod(frame), kRedirect, TW_R_TO_VXLAN);
    }
}

TEST_CASE("cache: a flow that became the stack's is so for the next packet, also on the way out" * needs_encap())
{
    for (const auto& net : nets())
        for (const auto& transport : {udp(), tcp()}) {
            CAPTURE(net.name);
            // Without the conntrack lookup every flow that the stack hands to a pod is the stack's.
            const Node a = node_on_one_cpu([](tw_cfg& cfg) { cfg.ct_lookup = 0; });
            for (int i = 0; i < 2; ++i) expect(a.from_pod(to_b(net, transport)), kRedirect, TW_R_TO_VXLAN);
            for (int i = 0; i < 2; ++i)
                expect(a.from_wire(from_b(net, net.pod1) + transport), kRedirect, TW_R_TO_LOCAL);
            (void)a.to_pod(to_b(net, transport));
            expect(a.from_pod(to_b(net, transport)), kUnspec, TW_R_FLOW_STACK);
        }
}

TEST_CASE("cache: from_wire: an answer serves the flow, for the node that it came from")
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        const Layers frame = from_b(net, net.pod1) + udp();
        expect(a.from_wire(frame), kRedirect, TW_R_TO_LOCAL);
        lose_node(a, net.node_b);
        expect(a.from_wire(frame), kRedirect, TW_R_TO_LOCAL);
        // The same from a node that must not send it.
        const Layers from_c = outer(net.node_c, net.node_a) + Layers(frame.begin() + 4, frame.end());
        expect(a.from_wire(from_c), kShot, TW_R_SPOOF_POD);
        a.dp->changed();
        // Without its node the sender is known by its MAC only, and that is not cached.
        expect(a.from_wire(frame), kRedirect, TW_R_TO_LOCAL);
        const Layers forged = with<Eth>(
            frame, [](Eth& eth) { eth.src = kVtepC; }, 1);
        expect(a.from_wire(forged), kShot, TW_R_SPOOF_NODE);
    }
}

TEST_CASE("cache: from_wire: what is cached does not outrank ECN, TTL or lengths" * needs_encap())
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        expect(a.from_wire(from_b(net, net.pod1) + udp()), kRedirect, TW_R_TO_LOCAL);
        expect(a.from_wire(from_b(net, net.pod1, 64, 0, {.tos = 3}) + udp()), kShot, TW_R_ECN);
        expect(a.from_wire(from_b(net, net.pod1, 1) + udp()), kRedirect, TW_R_TO_STACK);
        expect(a.from_pod(pod_frame(net, net.pod_b) + udp()), kRedirect, TW_R_TO_VXLAN);
        expect(a.from_pod(pod_frame(net, net.pod_b, 1) + udp()), kUnspec, TW_R_TTL);
    }
}

TEST_CASE("cache: from_wire: what is cached does not make us a node of another address")
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        const Layers frame = from_b(net, net.pod1) + udp();
        expect(a.from_wire(frame), kRedirect, TW_R_TO_LOCAL);
        const Layers elsewhere = outer(net.node_b, net.node_c) + Layers(frame.begin() + 4, frame.end());
        expect(a.from_wire(elsewhere), kUnspec, TW_R_NOT_OURS);
    }
}

TEST_CASE("cache: the two directions of a flow do not take each other's slot" * needs_encap())
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        const auto ports = [](std::uint16_t sport, std::uint16_t dport) {
            return with<Udp>(udp(), [&](Udp& header) {
                header.sport = sport;
                header.dport = dport;
            });
        };
        const Layers there = to_b(net, ports(1000, 2000)), back = from_b(net, net.pod1) + ports(2000, 1000);
        expect(a.from_pod(there), kRedirect, TW_R_TO_VXLAN);
        expect(a.from_wire(back), kRedirect, TW_R_TO_LOCAL);
        lose_endpoint(a, net.pod1);
        expect(a.from_pod(there), kRedirect, TW_R_TO_VXLAN);
        expect(a.from_wire(back), kRedirect, TW_R_TO_LOCAL);
    }
}

TEST_CASE("cache: flows that differ only in the last byte of an address have slots of their own" * needs_encap())
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        const auto to = [&](std::uint8_t last) {
            auto bytes = net.pod_b.bytes();
            bytes[15] = last;
            return pod_frame(net, Ip::from_bytes(bytes)) + udp();
        };
        for (std::uint8_t last = 1; last <= 32; ++last) expect(a.from_pod(to(last)), kRedirect, TW_R_TO_VXLAN);
        lose_endpoint(a, net.pod1);
        int cached = 0;
        for (std::uint8_t last = 1; last <= 32; ++last) cached += a.from_pod(to(last)).verdict == kRedirect ? 1 : 0;
        CHECK(cached >= 28); // 32 of 1024 slots
    }
}

TEST_CASE("cache: what is cached does not outrank the frame's length: padding counts as without the cache" *
          needs_check_mtu())
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        const auto padded = [](const Layers& layers) {
            Bytes frame = build(layers);
            frame.resize(1700); // the interfaces take 1500
            return frame;
        };
        const Layers wire = from_b(net, net.pod1) + udp(), local = pod_frame(net, net.pod2) + udp();
        for (int i = 0; i < 3; ++i) { // the interface is asked anew when the kernel's clock ticks in between
            expect(a.from_pod(local), kRedirect, TW_R_TO_LOCAL);
            expect(a.dp->run(Program::from_pod, padded(local), a.pod1), kUnspec, TW_R_TOO_BIG);
            expect(a.from_wire(wire), kRedirect, TW_R_TO_LOCAL);
            expect(a.dp->run(Program::from_wire, padded(wire), a.wire), kRedirect, TW_R_TO_STACK);
        }
    }
}

TEST_CASE("cache: a packet without VXLAN is not taken for one with")
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        expect(a.from_wire(from_b(net, net.pod1) + udp()), kRedirect, TW_R_TO_LOCAL);
        // Pod b's packet as it is: b is no direct peer.
        Layers bare = from_b(net, net.pod1) + udp();
        bare.erase(bare.begin() + 1, bare.begin() + 5);
        expect(a.from_wire(bare), kUnspec, TW_R_NOT_OURS);
    }
}

TEST_CASE("cache: epoch 0: nothing is cached" * needs_encap())
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        const std::uint32_t key = 0;
        const std::uint64_t none = 0;
        REQUIRE(bpf_map_update_elem(a.dp->map("tw_epoch"), &key, &none, BPF_ANY) == 0);
        expect(a.from_pod(to_b(net, udp())), kRedirect, TW_R_TO_VXLAN);
        lose_endpoint(a, net.pod1);
        expect(a.from_pod(to_b(net, udp())), kUnspec, TW_R_NEW_SOURCE);
    }
}

TEST_CASE("cache: thousands of flows share the slots, and none gets another's answer" * needs_encap())
{
    for (const auto& net : nets()) {
        CAPTURE(net.name);
        const Node a = node_on_one_cpu();
        std::mt19937 random(1);
        const auto flow = [&](int i) {
            return with<Udp>(udp(), [&](Udp& header) { header.sport = static_cast<std::uint16_t>(1024 + i); });
        };
        for (int i = 0; i < 6000; ++i) {
            const int id = static_cast<int>(random() % 3000);
            const bool direct = id % 2 == 0;
            const Layers frame = pod_frame(net, direct ? net.pod_c : net.pod_b) + flow(id);
            const auto outcome = a.dp->run_only(Program::from_pod, build(frame), a.pod1);
            CHECK(outcome.out.size() == build(frame).size() + (direct ? 0 : net.overhead));
        }
    }
}

TEST_CASE("cache: VXLAN from :: does not borrow what was found out about a direct peer")
{
    for (const auto spoof : {TW_SPOOF_STRICT, TW_SPOOF_LOOSE}) {
        const Node a = node_on_one_cpu([&](tw_cfg& cfg) { cfg.anti_spoof = spoof; });
        const Net& net = nets()[1];
        const Layers inner = Layers{ip_layer(net.pod_c, net.pod1)} + udp();
        const Layers forged = outer(ip("::"), net.node_a) + Layers{Eth{kVtepA, mac("02:00:00:00:66:66"), {}}} + inner;
        expect(a.from_wire(forged), kShot, TW_R_SPOOF_NODE);
        expect(a.from_wire(Layers{Eth{kWireA, kRouter, {}}} + inner), kRedirect, TW_R_TO_LOCAL);
        expect(a.from_wire(forged), kShot, TW_R_SPOOF_NODE);
    }
}
