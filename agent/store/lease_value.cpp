// SPDX-License-Identifier: Apache-2.0
#include "agent/store/lease_value.hpp"

#include <cerrno>
#include <nlohmann/json.hpp>

namespace twill {

namespace {

using Kind = JsonValue::Kind;

Error bad(std::string_view field, const JsonValue& value, std::string_view allowed)
{
    return Error{EINVAL, std::string(field) + " " + value.brief() + ": want " + std::string(allowed)};
}

/// IPv4: 224.0.0.0/4; IPv6: ff00::/8.
bool is_multicast(const Ip& ip) { return ip.is_v4() ? (ip.network()[0] & 0xf0) == 0xe0 : ip.network()[0] == 0xff; }

GoField address_field(std::string_view name, Family family, std::optional<Ip>& out)
{
    return {name, [name, family, &out](const JsonValue& value) -> Result<> {
                auto ip = Ip::parse(value.text);
                if (!value.is(Kind::string) || !ip || ip->family() != family || is_multicast(*ip))
                    return bad(name, value, "a unicast " + std::string(to_string(family)) + " address");
                out = ip->is_unspecified() ? std::nullopt : std::optional(*ip);
                return Ok{};
            }};
}

/// BackendData of type vxlan.
Result<> read_vxlan(std::string_view field, const JsonValue& data, std::optional<Mac>& mac, Vni& vni)
{
    if (!data.is(Kind::object)) return bad(field, data, "an object with VtepMAC");
    const std::string mac_field = std::string(field) + ".VtepMAC";
    const auto take_mac = [&](const JsonValue& value) -> Result<> {
        auto parsed = Mac::parse(value.text);
        if (!value.is(Kind::string) || !parsed || !parsed->is_unicast())
            return bad(mac_field, value, "a unicast MAC address such as 0a:1b:2c:3d:4e:5f");
        mac = *parsed;
        return Ok{};
    };
    const auto take_vni = [&](const JsonValue& value) -> Result<> {
        if (!value.is(Kind::integer) || value.integer < 0 || value.integer > Vni::kMax)
            return bad(std::string(field) + ".VNI", value, "0.." + std::to_string(Vni::kMax));
        vni.value = static_cast<std::uint32_t>(value.integer);
        return Ok{};
    };
    TWILL_TRY(decode_go(data, {{"VNI", take_vni}, {"VtepMAC", take_mac}}));
    if (!mac) return Error{EINVAL, mac_field + " absent: want a unicast MAC address"};
    return Ok{};
}

} // namespace

Result<LeaseValue> LeaseValue::from_json(const JsonValue& object)
{
    if (!object.is(Kind::object)) return bad("lease", object, "an object");
    LeaseValue value;
    PerFamily<const JsonValue*> data;
    const auto take_type = [&](const JsonValue& type) -> Result<> {
        if (!type.is(Kind::string)) return bad("BackendType", type, "a string");
        value.backend_type = type.text;
        return Ok{};
    };
    const auto keep = [](const JsonValue*& place) {
        return [&place](const JsonValue& raw) -> Result<> {
            place = &raw;
            return Ok{};
        };
    };
    TWILL_TRY(decode_go(object, {address_field("PublicIP", Family::v4, value.public_ip.v4),
                                 address_field("PublicIPv6", Family::v6, value.public_ip.v6),
                                 {"BackendType", take_type},
                                 {"BackendData", keep(data.v4)},
                                 {"BackendV6Data", keep(data.v6)}}));
    // Data of a backend that twill does not speak may have any shape.
    if (value.backend_type != "vxlan") return value;
    if (data.v4 != nullptr) TWILL_TRY(read_vxlan("BackendData", *data.v4, value.vtep_mac.v4, value.vni));
    if (data.v6 != nullptr) TWILL_TRY(read_vxlan("BackendV6Data", *data.v6, value.vtep_mac.v6, value.vni));
    return value;
}

nlohmann::ordered_json LeaseValue::to_json() const
{
    nlohmann::ordered_json json;
    json["PublicIP"] = public_ip.v4.value_or(Ip::v4(0, 0, 0, 0)).to_string();
    json["PublicIPv6"] = nullptr;
    if (public_ip.v6) json["PublicIPv6"] = public_ip.v6->to_string();
    if (!backend_type.empty()) json["BackendType"] = backend_type;
    for (const Family family : kFamilies) {
        if (!vtep_mac[family]) continue;
        // flannel finds VtepMAC by splitting the text: it must be the only string, and the last member.
        auto& data = json[family == Family::v4 ? "BackendData" : "BackendV6Data"];
        data["VNI"] = vni.value;
        data["VtepMAC"] = vtep_mac[family]->to_string();
    }
    return json;
}

} // namespace twill
