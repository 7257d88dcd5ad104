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

std::string Item::text(const char* key) const
{
    const auto found = object_.find(key);
    return found != object_.end() && found->is_string() ? found->get<std::string>() : "";
}

std::uint32_t Item::number(const char* key) const
{
    const auto found = object_.find(key);
    return found != object_.end() && found->is_number_unsigned() ? found->get<std::uint32_t>() : 0;
}

bool Item::flag(const char* key) const
{
    const auto found = object_.find(key);
    return found != object_.end() && found->is_boolean() && found->get<bool>();
}

Result<std::vector<Item>> ask_items(const Env& env, const std::string& path)
{
    TWILL_TRY_AS(reply, env.api("GET", path));
    const auto body = Json::parse(reply.body, nullptr, false);
    const Error strange{EPROTO, "the agent's answer to " + path + " is no list"};
    if (!reply.is_success() || !body.is_object() || !body.contains("items") || !body["items"].is_array())
        return strange;
    std::vector<Item> list;
    for (const auto& item : body["items"]) {
        if (!item.is_object()) return strange;
        list.emplace_back(item);
    }
    return list;
}

} // namespace twill::cli
