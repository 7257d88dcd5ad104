// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>

#include "agent/cli/subcommand.hpp"

namespace twill::cli {

namespace {

/// The agent's answer, or without an agent what twilld says of this node alone.
Result<std::string> ask(const Env& env)
{
    const auto reply = env.api("GET", "/v1/migrate");
    if (reply && reply->is_success()) return reply->body;
    if (reply) return Error{EPROTO, "the agent answered " + std::to_string(reply->status) + " to /v1/migrate"};
    if (reply.error().code != ENOENT && reply.error().code != ECONNREFUSED) return reply.error();
    env.err << "twillctl: the agent is not running: this node is looked at by twilld -preflight, and who runs the "
               "others is for a node with an agent to say\n";
    env.err.flush();
    return env.machine.output({"twilld", "-preflight", "-bpf-root=" + env.options.bpf_root});
}

void print_nodes(const Env& env, const Json& nodes)
{
    using enum Table::Align;
    Table table({{"NODE", left}, {"RUNS", left}, {"PODS", left}, {"ADDRESS", left}, {"BACKEND", left}});
    std::size_t twill = 0;
    for (const auto& node : nodes) {
        twill += text(node, "runs") == "twill" ? 1U : 0U;
        const std::string name = text(node, "node");
        table.add({(name.empty() ? "-" : name) + (flag(node, "own") ? " (this one)" : ""), text(node, "runs"),
                   joined(member(node, "pods"), ""), joined(member(node, "public_ip"), ""), text(node, "backend")});
    }
    table.print(env.out, !env.options.no_headers);
    env.out << '\n' << twill << " of " << nodes.size() << " nodes run twill\n\n";
}

} // namespace

Exit cmd_migrate(const Env& env)
{
    const auto body = ask(env);
    if (!body) return fail(env, Exit::failure, body.error().what);
    const auto answer = Json::parse(*body, nullptr, false);
    const Json& checks = member(answer, "checks");
    if (!checks.is_array()) return fail(env, Exit::failure, "what twilld says of a take-over is not understood");
    const bool is_stopped =
        std::ranges::any_of(checks, [](const Json& check) { return text(check, "verdict") == "stop"; });
    const Exit exit = is_stopped ? Exit::degraded : Exit::ok;
    if (env.options.wants_json()) {
        print_json(env, answer);
        return exit;
    }
    if (member(answer, "nodes").is_array()) print_nodes(env, member(answer, "nodes"));
    using enum Table::Align;
    Table table({{"CHECK", left}, {"VERDICT", left}, {"WHAT", left}});
    for (const auto& check : checks) table.add({text(check, "name"), text(check, "verdict"), text(check, "text")});
    table.print(env.out, !env.options.no_headers);
    env.out << '\n'
            << (is_stopped ? "stop: mend this first; twillctl migrate status says when it is well\n"
                           : "nothing stops a take-over of this node\n");
    return exit;
}

} // namespace twill::cli
