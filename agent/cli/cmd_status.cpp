// SPDX-License-Identifier: Apache-2.0
#include <cerrno>

#include "agent/cli/subcommand.hpp"

namespace twill::cli {

namespace {

/// One "name  text" line; names of one width.
void line(const Env& env, std::string name, const std::string& value)
{
    name.resize(12, ' ');
    env.out << name << value << '\n';
}

void print_identity(const Env& env, const Json& s)
{
    line(env, "node", text(s, "node"));
    line(env, "agent",
         "twilld " + text(s, "version") + ", pid " + text(s, "pid") + ", since " + text(s, "started") + ", kernel " +
             text(s, "kernel"));
    line(env, "ready", flag(s, "ready") ? "yes" : "no");
    const Json& store = member(s, "store");
    line(env, "store", text(store, "url") + (flag(store, "healthy") ? "  ok" : "  failing: " + text(store, "error")));
    line(env, "network", joined(member(s, "network"), "-"));
    const Json& lease = member(s, "lease");
    if (text(lease, "key").empty())
        line(env, "lease", "none");
    else
        line(env, "lease",
             joined(member(lease, "pods"), "-") + "  public IP " + joined(member(lease, "public_ip"), "-") +
                 "  backend " + text(lease, "backend") + "  VTEP MAC " + joined(member(lease, "vtep_mac"), "-") +
                 "  expires " + (text(lease, "expires").empty() ? "never" : text(lease, "expires")));
}

void print_data_plane(const Env& env, const Json& s)
{
    for (const auto& wire : member(s, "wires"))
        line(env, "wire", text(wire, "name") + " (" + text(wire, "ifindex") + ")  mtu " + text(wire, "mtu"));
    for (const char* name : {"overlay", "overlay6"})
        if (const Json& overlay = member(s, name); overlay.is_object())
            line(env, "overlay",
                 text(overlay, "name") + " (" + text(overlay, "ifindex") + ")  " + text(overlay, "kind") + "  " +
                     text(overlay, "mac"));
    const Json& plane = member(s, "data_plane");
    if (!text(plane, "kind").empty())
        line(env, "data plane", text(plane, "kind") + (text(plane, "why").empty() ? "" : "  " + text(plane, "why")));
    const Json& fast = member(s, "fast_path");
    const std::string why = text(fast, "why");
    line(env, "fast path",
         std::string(flag(fast, "on") ? "on" : "off") + "  (" + text(fast, "mode") + ")" +
             (why.empty() ? "" : "  " + why));
    if (const Json& masquerade = member(s, "masquerade");
        text(masquerade, "rules") != "off" && masquerade.is_object()) {
        line(env, "masquerade",
             std::string(flag(masquerade, "on") ? "on" : "off") + "  (rules of " + text(masquerade, "rules") +
                 ")  room for " + text(masquerade, "capacity") + " flows");
        for (const auto& out : member(masquerade, "interfaces"))
            line(env, "leads out",
                 text(out, "name") + " (" + text(out, "ifindex") + ")" +
                     (text(out, "ipv4").empty() ? "" : "  " + text(out, "ipv4")) +
                     (text(out, "ipv6").empty() ? "" : "  " + text(out, "ipv6")));
    }
    for (const auto& feature : member(s, "features")) {
        const bool is_on = flag(feature, "on");
        line(env, "feature",
             text(feature, "name") + "  " + (is_on ? "on" : "off") + "  (" + text(feature, "setting") + ")" +
                 (is_on || text(feature, "effect").empty() ? "" : "  " + text(feature, "effect")));
    }
    for (const auto& attachment : member(s, "attachments"))
        line(env, "program",
             text(attachment, "program") + "  " + text(attachment, "interface") + " (" + text(attachment, "ifindex") +
                 ")  " + text(attachment, "kind"));
}

void print_contents(const Env& env, const Json& s)
{
    const Json& peers = member(s, "peers");
    line(env, "peers",
         std::to_string(number(peers, "programmed")) + " programmed, " + std::to_string(number(peers, "pending")) +
             " pending");
    for (const auto& pending : member(s, "pending"))
        line(env, "pending", text(pending, "pods") + "  node " + text(pending, "node") + ": " + text(pending, "why"));
    for (const auto& bad : member(s, "bad_leases")) line(env, "bad lease", text(bad, "key") + ": " + text(bad, "why"));
    line(env, "endpoints", std::to_string(number(s, "endpoints")));
    for (const auto& conflict : member(s, "conflicts"))
        line(env, "conflict",
             text(conflict, "ip") + " of " +
                 show_interface(env, static_cast<std::uint32_t>(number(conflict, "owner_ifindex"))) + " claimed by " +
                 show_interface(env, static_cast<std::uint32_t>(number(conflict, "claimed_by_ifindex"))) + "  " +
                 text(conflict, "count") + " times");
    const Json& warnings = member(s, "warnings");
    if (warnings.is_array())
        for (const auto& warning : warnings)
            if (warning.is_string()) line(env, "warning", warning.get<std::string>());
}

/// Degraded: it forwards, but something of the desired state is missing.
Exit health(const Json& s)
{
    if (!flag(s, "ready")) return Exit::failure;
    const Json& bad = member(s, "bad_leases");
    // Asked for, the kernel overlay is as it should be.
    const bool lacks_programs =
        text(member(s, "data_plane"), "kind") == "kernel overlay" && text(member(s, "fast_path"), "mode") != "off";
    const bool is_degraded = lacks_programs || !flag(member(s, "store"), "healthy") ||
                             number(member(s, "peers"), "pending") > 0 || (bad.is_array() && !bad.empty());
    return is_degraded ? Exit::degraded : Exit::ok;
}

Exit unreachable(const Env& env, const Error& error)
{
    if (error.code == EACCES || error.code == EPERM)
        return fail(env, Exit::unreachable, error.what + ": run as root, or join the socket's group");
    return fail(env, Exit::unreachable,
                "the agent does not answer (" + error.what +
                    ").\nTraffic goes on without it: look with twillctl drops, peers, endpoints and maps; changes "
                    "wait until twilld runs again.");
}

} // namespace

Exit cmd_status(const Env& env)
{
    const auto reply = env.api("GET", "/v1/status");
    if (!reply) return unreachable(env, reply.error());
    if (!reply->is_success())
        return fail(env, Exit::failure, "the agent answered " + std::to_string(reply->status) + " to /v1/status");
    const auto status = Json::parse(reply->body, nullptr, false);
    if (!status.is_object()) return fail(env, Exit::failure, "the agent's answer to /v1/status is no JSON object");
    if (env.options.wants_json()) {
        print_json(env, status);
        return health(status);
    }
    print_identity(env, status);
    print_data_plane(env, status);
    print_contents(env, status);
    return health(status);
}

} // namespace twill::cli
