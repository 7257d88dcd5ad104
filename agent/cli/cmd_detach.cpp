// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstring>

#include "agent/cli/subcommand.hpp"
#include "maps/abi/limits.h"

namespace twill::cli {

namespace {

constexpr std::string_view kQuestion =
    "Take twill's data plane of this node away? Its pods lose their connections to other nodes.";

bool is_unreachable(const Error& error) { return error.code == ENOENT || error.code == ECONNREFUSED; }

/// What detach would take away, as far as it can be seen without the agent.
Exit dry_run(const Env& env)
{
    const std::string root = env.options.bpf_root + "/v" + std::to_string(TW_SCHEMA);
    Json list = Json::array();
    for (const char* kind : {"/links", "/maps"}) {
        const std::string dir = root + kind;
        for (const auto& name : env.machine.list_dir(dir))
            list.push_back({{"kind", "pin"}, {"name", std::string(dir).append("/").append(name)}});
    }
    if (!env.machine.list_dir("/sys/class/net/" + env.options.overlay_name).empty())
        list.push_back({{"kind", "device"}, {"name", env.options.overlay_name}});
    if (env.options.wants_json()) {
        print_json(env, items(std::move(list)));
        return Exit::ok;
    }
    if (list.empty()) env.err << "twillctl: nothing to take away\n";
    for (const auto& item : list)
        env.out << item["kind"].get<std::string>() << "  " << item["name"].get<std::string>() << '\n';
    return Exit::ok;
}

/// The agent's own words: `detail` of a problem, the lines of `removed` of a success.
Exit show(const Env& env, const HttpReply& reply)
{
    const auto body = Json::parse(reply.body, nullptr, false);
    const bool is_object = body.is_object();
    if (!reply.is_success()) {
        const bool has_detail = is_object && body.contains("detail") && body["detail"].is_string();
        return fail(env, Exit::failure,
                    "detach: " + (has_detail ? body["detail"].get<std::string>()
                                             : "the agent answered " + std::to_string(reply.status)));
    }
    if (env.options.wants_json()) {
        print_json(env, is_object ? body : Json::object());
        return Exit::ok;
    }
    if (is_object && body.contains("removed") && body["removed"].is_array())
        for (const auto& item : body["removed"])
            if (item.is_string()) env.out << "removed " << item.get<std::string>() << '\n';
    env.out << "detached\n";
    const auto number = [&](const char* what, const char* of) {
        if (!is_object || !body.contains(what) || !body[what].contains(of)) return std::string();
        return body[what][of].dump();
    };
    if (const auto flows = number("draining", "flows"); !flows.empty())
        env.out << flows << " masqueraded flows go on for at most " << number("draining", "seconds")
                << " s; twillctl detach --now ends them\n";
    if (const auto flows = number("ended", "flows"); !flows.empty())
        env.out << flows << " masqueraded flows have ended\n";
    return Exit::ok;
}

/// Without an agent, twilld itself does it and ends.
Exit exec_twilld(const Env& env)
{
    env.err << "twillctl: the agent is not running: twilld -detach does it\n";
    env.out.flush();
    env.err.flush();
    const int code = env.machine.exec({"twilld", "-detach", "-bpf-root=" + env.options.bpf_root,
                                       "-overlay-name=" + env.options.overlay_name, "-socket=" + env.options.socket});
    if (code == 0) return Exit::ok;
    return fail(env, Exit::failure, std::string("twilld: ") + std::strerror(code));
}

} // namespace

Exit cmd_detach(const Env& env)
{
    if (env.options.dry_run) return dry_run(env);
    if (!env.options.yes) {
        const auto answer = env.machine.confirm(std::string(kQuestion));
        if (!answer) return fail(env, Exit::usage, "detach needs --yes when there is no terminal to ask on");
        if (!*answer) return fail(env, Exit::failure, "nothing was changed");
    }
    const auto reply = env.api("POST", env.options.now ? "/v1/detach/now" : "/v1/detach");
    if (reply) return show(env, *reply);
    if (is_unreachable(reply.error())) return exec_twilld(env);
    return fail(env, Exit::failure, reply.error().what);
}

} // namespace twill::cli
