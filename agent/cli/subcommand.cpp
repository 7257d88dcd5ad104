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

const Json& member(const Json& object, const char* key)
{
    static const Json kNull;
    if (!object.is_object()) return kNull;
    const auto found = object.find(key);
    return found == object.end() ? kNull : *found;
}

std::string text(const Json& object, const char* key)
{
    const Json& value = member(object, key);
    if (value.is_string()) return value.get<std::string>();
    return value.is_null() ? "" : value.dump();
}

bool flag(const Json& object, const char* key)
{
    const Json& value = member(object, key);
    return value.is_boolean() && value.get<bool>();
}

std::uint64_t number(const Json& object, const char* key)
{
    const Json& value = member(object, key);
    return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
}

std::string joined(const Json& list, const char* none)
{
    std::string out;
    if (list.is_array())
        for (const auto& item : list)
            if (item.is_string()) out += (out.empty() ? "" : " ") + item.get<std::string>();
    return out.empty() ? none : out;
}

Result<std::vector<Json>> ask_items(const Env& env, const std::string& path)
{
    TWILL_TRY_AS(reply, env.api("GET", path));
    const auto body = Json::parse(reply.body, nullptr, false);
    const Error strange{EPROTO, "the agent's answer to " + path + " is no list"};
    if (!reply.is_success() || !body.is_object() || !body.contains("items") || !body["items"].is_array())
        return strange;
    std::vector<Json> list;
    for (const auto& item : body["items"]) {
        if (!item.is_object()) return strange;
        list.push_back(item);
    }
    return list;
}

} // namespace twill::cli
