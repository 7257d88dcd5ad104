// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <netinet/in.h>

#include <array>
#include <cstdio>
#include <cstring>

#include "tests/packet/nat.hpp"

namespace twill::test {
namespace {

std::uint16_t get16(const Bytes& frame, std::size_t at)
{
    return static_cast<std::uint16_t>(frame.at(at) << 8U | frame.at(at + 1));
}

/// With a map that has no BTF here: by its bytes.
void clear_map(int map)
{
    std::array<std::uint8_t, 64> key{};
    while (bpf_map_get_next_key(map, nullptr, key.data()) == 0)
        if (bpf_map_delete_elem(map, key.data()) != 0) return;
}

template <typename Value>
void clear_array(int map, std::uint32_t size)
{
    const Value zero{};
    for (std::uint32_t i = 0; i < size; ++i) bpf_map_update_elem(map, &i, &zero, BPF_ANY);
}

} // namespace

Ip ip_of(const tw_addr& addr)
{
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&addr);
    const tw_addr v4_prefix = abi(ip("0.0.0.0"));
    if (std::memcmp(bytes, &v4_prefix, 12) == 0)
        return ip(std::to_string(bytes[12]) + "." + std::to_string(bytes[13]) + "." + std::to_string(bytes[14]) + "." +
                  std::to_string(bytes[15]));
    std::string text;
    for (int i = 0; i < 16; i += 2) {
        char word[8];
        std::snprintf(word, sizeof word, "%s%x", i != 0 ? ":" : "", bytes[i] << 8U | bytes[i + 1]);
        text += word;
    }
    return ip(text);
}

Seen seen(const Bytes& frame)
{
    Seen out;
    const bool v4 = get16(frame, 12) == 0x0800;
    tw_addr addr{};
    const auto address = [&](std::size_t at) {
        addr = abi(ip("0.0.0.0"));
        std::memcpy(v4 ? addr.low : addr.high, frame.data() + at, v4 ? 4 : 16);
        return ip_of(addr);
    };
    out.src = address(v4 ? 26 : 22);
    out.dst = address(v4 ? 30 : 38);
    out.proto = frame.at(v4 ? 23 : 20);
    const std::size_t l4 = v4 ? 14 + (frame.at(14) & 15U) * 4 : 54;
    if (out.proto == IPPROTO_TCP || out.proto == IPPROTO_UDP || out.proto == IPPROTO_SCTP) {
        out.sport = get16(frame, l4);
        out.dport = get16(frame, l4 + 2);
    } else if (out.proto == IPPROTO_ICMP || out.proto == IPPROTO_ICMPV6) {
        out.sport = out.dport = get16(frame, l4 + 4);
    }
    return out;
}

tw_nat_key nat_key(const Ip& src, const Ip& dst, std::uint16_t sport, std::uint16_t dport, std::uint8_t proto)
{
    tw_nat_key key{};
    key.src = abi(src);
    key.dst = abi(dst);
    key.sport = sport;
    key.dport = dport;
    key.proto = proto;
    return key;
}

Ip overlay_address(const Net& net) { return net.pods_a.address(); }

void NatNode::set_ports(const Ports& ports) const
{
    std::array<tw_nat_range, TW_NAT_RANGES> range{};
    for (unsigned port = ports.first; port <= ports.last; ++port) range[port / 64].ports |= 1ULL << port % 64;
    std::uint32_t blocks = 0;
    for (std::uint32_t i = 0; i < TW_NAT_RANGES; ++i)
        if (range[i].ports != 0) range[blocks++].nth = i;
    for (std::uint32_t i = 0; i < TW_NAT_RANGES; ++i) {
        range[i].blocks = blocks;
        bpf_map_update_elem(dp->map("tw_nat_range"), &i, &range[i], BPF_ANY);
    }
}

