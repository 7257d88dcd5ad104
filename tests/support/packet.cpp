// SPDX-License-Identifier: Apache-2.0
#include "tests/support/packet.hpp"

#include <cstdio>
#include <cstdlib>

namespace twill::test {
namespace {

void put8(Bytes& out, unsigned value) { out.push_back(static_cast<std::uint8_t>(value)); }
void put16(Bytes& out, unsigned value)
{
    put8(out, value >> 8 & 0xff);
    put8(out, value & 0xff);
}
void put32(Bytes& out, std::uint32_t value)
{
    put16(out, value >> 16);
    put16(out, value & 0xffff);
}
void put(Bytes& out, const std::uint8_t* data, std::size_t size) { out.insert(out.end(), data, data + size); }
void put(Bytes& out, const Bytes& bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }
void set16(Bytes& out, std::size_t at, unsigned value)
{
    out[at] = static_cast<std::uint8_t>(value >> 8);
    out[at + 1] = static_cast<std::uint8_t>(value);
}

/// Sum of the pseudo header (RFC 793, RFC 8200 8.1) of the IP layer that encloses a transport header.
std::uint32_t pseudo(const Layer& ip_layer, unsigned proto, std::size_t size)
{
    const auto sum = [&](const Ip& src, const Ip& dst) {
        std::uint32_t s = ones_sum(src.network(), src.network_size());
        s = ones_sum(dst.network(), dst.network_size(), s);
        return s + proto + static_cast<std::uint32_t>(size);
    };
    if (const auto* v4 = std::get_if<Ip4>(&ip_layer)) return sum(v4->src, v4->dst);
    if (const auto* v6 = std::get_if<Ip6>(&ip_layer)) return sum(v6->src, v6->dst);
    return 0;
}

/// IP protocol number of a layer.
std::uint8_t proto_of(const Layer& layer)
{
    struct Visitor {
        std::uint8_t operator()(const Udp&) { return 17; }
        std::uint8_t operator()(const Tcp&) { return 6; }
        std::uint8_t operator()(const Icmp&) { return 1; }
        std::uint8_t operator()(const Icmp6&) { return 58; }
        std::uint8_t operator()(const Ip4&) { return 4; }
        std::uint8_t operator()(const Ip6&) { return 41; }
        std::uint8_t operator()(const Eth&) { return 143; }
        std::uint8_t operator()(const Vlan&) { return 255; }
        std::uint8_t operator()(const Vxlan&) { return 255; }
        std::uint8_t operator()(const Payload&) { return 253; }
    };
    return std::visit(Visitor{}, layer);
}

std::uint16_t ether_type_of(const Layer& layer)
{
    if (std::holds_alternative<Ip4>(layer)) return 0x0800;
    if (std::holds_alternative<Ip6>(layer)) return 0x86dd;
    if (std::holds_alternative<Vlan>(layer)) return 0x8100;
    return 0x88b5; // IEEE 802 local experimental
}

/// Serialises one layer in front of `rest`, the bytes of all layers after it.
struct Builder {
    const Layers& layers;
    std::size_t at;
    Bytes rest;

    const Layer* next() const { return at + 1 < layers.size() ? &layers[at + 1] : nullptr; }
    const Layer& enclosing() const { return layers[at == 0 ? 0 : at - 1]; }

