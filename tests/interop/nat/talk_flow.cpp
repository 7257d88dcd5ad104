// SPDX-License-Identifier: Apache-2.0
#include <netinet/in.h>

#include <cstring>

#include "tests/interop/nat/talk.hpp"

namespace twill::interop::nat {
namespace {

using namespace test;

constexpr std::uint8_t kGre = 47;
constexpr std::uint32_t kNearTag = 0x11111111, kFarTag = 0x22222222;

void put32(Bytes& bytes, std::uint32_t value)
{
    for (const unsigned shift : {24U, 16U, 8U, 0U}) bytes.push_back(static_cast<std::uint8_t>(value >> shift));
}

/// An SCTP packet with one chunk (RFC 9260): 1 INIT, 2 INIT ACK, 10 COOKIE ECHO, 11 COOKIE ACK, 0 DATA, 6 ABORT.
Payload sctp(bool near, std::uint16_t sport, std::uint16_t dport, std::uint8_t chunk)
{
    Bytes out;
    put32(out, static_cast<std::uint32_t>(sport) << 16U | dport);
    put32(out, chunk == 1 ? 0 : near ? kFarTag : kNearTag);
    put32(out, 0);
    out.push_back(chunk);
    out.push_back(chunk == 0 ? 3 : 0);
    out.push_back(0);
    out.push_back(20);
    put32(out, near ? kNearTag : kFarTag); // of INIT and INIT ACK: the sender's tag
    for (int i = 0; i < 3; ++i) put32(out, 0x00010001);
    const std::uint32_t sum = crc32c(out, 0);
    std::memcpy(out.data() + 8, &sum, sizeof sum);
    return {.bytes = out};
}

bool is_tcp(const Flow& flow) { return flow.proto == IPPROTO_TCP; }

} // namespace

Layers Talk::ip_to(const Ip& src, const Ip& dst, std::uint8_t proto, std::uint8_t ttl) const
{
    Layer layer = ip_layer(src, dst, ttl);
    if (auto* four = std::get_if<Ip4>(&layer)) four->proto = proto;
    if (auto* six = std::get_if<Ip6>(&layer)) six->next = proto;
    return {layer};
}

Where Talk::where_of(const Ip& ip) const
{
    if (ip == e.pod1) return Where::pod1;
    if (ip == e.pod2) return Where::pod2;
    return ip == e.outside2 || ip == e.pod_wire2 ? Where::wire2 : Where::wire;
}

std::vector<Heard> Talk::send_from(const Ip& src, const Layers& layers)
{
    if (src != e.pod_over) return send(where_of(src), layers);
    const Layers tunnel = {ip_layer(e.node_b, e.wire), Udp{.sport = 45000, .dport = 8472, .len = {}, .csum = {}},
                           Vxlan{}, Eth{mac("0a:aa:00:00:00:10"), mac("0a:aa:00:00:00:11"), {}}};
    const bool partial = style_.partial; // the outer sum is what would be left
    style_.partial = false;
    auto heard = send(Where::wire, tunnel + layers);
    style_.partial = partial;
    return heard;
}

std::vector<Layers> Talk::fragments(const Layers& packet, std::size_t size, std::uint16_t id) const
{
    const Bytes whole = build(Layers{Eth{}} + packet);
    const View is = *view(whole);
    std::vector<Layers> out;
    for (std::size_t at = 0; is.l4 + at < whole.size(); at += size) {
        const bool last = is.l4 + at + size >= whole.size();
        const auto begin = whole.begin() + static_cast<std::ptrdiff_t>(is.l4 + at);
        const Payload part{.bytes = Bytes(begin, last ? whole.end() : begin + static_cast<std::ptrdiff_t>(size))};
        Layer head = ip_to(is.src, is.dst, is.proto)[0];
        if (auto* four = std::get_if<Ip4>(&head)) {
            four->id = id;
            four->frag = static_cast<std::uint16_t>((last ? 0 : 0x2000) | at / 8);
        }
        if (auto* six = std::get_if<Ip6>(&head)) {
            const auto offset = static_cast<std::uint16_t>(at | (last ? 0 : 1));
            six->ext = {Ext6{.type = 44,
                             .body = {static_cast<std::uint8_t>(offset >> 8U), static_cast<std::uint8_t>(offset), 0, 0,
                                      static_cast<std::uint8_t>(id >> 8U), static_cast<std::uint8_t>(id)}}};
        }
        out.push_back({head, part});
    }
    return out;
}

Layers Talk::transport(const Flow& flow, bool near, std::uint16_t sport, std::uint16_t dport, std::uint8_t flags,
                       std::size_t size) const
{
    switch (flow.proto) {
    case IPPROTO_TCP: {
        const std::uint32_t seq = near ? flow.seq : flow.ack, ack = near ? flow.ack : flow.seq;
        const bool bare = (flags & (kSyn | kFin | kRst)) != 0;
        return Layers{Tcp{.sport = sport,
                          .dport = dport,
                          .flags = flags,
                          .seq = seq,
                          .ack = (flags & kAck) != 0 ? ack : 0,
                          .csum = {}},
                      Payload::of(bare ? 0 : size)};
    }
    case IPPROTO_UDP:
        return {Udp{.sport = sport, .dport = dport, .len = {}, .csum = {}}, Payload::of(size)};
    case IPPROTO_SCTP:
        return {sctp(near, sport, dport, flags)};
    case kGre:
        return {Payload{.bytes = {0, 0, 8, 0, 1, 2, 3, 4, static_cast<std::uint8_t>(size)}}};
    default:
        if (v4())
            return {Icmp{.type = static_cast<std::uint8_t>(near ? 8 : 0), .id = near ? sport : dport},
                    Payload::of(size)};
        return {Icmp6{.type = static_cast<std::uint8_t>(near ? 128 : 129), .id = near ? sport : dport},
                Payload::of(size)};
    }
}

Flow Talk::learned(Flow flow, const std::vector<Heard>& heard)
{
    for (const Heard& one : heard) {
        if (one.view.dst != flow.far || one.view.proto != flow.proto || one.view.later || one.view.quote != 0) continue;
        flow.made = true;
        flow.out = one.where;
        flow.address = one.view.src;
        flow.port = one.view.sport;
        if (flow.address == flow.near) return flow;
        names_.add_address(flow.address);
        names_.add(flow.proto, flow.port, flow.sport);
        return flow;
    }
    return flow;
}

Flow Talk::open(const Ip& near, const Ip& far, std::uint8_t proto, std::uint16_t sport, std::uint16_t dport)
{
    if (proto == kGre) sport = dport = 0;
    Flow flow{.near = near, .far = far, .proto = proto, .sport = sport, .dport = dport, .address = near};
    flow.at = where_of(near);
    const std::uint8_t first = proto == IPPROTO_SCTP ? 1 : kSyn;
    flow = learned(flow, send_from(near, ip_to(near, far, proto) + transport(flow, true, sport, dport, first, 8)));
    if (is_tcp(flow)) ++flow.seq;
    return flow;
}

Flow Talk::connect(std::uint16_t sport, std::uint16_t dport)
{
    Flow flow = tcp(sport, dport);
    hear(flow, kSyn | kAck);
    say(flow, kAck, 0);
    return flow;
}

bool Talk::say(Flow& flow, std::uint8_t flags, std::size_t size)
{
    const auto heard = send_from(flow.near, ip_to(flow.near, flow.far, flow.proto) +
                                                transport(flow, true, flow.sport, flow.dport, flags, size));
    if (is_tcp(flow))
        flow.seq += (flags & (kSyn | kFin)) != 0 ? 1 : (flags & kRst) != 0 ? 0 : static_cast<std::uint32_t>(size);
    if (heard.size() != 1) return false;
    const View& is = heard[0].view;
    return is.src == flow.address && is.dst == flow.far && (flow.port == is.sport) && heard[0].where == flow.out;
}

bool Talk::hear(Flow& flow, std::uint8_t flags, std::size_t size)
{
    const auto heard = send_from(flow.far, ip_to(flow.far, flow.address, flow.proto) +
                                               transport(flow, false, flow.dport, flow.port, flags, size));
    if (is_tcp(flow))
        flow.ack += (flags & (kSyn | kFin)) != 0 ? 1 : (flags & kRst) != 0 ? 0 : static_cast<std::uint32_t>(size);
    if (heard.size() != 1) return false;
    const View& is = heard[0].view;
    return is.dst == flow.near && is.src == flow.far && is.dport == flow.sport && heard[0].where == flow.at;
}

bool Talk::hear_from(const Flow& flow, const Ip& from, std::uint16_t port)
{
    // Whole sums: an error of the node's would quote one that is left to the NIC, where the port is not in it.
    const bool partial = style_.partial;
    style_.partial = false;
    const auto heard =
        send_from(from, ip_to(from, flow.address, flow.proto) + transport(flow, false, port, flow.port, kAck, 8));
    style_.partial = partial;
    for (const Heard& one : heard)
        if (one.view.dst == flow.near && one.where == flow.at) return true;
    return false;
}

Layer Talk::error_layer(std::uint8_t kind) const
{
    static constexpr std::uint8_t kFour[][2] = {{3, 3}, {3, 4}, {11, 0}, {12, 0}};
    static constexpr std::uint8_t kSix[][2] = {{1, 4}, {2, 0}, {3, 0}, {4, 0}};
    const std::uint16_t mtu = kind == kTooBig ? 1300 : 0;
    if (v4()) return Icmp{.type = kFour[kind][0], .code = kFour[kind][1], .id = 0, .seq = mtu};
    return Icmp6{.type = kSix[kind][0], .code = kSix[kind][1], .id = 0, .seq = mtu};
}

/// The first `size` bytes behind the IP header of such a packet, and that; 0: all.
Bytes Talk::quote(const Ip& src, const Ip& dst, std::uint8_t proto, const Layers& transport, std::size_t size) const
{
    const Bytes whole = build(Layers{Eth{}} + ip_to(src, dst, proto, 61) + transport);
    const std::size_t head = v4() ? 20 : 40;
    const std::size_t end = size == 0 ? whole.size() : std::min(whole.size(), 14 + head + size);
    return {whole.begin() + 14, whole.begin() + static_cast<std::ptrdiff_t>(end)};
}

bool Talk::error_in(const Flow& flow, const Ip& router, std::uint8_t kind, std::size_t quoted)
{
    const Layers inner = transport(flow, true, flow.port, flow.dport, kAck, 8);
    const auto heard = send(
        flow.out, ip_to(router, flow.address, v4() ? 1 : 58) +
                      Layers{error_layer(kind), Payload{quote(flow.address, flow.far, flow.proto, inner, quoted)}});
    if (heard.size() != 1 || heard[0].where != flow.at || heard[0].view.quote == 0) return false;
    const auto about = view(heard[0].frame, heard[0].view.quote);
    return heard[0].view.dst == flow.near && heard[0].view.src == router && about && about->src == flow.near &&
           about->dst == flow.far && about->sport == flow.sport;
}

bool Talk::error_out(const Flow& flow, const Ip& by, std::uint8_t kind, std::size_t quoted)
{
    const Layers inner = transport(flow, false, flow.dport, flow.sport, kAck, 8);
    const auto heard =
        send(flow.at, ip_to(by, flow.far, v4() ? 1 : 58) +
                          Layers{error_layer(kind), Payload{quote(flow.far, flow.near, flow.proto, inner, quoted)}});
    if (heard.size() != 1 || heard[0].where != flow.out || heard[0].view.quote == 0) return false;
    const auto about = view(heard[0].frame, heard[0].view.quote);
    return heard[0].view.src == flow.address && about && about->src == flow.far && about->dst == flow.address &&
           about->dport == flow.port;
}

} // namespace twill::interop::nat
