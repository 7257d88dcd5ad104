// SPDX-License-Identifier: Apache-2.0
// What a node receives: tunnel frames of a peer with one thing changed, and frames that are none.
#include "tests/interop/table.hpp"

namespace twill::interop {

using namespace test;

namespace {

Layer inner_ip(Family family, std::uint8_t ttl = 63, std::uint8_t tos = 0)
{
    return ip_layer(pod_ip('a', family, 2), pod_ip('b', family, 2), ttl, tos);
}

/// The layer of the tunnel, by its place in what tunnel() makes.
template <typename T>
T& layer(Layers& layers, std::size_t at)
{
    return std::get<T>(layers[at]);
}

void congestion(Cases& cases, Family family)
{
    for (const unsigned outer : {0U, 1U, 2U, 3U, 0xb8U, 0xbbU})
        for (const unsigned inner : {0U, 1U, 2U, 3U, 0x28U, 0x2aU}) {
            Layers layers = tunnel(
                'a', family, {inner_ip(family, 63, static_cast<std::uint8_t>(inner)), cases.udp(), Payload::of(32)});
            layers[1] = ip_layer(public_ip('a', family), public_ip('b', family), 64, static_cast<std::uint8_t>(outer));
            cases.add(
                from_wire(layers, fmt::format("{} received, TOS 0x{:02x} in 0x{:02x}", text(family), inner, outer)));
        }
}

void vxlan_header(Cases& cases, Family family)
{
    const auto with = [&](const std::string& what, auto change) {
        Layers layers = tunnel('a', family, {inner_ip(family), cases.udp(), Payload::of(32)});
        change(layers);
        cases.add(from_wire(layers, fmt::format("{} received, {}", text(family), what)));
    };
    for (const unsigned flags : {0U, 8U, 9U, 0x0cU, 0x88U, 0x48U, 0xffU})
        with(fmt::format("VXLAN flags 0x{:02x}", flags),
             [&](Layers& layers) { layer<Vxlan>(layers, 3).flags = static_cast<std::uint8_t>(flags); });
    for (const std::uint32_t vni : {0U, 1U, 2U, 0x10001U, 0xffffffU})
        with(fmt::format("VNI {}", vni), [&](Layers& layers) { layer<Vxlan>(layers, 3).vni = vni; });
    with("reserved bits", [](Layers& layers) { layer<Vxlan>(layers, 3).reserved = 1; });
    with("last byte", [](Layers& layers) { layer<Vxlan>(layers, 3).reserved2 = 1; });
    for (const char* mac : {"0a:aa:00:00:00:12", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"})
        with(std::string("inner frame to ") + mac, [&](Layers& layers) { layer<Eth>(layers, 4).dst = test::mac(mac); });
    for (const char* mac : {"0a:aa:00:00:00:12", "0a:aa:00:00:00:11", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"})
        with(std::string("inner frame from ") + mac,
             [&](Layers& layers) { layer<Eth>(layers, 4).src = test::mac(mac); });
    for (const unsigned type : {0x0800U, 0x86ddU, 0x0806U, 0x8100U, 0x88b5U, 0x0010U})
        with(fmt::format("inner type 0x{:04x}", type),
             [&](Layers& layers) { layer<Eth>(layers, 4).type = static_cast<std::uint16_t>(type); });
    with("inner VLAN tag", [](Layers& layers) { layers.insert(layers.begin() + 5, Vlan{5}); });
    with("inner priority tag", [](Layers& layers) { layers.insert(layers.begin() + 5, Vlan{0}); });
    with("inner VLAN tag behind outer options", [&](Layers& layers) {
        layers.insert(layers.begin() + 5, Vlan{5});
        if (auto* v4 = std::get_if<Ip4>(&layers[1])) v4->options = {1, 1, 1, 1};
        if (auto* v6 = std::get_if<Ip6>(&layers[1])) v6->ext = {{.type = 60}};
    });
    with("other source port", [](Layers& layers) { layer<Udp>(layers, 2).sport = 1; });
    with("source port zero", [](Layers& layers) { layer<Udp>(layers, 2).sport = 0; });
    with("other destination port", [](Layers& layers) { layer<Udp>(layers, 2).dport = 4789; });
    with("checksum zero", [](Layers& layers) { layer<Udp>(layers, 2).csum = 0; });
    with("checksum wrong", [](Layers& layers) { layer<Udp>(layers, 2).csum = 0x1234; });
    for (const unsigned length : {0U, 8U, 16U, 30U, 89U, 91U, 110U, 111U, 112U})
        with(fmt::format("UDP length {}", length),
             [&](Layers& layers) { layer<Udp>(layers, 2).len = static_cast<std::uint16_t>(length); });
    for (const char* mac : {"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "02:99:00:00:00:01"})
        with(std::string("frame to ") + mac, [&](Layers& layers) { layer<Eth>(layers, 0).dst = test::mac(mac); });
    with("VLAN tag", [](Layers& layers) { layers.insert(layers.begin() + 1, Vlan{5}); });
    for (const unsigned ttl : {0U, 1U, 2U, 255U})
        with(fmt::format("outer TTL {}", ttl), [&](Layers& layers) {
            layers[1] = ip_layer(public_ip('a', family), public_ip('b', family), static_cast<std::uint8_t>(ttl));
        });
}

void inner_packet(Cases& cases, Family family)
{
    const bool is_v4 = family == Family::v4;
    const auto with = [&](const std::string& what, const Layer& ip) {
        for (const bool is_udp : {true, false})
            cases.add(
                from_wire(tunnel('a', family, {ip, is_udp ? Layer{cases.udp()} : echo_layer(family), Payload::of(40)}),
                          fmt::format("{} received, {}{}", text(family), what, is_udp ? "" : ", echo")));
    };
    const Ip src = pod_ip('a', family, 2), dst = pod_ip('b', family, 2);
    for (const unsigned ttl : {0U, 1U, 2U, 64U, 255U})
        with(fmt::format("TTL {}", ttl), inner_ip(family, static_cast<std::uint8_t>(ttl)));
    for (const unsigned host : {0U, 1U, 3U, 77U, 255U})
        with(fmt::format("to address {}", host), ip_layer(src, pod_ip('b', family, host)));
    for (const unsigned host : {0U, 1U, 3U, 77U})
        with(fmt::format("from address {}", host), ip_layer(pod_ip('a', family, host), dst));
    with("to a third node", ip_layer(src, pod_ip('d', family, 2)));
    with("back to its node", ip_layer(src, pod_ip('a', family, 3)));
    with("to a pod CIDR that nobody has", ip_layer(src, pod_ip('z', family, 2)));
    with("to the outside", ip_layer(src, test::ip(is_v4 ? "203.0.113.7" : "2001:db8:77::7")));
    with("to the node", ip_layer(src, public_ip('b', family)));
    with("to a multicast group", ip_layer(src, test::ip(is_v4 ? "224.0.0.1" : "ff02::1")));
    with("from another node's pod", ip_layer(pod_ip('c', family, 2), dst));
    with("from the receiver's own pod", ip_layer(pod_ip('b', family, 3), dst));
    with("from itself", ip_layer(dst, dst));
    with("from the outside", ip_layer(test::ip(is_v4 ? "203.0.113.7" : "2001:db8:77::7"), dst));
    with("from the node", ip_layer(public_ip('a', family), dst));
    with("from nobody", ip_layer(test::ip(is_v4 ? "0.0.0.0" : "::"), dst));
    with("from loopback", ip_layer(test::ip(is_v4 ? "127.0.0.1" : "::1"), dst));
    with("from a multicast group", ip_layer(test::ip(is_v4 ? "224.0.0.5" : "ff02::5"), dst));
    if (is_v4) {
        with("options", Ip4{.src = src, .dst = dst, .options = {1, 1, 1, 1}});
        with("header checksum wrong", Ip4{.src = src, .dst = dst, .csum = 0x1234});
        with("length one more than there is", Ip4{.src = src, .dst = dst, .len = 69});
        with("length less than there is", Ip4{.src = src, .dst = dst, .len = 60});
        with("version 5", Ip4{.src = src, .dst = dst, .version = 5});
    } else {
        with("hop by hop options", Ip6{.src = src, .dst = dst, .ext = {{.type = 0}}});
        with("length one more than there is", Ip6{.src = src, .dst = dst, .len = 49});
        with("length less than there is", Ip6{.src = src, .dst = dst, .len = 40});
        with("version 5", Ip6{.src = src, .dst = dst, .version = 5});
    }
    for (const unsigned proto : {4U, 41U, 47U, 50U, 132U, 253U}) {
        Layer ip = inner_ip(family);
        if (auto* v4 = std::get_if<Ip4>(&ip)) v4->proto = static_cast<std::uint8_t>(proto);
        if (auto* v6 = std::get_if<Ip6>(&ip)) v6->next = static_cast<std::uint8_t>(proto);
        cases.add(from_wire(tunnel('a', family, {ip, Payload::of(60)}),
                            fmt::format("{} received, protocol {}", text(family), proto)));
    }
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{18}, path_mtu(family) - ip_header(family) - 8})
        cases.valid(from_wire(tunnel('a', family, {inner_ip(family), cases.udp(), Payload::of(size)}),
                              fmt::format("{} received, {} bytes of UDP", text(family), size)));
}

void outer_packet(Cases& cases, Family family)
{
    const bool is_v4 = family == Family::v4;
    const auto with = [&](const std::string& what, const Layer& ip) {
        Layers layers = tunnel('a', family, {inner_ip(family), cases.udp(), Payload::of(40)});
        layers[1] = ip;
        cases.add(from_wire(layers, fmt::format("{} received, {}", text(family), what)));
    };
    const Ip src = public_ip('a', family), dst = public_ip('b', family);
    with("from another peer's address", ip_layer(public_ip('c', family), dst));
    with("from an address that is no node's", ip_layer(test::ip(is_v4 ? "192.0.2.99" : "2001:db8:1::99"), dst));
    with("from the receiver's own address", ip_layer(dst, dst));
    with("to another node", ip_layer(src, public_ip('c', family)));
    with("to the receiver's overlay address", ip_layer(src, pod_ip('b', family, 0)));
    if (is_v4) {
        with("outer options", Ip4{.src = src, .dst = dst, .options = {1, 1, 1, 1}});
        with("outer header checksum wrong", Ip4{.src = src, .dst = dst, .csum = 0x1234});
        with("outer do-not-fragment", Ip4{.src = src, .dst = dst, .frag = 0x4000});
    } else {
        with("outer hop by hop options", Ip6{.src = src, .dst = dst, .ext = {{.type = 0}}});
        with("outer flow label", Ip6{.src = src, .dst = dst, .label = 0x12345});
    }
    const Packet whole = from_wire(tunnel('a', family, {inner_ip(family), cases.udp(), Payload::of(40)}), "");
    for (std::size_t size = 14; size < whole.bytes.size(); size += 3) {
        Packet packet = whole;
        packet.bytes.resize(size);
        packet.what = fmt::format("{} received, cut to {} bytes", text(family), size);
        cases.add(std::move(packet));
    }
    Packet padded = whole;
    padded.bytes.resize(whole.bytes.size() + 9, 0xaa);
    padded.what = fmt::format("{} received, padded", text(family));
    cases.valid(std::move(padded));
    cases.add(from_wire({Eth{wire_mac('b'), far_mac()}, inner_ip(family), cases.udp(), Payload::of(40)},
                        fmt::format("{} received, a pod's packet without a tunnel", text(family))));
    cases.add(from_wire({Eth{wire_mac('b'), far_mac()},
                         ip_layer(test::ip(is_v4 ? "203.0.113.7" : "2001:db8:77::7"), pod_ip('b', family, 2)),
                         cases.udp(), Payload::of(40)},
                        fmt::format("{} received, from the outside straight to a pod", text(family))));
    cases.add(
        from_wire({Eth{wire_mac('b'), far_mac()}, ip_layer(test::ip(is_v4 ? "203.0.113.7" : "2001:db8:77::7"), dst),
                   echo_layer(family), Payload::of(40)},
                  fmt::format("{} received, echo request from the outside to the node", text(family))));
}

} // namespace

void wire_cases(Cases& cases, Family family)
{
    congestion(cases, family);
    vxlan_header(cases, family);
    inner_packet(cases, family);
    outer_packet(cases, family);
}

} // namespace twill::interop
