// SPDX-License-Identifier: Apache-2.0
#include "maps/nat_view.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <tuple>

#include "maps/codec.hpp"

namespace twill {

namespace {

struct Protocol {
    std::uint8_t number;
    std::string_view name;
};
constexpr std::array kProtocols = {
    Protocol{1, "icmp"}, Protocol{6, "tcp"}, Protocol{17, "udp"},    Protocol{33, "dccp"},  Protocol{47, "gre"},
    Protocol{50, "esp"}, Protocol{51, "ah"}, Protocol{58, "icmpv6"}, Protocol{132, "sctp"}, Protocol{136, "udplite"}};

auto identity(const NatFlow& flow)
{
    // As bytes an IPv4-mapped address sorts among the IPv6 ones.
    return std::tuple(flow.pod.family(), flow.pod, flow.proto, flow.remote, flow.remote_port, flow.pod_port, flow.addr,
                      flow.port, flow.plain);
}

std::int32_t seconds_left(const tw_nat_flow& half, std::uint32_t now)
{
    return static_cast<std::int32_t>(half.until - now);
}

tw_nat_key key_of(const Ip& src, std::uint16_t sport, const Ip& dst, std::uint16_t dport, std::uint8_t proto)
{
    tw_nat_key key{};
    key.src = to_abi(src);
    key.dst = to_abi(dst);
    key.sport = sport;
    key.dport = dport;
    key.proto = proto;
    return key;
}

} // namespace

NatFlow from_forward_half(const tw_nat_key& key, const tw_nat_flow& half, std::uint32_t now)
{
    NatFlow flow;
    flow.pod = from_abi(key.src);
    flow.pod_port = key.sport;
    flow.remote = from_abi(key.dst);
    flow.remote_port = key.dport;
    flow.plain = half.plain != 0;
    if (!flow.plain) {
        flow.addr = from_abi(half.addr);
        flow.port = half.port;
    }
    flow.proto = key.proto;
    flow.state = half.state;
    flow.halves = NatFlow::Halves::forward;
    flow.left = seconds_left(half, now);
    return flow;
}

NatFlow from_reply_half(const tw_nat_key& key, const tw_nat_flow& half, std::uint32_t now)
{
    NatFlow flow;
    flow.pod = from_abi(half.addr);
    flow.pod_port = half.port;
    flow.remote = from_abi(key.src);
    flow.remote_port = key.sport;
    flow.addr = from_abi(key.dst);
    flow.port = key.dport;
    flow.proto = key.proto;
    flow.state = half.state;
    flow.halves = NatFlow::Halves::reply;
    flow.left = seconds_left(half, now);
    return flow;
}

tw_nat_key forward_key(const NatFlow& flow)
{
    return key_of(flow.pod, flow.pod_port, flow.remote, flow.remote_port, flow.proto);
}

tw_nat_key reply_key(const NatFlow& flow)
{
    return key_of(flow.remote, flow.remote_port, flow.addr, flow.port, flow.proto);
}

bool is_same_flow(const NatFlow& a, const NatFlow& b) { return identity(a) == identity(b); }

std::vector<NatFlow> join_halves(std::vector<NatFlow> forward, std::vector<NatFlow> reply)
{
    const auto is_before = [](const NatFlow& a, const NatFlow& b) { return identity(a) < identity(b); };
    std::ranges::sort(reply, is_before);
    std::vector<bool> is_joined(reply.size(), false);
    for (auto& flow : forward) {
        const auto found = std::ranges::lower_bound(reply, flow, is_before);
        if (flow.plain || found == reply.end() || !is_same_flow(*found, flow)) continue;
        is_joined[static_cast<std::size_t>(found - reply.begin())] = true;
        // A half whose time is over counts as absent.
        if (flow.is_alive() == found->is_alive())
            flow.halves = NatFlow::Halves::both;
        else if (found->is_alive())
            flow = *found;
    }
    for (std::size_t i = 0; i < reply.size(); ++i)
        if (!is_joined[i]) forward.push_back(reply[i]);
    std::ranges::sort(forward, is_before);
    return forward;
}

std::vector<PortRange> port_ranges(const std::vector<tw_nat_range>& blocks)
{
    std::vector<PortRange> ranges;
    for (std::size_t port = 0; port < std::min<std::size_t>(blocks.size() * 64, 65536); ++port) {
        if ((blocks[port / 64].ports >> (port % 64) & 1) == 0) continue;
        const auto number = static_cast<std::uint16_t>(port);
        if (!ranges.empty() && ranges.back().last + 1U == port)
            ranges.back().last = number;
        else
            ranges.push_back({number, number});
    }
    return ranges;
}

std::size_t port_count(const std::vector<PortRange>& ranges)
{
    std::size_t count = 0;
    for (const auto& range : ranges) count += std::size_t{range.last} - range.first + 1;
    return count;
}

std::vector<NatDestination> top_destinations(const std::vector<NatFlow>& flows, std::size_t limit)
{
    std::map<std::tuple<Ip, std::uint16_t, std::uint8_t, Ip>, std::size_t> counts;
    for (const auto& flow : flows)
        if (flow.is_alive() && !flow.plain) ++counts[{flow.remote, flow.remote_port, flow.proto, flow.addr}];
    std::vector<NatDestination> all;
    all.reserve(counts.size());
    for (const auto& [key, count] : counts)
        all.push_back({std::get<0>(key), std::get<3>(key), std::get<1>(key), std::get<2>(key), count});
    std::ranges::stable_sort(all, std::ranges::greater{}, &NatDestination::flows);
    if (all.size() > limit) all.resize(limit);
    return all;
}

std::string nat_state_name(std::uint8_t state)
{
    return state < kNatStateNames.size() ? std::string(kNatStateNames[state]) : std::to_string(state);
}

std::string nat_protocol_name(std::uint8_t proto)
{
    const auto found = std::ranges::find(kProtocols, proto, &Protocol::number);
    return found == kProtocols.end() ? std::to_string(proto) : std::string(found->name);
}

bool nat_has_ports(std::uint8_t proto) { return proto == 6 || proto == 17 || proto == 1 || proto == 58; }

std::string_view nat_rules_name(std::uint8_t rules)
{
    if (rules == TW_NAT_IPTABLES) return "iptables";
    return rules == TW_NAT_NFT ? "nft" : "off";
}

} // namespace twill
