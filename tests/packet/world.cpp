// SPDX-License-Identifier: Apache-2.0
#include "tests/packet/world.hpp"

#include <fmt/core.h>
#include <sched.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace twill::test {

const Mac kPod1 = mac("0a:58:0a:2a:01:02");
const Mac kPod2 = mac("0a:58:0a:2a:01:03");
const Mac kGateway = mac("0a:58:0a:2a:01:01");
const Mac kVtepA = mac("02:74:77:00:00:0a");
const Mac kVtepB = mac("02:74:77:00:00:0b");
const Mac kVtepC = mac("02:74:77:00:00:0c");
const Mac kWireA = mac("02:00:5e:00:53:0a");
const Mac kRouter = mac("02:00:5e:00:53:fe");
const Mac kPodB = mac("0a:58:0a:2a:02:02");
const Mac kGatewayB = mac("0a:58:0a:2a:02:01");
const Mac kWireB = mac("02:00:5e:00:53:0b");
const Mac kWireC = mac("02:00:5e:00:53:0c");

namespace {

Cidr cidr(const char* text) { return *Cidr::parse(text); }

std::uint32_t interface(const char* name, const Mac& address)
{
    const auto index = private_interface(name, address);
    if (index) return *index;
    fmt::print(stderr, "{}\n", index.error().what);
    std::exit(1);
}

void need(const Result<>& done)
{
    if (done) return;
    fmt::print(stderr, "{}: {}\n", done.error().what, std::strerror(done.error().code));
    std::exit(1);
}

/// The network between the nodes, as the kernel of node a knows it.
void connect_wire()
{
    static bool done = false;
    if (done) return;
    done = true;
    need(private_route("wire", cidr("192.0.2.0/24")));
    need(private_route("wire", cidr("2001:db8::/64")));
    for (const Net& net : nets()) need(private_neighbour("wire", net.node_c, kWireC));
}

Node load(const tw_cfg& cfg)
{
    const auto dp = Dataplane::load(cfg);
    if (dp) return Node{.dp = *dp};
    fmt::print(stderr, "{}: {}\n", dp.error().what, std::strerror(dp.error().code));
    std::exit(1);
}

void copy_mac(std::uint8_t (&to)[6], const Mac& from) { std::memcpy(to, from.bytes.data(), 6); }

tw_endpoint endpoint(std::uint32_t ifindex, const Mac& pod, const Mac& gateway)
{
    tw_endpoint value{};
    value.ifindex = ifindex;
    copy_mac(value.mac, pod);
    copy_mac(value.host_mac, gateway);
    return value;
}

tw_peer peer(const Ip& node, tw_mode mode, std::uint32_t wire, std::uint32_t mtu, std::uint32_t stats, const Mac& vtep)
{
    tw_peer value{};
    value.node = abi(node);
    value.nexthop = abi(node);
    value.mode = mode;
    value.wire = wire;
    value.mtu = mtu;
    value.stats = stats;
    value.zero_csum6 = 1;
    copy_mac(value.vtep_mac, vtep);
    return value;
}

tw_cfg common()
{
    tw_cfg cfg{};
    cfg.cluster_v4 = abi(nets()[0].cluster);
    cfg.cluster_v6 = abi(nets()[1].cluster);
    cfg.vni = kVni;
    cfg.port = kPort;
    cfg.sport_min = 32768;
    cfg.sport_max = 60999;
    cfg.anti_spoof = TW_SPOOF_LOOSE;
    cfg.fast = 1;
    cfg.encap_l2_eth = 1;
    cfg.vxlan_device = 1;
    cfg.check_mtu = kernel_has_helper(BPF_FUNC_check_mtu);
    return cfg;
}

} // namespace

const std::vector<Net>& nets()
{
    static const std::vector<Net> both = {Net{"IPv4",
                                              Family::v4,
                                              cidr("10.42.0.0/16"),
                                              cidr("10.42.1.0/24"),
                                              cidr("10.42.2.0/24"),
                                              cidr("10.42.3.0/24"),
                                              ip("192.0.2.1"),
                                              ip("192.0.2.2"),
                                              ip("192.0.2.3"),
                                              ip("10.42.1.2"),
                                              ip("10.42.1.3"),
                                              ip("10.42.2.2"),
                                              ip("10.42.3.2"),
                                              ip("10.42.1.99"),
                                              ip("10.42.77.1"),
                                              ip("203.0.113.9"),
                                              20,
                                              50,
                                              1,
                                              2},
                                          Net{"IPv6",
                                              Family::v6,
                                              cidr("fd00:42::/48"),
                                              cidr("fd00:42:0:1::/64"),
                                              cidr("fd00:42:0:2::/64"),
                                              cidr("fd00:42:0:3::/64"),
                                              ip("2001:db8::1"),
                                              ip("2001:db8::2"),
                                              ip("2001:db8::3"),
                                              ip("fd00:42:0:1::2"),
                                              ip("fd00:42:0:1::3"),
                                              ip("fd00:42:0:2::2"),
                                              ip("fd00:42:0:3::2"),
                                              ip("fd00:42:0:1::99"),
                                              ip("fd00:42:0:77::1"),
                                              ip("2001:db8:ff::9"),
                                              40,
                                              70,
                                              3,
                                              4}};
    return both;
}

