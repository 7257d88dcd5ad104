// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "agent/cli/abi_text.hpp"
#include "agent/cli/nat.hpp"
#include "agent/cli/nat_rule.hpp"
#include "maps/codec.hpp"

namespace twill::cli {

namespace {

constexpr std::size_t kFlowsShown = 5;

/// The packet that is asked about.
struct Packet {
    Ip src, dst;
    std::optional<std::uint16_t> sport, dport; ///< not said: any
    std::uint8_t proto = 6;
    std::uint32_t mark = 0;
};

/// What was found out; filled from top to bottom.
struct Trace {
    Packet packet;
    tw_cfg cfg{};
    std::optional<WayOut> out; ///< nullopt: no route leads there
    NatRule rule;
    std::optional<Cidr> except; ///< the prefix that has the destination
    std::optional<Ip> address;  ///< nullopt: the interface has none
    bool has_entry = false;     ///< the interface is in tw_nat_ifs
    std::vector<NatFlow> flows; ///< that the packet may belong to
    std::size_t flow_count = 0;
    bool is_masqueraded = false;
    std::string verdict;
};

std::string text_of(const Env& env, const Trace& trace)
{
    if (!trace.out) return "no route leads there: the kernel does not send it";
    if (trace.out->is_local) return "none: it is for this node itself";
    return show_interface(env, trace.out->ifindex);
}

Result<Ip> one_address(const char* argument, const std::string& text, std::optional<std::uint16_t>& port)
{
    if (text.empty()) return Error{EINVAL, std::string("trace: ") + argument + " is missing (nat trace SRC DST)"};
    TWILL_TRY_AS(end, parse_end(argument, text));
    if (!end.is_one_address())
        return Error{EINVAL, std::string(argument) + " \"" + text + "\": a prefix, one address is needed"};
    port = end.port;
    return end.net.address();
}

Result<std::uint32_t> parse_mark(const std::string& text)
{
    const bool is_hex = text.starts_with("0x") || text.starts_with("0X");
    const char* const last = text.data() + text.size();
    std::uint32_t mark = 0;
    const auto read = std::from_chars(text.data() + (is_hex ? 2 : 0), last, mark, is_hex ? 16 : 10);
    if (read.ec != std::errc{} || read.ptr != last) return Error{EINVAL, "--mark \"" + text + "\" is no 32-bit number"};
    return mark;
}

Result<Packet> packet_of(const Options& options)
{
    const auto& nat = options.nat;
    Packet packet;
    TWILL_TRY_AS(src, one_address("SRC", nat.src, packet.sport));
    TWILL_TRY_AS(dst, one_address("DST", nat.dst, packet.dport));
    packet.src = src;
    packet.dst = dst;
    if (src.family() != dst.family())
        return Error{EINVAL, "SRC \"" + nat.src + "\" and DST \"" + nat.dst + "\" are not of one family"};
    if (!nat.proto.empty()) {
        TWILL_TRY_AS(proto, parse_protocol(nat.proto));
        packet.proto = proto;
    }
    if (!nat.mark.empty()) {
        TWILL_TRY_AS(mark, parse_mark(nat.mark));
        packet.mark = mark;
    }
    return packet;
}

Result<std::optional<WayOut>> way_out(const Env& env, const Packet& packet)
{
    const std::string& name = env.options.nat.interface;
    if (name.empty()) return env.machine.way_out(packet.src, packet.dst);
    const auto ifindex = env.machine.interface_index(name);
    if (ifindex == 0) return Error{EINVAL, "--interface \"" + name + "\": no such interface"};
    return std::optional(WayOut{ifindex, false});
}

/// The longest prefix of tw_nat_except that has the address.
Result<std::optional<Cidr>> except_for(const Env& env, const Ip& dst)
{
    TWILL_TRY_AS(entries, env.maps.entries("tw_nat_except"));
    std::optional<Cidr> best;
    for (const auto& entry : entries) {
        TWILL_TRY_AS(key, as<tw_cidr_v6>(entry.key));
        // Both families in 16 bytes: a prefix of IPv4 has 96 bits more.
        std::array<std::uint8_t, 16> bytes{};
        std::copy(std::begin(key.addr), std::end(key.addr), bytes.begin());
        const Ip ip = Ip::from_bytes(bytes);
        const auto net = Cidr::make(ip, ip.is_v4() && key.bits >= 96 ? key.bits - 96 : key.bits);
        if (net && net->contains(dst) && (!best || net->bits() > best->bits())) best = *net;
    }
    return best;
}

/// The address that what goes to `dst` by the interface gets.
std::optional<Ip> address_of(const tw_nat_if& from, const Ip& dst)
{
    Ip ip = ip_of(dst.is_v4() ? from.v4 : from.v6);
    for (std::size_t i = 0; i < TW_NAT_NETS; ++i)
        if (is_in(from.on_link[i], dst)) {
            ip = ip_of(from.from[i]);
            break;
        }
    return ip == Ip{} ? std::nullopt : std::optional(ip);
}

bool may_be_of(const NatFlow& flow, const Packet& packet)
{
    return flow.is_alive() && flow.halves != NatFlow::Halves::reply && flow.proto == packet.proto &&
           flow.pod == packet.src && flow.remote == packet.dst && (!packet.sport || *packet.sport == flow.pod_port) &&
           (!packet.dport || *packet.dport == flow.remote_port);
}

std::string verdict_without_flow(Trace& trace)
{
    if (!trace.out) return "not sent";
    if (trace.out->is_local) return "stays as it is: it does not leave this node";
    const auto ifindex = trace.out->ifindex;
    const bool to_overlay = ifindex == trace.cfg.overlay || (ifindex == trace.cfg.overlay6 && ifindex != 0);
    const tw_net& own = trace.packet.src.is_v4() ? trace.cfg.own_v4 : trace.cfg.own_v6;
    if (to_overlay && is_in(own, trace.packet.src) && !is_own_host(trace.cfg, trace.packet.src))
        return "stays as it is: what this node's pods send into the overlay is never masqueraded";
    if (!trace.rule.masquerades) return "stays as it is";
    if (trace.except) return "stays as it is: " + trace.except->to_string() + " is excluded";
    if (!trace.has_entry) return "stays as it is: no masquerade on this interface (it is not in tw_nat_ifs)";
    if (!trace.address) return "refused, NAT_ADDRESS: the interface has no address of this family";
    trace.is_masqueraded = true;
    const bool is_tcp = trace.packet.proto == 6;
    return "masqueraded as " + trace.address->to_string() +
           (is_tcp ? ", if it begins a connection (a SYN); another packet of no flow stays as it is" : "") +
           (is_tcp || trace.packet.proto == 17 ? "; so does a reply to who came straight to the pod" : "");
}

void decide(Trace& trace)
{
    const bool is_one_flow = trace.packet.sport && trace.packet.dport;
    if (trace.flow_count == 1 && (is_one_flow || !nat_has_ports(trace.packet.proto))) {
        const auto& flow = trace.flows.front();
        trace.is_masqueraded = !flow.plain;
        trace.verdict = flow.plain ? "stays as it is: its flow came from outside to the pod"
                                   : "masqueraded as " + show_end(flow.addr, flow.port) + ", as its flow is";
        return;
    }
    trace.verdict = verdict_without_flow(trace);
    if (trace.flow_count > 0) trace.verdict = "as its flow, if it has one; else: " + trace.verdict;
}

Result<> look(const Env& env, Trace& trace)
{
    TWILL_TRY_AS(cfg, env.maps.config());
    trace.cfg = cfg;
    trace.rule = nat_rule(cfg, trace.packet.src, trace.packet.dst, trace.packet.mark);
    TWILL_TRY_AS(except, except_for(env, trace.packet.dst));
    trace.except = except;
    if (trace.out && !trace.out->is_local) {
        TWILL_TRY_AS(bytes, env.maps.lookup("tw_nat_ifs", bytes_of(trace.out->ifindex)));
        trace.has_entry = bytes.has_value();
        if (bytes) {
            TWILL_TRY_AS(from, as<tw_nat_if>(*bytes));
            trace.address = address_of(from, trace.packet.dst);
        }
    }
    TWILL_TRY_AS(flows, read_nat_flows(env));
    for (const auto& flow : flows) {
        if (!may_be_of(flow, trace.packet)) continue;
        if (trace.flow_count++ < kFlowsShown) trace.flows.push_back(flow);
    }
    decide(trace);
    return Ok{};
}

Json to_json(const Env& env, const Trace& trace)
{
    const auto& packet = trace.packet;
    Json flows = Json::array();
    for (const auto& flow : trace.flows) flows.push_back(nat_flow_json(flow));
    const bool leaves = trace.out && !trace.out->is_local;
    return {{"src", packet.src.to_string()},
            {"src_port", packet.sport ? Json(*packet.sport) : Json()},
            {"dst", packet.dst.to_string()},
            {"dst_port", packet.dport ? Json(*packet.dport) : Json()},
            {"protocol", nat_protocol_name(packet.proto)},
            {"mark", packet.mark},
            {"interface", leaves ? Json(env.machine.interface_name(trace.out->ifindex)) : Json()},
            {"ifindex", leaves ? Json(trace.out->ifindex) : Json()},
            {"rules", nat_rules_name(trace.cfg.nat)},
            {"row", trace.rule.row == 0 ? Json() : Json(trace.rule.row)},
            {"row_text", trace.rule.text},
            {"except", trace.except ? Json(trace.except->to_string()) : Json()},
            {"address", trace.address ? Json(trace.address->to_string()) : Json()},
            {"flows", std::move(flows)},
            {"flow_count", trace.flow_count},
            {"masqueraded", trace.is_masqueraded},
            {"verdict", trace.verdict}};
}

void line(const Env& env, std::string name, const std::string& value)
{
    name.resize(11, ' ');
    env.out << name << value << '\n';
}

std::string any_end(const Ip& ip, const std::optional<std::uint16_t>& port)
{
    return port ? show_end(ip, *port) : ip.to_string();
}

void print_flows(const Env& env, const Trace& trace)
{
    if (trace.flows.empty()) line(env, "flow", "none yet");
    for (const auto& flow : trace.flows)
        line(env, "flow",
             fmt::format("{} -> {} {}, {}, {} s left", show_end(flow.pod, flow.pod_port),
                         show_end(flow.remote, flow.remote_port),
                         flow.plain ? "plain" : "as " + show_end(flow.addr, flow.port), nat_state_name(flow.state),
                         flow.left));
    if (trace.flow_count > trace.flows.size())
        line(env, "", fmt::format("and {} more (twillctl nat list)", trace.flow_count - trace.flows.size()));
}

void print(const Env& env, const Trace& trace)
{
    const auto& packet = trace.packet;
    line(env, "packet",
         nat_protocol_name(packet.proto) + " " + any_end(packet.src, packet.sport) + " -> " +
             any_end(packet.dst, packet.dport) + (packet.mark != 0 ? fmt::format(", mark {:#x}", packet.mark) : ""));
    line(env, "leaves by", text_of(env, trace));
    print_flows(env, trace);
    line(env, "rule",
         fmt::format("{} of {}: {}{}", trace.rule.row == 0 ? "no row" : "row " + std::to_string(trace.rule.row),
                     nat_rules_name(trace.cfg.nat), trace.rule.text,
                     trace.rule.masquerades ? ": to be masqueraded" : ""));
    line(env, "excluded", trace.except ? "yes, by " + trace.except->to_string() : "no");
    line(env, "address", trace.address ? trace.address->to_string() : "none");
    line(env, "verdict", trace.verdict);
}

} // namespace

Exit nat_trace(const Env& env)
{
    Trace trace;
    const auto packet = packet_of(env.options);
    if (!packet) return fail(env, Exit::usage, packet.error().what);
    trace.packet = *packet;
    const auto out = way_out(env, *packet);
    if (!out && out.error().code == EINVAL) return fail(env, Exit::usage, out.error().what);
    if (!out) return fail(env, Exit::failure, out.error().what);
    trace.out = *out;
    if (const auto looked = look(env, trace); !looked) return fail_map(env, looked.error());
    if (trace.cfg.nat == TW_NAT_OFF) {
        trace.is_masqueraded = false;
        trace.rule = {0, false, "masquerade is off"};
        trace.verdict = "stays as it is: masquerade is off on this node (twilld -ip-masq)";
    }
    if (env.options.wants_json())
        print_json(env, to_json(env, trace));
    else
        print(env, trace);
    return Exit::ok;
}

} // namespace twill::cli
