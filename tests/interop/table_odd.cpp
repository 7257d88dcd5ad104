// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/table.hpp"

namespace twill::interop {

using namespace test;

namespace {

void addresses(Cases& cases, Family family)
{
    const bool is_v4 = family == Family::v4;
    const auto to = [&](const Ip& src, const Ip& dst, const char* what) {
        cases.add(from_pod('p', {ip_layer(src, dst), cases.udp(), Payload::of(40)},
                           fmt::format("{} {}", text(family), what)));
    };
    const Ip own = pod_ip('a', family, 2), peer = pod_ip('b', family, 2);
    for (const unsigned host : {0U, 1U, 255U})
        to(own, pod_ip('b', family, host), "to a first or last address of a peer");
    to(own, pod_ip('z', family, 2), "to a pod CIDR that nobody has");
    to(own, test::ip(is_v4 ? "203.0.113.7" : "2001:db8:77::7"), "to the outside");
    to(own, public_ip('b', family), "to a node");
    to(own, test::ip(is_v4 ? "224.0.0.1" : "ff02::1"), "to a multicast group");
    to(own, test::ip(is_v4 ? "255.255.255.255" : "::"), "to everybody, or nobody");
    to(own, test::ip(is_v4 ? "127.0.0.1" : "::1"), "to loopback");
    to(own, test::ip(is_v4 ? "0.0.0.0" : "::ffff:10.42.11.2"), "to an address that is none");
    to(pod_ip('a', family, 3), peer, "source is another pod's");
    to(pod_ip('b', family, 2), peer, "source is the receiver");
    to(pod_ip('c', family, 2), peer, "source is a pod of a third node");
    to(pod_ip('a', family, 0), peer, "source is the node's overlay address");
    to(pod_ip('a', family, 1), peer, "source is the gateway");
    to(public_ip('a', family), peer, "source is the node");
    to(test::ip(is_v4 ? "203.0.113.7" : "2001:db8:77::7"), peer, "source is from outside");
    to(test::ip(is_v4 ? "0.0.0.0" : "::"), peer, "source is unspecified");
    to(test::ip(is_v4 ? "127.0.0.1" : "::1"), peer, "source is loopback");
    to(test::ip(is_v4 ? "224.0.0.5" : "ff02::5"), peer, "source is multicast");
}

void protocols(Cases& cases, Family family)
{
    const std::string f = text(family);
    for (const unsigned proto : {0U, 2U, 4U, 41U, 47U, 50U, 51U, 59U, 89U, 103U, 115U, 132U, 136U, 253U, 255U}) {
        Layer v = Cases::ip(family);
        if (auto* v4 = std::get_if<Ip4>(&v)) v4->proto = static_cast<std::uint8_t>(proto);
        if (auto* v6 = std::get_if<Ip6>(&v)) v6->next = static_cast<std::uint8_t>(proto);
        cases.add(from_pod('p', {v, Payload::of(60)}, fmt::format("{} protocol {}", f, proto)));
    }
    for (const unsigned type : {0U, 3U, 5U, 8U, 9U, 11U, 12U, 13U, 17U}) {
        if (family == Family::v6) break;
        cases.add(from_pod('p', {Cases::ip(family), Icmp{.type = static_cast<std::uint8_t>(type)}, Payload::of(60)},
                           fmt::format("{} ICMP type {}", f, type)));
    }
    for (const unsigned type : {1U, 2U, 3U, 4U, 100U, 128U, 129U, 133U, 135U, 136U, 143U}) {
        if (family == Family::v4) break;
        cases.add(from_pod('p', {Cases::ip(family), Icmp6{.type = static_cast<std::uint8_t>(type)}, Payload::of(60)},
                           fmt::format("{} ICMP type {}", f, type)));
    }
    Udp bad = cases.udp();
    bad.csum = 0x1234;
    cases.add(from_pod('p', {Cases::ip(family), bad, Payload::of(30)}, f + " UDP checksum wrong"));
    bad = cases.udp();
    bad.csum = 0;
    cases.add(from_pod('p', {Cases::ip(family), bad, Payload::of(30)}, f + " UDP checksum zero"));
    for (const unsigned length : {0U, 7U, 8U, 20U, 39U, 1000U}) {
        bad = cases.udp();
        bad.len = static_cast<std::uint16_t>(length);
        cases.add(
            from_pod('p', {Cases::ip(family), bad, Payload::of(30)}, fmt::format("{} UDP length {} of 38", f, length)));
    }
    cases.add(from_pod('p',
                       {Cases::ip(family), Udp{.sport = cases.port++, .dport = kOverlayPort}, Vxlan{}, Payload::of(60)},
                       f + " VXLAN between pods"));
    for (const char node : kPeers)
        cases.add(from_pod('p',
                           {ip_layer(pod_ip('a', family, 2), public_ip(node, family)),
                            Udp{.sport = cases.port++, .dport = kOverlayPort}, Vxlan{}, Payload::of(60)},
                           fmt::format("{} VXLAN of a pod to node {}", f, node)));
}

/// Options, fragments, and headers that are wrong.
void headers4(Cases& cases)
{
    const auto v4 = [](const Bytes& options) {
        return Ip4{.src = pod_ip('a', Family::v4, 2), .dst = pod_ip('b', Family::v4, 2), .options = options};
    };
    const std::pair<const char*, Bytes> options[] = {
        {"no operation", {1, 1, 1, 1}},
        {"router alert", {0x94, 4, 0, 0}},
        {"record route", {7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
        {"timestamp, no room left", {0x44, 12, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
        {"loose source route", {0x83, 7, 4, 10, 42, 11, 3, 0}},
        {"strict source route, done", {0x89, 7, 8, 10, 42, 11, 3, 0}},
        {"a length of zero", {7, 0, 4, 0}},
        {"a length beyond the header", {7, 40, 4, 0}},
        {"CIPSO", {0x86, 6, 0, 0, 0, 1, 0, 0}},
        {"forty bytes", Bytes(40, 1)},
    };
    for (const auto& [name, bytes] : options)
        cases.add(from_pod('p', {v4(bytes), cases.udp(), Payload::of(40)}, std::string("IPv4 option: ") + name));
    const auto with = [&](const char* what, auto change) {
        Ip4 ip = v4({});
        change(ip);
        cases.add(from_pod('p', {ip, cases.udp(), Payload::of(40)}, std::string("IPv4 ") + what));
    };
    with("header checksum wrong", [](Ip4& ip) { ip.csum = 0x1234; });
    with("version 5", [](Ip4& ip) { ip.version = 5; });
    with("version 6", [](Ip4& ip) { ip.version = 6; });
    with("header of 16 bytes", [](Ip4& ip) { ip.ihl = 4; });
    with("header longer than the packet", [](Ip4& ip) { ip.ihl = 15; });
    with("length zero", [](Ip4& ip) { ip.len = 0; });
    with("length 19", [](Ip4& ip) { ip.len = 19; });
    with("length 20", [](Ip4& ip) { ip.len = 20; });
    with("length 30", [](Ip4& ip) { ip.len = 30; });
    with("length one more than there is", [](Ip4& ip) { ip.len = 69; });
    with("length 65535", [](Ip4& ip) { ip.len = 65535; });
    with("reserved flag", [](Ip4& ip) { ip.frag = 0x8000; });
    with("do not fragment", [](Ip4& ip) { ip.frag = 0x4000; });
    with("do not fragment, id zero", [](Ip4& ip) { ip.frag = 0x4000, ip.id = 0; });
    with("id zero", [](Ip4& ip) { ip.id = 0; });
    // One datagram in pieces: in order, backwards, and only the middle.
    const Bytes whole = build({v4({}), cases.udp(), Payload::of(1000)});
    const auto piece = [&](std::uint16_t id, std::size_t from, std::size_t size, bool is_last, const char* what) {
        Ip4 ip = v4({});
        ip.id = id;
        ip.proto = 17;
        ip.frag = static_cast<std::uint16_t>((is_last ? 0 : 0x2000U) | from / 8);
        const auto at = whole.begin() + 20 + static_cast<long>(from);
        cases.add(from_pod('p', {ip, Payload{Bytes(at, at + static_cast<long>(size))}},
                           std::string("IPv4 fragment, ") + what));
    };
    piece(1, 0, 504, false, "first of two");
    piece(1, 504, 504, true, "second of two");
    piece(2, 504, 504, true, "second before first");
    piece(2, 0, 504, false, "first after second");
    piece(3, 0, 8, false, "tiny first");
    piece(3, 8, 1000, true, "all but eight bytes");
    piece(4, 96, 96, false, "only the middle");
}

/// Extension headers.
void headers6(Cases& cases)
{
    const Ip src = pod_ip('a', Family::v6, 2), dst = pod_ip('b', Family::v6, 2);
    const std::pair<const char*, std::vector<Ext6>> chains[] = {
        {"hop by hop", {{.type = 0}}},
        {"destination options", {{.type = 60}}},
        {"router alert", {{.type = 0, .body = {5, 2, 0, 0, 1, 0}}}},
        {"unknown option, to be dropped", {{.type = 0, .body = {0x40 | 0x1e, 4, 0, 0, 0, 0}}}},
        {"unknown option, to be reported", {{.type = 0, .body = {0x80 | 0x1e, 4, 0, 0, 0, 0}}}},
        {"unknown option, to be skipped", {{.type = 0, .body = {0x1e, 4, 0, 0, 0, 0}}}},
        {"jumbo payload option", {{.type = 0, .body = {0xc2, 4, 0, 1, 0, 0}}}},
        {"routing type 0, nothing left", {{.type = 43, .body = {0, 0, 0, 0, 0, 0}}}},
        {"routing type 0, one left", {{.type = 43, .body = {0, 1, 0, 0, 0, 0}}}},
        {"routing type 4", {{.type = 43, .body = {4, 0, 0, 0, 0, 0}}}},
        {"fragment header, whole", {{.type = 44, .body = {0, 0, 0, 0, 0, 7}}}},
        {"hop by hop, then destination", {{.type = 0}, {.type = 60}}},
        {"destination, then hop by hop", {{.type = 60}, {.type = 0}}},
        {"five headers",
         {{.type = 0}, {.type = 60}, {.type = 43, .body = {4, 0, 0, 0, 0, 0}}, {.type = 60}, {.type = 60}}},
    };
    for (const auto& [name, chain] : chains)
        cases.add(from_pod('p', {Ip6{.src = src, .dst = dst, .ext = chain}, cases.udp(), Payload::of(40)},
                           std::string("IPv6 extension: ") + name));
    for (const std::uint32_t label : {1U, 0x12345U, 0xfffffU})
        cases.valid(from_pod('p', {Ip6{.src = src, .dst = dst, .label = label}, cases.udp(), Payload::of(40)},
                             fmt::format("IPv6 flow label 0x{:05x}", label)));
    for (const unsigned length : {0U, 7U, 8U, 30U, 47U, 49U, 65535U})
        cases.add(from_pod(
            'p', {Ip6{.src = src, .dst = dst, .len = static_cast<std::uint16_t>(length)}, cases.udp(), Payload::of(40)},
            fmt::format("IPv6 payload length {} of 48", length)));
    for (const std::uint8_t version : std::array<std::uint8_t, 4>{0, 4, 5, 7})
        cases.add(from_pod('p', {Ip6{.src = src, .dst = dst, .version = version}, cases.udp(), Payload::of(40)},
                           fmt::format("IPv6 version {}", version)));
    const Bytes whole = build({Ip6{.src = src, .dst = dst}, cases.udp(), Payload::of(1000)});
    const auto piece = [&](std::uint8_t id, std::size_t from, std::size_t size, bool is_last, const char* what) {
        const Bytes body = {static_cast<std::uint8_t>(from >> 8U),
                            static_cast<std::uint8_t>((from & 0xf8U) | (is_last ? 0U : 1U)),
                            0,
                            0,
                            0,
                            id};
        const auto at = whole.begin() + 40 + static_cast<long>(from);
        cases.add(from_pod('p',
                           {Ip6{.src = src, .dst = dst, .ext = {{.type = 44, .body = body}}, .next = 17},
                            Payload{Bytes(at, at + static_cast<long>(size))}},
                           std::string("IPv6 fragment, ") + what));
    };
    piece(1, 0, 504, false, "first of two");
    piece(1, 504, 504, true, "second of two");
    piece(2, 504, 504, true, "second before first");
    piece(2, 0, 504, false, "first after second");
    piece(3, 96, 96, false, "only the middle");
}

} // namespace

void odd_cases(Cases& cases, Family family)
{
    protocols(cases, family);
    addresses(cases, family);
    if (family == Family::v4)
        headers4(cases);
    else
        headers6(cases);
}

/// The Ethernet side: padding, tags, types, addresses, ends cut off.
void frame_cases(Cases& cases, Family family)
{
    const std::string f = text(family);
    const Layers rest = {Cases::ip(family), cases.udp(), Payload::of(40)};
    for (const std::size_t padding : {1U, 6U, 46U, 300U}) {
        Packet packet = from_pod('p', rest, fmt::format("{} with {} bytes of padding", f, padding));
        packet.bytes.resize(packet.bytes.size() + padding, 0xaa);
        cases.valid(std::move(packet));
    }
    const Packet whole = from_pod('p', rest, "");
    for (std::size_t size = 14; size < whole.bytes.size(); size += size < 40 ? 1 : 5) {
        Packet packet = whole;
        packet.bytes.resize(size);
        packet.what = fmt::format("{} frame cut to {} bytes", f, size);
        cases.add(std::move(packet));
    }
    for (const unsigned tag : {0U, 1U, 100U, 0x6000U, 0xe064U})
        cases.add(from_pod('p', Layers{Vlan{static_cast<std::uint16_t>(tag)}} + rest,
                           fmt::format("{} VLAN tag 0x{:04x}", f, tag)));
    for (const char* dst : {"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:05", "33:33:00:00:00:05", "02:99:00:00:00:01"})
        for (const char pod : kPods) {
            Packet packet = from_pod(pod, {Cases::ip(family, pod), cases.udp(), Payload::of(40)},
                                     fmt::format("{} pod {}: frame to {}", f, pod, dst));
            const Mac mac = test::mac(dst);
            std::copy(mac.bytes.begin(), mac.bytes.end(), packet.bytes.begin());
            cases.add(std::move(packet));
        }
    for (const unsigned type : {0x0800U, 0x86ddU, 0x8847U, 0x88b5U, 0x0022U, 0x8863U}) {
        Packet packet = from_pod('p', rest, fmt::format("{} in a frame of type 0x{:04x}", f, type));
        packet.bytes[12] = static_cast<std::uint8_t>(type >> 8U);
        packet.bytes[13] = static_cast<std::uint8_t>(type & 0xffU);
        cases.add(std::move(packet));
    }
}

} // namespace twill::interop
