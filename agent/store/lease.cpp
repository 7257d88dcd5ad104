// SPDX-License-Identifier: Apache-2.0
#include "agent/store/lease.hpp"

#include <cerrno>
#include <charconv>
#include <nlohmann/json.hpp>

#include "agent/store/go_json.hpp"
#include "agent/store/lease_value.hpp"
#include "agent/store/rfc3339.hpp"

namespace twill {

namespace {

using Kind = JsonValue::Kind;
constexpr unsigned kMaxNodeBytes = 253; // RFC 1123 subdomain, the longest name of a Kubernetes node

/// "<address>-<length>" of one family, no wider than any network and no narrower than two addresses.
std::optional<Cidr> parse_key_part(std::string_view part, Family family)
{
    const auto dash = part.rfind('-');
    if (dash == part.npos) return std::nullopt;
    auto ip = Ip::parse(part.substr(0, dash));
    const auto digits = part.substr(dash + 1);
    unsigned bits = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    if (!ip || ip->family() != family || error != std::errc{} || end != digits.data() + digits.size())
        return std::nullopt;
    if (bits > (family == Family::v4 ? 31 : 127)) return std::nullopt;
    auto cidr = Cidr::make(*ip, bits);
    return cidr ? std::optional(*cidr) : std::nullopt;
}

/// The members that the file store adds to flannel's value.
struct FileFields {
    PerFamily<std::optional<Cidr>> subnet;
    std::optional<WallTime> expires;
    std::string node;
};

GoField subnet_field(std::string_view name, Family family, std::optional<Cidr>& out)
{
    return {name, [name, family, &out](const JsonValue& value) -> Result<> {
                auto cidr = Cidr::parse(value.text);
                if (!value.is(Kind::string) || !cidr || cidr->family() != family)
                    return Error{EINVAL, std::string(name) + " " + value.brief() + ": want an " +
                                             std::string(to_string(family)) + " CIDR"};
                out = *cidr;
                return Ok{};
            }};
}

Result<FileFields> file_fields(const JsonValue& object)
{
    FileFields fields;
    const auto take_expiration = [&](const JsonValue& value) -> Result<> {
        auto time = parse_rfc3339(value.text);
        if (!value.is(Kind::string) || !time)
            return Error{EINVAL, "Expiration " + value.brief() + ": want a time such as \"2030-01-31T12:00:00Z\""};
        fields.expires = std::chrono::floor<std::chrono::seconds>(*time);
        return Ok{};
    };
    const auto take_node = [&](const JsonValue& value) -> Result<> {
        if (!value.is(Kind::string) || value.text.size() > kMaxNodeBytes)
            return Error{EINVAL, "Node " + value.brief() + ": want a string of at most " +
                                     std::to_string(kMaxNodeBytes) + " bytes"};
        fields.node = value.text;
        return Ok{};
    };
    TWILL_TRY(decode_go(object, {subnet_field("Subnet", Family::v4, fields.subnet.v4),
                                 subnet_field("IPv6Subnet", Family::v6, fields.subnet.v6),
                                 {"Expiration", take_expiration},
                                 {"Node", take_node}}));
    return fields;
}

/// What a lease must hold for one family, given the pod CIDR of its key.
Result<> check_family(const Lease& lease, const std::optional<Cidr>& subnet, Family family)
{
    const bool is_v4 = family == Family::v4;
    const auto& pods = lease.pods[family];
    if (subnet && subnet != pods)
        return Error{EINVAL, std::string(is_v4 ? "Subnet " : "IPv6Subnet ") + subnet->to_string() + ": want " +
                                 (pods ? pods->to_string() : "none") + ", as in the key"};
    if (!pods) return Ok{};
    if (!lease.public_ip[family])
        return Error{EINVAL, std::string(is_v4 ? "PublicIP" : "PublicIPv6") + " absent: want an address, because " +
                                 pods->to_string() + " is in the key"};
    if (lease.backend_type == "vxlan" && !lease.vtep_mac[family])
        return Error{EINVAL, std::string(is_v4 ? "BackendData" : "BackendV6Data") +
                                 ".VtepMAC absent: want a unicast MAC address, because " + pods->to_string() +
                                 " is in the key"};
    return Ok{};
}

} // namespace

Result<LeaseKey> LeaseKey::parse(std::string_view text)
{
    const Error bad{EINVAL, "key \"" + std::string(text.substr(0, 128)) +
                                "\": want a pod CIDR such as 10.42.1.0-24, fd00:42:1::-64 or both joined by &"};
    LeaseKey key;
    const auto joint = text.find('&');
    if (joint == text.npos) {
        const Family family = text.find(':') == text.npos ? Family::v4 : Family::v6;
        key.pods[family] = parse_key_part(text, family);
        if (!key.pods[family]) return bad;
        return key;
    }
    key.pods.v4 = parse_key_part(text.substr(0, joint), Family::v4);
    key.pods.v6 = parse_key_part(text.substr(joint + 1), Family::v6);
    if (!key.pods.v4 || !key.pods.v6) return bad;
    return key;
}

std::string LeaseKey::to_string() const
{
    std::string text;
    if (pods.v4) text = pods.v4->to_key();
    if (pods.v4 && pods.v6) text += '&';
    if (pods.v6) text += pods.v6->to_key();
    return text;
}

bool LeaseKey::overlaps(const LeaseKey& other) const
{
    for (const Family family : kFamilies)
        if (pods[family] && other.pods[family] && pods[family]->overlaps(*other.pods[family])) return true;
    return false;
}

Result<Lease> parse_lease(std::string_view key, std::string_view json)
{
    TWILL_TRY_AS(parsed_key, LeaseKey::parse(key));
    if (parsed_key.to_string() != key)
        return Error{EINVAL,
                     "key \"" + std::string(key.substr(0, 128)) + "\": want it spelled " + parsed_key.to_string()};
    if (json.size() > kMaxLeaseBytes)
        return Error{EFBIG, "lease of " + std::to_string(json.size()) + " bytes: want at most " +
                                std::to_string(kMaxLeaseBytes)};
    TWILL_TRY_AS(object, parse_json(json));
    TWILL_TRY_AS(value, LeaseValue::from_json(object));
    TWILL_TRY_AS(fields, file_fields(object));

    Lease lease;
    lease.key = key;
    lease.node = std::move(fields.node);
    lease.pods = parsed_key.pods;
    lease.backend_type = std::move(value.backend_type);
    lease.expires = fields.expires;
    for (const Family family : kFamilies) {
        if (!lease.pods[family]) {
            if (fields.subnet[family]) TWILL_TRY(check_family(lease, fields.subnet[family], family));
            continue; // attributes of a family without pods are of no use to anybody
        }
        lease.public_ip[family] = value.public_ip[family];
        lease.vtep_mac[family] = value.vtep_mac[family];
        TWILL_TRY(check_family(lease, fields.subnet[family], family));
    }
    return lease;
}

std::string format_lease(const Lease& lease, Vni vni)
{
    const LeaseValue value{lease.public_ip, lease.backend_type, lease.vtep_mac, vni};
    auto json = value.to_json();
    if (lease.pods.v4) json["Subnet"] = lease.pods.v4->to_string();
    if (lease.pods.v6) json["IPv6Subnet"] = lease.pods.v6->to_string();
    if (lease.expires) json["Expiration"] = format_rfc3339(*lease.expires);
    if (!lease.node.empty()) json["Node"] = lease.node;
    return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Result<Marker> parse_marker(std::string_view json)
{
    if (json.size() > kMaxLeaseBytes) return Error{EFBIG, "marker of " + std::to_string(json.size()) + " bytes"};
    TWILL_TRY_AS(object, parse_json(json));
    if (!object.is(Kind::object)) return Error{EINVAL, "marker " + object.brief() + ": want an object"};
    Marker marker;
    for (std::size_t i = 0; i < object.keys.size(); ++i)
        if (object.keys[i] == "zeroCsum6") {
            marker.zero_csum6 = object.items[i].boolean;
        } else if (object.keys[i] == "since") {
            marker.since = object.items[i].text;
        } else if (object.keys[i] == "vtepMAC") {
            const auto mac = Mac::parse(object.items[i].text);
            if (!mac) return Error{EINVAL, "marker: vtepMAC " + object.items[i].brief() + ": want a MAC address"};
            marker.vtep_mac = *mac;
        }
    return marker;
}

std::string format_marker(const Marker& marker)
{
    nlohmann::ordered_json json;
    json["v"] = 1;
    json["zeroCsum6"] = marker.zero_csum6;
    if (marker.vtep_mac) json["vtepMAC"] = marker.vtep_mac->to_string();
    if (!marker.since.empty()) json["since"] = marker.since;
    return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

const std::optional<Mac>& marker_mac(const PerFamily<std::optional<Mac>>& vtep_mac)
{
    return vtep_mac.v6 ? vtep_mac.v6 : vtep_mac.v4;
}

std::optional<Marker> marker_of(const std::optional<Marker>& marker, const Lease& lease)
{
    if (!marker || (marker->vtep_mac && marker->vtep_mac != marker_mac(lease.vtep_mac))) return std::nullopt;
    return marker;
}

} // namespace twill