    Bytes operator()(const Eth& eth) const
    {
        Bytes out;
        put(out, eth.dst.bytes.data(), 6);
        put(out, eth.src.bytes.data(), 6);
        put16(out, eth.type.value_or(next() != nullptr ? ether_type_of(*next()) : 0x88b5));
        put(out, rest);
        return out;
    }
    Bytes operator()(const Vlan& vlan) const
    {
        Bytes out;
        put16(out, vlan.id);
        put16(out, next() != nullptr ? ether_type_of(*next()) : 0x88b5);
        put(out, rest);
        return out;
    }
    Bytes operator()(const Ip4& v4) const
    {
        Bytes options = v4.options;
        while (options.size() % 4 != 0) options.push_back(0);
        const std::size_t header = 20 + options.size();
        Bytes out;
        put8(out, (v4.version.value_or(4) << 4U) | (v4.ihl.value_or(static_cast<std::uint8_t>(header / 4)) & 0xfU));
        put8(out, v4.tos);
        put16(out, v4.len.value_or(static_cast<std::uint16_t>(header + rest.size())));
        put16(out, v4.id);
        put16(out, v4.frag);
        put8(out, v4.ttl);
        put8(out, v4.proto.value_or(next() != nullptr ? proto_of(*next()) : 253));
        put16(out, 0);
        put(out, v4.src.network(), 4);
        put(out, v4.dst.network(), 4);
        put(out, options);
        set16(out, 10, v4.csum.value_or(static_cast<std::uint16_t>(~ones_sum(out.data(), out.size()))));
        put(out, rest);
        return out;
    }
    Bytes operator()(const Ip6& v6) const
    {
        const unsigned last = v6.next.value_or(next() != nullptr ? proto_of(*next()) : 59);
        Bytes ext;
        for (std::size_t i = 0; i < v6.ext.size(); ++i) {
            Bytes one;
            put8(one, i + 1 < v6.ext.size() ? v6.ext[i + 1].type : last);
            put8(one, 0);
            put(one, v6.ext[i].body);
            while (one.size() % 8 != 0) one.push_back(0);
            if (v6.ext[i].type != 44) one[1] = static_cast<std::uint8_t>(one.size() / 8 - 1);
            put(ext, one);
        }
        Bytes out;
        put32(out, (v6.version.value_or(6) << 28U) | (static_cast<std::uint32_t>(v6.tclass) << 20U) | v6.label);
        put16(out, v6.len.value_or(static_cast<std::uint16_t>(ext.size() + rest.size())));
        put8(out, v6.ext.empty() ? last : v6.ext[0].type);
        put8(out, v6.hop);
        put(out, v6.src.network(), 16);
        put(out, v6.dst.network(), 16);
        put(out, ext);
        put(out, rest);
        return out;
    }
    Bytes operator()(const Udp& udp) const
    {
        Bytes out;
        put16(out, udp.sport);
        put16(out, udp.dport);
        put16(out, udp.len.value_or(static_cast<std::uint16_t>(8 + rest.size())));
        put16(out, 0);
        put(out, rest);
        auto sum = static_cast<std::uint16_t>(~ones_sum(out.data(), out.size(), pseudo(enclosing(), 17, out.size())));
        if (sum == 0) sum = 0xffff;
        set16(out, 6, udp.csum.value_or(sum));
        return out;
    }
    Bytes operator()(const Tcp& tcp) const
    {
        Bytes out;
        put16(out, tcp.sport);
        put16(out, tcp.dport);
        put32(out, tcp.seq);
        put32(out, tcp.ack);
        put8(out, 5 << 4);
        put8(out, tcp.flags);
        put16(out, 0xffff);
        put32(out, 0);
        put(out, rest);
        const auto sum = ~ones_sum(out.data(), out.size(), pseudo(enclosing(), 6, out.size()));
        set16(out, 16, tcp.csum.value_or(static_cast<std::uint16_t>(sum)));
        return out;
    }
    template <typename T>
    Bytes echo(const T& icmp, std::uint32_t start) const
    {
        Bytes out;
        put8(out, icmp.type);
        put8(out, icmp.code);
        put16(out, 0);
        put16(out, icmp.id);
        put16(out, icmp.seq);
        put(out, rest);
        set16(out, 2, icmp.csum.value_or(static_cast<std::uint16_t>(~ones_sum(out.data(), out.size(), start))));
        return out;
    }
    Bytes operator()(const Icmp& icmp) const { return echo(icmp, 0); }
    Bytes operator()(const Icmp6& icmp) const { return echo(icmp, pseudo(enclosing(), 58, 8 + rest.size())); }
    Bytes operator()(const Vxlan& vxlan) const
    {
        Bytes out;
        put32(out, (static_cast<std::uint32_t>(vxlan.flags) << 24U) | vxlan.reserved);
        put32(out, (vxlan.vni << 8U) | vxlan.reserved2);
        put(out, rest);
        return out;
    }
    Bytes operator()(const Payload& payload) const
    {
        Bytes out = payload.bytes;
        put(out, rest);
        return out;
    }
};

} // namespace

Ip ip(const std::string& text)
{
    const auto parsed = Ip::parse(text);
    if (!parsed) {
        std::fprintf(stderr, "test address %s: %s\n", text.c_str(), parsed.error().what.c_str());
        std::abort();
    }
    return *parsed;
}

Mac mac(const std::string& text)
{
    const auto parsed = Mac::parse(text);
    if (!parsed) {
        std::fprintf(stderr, "test MAC %s: %s\n", text.c_str(), parsed.error().what.c_str());
        std::abort();
    }
    return *parsed;
}

Payload Payload::of(std::size_t size)
{
    Payload payload;
    for (std::size_t i = 0; i < size; ++i) payload.bytes.push_back(static_cast<std::uint8_t>(i * 7 + 3));
    return payload;
}

Layers operator+(Layers a, const Layers& b)
{
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

Bytes build(const Layers& layers)
{
    Bytes bytes;
    for (std::size_t i = layers.size(); i-- > 0;) bytes = std::visit(Builder{layers, i, std::move(bytes)}, layers[i]);
    return bytes;
}

Layer ip_layer(const Ip& src, const Ip& dst, std::uint8_t ttl, std::uint8_t tos)
{
    if (src.is_v4()) {
        Ip4 v4{.src = src, .dst = dst};
        v4.ttl = ttl;
        v4.tos = tos;
        return v4;
    }
    Ip6 v6{.src = src, .dst = dst};
    v6.hop = ttl;
    v6.tclass = tos;
    return v6;
}

Layer echo_layer(Family family) { return family == Family::v4 ? Layer{Icmp{}} : Layer{Icmp6{}}; }

std::uint16_t ones_sum(const std::uint8_t* data, std::size_t size, std::uint32_t start)
{
    std::uint64_t sum = start;
    for (std::size_t i = 0; i < size; ++i) sum += i % 2 == 0 ? static_cast<std::uint64_t>(data[i]) << 8U : data[i];
    while (sum >> 16U != 0) sum = (sum & 0xffff) + (sum >> 16U);
    return static_cast<std::uint16_t>(sum);
}

} // namespace twill::test
