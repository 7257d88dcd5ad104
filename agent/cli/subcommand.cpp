// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/subcommand.hpp"

#include <cerrno>

namespace twill::cli {

Exit fail(const Env& env, Exit exit, std::string_view what)
{
    env.err << "twillctl: " << what << '\n';
    return exit;
}

Exit fail_map(const Env& env, const Error& error)
{
    return fail(env, error.code == ENOENT ? Exit::not_found : Exit::failure, error.what);
}

void print_json(const Env& env, const Json& value)
{
    env.out << value.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
}

std::string show_interface(const Env& env, std::uint32_t ifindex)
{
    if (ifindex == 0) return "-";
    const std::string name = env.machine.interface_name(ifindex);
    return (name.empty() ? "" : name + " ") + "(" + std::to_string(ifindex) + ")";
}

Json items(Json list)
{
    if (list.is_null()) list = Json::array();
    return {{"items", std::move(list)}};
}

} // namespace twill::cli
