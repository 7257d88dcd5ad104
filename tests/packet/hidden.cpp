// SPDX-License-Identifier: Apache-2.0
// Ways in which a pod could hide VXLAN for a node, or an address, from the programs.
#include <doctest/doctest.h>

#include "tests/packet/needs.hpp"
#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

/// What a pod would put into UDP to the overlay port.
Layers vxlan(const Net& net, std::uint16_t dport = kPort)
{
    return Layers{Udp{.sport = 50000, .dport = dport}, Vxlan{.vni = kVni}, Eth{kVtepA, kVtepB},
                  ip_layer(net.pod_b, net.pod2)} +
           udp();
}

/// Node a's own addresses in the pod network: that of the overlay device and the pods' gateway.
std::vector<Ip> own_hosts(const Net& net)
{
    return {net.pods_a.address(), ip(net.family == Family::v4 ? "10.42.1.1" : "fd00:42:0:1::1")};
}

/// The addresses next to those: any of them may be a pod.
std::vector<Ip> neighbours_of_own_hosts(const Net& net)
{
    if (net.family == Family::v4) return {ip("10.42.1.2"), ip("10.42.1.3"), ip("10.42.1.255")};
    return {ip("fd00:42:0:1::2"), ip("fd00:42:0:1::3"), ip("fd00:42:0:1:1::"), ip("fd00:42:0:1::1:0")};
}

Layers direct_from_c(const Net& net, const Ip& dst) { return {Eth{kWireA, kRouter}, ip_layer(net.pod_c, dst)}; }

/// Ways to write the IPv4 addresses of pods, which the maps hold in this very form.
Layers mapped(const Layers& before, const char* src, const char* dst)
{
    // The vocabulary has no such IPv6 address, as for it this is IPv4: so the bytes are put in by hand.
    Bytes header = build(Layers{Ip6{.src = ip("fd00::1"), .dst = ip("fd00::2")}} + udp());
    const auto put = [&](std::size_t at, const char* text) {
        const Ip address = ip(text);
        std::copy(address.bytes().begin(), address.bytes().end(), header.begin() + static_cast<std::ptrdiff_t>(at));
    };
    put(8, src);
    put(24, dst);
    return before + Layers{Payload{header}};
}

} // namespace

TEST_CASE("from_pod: a broadcast or multicast destination MAC does not hide a forged tunnel")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const char* group : {"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", "33:33:00:00:00:01"}) {
            CAPTURE(group);
            for (const Ip& node : {net.node_a, net.node_b, net.node_c, net.pods_a.address()}) {
                const Layers frame = Layers{Eth{mac(group), kPod1}, ip_layer(net.pod1, node)} + vxlan(net);
                expect(a.from_pod(frame), kShot, TW_R_FORGED);
            }
            const Layers harmless = Layers{Eth{mac(group), kPod1}, ip_layer(net.pod1, net.node_b)} + vxlan(net, 4789);
            expect_untouched(a.from_pod(harmless), harmless, TW_R_NOT_IP);
        }
}

TEST_CASE("from_pod: VXLAN for the node's own addresses in the pod network is forged, for a pod it is not" *
          needs_encap())
{
    for (const std::uint8_t fast : U8s{1, 0}) {
        const Node a = node_a([&](tw_cfg& cfg) { cfg.fast = fast; });
        for (const Net& net : nets()) {
            for (const Ip& dst : own_hosts(net)) {
                CAPTURE(dst.to_string());
                for (const Ip& src : {net.pod1, net.free_a, net.pod_b, net.outside})
                    expect(a.from_pod(Layers{Eth{kGateway, kPod1}, ip_layer(src, dst)} + vxlan(net)), kShot,
                           TW_R_FORGED);
                for (const Layers& other : {vxlan(net, 4789), Layers{Tcp{.dport = kPort}}, echo(net)})
                    expect(a.from_pod(pod_frame(net, dst) + other), kUnspec, fast ? TW_R_NO_ENDPOINT : TW_R_FAST_OFF);
            }
            for (const Ip& dst : neighbours_of_own_hosts(net)) {
                CAPTURE(dst.to_string());
                CHECK(a.from_pod(pod_frame(net, dst) + vxlan(net)).verdict != kShot);
            }
            if (fast == 0) continue;
            expect(a.from_pod(pod_frame(net, net.pod2) + vxlan(net)), kRedirect, TW_R_TO_LOCAL);
            // The same addresses of another node are as good as pods here; that node judges them.
            expect(a.from_pod(pod_frame(net, net.pods_b.address()) + vxlan(net)), kRedirect, TW_R_TO_VXLAN);
        }
    }
}

