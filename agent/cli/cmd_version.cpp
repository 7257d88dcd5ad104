// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/subcommand.hpp"

namespace twill::cli {

namespace {

/// Empty when the agent does not answer.
std::string agent_version(const Env& env)
{
    const auto reply = env.api("GET", "/v1/status");
    if (!reply || !reply->is_success()) return "";
    const auto status = Json::parse(reply->body, nullptr, false);
    if (!status.is_object() || !status.contains("version") || !status["version"].is_string()) return "";
    return status["version"].get<std::string>();
}

} // namespace

Exit cmd_version(const Env& env)
{
    const std::string agent = agent_version(env);
    if (env.options.wants_json()) {
        print_json(env, {{"twillctl", TWILL_VERSION}, {"twilld", agent.empty() ? Json() : Json(agent)}});
        return Exit::ok;
    }
    env.out << "twillctl " << TWILL_VERSION << '\n';
    env.out << "twilld   " << (agent.empty() ? "(not running)" : agent) << '\n';
    return Exit::ok;
}

} // namespace twill::cli
