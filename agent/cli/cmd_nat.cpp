// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <iterator>

#include "agent/cli/nat.hpp"
#include "maps/codec.hpp"

namespace twill::cli {

namespace {

using Halves = NatFlow::Halves;
using Decode = NatFlow (*)(const tw_nat_key&, const tw_nat_flow&, std::uint32_t);

Result<std::vector<NatFlow>> read_halves(const Env& env, const char* map, Decode decode, std::uint32_t now)
{
    TWILL_TRY_AS(entries, env.maps.entries(map));
    std::vector<NatFlow> halves;
    halves.reserve(entries.size());
    for (const auto& entry : entries) {
        TWILL_TRY_AS(key, as<tw_nat_key>(entry.key));
        TWILL_TRY_AS(half, as<tw_nat_flow>(entry.value));
        halves.push_back(decode(key, half, now));
    }
    return halves;
}

/// One half, read again. nullopt: it is gone, or of another flow.
Result<std::optional<NatFlow>> read_half(const Env& env, const NatFlow& flow, Halves which, std::uint32_t now)
{
    const bool is_reply = which == Halves::reply;
    const tw_nat_key key = is_reply ? reply_key(flow) : forward_key(flow);
    TWILL_TRY_AS(bytes, env.maps.lookup(is_reply ? "tw_nat_rev" : "tw_nat_fwd", bytes_of(key)));
    if (!bytes) return std::optional<NatFlow>{};
    TWILL_TRY_AS(half, as<tw_nat_flow>(*bytes));
    const NatFlow again = is_reply ? from_reply_half(key, half, now) : from_forward_half(key, half, now);
    return is_same_flow(again, flow) ? std::optional(again) : std::nullopt;
}

/// The maps were read one after the other, while flows come and go: looks at a lone half again. false: it is gone.
Result<bool> settle(const Env& env, NatFlow& flow, std::uint32_t now)
{
    const Halves other = flow.halves == Halves::forward ? Halves::reply : Halves::forward;
    TWILL_TRY_AS(own, read_half(env, flow, flow.halves, now));
    if (!own) return false;
    TWILL_TRY_AS(counterpart, read_half(env, flow, other, now));
    if (counterpart && counterpart->is_alive()) flow.halves = Halves::both;
    return true;
}

/// Which option stands where it means nothing? Empty: none.
std::string misplaced(const Options& options)
{
    const auto& nat = options.nat;
    const bool list = nat.action == "list", stats = nat.action == "stats", trace = nat.action == "trace";
    if (!trace && !nat.src.empty()) return "\"" + nat.src + "\"";
    if (!list && !nat.pod.empty()) return "--pod";
    if (!list && !nat.remote.empty()) return "--remote";
    if (!list && !nat.state.empty()) return "--state";
    if (!list && options.all) return "--all";
    if (stats && !nat.proto.empty()) return "--proto";
    if (!stats && !nat.top.empty()) return "--top";
    if (!trace && !nat.interface.empty()) return "--interface";
    if (!trace && !nat.mark.empty()) return "--mark";
    return "";
}

} // namespace

Result<std::vector<NatFlow>> read_nat_flows(const Env& env)
{
    const std::uint32_t now = env.machine.now();
    TWILL_TRY_AS(forward, read_halves(env, "tw_nat_fwd", from_forward_half, now));
    TWILL_TRY_AS(reply, read_halves(env, "tw_nat_rev", from_reply_half, now));
    auto flows = join_halves(std::move(forward), std::move(reply));
    std::vector<NatFlow> out;
    out.reserve(flows.size());
    for (auto& flow : flows) {
        if (flow.halves != Halves::both && !flow.plain && flow.is_alive()) {
            TWILL_TRY_AS(is_there, settle(env, flow, now));
            if (!is_there) continue;
        }
        if (out.empty() || !is_same_flow(out.back(), flow)) out.push_back(flow);
    }
    return out;
}

std::string show_end(const Ip& ip, std::uint16_t port)
{
    if (port == 0) return ip.to_string();
    return (ip.is_v4() ? ip.to_string() : "[" + ip.to_string() + "]") + ":" + std::to_string(port);
}

Json nat_flow_json(const NatFlow& flow)
{
    static constexpr const char* kHalves[] = {"both", "forward", "reply"};
    return {{"protocol", nat_protocol_name(flow.proto)},
            {"pod", flow.pod.to_string()},
            {"pod_port", flow.pod_port},
            {"remote", flow.remote.to_string()},
            {"remote_port", flow.remote_port},
            {"address", flow.plain ? Json() : Json(flow.addr.to_string())},
            {"port", flow.plain ? Json() : Json(flow.port)},
            {"state", nat_state_name(flow.state)},
            {"plain", flow.plain},
            {"halves", kHalves[static_cast<std::size_t>(flow.halves)]},
            {"expires_seconds", std::max(flow.left, 0)}};
}

Result<End> parse_end(std::string_view argument, const std::string& text)
{
    const Error bad{EINVAL, std::string(argument) + " \"" + text +
                                "\": no address (10.42.1.5, 10.42.1.5:80, fd00::5, [fd00::5]:80)"};
    End end;
    std::string address = text;
    const auto colon = text.rfind(':');
    const bool is_bracketed = text.starts_with('[');
    if (is_bracketed && !text.ends_with(']') && (colon == std::string::npos || text[colon - 1] != ']')) return bad;
    if (colon != std::string::npos && (is_bracketed ? !text.ends_with(']') : text.find(':') == colon)) {
        const char* const last = text.data() + text.size();
        std::uint16_t port = 0;
        const auto read = std::from_chars(text.data() + colon + 1, last, port);
        if (read.ec != std::errc{} || read.ptr != last)
            return Error{EINVAL, std::string(argument) + " \"" + text + "\": port \"" + text.substr(colon + 1) +
                                     "\" is no number up to 65535"};
        end.port = port;
        address.resize(colon);
    }
    if (is_bracketed) address = address.substr(1, address.size() - 2);
    if (address.find('/') != std::string::npos) {
        const auto net = Cidr::parse(address);
        if (!net) return bad;
        end.net = *net;
        return end;
    }
    const auto ip = Ip::parse(address);
    if (!ip) return bad;
    TWILL_TRY_AS(net, Cidr::make(*ip, static_cast<unsigned>(ip->network_size() * 8)));
    end.net = net;
    return end;
}

Result<std::uint8_t> parse_protocol(const std::string& text)
{
    for (unsigned number = 0; number < 256; ++number) {
        const auto proto = static_cast<std::uint8_t>(number);
        if (text == nat_protocol_name(proto) || text == std::to_string(number)) return proto;
    }
    return Error{EINVAL, "--proto \"" + text + "\": no protocol (tcp, udp, icmp, icmpv6, sctp, or a number up to 255)"};
}

Exit cmd_nat(const Env& env)
{
    if (const auto what = misplaced(env.options); !what.empty())
        return fail(env, Exit::usage, what + " means nothing to nat " + env.options.nat.action);
    if (env.options.nat.action == "list") return nat_list(env);
    if (env.options.nat.action == "stats") return nat_stats(env);
    return nat_trace(env);
}

} // namespace twill::cli
