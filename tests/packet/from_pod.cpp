// SPDX-License-Identifier: Apache-2.0
// tw_from_pod: who carries a packet of a pod. What it looks like then is in from_pod_bytes.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "tests/packet/needs.hpp"
#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

TEST_CASE(
    "from_pod: a packet to a pod of another node is encapsulated, routed directly or delivered, by its destination" *
    needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Layers& transport : transports(net)) {
            CAPTURE(net.name);
            expect(a.from_pod(pod_frame(net, net.pod_b) + transport), kRedirect, TW_R_TO_VXLAN);
            expect(a.from_pod(pod_frame(net, net.pod_c) + transport), kRedirect, TW_R_TO_DIRECT);
            expect(a.from_pod(pod_frame(net, net.pod2) + transport), kRedirect, TW_R_TO_LOCAL);
        }
}

TEST_CASE("from_pod: the peer's counters grow by one packet and its IP bytes" * needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const auto& [dst, index] : {std::pair{net.pod_b, net.stats_b}, std::pair{net.pod_c, net.stats_c}}) {
            const auto before = a.dp->stats(index);
            a.from_pod(pod_frame(net, dst) + udp());
            const auto after = a.dp->stats(index);
            CHECK(after.tx_packets == before.tx_packets + 1);
            CHECK(after.tx_bytes == before.tx_bytes + net.ip_header + 8 + 32);
            CHECK(after.rx_packets == before.rx_packets);
        }
}

TEST_CASE("from_pod: what is not between pods is the stack's, untouched")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Ip& dst : {net.outside, net.node_a, net.node_b, net.free_cluster}) {
            const Layers frame = pod_frame(net, dst) + tcp();
            CAPTURE(dst.to_string());
            expect_untouched(a.from_pod(frame), frame, TW_R_NOT_POD);
        }
}

TEST_CASE("from_pod: an own address without a pod is the stack's, which answers")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const Layers frame = pod_frame(net, net.free_a) + udp();
        expect_untouched(a.from_pod(frame), frame, TW_R_NO_ENDPOINT);
    }
}

TEST_CASE("from_pod: a foreign source is left to the stack and not reported")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Ip& src : {net.outside, net.pod_b, net.free_cluster, net.node_a}) {
            const Layers frame = Layers{Eth{kGateway, kPod1}, ip_layer(src, net.pod_b)} + udp();
            const Outcome outcome = a.from_pod(frame);
            expect_untouched(outcome, frame, TW_R_NEW_SOURCE);
            CHECK(outcome.events.empty());
        }
}

TEST_CASE("from_pod: ARP, VLAN tags and multicast frames are the stack's")
{
    const Node a = node_a();
    const Net& net = nets()[0];
    const Layers arp = {Eth{mac("ff:ff:ff:ff:ff:ff"), kPod1, 0x0806}, Payload::of(28)};
    expect_untouched(a.from_pod(arp), arp, TW_R_NOT_IP);
    const Layers vlan = Layers{Eth{kGateway, kPod1}, Vlan{5}, ip_layer(net.pod1, net.pod_b)} + udp();
    expect_untouched(a.from_pod(vlan), vlan, TW_R_NOT_IP);
    const Layers other = {Eth{kGateway, kPod1, 0x88cc}, Payload::of(40)};
    expect_untouched(a.from_pod(other), other, TW_R_NOT_IP);
    for (const Net& each : nets())
        for (const char* group : {"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", "33:33:00:00:00:01"}) {
            const Layers frame = Layers{Eth{mac(group), kPod1}, ip_layer(each.pod1, each.pod_b)} + udp();
            expect_untouched(a.from_pod(frame), frame, TW_R_NOT_IP);
        }
}

TEST_CASE("from_pod: IPv4 options and fragments are the stack's" * needs_encap())
{
    const Node a = node_a();
    const Net& net = nets()[0];
    for (const Ip& dst : {net.pod_b, net.pod_c, net.pod2}) {
        const Layers plain = pod_frame(net, dst) + udp();
        const Layers options = with<Ip4>(plain, [](Ip4& v4) { v4.options = {7, 7, 4, 0, 0, 0, 0}; });
        expect_untouched(a.from_pod(options), options, TW_R_OPTIONS);
        for (const std::uint16_t frag : U16s{0x2000, 0x2001, 0x0001, 0x1fff, 0x6000}) {
            const Layers fragment = with<Ip4>(plain, [&](Ip4& v4) { v4.frag = frag; });
            expect_untouched(a.from_pod(fragment), fragment, TW_R_FRAGMENT);
        }
        const Layers df = with<Ip4>(plain, [](Ip4& v4) { v4.frag = 0x4000; });
        CHECK(class_of(a.from_pod(df).reason()) == 'F');
    }
}

