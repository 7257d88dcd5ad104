// SPDX-License-Identifier: Apache-2.0
#include <cerrno>

#include "agent/store/go_json.hpp"
#include "agent/store/kube_node.hpp"

namespace twill {

namespace {

using Kind = JsonValue::Kind;
using Take = SieveRule::Take;
constexpr std::size_t kMaxTimeBytes = 64;

/// The last member of that name, as Go and the API server take it; nullptr: none, or `object` is no object.
const JsonValue* member(const JsonValue* object, std::string_view name)
{
    if (object == nullptr || !object->is(Kind::object)) return nullptr;
    for (std::size_t i = object->keys.size(); i-- > 0;)
        if (object->keys[i] == name) return object->items[i].is(Kind::null) ? nullptr : &object->items[i];
    return nullptr;
}

Result<std::string> text_of(const JsonValue* object, std::string_view name)
{
    const auto* value = member(object, name);
    if (value == nullptr) return std::string{};
    if (!value->is(Kind::string)) return Error{EINVAL, std::string(name) + " " + value->brief() + ": want a string"};
    return value->text;
}

Result<> read_spec(const JsonValue* spec, KubeNode& node)
{
    TWILL_TRY_AS(pod_cidr, text_of(spec, "podCIDR"));
    node.pod_cidr = std::move(pod_cidr);
    const auto* cidrs = member(spec, "podCIDRs");
    if (cidrs == nullptr) return Ok{};
    if (!cidrs->is(Kind::array)) return Error{EINVAL, "podCIDRs " + cidrs->brief() + ": want an array"};
    for (const auto& cidr : cidrs->items) {
        if (!cidr.is(Kind::string)) return Error{EINVAL, "podCIDRs: " + cidr.brief() + ": want a string"};
        node.pod_cidrs.push_back(cidr.text);
    }
    return Ok{};
}

Result<KubeNode> node_of(const JsonValue* object, std::string_view prefix)
{
    KubeNode node;
    const auto* metadata = member(object, "metadata");
    TWILL_TRY_AS(name, text_of(metadata, "name"));
    TWILL_TRY_AS(version, text_of(metadata, "resourceVersion"));
    node.name = std::move(name);
    node.resource_version = std::move(version);
    if (auto spec = read_spec(member(object, "spec"), node); !spec) node.trouble = spec.error().what;
    if (const auto* all = member(metadata, "annotations"); all != nullptr && all->is(Kind::object))
        for (std::size_t i = 0; i < all->keys.size(); ++i)
            if (all->keys[i].starts_with(prefix) && all->items[i].is(Kind::string))
                node.annotations[all->keys[i].substr(prefix.size())] = all->items[i].text;
    if (const auto* conditions = member(member(object, "status"), "conditions"); conditions != nullptr)
        for (const auto& condition : conditions->items) {
            const auto is = [&](std::string_view field, std::string_view wanted) {
                const auto* value = member(&condition, field);
                return value != nullptr && value->is(Kind::string) && value->text == wanted;
            };
            if (!is("type", "NetworkUnavailable")) continue;
            node.is_network_announced = is("status", "False") && is("reason", "FlannelIsUp");
            const auto* since = member(&condition, "lastTransitionTime");
            node.network_since = since != nullptr ? since->text.substr(0, kMaxTimeBytes) : "";
        }
    return node;
}

KubeStatus status_of(const JsonValue* object)
{
    KubeStatus status;
    if (const auto* code = member(object, "code"); code != nullptr && code->is(Kind::integer))
        status.code = code->integer > 0 && code->integer < 1000 ? static_cast<int>(code->integer) : 0;
    const auto line = [&](std::string_view name) {
        const auto* value = member(object, name);
        std::string text = value != nullptr && value->is(Kind::string) ? value->text.substr(0, 200) : "";
        for (char& c : text)
            if (static_cast<unsigned char>(c) < 0x20) c = ' ';
        return text;
    };
    status.reason = line("reason");
    status.message = line("message");
    return status;
}

} // namespace

std::vector<SieveRule> node_rules(const std::string& prefix)
{
    const SieveRule metadata{
        "metadata", Take::part, {{"name"}, {"resourceVersion"}, {"annotations", Take::part, {{prefix + "*"}}}}};
    return {metadata, {"spec", Take::part, {{"podCIDR"}, {"podCIDRs"}}}, {"status", Take::part, {{"conditions"}}}};
}

std::vector<SieveRule> node_list_rules(const std::string& prefix)
{
    return {{"kind"},
            {"metadata", Take::part, {{"resourceVersion"}, {"continue"}}},
            {"items", Take::each, node_rules(prefix)}};
}

std::vector<SieveRule> node_event_rules(const std::string& prefix)
{
    auto object = node_rules(prefix);
    for (const auto* name : {"kind", "code", "reason", "message"}) object.push_back({name});
    return {{"type"}, {"object", Take::part, std::move(object)}};
}

Result<KubeNode> parse_node(std::string_view json, std::string_view prefix)
{
    TWILL_TRY_AS(object, parse_json(json));
    TWILL_TRY_AS(node, node_of(&object, prefix));
    if (node.name.empty()) return Error{EINVAL, "metadata.name absent: want the name of a node"};
    return node;
}

Result<KubeEnvelope> parse_list_end(std::string_view json)
{
    TWILL_TRY_AS(object, parse_json(json));
    const auto kind = text_of(&object, "kind");
    if (!kind || *kind != "NodeList") return Error{EINVAL, "kind " + (kind ? *kind : "?") + ": want NodeList"};
    KubeEnvelope list;
    TWILL_TRY_AS(version, text_of(member(&object, "metadata"), "resourceVersion"));
    TWILL_TRY_AS(next, text_of(member(&object, "metadata"), "continue"));
    if (version.empty()) return Error{EINVAL, "metadata.resourceVersion absent: want one to watch from"};
    list.resource_version = std::move(version);
    list.next_page = std::move(next);
    return list;
}

Result<KubeEnvelope> parse_event(std::string_view json, std::string_view prefix)
{
    TWILL_TRY_AS(line, parse_json(json));
    KubeEnvelope event;
    TWILL_TRY_AS(type, text_of(&line, "type"));
    event.type = std::move(type);
    const auto* object = member(&line, "object");
    if (event.type == "ERROR") {
        event.status = status_of(object);
        return event;
    }
    TWILL_TRY_AS(node, node_of(object, prefix));
    if (node.name.empty() && event.type != "BOOKMARK")
        return Error{EINVAL, "event " + event.type.substr(0, 32) + " without metadata.name"};
    event.node = std::move(node);
    return event;
}

KubeStatus parse_status(std::string_view json)
{
    const auto object = parse_json(json);
    return object ? status_of(&*object) : KubeStatus{};
}

Result<std::string> parse_pod_node(std::string_view json)
{
    TWILL_TRY_AS(object, parse_json(json));
    TWILL_TRY_AS(name, text_of(member(&object, "spec"), "nodeName"));
    if (name.empty()) return Error{EINVAL, "spec.nodeName absent: the pod is on no node yet"};
    return name;
}

} // namespace twill
