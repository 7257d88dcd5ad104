// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_node.hpp"

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "agent/store/go_json.hpp"
#include "agent/store/rfc3339.hpp"

namespace twill {

namespace {

constexpr std::string_view kManager = "kube-subnet-manager";
constexpr std::string_view kUpReason = "FlannelIsUp";

struct FamilyNames {
    std::string data, public_ip, overwrite, node_ip;
};
const FamilyNames& names_of(Family family)
{
    static const PerFamily<FamilyNames> names{
        {"backend-data", "public-ip", "public-ip-overwrite", "node-public-ip"},
        {"backend-v6-data", "public-ipv6", "public-ipv6-overwrite", "node-public-ipv6"}};
    return names[family];
}

/// For an error: quoted, one line, cut.
std::string brief(const std::string& text)
{
    JsonValue value;
    value.kind = JsonValue::Kind::string;
    value.text = text;
    return value.brief();
}

Result<std::optional<Ip>> read_address(const KubeNode& node, const std::string& name, Family family)
{
    const auto& text = node.annotation(name);
    if (text.empty()) return std::optional<Ip>{};
    const auto ip = Ip::parse(text);
    const bool is_usable = ip && ip->family() == family &&
                           (family == Family::v4 ? (ip->network()[0] & 0xf0) != 0xe0 : ip->network()[0] != 0xff);
    if (!is_usable)
        return Error{EINVAL, "annotation " + name + " " + brief(text) + ": want a unicast " +
                                 std::string(to_string(family)) + " address"};
    return ip->is_unspecified() ? std::optional<Ip>{} : std::optional(*ip);
}

Result<Mac> read_mac(const KubeNode& node, const std::string& name)
{
    const auto& text = node.annotation(name);
    const auto fail = [&](std::string_view why) {
        return Error{EINVAL, "annotation " + name + " " + brief(text) + ": " + std::string(why)};
    };
    if (text.empty()) return Error{EINVAL, "annotation " + name + " absent: want an object with VtepMAC"};
    const auto data = parse_json(text);
    if (!data) return fail(data.error().what);
    if (!data->is(JsonValue::Kind::object)) return fail("want an object with VtepMAC");
    std::optional<Mac> mac;
    const auto take_mac = [&](const JsonValue& value) -> Result<> {
        const auto parsed = Mac::parse(value.text);
        if (!value.is(JsonValue::Kind::string) || !parsed || !parsed->is_unicast())
            return fail("VtepMAC " + value.brief() + ": want a unicast MAC address such as 0a:1b:2c:3d:4e:5f");
        mac = *parsed;
        return Ok{};
    };
    TWILL_TRY(decode_go(*data, {{"VtepMAC", take_mac}}));
    if (!mac) return fail("VtepMAC absent");
    return *mac;
}

std::string backend_data(const std::optional<Mac>& mac, Vni vni)
{
    if (!mac) return "null";
    // flannel finds VtepMAC by splitting the text: it must be the only string, and the last member.
    return R"({"VNI":)" + std::to_string(vni.value) + R"(,"VtepMAC":")" + mac->to_string() + R"("})";
}

} // namespace

Result<std::string> annotation_prefix(std::string_view text)
{
    std::string prefix(text);
    const auto slashes = std::count(prefix.begin(), prefix.end(), '/');
    const Error bad{EINVAL, "kube-annotation-prefix " + brief(prefix) +
                                ": want a domain in lower case with a dot, then at most one / and a name"};
    if (slashes > 1) return bad;
    if (slashes == 0) prefix += '/';
    if (!prefix.ends_with('/') && !prefix.ends_with('-')) prefix += '-';
    // flannel's expression is not anchored at the start: what is before the last run of these letters is not looked at.
    const auto is_letter = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    };
    const auto slash = prefix.find('/');
    const std::string_view host = std::string_view(prefix).substr(0, slash);
    const std::string_view rest = std::string_view(prefix).substr(slash + 1);
    const auto dot = host.rfind('.');
    if (dot == host.npos || dot == 0 || dot + 1 == host.size()) return bad;
    if (!std::all_of(host.begin() + static_cast<std::ptrdiff_t>(dot) + 1, host.end(), is_letter)) return bad;
    if (!is_letter(host[dot - 1])) return bad;
    if (!std::all_of(rest.begin(), rest.end(), is_letter) || rest == "-") return bad;
    return prefix;
}

const std::string& KubeNode::annotation(const std::string& wanted) const
{
    static const std::string none;
    const auto found = annotations.find(wanted);
    return found == annotations.end() ? none : found->second;
}

Result<PerFamily<std::optional<Cidr>>> node_pods(const KubeNode& node, const NetConf& conf)
{
    if (!node.trouble.empty()) return Error{EINVAL, node.trouble};
    auto texts = node.pod_cidrs;
    if (texts.empty() && !node.pod_cidr.empty()) texts.push_back(node.pod_cidr);
    if (texts.empty()) return Error{EINVAL, "spec.podCIDR absent: want a CIDR, Kubernetes assigns it"};
    if (texts.size() > 2)
        return Error{EINVAL, "spec.podCIDRs has " + std::to_string(texts.size()) + " entries: want one of each family"};
    PerFamily<std::optional<Cidr>> pods;
    for (const auto& text : texts) {
        const auto cidr = Cidr::parse(text);
        if (!cidr || cidr->bits() > (cidr->family() == Family::v4 ? 31U : 127U))
            return Error{EINVAL, "spec.podCIDRs " + brief(text) + ": want a CIDR, /31 (/127) or wider"};
        if (pods[cidr->family()])
            return Error{EINVAL, "spec.podCIDRs " + brief(text) + ": a second " +
                                     std::string(to_string(cidr->family())) + " one, want one of each family"};
        pods[cidr->family()] = *cidr;
    }
    for (const Family family : kFamilies)
        if (!conf.network[family]) pods[family].reset();
    if (!pods.v4 && !pods.v6)
        return Error{EINVAL, "spec.podCIDRs " + brief(texts.front()) + ": want one of a family of net-conf.json"};
    return pods;
}