TEST_CASE("from_pod: IPv6 extension headers and fragments are the stack's")
{
    const Node a = node_a();
    const Net& net = nets()[1];
    for (const Ip& dst : {net.pod_b, net.pod_c, net.pod2}) {
        const Layers plain = pod_frame(net, dst) + udp();
        for (const std::uint8_t type : U8s{0, 43, 60}) {
            CAPTURE(int{type});
            const Layers extended = with<Ip6>(plain, [&](Ip6& v6) { v6.ext = {Ext6{.type = type}}; });
            expect_untouched(a.from_pod(extended), extended, TW_R_OPTIONS);
        }
        const Layers first = with<Ip6>(plain, [](Ip6& v6) { v6.ext = {Ext6{44, {0, 1, 0, 0, 0, 9}}}; });
        expect_untouched(a.from_pod(first), first, TW_R_FRAGMENT);
        const Layers later = with<Ip6>(plain, [](Ip6& v6) { v6.ext = {Ext6{44, {0, 8, 0, 0, 0, 9}}}; });
        expect_untouched(a.from_pod(later), later, TW_R_FRAGMENT);
    }
}

TEST_CASE("from_pod: protocols other than TCP, UDP and ICMP echo or error are the stack's")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        for (const std::uint8_t proto : U8s{132, 50, 51, 2, 4, 41, 47, 253}) {
            Layers frame = pod_frame(net, net.pod_b) + Layers{Payload::of(40)};
            frame = with<Ip4>(frame, [&](Ip4& v4) { v4.proto = proto; });
            frame = with<Ip6>(frame, [&](Ip6& v6) { v6.next = proto; });
            CAPTURE(int{proto});
            expect_untouched(a.from_pod(frame), frame, TW_R_PROTO);
        }
        // ICMP of the other family is no ICMP here.
        Layers crossed = pod_frame(net, net.pod_b) + Layers{net.ip_header == 20 ? Layer{Icmp6{}} : Layer{Icmp{}}};
        expect_untouched(a.from_pod(crossed), crossed, TW_R_PROTO);
    }
    const Layers redirect = pod_frame(nets()[0], nets()[0].pod_b) + Layers{Icmp{.type = 5}, Payload::of(28)};
    expect_untouched(a.from_pod(redirect), redirect, TW_R_PROTO);
    const Layers solicit = pod_frame(nets()[1], nets()[1].pod_b) + Layers{Icmp6{.type = 135}, Payload::of(28)};
    expect_untouched(a.from_pod(solicit), solicit, TW_R_PROTO);
}

TEST_CASE("from_pod: an expiring TTL or hop limit is the stack's, which answers with ICMP" * needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Ip& dst : {net.pod_b, net.pod_c, net.pod2})
            for (const std::uint8_t ttl : U8s{0, 1}) {
                const Layers frame = pod_frame(net, dst, ttl) + udp();
                CAPTURE(dst.to_string());
                expect_untouched(a.from_pod(frame), frame, TW_R_TTL);
                CHECK(class_of(a.from_pod(pod_frame(net, dst, 2) + udp()).reason()) == 'F');
            }
}

TEST_CASE("from_pod: a packet of exactly the peer's MTU goes, one byte more is the stack's" * needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const auto& [dst, mtu] :
             {std::pair{net.pod_b, std::size_t{kMtuVxlan}}, std::pair{net.pod_c, std::size_t{1500}}}) {
            const std::size_t fits = mtu - net.ip_header - 8;
            CHECK(class_of(a.from_pod(pod_frame(net, dst) + Layers{Udp{}, Payload::of(fits)}).reason()) == 'F');
            const Layers frame = pod_frame(net, dst) + Layers{Udp{}, Payload::of(fits + 1)};
            expect_untouched(a.from_pod(frame), frame, TW_R_TOO_BIG);
        }
}

TEST_CASE("from_pod: a packet larger than the local pod's interface takes is the stack's" * needs_check_mtu())
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const Layers frame = pod_frame(net, net.pod2) + Layers{Udp{}, Payload::of(1501 - net.ip_header - 8)};
        expect_untouched(a.from_pod(frame), frame, TW_R_TOO_BIG);
    }
}

