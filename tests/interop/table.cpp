// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/table.hpp"

namespace twill::interop {

using namespace test;

namespace {

void plain(Cases& cases, Family family, char pod, char peer)
{
    const auto what = [&](const char* name) {
        return fmt::format("{} pod {} to node {}: {}", text(family), pod, peer, name);
    };
    const Layer v = Cases::ip(family, pod, peer);
    cases.valid(from_pod(pod, {v, cases.udp(), Payload::of(64)}, what("UDP")));
    cases.valid(from_pod(pod, {v, cases.tcp(0x02)}, what("TCP SYN")));
    cases.valid(from_pod(pod, {v, cases.tcp(), Payload::of(333)}, what("TCP data")));
    cases.valid(from_pod(pod, {v, echo_layer(family), Payload::of(56)}, what("echo request")));
    cases.valid(as_partial(from_pod(pod, {v, cases.udp(), Payload::of(101)}, what("UDP, checksum not finished"))));
    cases.valid(as_partial(from_pod(pod, {v, cases.tcp(), Payload::of(100)}, what("TCP, checksum not finished"))));
    cases.add(from_pod(pod, {Cases::ip(family, pod, peer, 1), cases.udp(), Payload::of(64)}, what("TTL expires")));
    cases.valid(as_super(from_pod(pod, {v, cases.tcp(), Payload::of(20000)}, what("TCP super-packet")), 1348));
    cases.valid(as_super(from_pod(pod, {v, cases.udp(), Payload::of(20000)}, what("UDP super-packet")), 1348));
}

/// ECN, DSCP, TTL.
void fields(Cases& cases, Family family)
{
    for (unsigned tos = 0; tos < 256; ++tos) {
        if (tos % 4 != 0 && tos > 8 && tos % 32 > 3 && tos / 4 != 46) continue; // each DSCP once, each ECN often
        cases.valid(from_pod(
            'p', {Cases::ip(family, 'p', 'b', 64, static_cast<std::uint8_t>(tos)), cases.udp(), Payload::of(32)},
            fmt::format("{} TOS 0x{:02x}", text(family), tos)));
    }
    for (const unsigned ttl : {0, 1, 2, 3, 32, 63, 64, 65, 127, 128, 254, 255})
        for (const char peer : kPeers)
            cases.add(from_pod(
                'q', {Cases::ip(family, 'q', peer, static_cast<std::uint8_t>(ttl)), cases.udp(), Payload::of(32)},
                fmt::format("{} TTL {} to node {}", text(family), ttl, peer)));
}

void sizes(Cases& cases, Family family)
{
    const std::size_t limit = path_mtu(family) - ip_header(family) - 8;
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{17}, std::size_t{18},
                                   std::size_t{19}, std::size_t{255}, std::size_t{1023}, limit - 1, limit})
        cases.valid(from_pod('q', {Cases::ip(family, 'q'), cases.udp(), Payload::of(size)},
                             fmt::format("{} UDP of {} bytes", text(family), size)));
    for (const std::size_t over : {1U, 2U, 8U, 19U, 20U, 21U, 22U})
        for (const std::uint16_t frag : {std::uint16_t{0}, std::uint16_t{0x4000}}) {
            Layer v = Cases::ip(family, 'q', over % 2 == 0 ? 'b' : 'd');
            if (auto* v4 = std::get_if<Ip4>(&v)) v4->frag = frag;
            cases.add(from_pod(
                'q', {v, cases.udp(), Payload::of(limit + over)},
                fmt::format("{} UDP, {} bytes too many for the path, flags 0x{:04x}", text(family), over, frag)));
            cases.add(from_pod(
                'q', {v, cases.tcp(), Payload::of(limit - 12 + over)},
                fmt::format("{} TCP, {} bytes too many for the path, flags 0x{:04x}", text(family), over, frag)));
        }
}

