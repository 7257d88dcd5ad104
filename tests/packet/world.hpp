// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <initializer_list>
#include <vector>

#include "tests/support/bpf_fixture.hpp"
#include "tests/support/packet.hpp"

// The network in which every packet test happens: node a (the one under test), node b (VXLAN), node c (direct routing),
// both families. Node a has two pods on two interfaces; its kernel knows the neighbour c on the wire, and not b.
namespace twill::test {

/// Lists of numbers for loops, in the width that the headers have.
using U8s = std::initializer_list<std::uint8_t>;
using U16s = std::initializer_list<std::uint16_t>;

/// One family's addresses.
struct Net {
    const char* name;
    Family family;
    Cidr cluster, pods_a, pods_b, pods_c;
    Ip node_a, node_b, node_c;
    Ip pod1, pod2;   ///< endpoints of node a
    Ip pod_b, pod_c; ///< pods of the others
    Ip free_a;       ///< in node a's CIDR, no endpoint
    Ip free_cluster; ///< in the cluster network, no peer
    Ip outside;      ///< not in the cluster network
    std::size_t ip_header;
    std::size_t overhead; ///< VXLAN: 50 or 70
    std::uint32_t stats_b, stats_c;
};
/// IPv4, then IPv6.
const std::vector<Net>& nets();

inline constexpr std::uint16_t kPort = 8472;
inline constexpr std::uint32_t kVni = 1;
inline constexpr std::uint32_t kMtuVxlan = 1430;

extern const Mac kPod1, kPod2, kGateway, kVtepA, kVtepB, kVtepC, kWireA, kRouter, kPodB, kGatewayB, kWireB, kWireC;

/// A loaded data plane and the interfaces that belong to it.
struct Node {
    Dataplane* dp = nullptr;
    std::uint32_t pod1 = 0, pod2 = 0, wire = 0, overlay = 0;

    Outcome from_pod(const Layers& layers) const { return dp->run(Program::from_pod, build(layers), pod1); }
    Outcome to_pod(const Layers& layers) const { return dp->run(Program::to_pod, build(layers), pod1); }
    Outcome from_wire(const Layers& layers) const { return dp->run(Program::from_wire, build(layers), wire); }
    Outcome from_host(const Layers& layers) const { return dp->run(Program::from_host, build(layers), overlay); }
    Outcome to_wire(const Layers& layers, std::uint32_t mark = 0) const
    {
        return dp->run(Program::to_wire, build(layers), wire, mark);
    }
    Outcome from_overlay(const Layers& layers) const { return dp->run(Program::from_overlay, build(layers), overlay); }
};

using Tweak = std::function<void(tw_cfg&)>;
/// Node a with peers b and c and its two endpoints; `tweak` changes the configuration before the programs are loaded.
/// Ends the process with the reason when the kernel refuses them.
Node node_a(const Tweak& tweak = {});
/// The same on programs that the caller loaded.
Node node_a_on(Dataplane& dp);
/// Keeps this thread on its CPU from here on: each CPU has a flow cache of its own.
void stay_on_one_cpu();
/// Node b, seen from which a is the peer; its one pod (pod_b of each family) is on `pod1`.
Node node_b(const Tweak& tweak = {});
/// Configuration of node a, as node_a() starts from it.
tw_cfg config_a();
/// Node b, or c in direct mode, as a peer of node a.
tw_peer peer_b(const Net& net);
tw_peer peer_c(const Net& net);

/// A frame of pod 1 to the gateway, IP header included.
Layers pod_frame(const Net& net, const Ip& dst, std::uint8_t ttl = 64, std::uint8_t tos = 0);
/// Outer headers of VXLAN from `src` to node a, Ethernet to VXLAN header.
struct Outer {
    std::uint8_t tos = 0, ttl = 64, flags = 0x08;
    std::uint32_t vni = kVni;
    std::uint16_t dport = kPort;
};
Layers outer(const Ip& src, const Ip& dst, const Outer& options = {});
/// VXLAN from node b to node a around an inner packet of pod b to `dst`, up to the inner IP header.
Layers from_b(const Net& net, const Ip& dst, std::uint8_t ttl = 64, std::uint8_t tos = 0, const Outer& options = {});
/// UDP with 32 bytes of data; the same with TCP and echo request for the family.
Layers udp();
Layers tcp();
Layers echo(const Net& net);
std::vector<Layers> transports(const Net& net);

/// Fails the test unless the packet was counted under `reason` alone and had `verdict`.
void expect(const Outcome& outcome, int verdict, tw_reason reason);
/// Left to the kernel as it came: UNSPEC, and not a byte changed.
void expect_untouched(const Outcome& outcome, const Layers& sent, tw_reason reason);
/// Fails the test when the bytes differ; Ethernet addresses of the outer frame are ignored when `from` is 14.
void expect_bytes(const Bytes& expected, const Bytes& actual, std::size_t from = 0);

/// Replaces one layer of type T, the `nth` from outside.
template <typename T>
Layers with(Layers layers, const std::function<void(T&)>& change, int nth = 0)
{
    for (auto& layer : layers)
        if (auto* found = std::get_if<T>(&layer); found != nullptr && nth-- == 0) change(*found);
    return layers;
}

} // namespace twill::test
