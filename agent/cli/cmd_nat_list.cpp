// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>

#include "agent/cli/nat.hpp"

namespace twill::cli {

namespace {

constexpr std::string_view kPlain = "plain"; ///< shown in the place of a state, which such a flow has none of

struct Filter {
    std::optional<End> pod, remote;
    std::optional<std::uint8_t> proto;
    std::string state;
    bool with_expired = false;

    bool passes(const NatFlow& flow) const
    {
        return (with_expired || flow.is_alive()) && (!pod || pod->has(flow.pod, flow.pod_port)) &&
               (!remote || remote->has(flow.remote, flow.remote_port)) && (!proto || *proto == flow.proto) &&
               (state.empty() || state == (flow.plain ? std::string(kPlain) : nat_state_name(flow.state)));
    }
};

Result<Filter> filter_of(const Options& options)
{
    const auto& nat = options.nat;
    Filter filter;
    filter.with_expired = options.all;
    if (!nat.pod.empty()) {
        TWILL_TRY_AS(pod, parse_end("--pod", nat.pod));
        filter.pod = pod;
    }
    if (!nat.remote.empty()) {
        TWILL_TRY_AS(remote, parse_end("--remote", nat.remote));
        filter.remote = remote;
    }
    if (!nat.proto.empty()) {
        TWILL_TRY_AS(proto, parse_protocol(nat.proto));
        filter.proto = proto;
    }
    filter.state = nat.state;
    if (nat.state.empty() || nat.state == kPlain) return filter;
    if (std::ranges::find(kNatStateNames, nat.state) == kNatStateNames.end()) {
        std::string names;
        for (const auto name : kNatStateNames)
            if (name != "none") names += std::string(name) + ", ";
        return Error{EINVAL, "--state \"" + nat.state + "\": allowed: " + names + std::string(kPlain)};
    }
    return filter;
}

/// One object a line, and not all of them in memory: there may be 100,000.
void print_flows_json(const Env& env, const std::vector<NatFlow>& flows)
{
    env.out << "{\n  \"items\": [";
    const char* before = "\n";
    for (const auto& flow : flows) {
        env.out << before << "    " << nat_flow_json(flow).dump();
        before = ",\n";
    }
    env.out << (flows.empty() ? "]\n}\n" : "\n  ]\n}\n");
}

std::string expires(const NatFlow& flow) { return flow.is_alive() ? std::to_string(flow.left) : "over"; }

std::string note(const NatFlow& flow)
{
    if (flow.plain) return "came from outside, not masqueraded";
    if (flow.halves == NatFlow::Halves::forward) return "half: no entry for its replies";
    if (flow.halves == NatFlow::Halves::reply) return "half: no entry for its packets";
    return " ";
}

} // namespace

Exit nat_list(const Env& env)
{
    const auto filter = filter_of(env.options);
    if (!filter) return fail(env, Exit::usage, filter.error().what);
    auto flows = read_nat_flows(env);
    if (!flows) return fail_map(env, flows.error());
    std::erase_if(*flows, [&](const NatFlow& flow) { return !filter->passes(flow); });
    if (env.options.wants_json()) {
        print_flows_json(env, *flows);
        return Exit::ok;
    }
    using enum Table::Align;
    Table table({{"PROTO", left},
                 {"POD", left},
                 {"REMOTE", left},
                 {"AS", left},
                 {"STATE", left},
                 {"EXPIRES", right},
                 {"NOTE", left}});
    for (const auto& flow : *flows)
        table.add({nat_protocol_name(flow.proto), show_end(flow.pod, flow.pod_port),
                   show_end(flow.remote, flow.remote_port), flow.plain ? "" : show_end(flow.addr, flow.port),
                   flow.plain ? std::string(kPlain) : nat_state_name(flow.state), expires(flow), note(flow)});
    table.print(env.out, !env.options.no_headers);
    return Exit::ok;
}

} // namespace twill::cli