TEST_CASE("from_pod: a flow of the stack stays there in both directions" * needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const std::uint8_t proto : U8s{6, 17}) {
            const Layers transport = proto == 6 ? tcp() : udp();
            for (const Ip& dst : {net.pod_b, net.pod_c, net.pod2}) {
                const Layers frame = pod_frame(net, dst) + transport;
                a.dp->add_flow(dst, 5001, net.pod1, 40000, proto, TW_VERDICT_STACK);
                expect_untouched(a.from_pod(frame), frame, TW_R_FLOW_STACK);
                a.dp->add_flow(net.pod1, 40000, dst, 5001, proto, TW_VERDICT_FAST);
                CHECK(class_of(a.from_pod(frame).reason()) == 'F');
            }
        }
}

TEST_CASE("from_pod: a new flow is remembered as fast, under one entry for both directions")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        a.from_pod(pod_frame(net, net.pod_b) + tcp());
        a.from_pod(pod_frame(net, net.pod_b) + udp());
        for (const std::uint8_t proto : U8s{6, 17}) {
            CHECK(a.dp->flow(net.pod1, 40000, net.pod_b, 5001, proto) == TW_VERDICT_FAST);
            CHECK(a.dp->flow(net.pod_b, 5001, net.pod1, 40000, proto) == TW_VERDICT_FAST);
        }
    }
}

TEST_CASE(
    "from_pod: the end of a flow with the lower address and port in memory order comes first, as maps/abi/flow.h says")
{
    // Whoever fills the map from user space has only that header to go by.
    for (const Net& net : nets())
        for (const Ip& dst :
             {net.pod_b, net.pod_c, net.pod2, ip(net.family == Family::v4 ? "10.42.2.1" : "fd00:42:0:2::1")}) {
            const Node a = node_a();
            a.from_pod(pod_frame(net, dst) + udp());
            const auto keys = a.dp->flow_keys(17);
            REQUIRE(keys.size() == 1);
            CAPTURE(dst.to_string());
            CHECK(memcmp(&keys[0].a, &keys[0].b, sizeof keys[0].a) < 0);
        }
}

TEST_CASE("from_pod: an ICMP error belongs to the flow that it is about" * needs_encap())
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        // Pod 1 says "port unreachable" about a datagram that pod b had sent.
        const Layer error = net.family == Family::v4 ? Layer{Icmp{.type = 3, .code = 3, .id = 0, .seq = 0}}
                                                     : Layer{Icmp6{.type = 1, .code = 4, .id = 0, .seq = 0}};
        const Layers frame = pod_frame(net, net.pod_b) + Layers{error, ip_layer(net.pod_b, net.pod1)} +
                             Layers{Udp{.sport = 5001, .dport = 40000}};
        expect(a.from_pod(frame), kRedirect, TW_R_TO_VXLAN);
        a.dp->add_flow(net.pod_b, 5001, net.pod1, 40000, 17, TW_VERDICT_STACK);
        expect_untouched(a.from_pod(frame), frame, TW_R_FLOW_STACK);
    }
}

TEST_CASE("from_pod: a shaped pod gets its packets through the stack, so that the shaping holds")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        tw_endpoint shaped{};
        shaped.ifindex = a.pod2;
        shaped.shaped = 1;
        a.dp->add_endpoint(net.pod2, shaped);
        const Layers frame = pod_frame(net, net.pod2) + udp();
        expect_untouched(a.from_pod(frame), frame, TW_R_SHAPED);
    }
}

TEST_CASE("from_pod: a shaped pod's own packets go through the stack wherever they go, as their replies do")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        tw_endpoint shaped{};
        shaped.ifindex = a.pod1;
        shaped.shaped = 1;
        a.dp->add_endpoint(net.pod1, shaped);
        for (const Ip& dst : {net.pod_b, net.pod_c, net.pod2, net.outside})
            for (const Layers& transport : transports(net)) {
                const Layers frame = pod_frame(net, dst) + transport;
                expect_untouched(a.from_pod(frame), frame, TW_R_SHAPED);
            }
        CHECK_FALSE(a.dp->flow(net.pod1, 40000, net.pod_b, 5001, 17).has_value());
    }
}