TEST_CASE("from_pod: options, extension headers and fragments do not hide VXLAN for the node's own pod address")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Ip& dst : own_hosts(net)) {
            const Layers plain = pod_frame(net, dst) + vxlan(net);
            Layers first = with<Ip4>(plain, [](Ip4& v4) { v4.frag = 0x2000; });
            first = with<Ip6>(first, [](Ip6& v6) { v6.ext = {Ext6{44, {0, 1, 0, 0, 0, 9}}}; });
            expect(a.from_pod(first), kShot, TW_R_FORGED);
            Layers optional = with<Ip4>(plain, [](Ip4& v4) { v4.options = Bytes(8, 1); });
            optional = with<Ip6>(optional, [](Ip6& v6) { v6.ext = {Ext6{0}, Ext6{60}}; });
            expect(a.from_pod(optional), kShot, TW_R_FORGED);
        }
}

TEST_CASE(
    "from_wire: VXLAN inside VXLAN for the node's own addresses in the pod network is forged, for a pod it is not")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        for (const Ip& dst : own_hosts(net)) {
            CAPTURE(dst.to_string());
            expect(a.from_wire(from_b(net, dst) + vxlan(net)), kShot, TW_R_FORGED);
            const Layers outsider =
                outer(net.node_b, net.node_a) + Layers{Eth{kVtepA, kVtepB}, ip_layer(net.outside, dst)} + vxlan(net);
            expect(a.from_wire(outsider), kShot, TW_R_FORGED);
            expect(a.from_wire(from_b(net, dst) + vxlan(net, 4789)), kRedirect, TW_R_TO_STACK);
            expect(a.from_wire(from_b(net, dst) + Layers{Tcp{.dport = kPort}}), kRedirect, TW_R_TO_STACK);
        }
        const Layers first = with<Ip4>(
            from_b(net, net.pods_a.address()) + vxlan(net), [](Ip4& v4) { v4.frag = 0x2000; }, 1);
        expect(a.from_wire(first), kShot, TW_R_FORGED);
        expect(a.from_wire(from_b(net, net.pod1) + vxlan(net)), kRedirect, TW_R_TO_LOCAL);
        for (const Ip& dst : neighbours_of_own_hosts(net))
            CHECK(a.from_wire(from_b(net, dst) + vxlan(net)).verdict == kRedirect);
    }
}

TEST_CASE("from_wire: extension headers and a first fragment do not hide VXLAN inside VXLAN")
{
    const Node a = node_a();
    const Net net = nets()[1];
    REQUIRE(net.family == Family::v6);
    for (const Ip& dst : own_hosts(net))
        for (const Ext6& ext : {Ext6{.type = 0}, Ext6{.type = 60}, Ext6{.type = 44, .body = {0, 1, 0, 0, 0, 9}}}) {
            CAPTURE(dst.to_string());
            CAPTURE(static_cast<int>(ext.type));
            const auto hide = [&](Ip6& v6) { v6.ext = {ext}; };
            expect(a.from_wire(with<Ip6>(from_b(net, dst) + vxlan(net), hide, 1)), kShot, TW_R_FORGED);
        }
}

TEST_CASE("from_wire: a direct peer's VXLAN for the node's own addresses in the pod network is forged, for a pod it is "
          "not")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        for (const Ip& dst : own_hosts(net)) {
            CAPTURE(dst.to_string());
            expect(a.from_wire(direct_from_c(net, dst) + vxlan(net)), kShot, TW_R_FORGED);
            expect(a.from_wire(direct_from_c(net, dst) + vxlan(net, 4789)), kRedirect, TW_R_TO_STACK);
        }
        expect(a.from_wire(direct_from_c(net, net.pod1) + vxlan(net)), kRedirect, TW_R_TO_LOCAL);
    }
}