void NatNode::set_address(std::uint32_t ifindex, const Ip& v4, const Ip& v6) const
{
    tw_nat_if value{};
    value.v4 = abi(v4);
    value.v6 = abi(v6);
    for (auto& net : value.on_link) net = no_net();
    bpf_map_update_elem(dp->map("tw_nat_ifs"), &ifindex, &value, BPF_ANY);
}

void NatNode::reset(const Ports& ports) const
{
    for (const char* name : {"tw_nat_fwd", "tw_nat_rev", "tw_nat_ifs", "tw_nat_except", "tw_nat_frags"})
        clear_map(dp->map(name));
    clear_array<tw_nat_block>(dp->map("tw_nat_ports"), TW_NAT_BLOCKS);
    clear_array<tw_nat_key>(dp->map("tw_nat_slots"), dp->cfg().nat_max);
    set_ports(ports);
    set_address(wire, nets()[0].node_a, nets()[1].node_a);
    set_address(overlay, overlay_address(nets()[0]), overlay_address(nets()[1]));
}

std::vector<std::pair<tw_nat_key, tw_nat_flow>> NatNode::halves(const char* map) const
{
    std::vector<std::pair<tw_nat_key, tw_nat_flow>> out;
    const int fd = dp->map(map);
    tw_nat_key key{};
    for (const tw_nat_key* last = nullptr; bpf_map_get_next_key(fd, last, &key) == 0; last = &out.back().first) {
        tw_nat_flow flow{};
        bpf_map_lookup_elem(fd, &key, &flow);
        out.emplace_back(key, flow);
    }
    return out;
}

void NatNode::pass(std::uint32_t seconds) const
{
    for (const char* map : {"tw_nat_fwd", "tw_nat_rev"})
        for (auto& [key, flow] : halves(map)) {
            flow.until -= seconds;
            bpf_map_update_elem(dp->map(map), &key, &flow, BPF_EXIST);
        }
    std::vector<std::uint32_t> keys(TW_NAT_BLOCKS);
    std::vector<tw_nat_block> blocks(TW_NAT_BLOCKS);
    std::uint32_t next = 0, count = TW_NAT_BLOCKS;
    const int ports = dp->map("tw_nat_ports");
    bpf_map_lookup_batch(ports, nullptr, &next, keys.data(), blocks.data(), &count, nullptr);
    for (std::uint32_t i = 0; i < count; ++i) {
        if (blocks[i].first.proto == 0) continue;
        blocks[i].checked -= seconds;
        bpf_map_update_elem(ports, &keys[i], &blocks[i], BPF_ANY);
    }
}

std::optional<Seen> NatNode::send(const Layers& layers) const
{
    const Outcome outcome = to_wire(layers);
    if (outcome.reason() != TW_R_NAT_OUT) return std::nullopt;
    expect_sums(outcome.out);
    return seen(outcome.out);
}

std::optional<Seen> NatNode::receive(const Layers& layers) const
{
    const Outcome outcome = from_wire(layers);
    if (outcome.reason() != TW_R_NAT_IN) return std::nullopt;
    expect_sums(outcome.out);
    return seen(outcome.out);
}

NatNode nat_node(const Tweak& tweak, const Ports& ports)
{
    NatNode node = node_a([&](tw_cfg& cfg) {
        cfg.nat = TW_NAT_IPTABLES;
        cfg.nat_keep = 1;
        cfg.nat_max = 256;
        if (tweak) tweak(cfg);
    });
    node.reset(ports);
    return node;
}

Layers leaving(const Ip& src, const Ip& dst) { return {Eth{kRouter, kWireA, {}}, ip_layer(src, dst)}; }
Layers arriving(const Ip& src, const Ip& dst) { return {Eth{kWireA, kRouter, {}}, ip_layer(src, dst)}; }

void expect_sums(const Bytes& frame)
{
    const auto wrong = bad_checksum(frame);
    CHECK_MESSAGE(!wrong, wrong.value_or(""));
}

} // namespace twill::test