TEST_CASE("from_pod: to the interface that it came from, and to an interface that is gone, is the stack's" *
          needs_check_mtu())
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        const Layers self = pod_frame(net, net.pod1) + udp();
        expect_untouched(a.from_pod(self), self, TW_R_HAIRPIN);
        tw_endpoint gone{};
        gone.ifindex = 99999;
        a.dp->add_endpoint(net.pod2, gone);
        const Layers frame = pod_frame(net, net.pod2) + udp();
        expect_untouched(a.from_pod(frame), frame, TW_R_NO_ENDPOINT);
    }
}

TEST_CASE("from_pod: a peer without a wire is the stack's")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        tw_peer peer = peer_b(net);
        peer.wire = 0;
        a.dp->add_peer(net.pods_b, peer);
        const Layers frame = pod_frame(net, net.pod_b) + udp();
        expect_untouched(a.from_pod(frame), frame, TW_R_NO_WIRE);
    }
}

TEST_CASE("from_pod: with the fast path off everything between pods is the stack's")
{
    const Node a = node_a([](tw_cfg& cfg) { cfg.fast = 0; });
    for (const Net& net : nets()) {
        for (const Ip& dst : {net.pod_b, net.pod_c, net.pod2}) {
            const Layers frame = pod_frame(net, dst) + udp();
            expect_untouched(a.from_pod(frame), frame, TW_R_FAST_OFF);
        }
        const Layers outside = pod_frame(net, net.outside) + udp();
        expect_untouched(a.from_pod(outside), outside, TW_R_NOT_POD);
    }
}

TEST_CASE("from_pod: peers of several prefix lengths are found, the trie's too" * needs_encap())
{
    const Node a = node_a();
    const Net& v4 = nets()[0];
    const Net& v6 = nets()[1];
    a.dp->add_peer(*Cidr::parse("10.42.16.0/20"), peer_b(v4));
    a.dp->add_peer(*Cidr::parse("10.42.64.0/26"), peer_c(v4));
    a.dp->add_peer(*Cidr::parse("10.42.80.0/21"), peer_c(v4), true);
    a.dp->add_peer(*Cidr::parse("fd00:42:0:100::/56"), peer_b(v6));
    a.dp->add_peer(*Cidr::parse("fd00:42:0:201:8000::/68"), peer_c(v6));
    a.dp->add_peer(*Cidr::parse("fd00:42:0:300::/60"), peer_c(v6), true);
    for (const auto& [dst, reason] : {std::pair{"10.42.31.255", TW_R_TO_VXLAN},
                                      {"10.42.32.0", TW_R_NOT_POD},
                                      {"10.42.64.63", TW_R_TO_DIRECT},
                                      {"10.42.64.64", TW_R_NOT_POD},
                                      {"10.42.87.255", TW_R_TO_DIRECT},
                                      {"10.42.88.0", TW_R_NOT_POD},
                                      {"fd00:42:0:1ff::1", TW_R_TO_VXLAN},
                                      {"fd00:42:0:200::1", TW_R_NOT_POD},
                                      {"fd00:42:0:201:8fff::1", TW_R_TO_DIRECT},
                                      {"fd00:42:0:201:9000::1", TW_R_NOT_POD},
                                      {"fd00:42:0:30f::1", TW_R_TO_DIRECT},
                                      {"fd00:42:0:310::1", TW_R_NOT_POD}}) {
        CAPTURE(dst);
        const Net& net = ip(dst).is_v4() ? v4 : v6;
        expect(a.from_pod(pod_frame(net, ip(dst)) + udp()), class_of(reason) == 'F' ? kRedirect : kUnspec, reason);
    }
}

TEST_CASE("from_pod: only what goes to the gateway is routed; another neighbour's frames are the stack's to bridge")
{
    for (const auto& net : nets())
        for (const Ip& dst : {net.pod_b, net.pod_c, net.pod2}) {
            CAPTURE(net.name);
            const Node a = node_a();
            const Layers frame = pod_frame(net, dst) + udp();
            const Layers to_router = with<Eth>(frame, [](Eth& eth) { eth.dst = mac("02:00:00:00:77:77"); });
            expect_untouched(a.from_pod(to_router), to_router, TW_R_NOT_GATEWAY);
            CHECK(a.from_pod(frame).verdict == kRedirect);
            expect_untouched(a.from_pod(to_router), to_router, TW_R_NOT_GATEWAY);
        }
}