Result<std::optional<Lease>> node_to_lease(const KubeNode& node, const NetConf& conf)
{
    if (node.annotation(std::string(kManager)) != "true") return std::optional<Lease>{};
    TWILL_TRY_AS(pods, node_pods(node, conf));
    Lease lease;
    lease.node = node.name;
    lease.backend_type = node.annotation("backend-type");
    for (const Family family : kFamilies) {
        if (!pods[family]) continue;
        const auto& names = names_of(family);
        TWILL_TRY_AS(address, read_address(node, names.public_ip, family));
        if (!address) continue;
        lease.pods[family] = pods[family];
        lease.public_ip[family] = address;
        if (lease.backend_type != "vxlan") continue;
        TWILL_TRY_AS(mac, read_mac(node, names.data));
        lease.vtep_mac[family] = mac;
    }
    if (!lease.pods.v4 && !lease.pods.v6)
        return Error{EINVAL, "annotation " + names_of(pods.v4 ? Family::v4 : Family::v6).public_ip + " " +
                                 brief(node.annotation(names_of(pods.v4 ? Family::v4 : Family::v6).public_ip)) +
                                 ": want an address, because the node has the pod CIDR " +
                                 (pods.v4 ? *pods.v4 : *pods.v6).to_string()};
    lease.key = LeaseKey{lease.pods}.to_string();
    // A marker that is none is nobody's lease lost: the node is taken for one without.
    if (const auto& text = node.annotation("twill"); !text.empty())
        if (auto marker = parse_marker(text)) lease.marker = marker_of(*std::move(marker), lease);
    // Nothing ends an annotation but another one: without MAC and time it may be of a node that went back to flannel.
    if (lease.marker &&
        (lease.marker->since != node.network_since || (lease.backend_type == "vxlan" && !lease.marker->vtep_mac)))
        lease.marker.reset();
    if (lease.marker) lease.marker->since.clear();
    return std::optional(std::move(lease));
}

PerFamily<std::optional<Mac>> node_macs(const KubeNode& node)
{
    PerFamily<std::optional<Mac>> macs;
    for (const Family family : kFamilies)
        if (auto mac = read_mac(node, names_of(family).data)) macs[family] = *mac;
    return macs;
}

Result<PerFamily<std::optional<Ip>>> node_public_ip(const KubeNode& node)
{
    PerFamily<std::optional<Ip>> ips;
    for (const Family family : kFamilies) {
        TWILL_TRY_AS(ip, read_address(node, names_of(family).node_ip, family));
        ips[family] = ip;
    }
    return ips;
}

Result<std::map<std::string, std::string>> wanted_annotations(const KubeNode& node, const LeaseRequest& request)
{
    std::map<std::string, std::string> wanted;
    const bool is_vxlan = request.backend_type == "vxlan";
    for (const Family family : kFamilies) {
        const auto& names = names_of(family);
        const auto& address = request.public_ip[family];
        // As flannel decides: IPv4 always, but for vxlan without data; IPv6 where there is some.
        if (is_vxlan ? !request.vtep_mac[family]
                     : family == Family::v6 && !(request.backend_type == "host-gw" && address))
            continue;
        TWILL_TRY(read_address(node, names.overwrite, family));
        const auto& overwrite = node.annotation(names.overwrite);
        wanted[names.data] = backend_data(request.vtep_mac[family], request.vni);
        if (!overwrite.empty())
            wanted[names.public_ip] = overwrite;
        else
            wanted[names.public_ip] = address.value_or(family == Family::v4 ? Ip::v4(0, 0, 0, 0) : Ip{}).to_string();
    }
    wanted["backend-type"] = request.backend_type;
    wanted[std::string(kManager)] = "true";
    auto said = request.marker;
    said.since = node.network_since;
    auto marker = format_marker(said);
    if (marker.ends_with('\n')) marker.pop_back();
    wanted["twill"] = marker;
    return wanted;
}

std::optional<std::string> annotation_patch(const KubeNode& node, const std::map<std::string, std::string>& wanted,
                                            std::string_view prefix)
{
    nlohmann::json annotations = nlohmann::json::object(); // sorted by name, as Go writes maps
    for (const auto& [name, value] : wanted) {
        const auto there = node.annotations.find(name);
        if (there == node.annotations.end() || there->second != value) annotations[std::string(prefix) + name] = value;
    }
    if (annotations.empty()) return std::nullopt;
    nlohmann::json patch;
    patch["metadata"]["annotations"] = std::move(annotations);
    return patch.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string announce_patch(WallTime now)
{
    const std::string time = format_rfc3339(now);
    return R"({"status":{"conditions":[{"type":"NetworkUnavailable","status":"False","lastHeartbeatTime":")" + time +
           R"(","lastTransitionTime":")" + time + R"(","reason":")" + std::string(kUpReason) +
           R"(","message":"Flannel is running on this node"}]}})";
}

} // namespace twill