void supers(Cases& cases, Family family)
{
    const std::size_t fits = path_mtu(family) - ip_header(family);
    for (const char pod : kPods)
        for (const char peer : kPeers)
            for (const std::size_t size : {fits - 20, fits - 28, std::size_t{536}, std::size_t{1001}})
                for (const std::size_t total : {size + 1, 2 * size, 5 * size + 3, std::size_t{60000}}) {
                    if (total / size > 60) continue;
                    const auto what = fmt::format("{} pod {} to node {}: super-packet of {} by {}", text(family), pod,
                                                  peer, total, size);
                    const auto gso = static_cast<std::uint16_t>(size);
                    cases.valid(as_super(
                        from_pod(pod, {Cases::ip(family, pod, peer), cases.tcp(), Payload::of(total)}, "TCP " + what),
                        gso));
                    if (size <= fits - 28)
                        cases.valid(
                            as_super(from_pod(pod, {Cases::ip(family, pod, peer), cases.udp(), Payload::of(total)},
                                              "UDP " + what),
                                     gso));
                }
    for (const std::uint8_t tos : std::array<std::uint8_t, 4>{1, 2, 3, 0xb9})
        for (const bool is_tcp : {true, false}) {
            const Layer transport = is_tcp ? Layer{cases.tcp()} : Layer{cases.udp()};
            cases.valid(as_super(from_pod('p', {Cases::ip(family, 'p', 'b', 64, tos), transport, Payload::of(7000)},
                                          fmt::format("{} super-packet, TOS 0x{:02x}", text(family), tos)),
                                 1000));
        }
    cases.add(as_super(from_pod('q', {Cases::ip(family, 'q'), cases.tcp(), Payload::of(9000)},
                                fmt::format("{} TCP super-packet, segments too long for the path", text(family))),
                       static_cast<std::uint16_t>(fits - 19)));
    cases.add(as_super(from_pod('q', {Cases::ip(family, 'q'), cases.udp(), Payload::of(9000)},
                                fmt::format("{} UDP super-packet, segments too long for the path", text(family))),
                       static_cast<std::uint16_t>(fits - 27)));
    cases.add(as_super(from_pod('p', {Cases::ip(family, 'p', 'b', 1), cases.tcp(), Payload::of(9000)},
                                fmt::format("{} TCP super-packet, TTL expires", text(family))),
                       1000));
}

void host(Cases& cases, Family family)
{
    for (const Ip& src : {pod_ip('a', family, 0), public_ip('a', family), pod_ip('a', family, 1)})
        for (const char peer : kPeers) {
            // A receiver's reverse path filter knows the wire's address on the wire.
            const auto known = [&](Packet packet) {
                packet.is_valid = src != public_ip('a', family);
                cases.add(std::move(packet));
            };
            const std::string what =
                fmt::format("{} node's own from {} to node {}", text(family), src.to_string(), peer);
            for (const std::uint8_t tos : std::array<std::uint8_t, 5>{0, 1, 2, 3, 0xb8}) {
                const Layer v = ip_layer(src, pod_ip(peer, family, 2), 64, tos);
                known(from_host({v, cases.udp(), Payload::of(77)}, what + ": UDP"));
                known(from_host({v, cases.tcp(0x02)}, what + ": TCP"));
                known(from_host({v, echo_layer(family), Payload::of(56)}, what + ": echo"));
            }
            const std::size_t limit = path_mtu(family) - ip_header(family) - 8;
            for (const std::size_t size : {std::size_t{0}, std::size_t{1}, limit})
                known(from_host({ip_layer(src, pod_ip(peer, family, 3)), cases.udp(), Payload::of(size)},
                                what + ": sizes"));
            cases.add(from_host({ip_layer(src, pod_ip(peer, family, 3)), cases.udp(), Payload::of(limit + 1)},
                                what + ": too long"));
            cases.add(
                from_host({ip_layer(src, pod_ip(peer, family, 3), 1), cases.udp(), Payload::of(9)}, what + ": TTL 1"));
        }
}

} // namespace

void pod_cases(Cases& cases, Family family)
{
    for (const char pod : kPods)
        for (const char peer : kPeers) plain(cases, family, pod, peer);
    fields(cases, family);
    sizes(cases, family);
    supers(cases, family);
    host(cases, family);
}

std::vector<Packet> table(bool is_offloaded)
{
    Cases cases;
    for (const Family family : kFamilies) {
        pod_cases(cases, family);
        odd_cases(cases, family);
        frame_cases(cases, family);
        if (!is_offloaded) wire_cases(cases, family);
    }
    return std::move(cases.packets);
}

} // namespace twill::interop