TEST_CASE("IPv4-mapped IPv6 addresses are nobody's: never a pod's, though the maps hold IPv4 addresses in that form")
{
    const Node a = node_a();
    const Net& v6 = nets()[1];
    struct Ends {
        const char *src, *dst;
    };
    const Layers pod = {Eth{kGateway, kPod1, 0x86dd}};
    const Layers wire = {Eth{kWireA, kRouter, 0x86dd}};
    const Layers overlay = {Eth{kVtepB, kVtepA, 0x86dd}};
    const Layers inner = outer(v6.node_b, v6.node_a) + Layers{Eth{kVtepA, kVtepB, 0x86dd}};
    for (const Ends& ends : {Ends{"10.42.1.2", "10.42.1.3"},
                             {"10.42.1.2", "10.42.2.2"},
                             {"10.42.1.2", "fd00:42:0:1::3"},
                             {"fd00:42:0:1::2", "10.42.1.3"},
                             {"fd00:42:0:1::2", "10.42.2.2"},
                             {"fd00:42:0:2::2", "10.42.1.2"},
                             {"10.42.2.2", "10.42.1.2"},
                             {"10.42.3.2", "fd00:42:0:1::2"},
                             {"192.0.2.2", "192.0.2.1"}}) {
        CAPTURE(ends.src);
        CAPTURE(ends.dst);
        const Layers sent = mapped(pod, ends.src, ends.dst);
        expect_untouched(a.from_pod(sent), sent, TW_R_PROTO);
        for (const Layers& received : {mapped(wire, ends.src, ends.dst), mapped(inner, ends.src, ends.dst)})
            expect_untouched(a.from_wire(received), received, TW_R_PROTO);
        // Out of the kernel's own device such a packet goes no further.
        expect(a.from_host(mapped(overlay, ends.src, ends.dst)), kShot, TW_R_NO_PEER);
        expect(a.from_overlay(mapped(overlay, ends.src, ends.dst)), kShot, TW_R_BAD_VXLAN);
    }
}

TEST_CASE("from_wire: an IPv6 fragment for this node is the kernel's to put together, whatever it is a part of")
{
    for (const std::uint8_t device : U8s{1, 0}) {
        const Node a = node_a([&](tw_cfg& cfg) { cfg.vxlan_device = device; });
        const Net& net = nets()[1];
        for (const Bytes& part :
             {Bytes{0, 1, 0, 0, 0, 9}, Bytes{0, 0, 0, 0, 0, 9}, Bytes{0, 9, 0, 0, 0, 9}, Bytes{0, 8, 0, 0, 0, 9}}) {
            const Layers frame = with<Ip6>(from_b(net, net.pod1) + udp(), [&](Ip6& v6) { v6.ext = {Ext6{44, part}}; });
            expect_untouched(a.from_wire(frame), frame, TW_R_FRAGMENT);
            Layers other = Layers{Eth{kWireA, kRouter}, ip_layer(net.outside, net.node_a)} + tcp();
            other = with<Ip6>(other, [&](Ip6& v6) { v6.ext = {Ext6{44, part}}; });
            expect_untouched(a.from_wire(other), other, TW_R_FRAGMENT);
            Layers through = Layers{Eth{kWireA, kRouter}, ip_layer(net.node_b, net.node_c)} + udp();
            through = with<Ip6>(through, [&](Ip6& v6) { v6.ext = {Ext6{44, part}}; });
            expect_untouched(a.from_wire(through), through, TW_R_NOT_OURS);
        }
    }
}

TEST_CASE("from_pod: Ethernet padding behind a first IPv6 fragment does not stand for its UDP header")
{
    const Node a = node_a();
    const Net& net = nets()[1];
    const Layers frame = with<Ip6>(pod_frame(net, net.node_b), [](Ip6& v6) {
        v6.ext = {Ext6{44, {0, 1, 0, 0, 0, 9}}, Ext6{60}};
        v6.next = 60;
    });
    Bytes bytes = build(frame);
    expect(a.dp->run(Program::from_pod, bytes, a.pod1), kShot, TW_R_FORGED);
    // What the kernel would cut off: destination options, then UDP to a harmless port.
    const Bytes padding = {17, 0, 1, 4, 0, 0, 0, 0, 0x9c, 0x40, 0, 53, 0, 8, 0, 0};
    bytes.insert(bytes.end(), padding.begin(), padding.end());
    expect(a.dp->run(Program::from_pod, bytes, a.pod1), kShot, TW_R_FORGED);
}