tw_cfg config_a()
{
    tw_cfg cfg = common();
    cfg.own_v4 = abi(nets()[0].pods_a);
    cfg.own_v6 = abi(nets()[1].pods_a);
    cfg.node_v4 = abi(nets()[0].node_a);
    cfg.node_v6 = abi(nets()[1].node_a);
    cfg.overlay = cfg.overlay6 = interface("overlay", kVtepA);
    copy_mac(cfg.vtep_mac, kVtepA);
    copy_mac(cfg.vtep_mac6, kVtepA);
    return cfg;
}

tw_peer peer_b(const Net& net)
{
    return peer(net.node_b, TW_MODE_ENCAP, interface("wire", kWireA), kMtuVxlan, net.stats_b, kVtepB);
}

tw_peer peer_c(const Net& net)
{
    return peer(net.node_c, TW_MODE_DIRECT, interface("wire", kWireA), 1500, net.stats_c, kVtepC);
}

Node node_a_on(Dataplane& dp)
{
    Node node{.dp = &dp};
    node.pod1 = interface("pod1", kGateway);
    node.pod2 = interface("pod2", kGateway);
    node.wire = interface("wire", kWireA);
    connect_wire();
    node.overlay = dp.cfg().overlay;
    for (const Net& net : nets()) {
        dp.add_peer(net.pods_b, peer_b(net));
        dp.add_peer(net.pods_c, peer_c(net));
        dp.add_node(net.node_b, net.pods_b, net.stats_b);
        dp.add_node(net.node_c, net.pods_c, net.stats_c);
        dp.add_endpoint(net.pod1, endpoint(node.pod1, kPod1, kGateway));
        dp.add_endpoint(net.pod2, endpoint(node.pod2, kPod2, kGateway));
    }
    return node;
}

Node node_a(const Tweak& tweak)
{
    tw_cfg cfg = config_a();
    if (tweak) tweak(cfg);
    return node_a_on(*load(cfg).dp);
}

void stay_on_one_cpu()
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(sched_getcpu()), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) {
        std::perror("sched_setaffinity");
        std::exit(1);
    }
}

Node node_b(const Tweak& tweak)
{
    tw_cfg cfg = common();
    cfg.own_v4 = abi(nets()[0].pods_b);
    cfg.own_v6 = abi(nets()[1].pods_b);
    cfg.node_v4 = abi(nets()[0].node_b);
    cfg.node_v6 = abi(nets()[1].node_b);
    cfg.overlay = cfg.overlay6 = interface("b_overlay", kVtepB);
    copy_mac(cfg.vtep_mac, kVtepB);
    copy_mac(cfg.vtep_mac6, kVtepB);
    if (tweak) tweak(cfg);
    Node node = load(cfg);
    node.pod1 = interface("b_pod1", kGatewayB);
    node.wire = interface("b_wire", kWireB);
    node.overlay = cfg.overlay;
    for (const Net& net : nets()) {
        node.dp->add_peer(net.pods_a, peer(net.node_a, TW_MODE_ENCAP, node.wire, kMtuVxlan, net.stats_b, kVtepA));
        node.dp->add_node(net.node_a, net.pods_a, net.stats_b);
        node.dp->add_endpoint(net.pod_b, endpoint(node.pod1, kPodB, kGatewayB));
    }
    return node;
}

Layers pod_frame(const Net& net, const Ip& dst, std::uint8_t ttl, std::uint8_t tos)
{
    return {Eth{kGateway, kPod1, {}}, ip_layer(net.pod1, dst, ttl, tos)};
}

Layers outer(const Ip& src, const Ip& dst, const Outer& options)
{
    Udp udp{.sport = 45000, .dport = options.dport, .len = {}, .csum = {}};
    udp.csum = 0;
    return {Eth{kWireA, kRouter, {}}, ip_layer(src, dst, options.ttl, options.tos), udp,
            Vxlan{.vni = options.vni, .flags = options.flags}};
}

Layers from_b(const Net& net, const Ip& dst, std::uint8_t ttl, std::uint8_t tos, const Outer& options)
{
    return outer(net.node_b, net.node_a, options) + Layers{Eth{kVtepA, kVtepB, {}}, ip_layer(net.pod_b, dst, ttl, tos)};
}

Layers udp() { return {Udp{}, Payload::of(32)}; }
Layers tcp() { return {Tcp{}, Payload::of(33)}; }
Layers echo(const Net& net) { return {echo_layer(net.family), Payload::of(56)}; }
std::vector<Layers> transports(const Net& net) { return {udp(), tcp(), echo(net)}; }

} // namespace twill::test
