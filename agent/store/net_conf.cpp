// SPDX-License-Identifier: Apache-2.0
#include "agent/store/net_conf.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "agent/store/go_json.hpp"

namespace twill {

namespace {

using Kind = JsonValue::Kind;

/// One family as written; unset where the text says nothing.
struct RawFamily {
    bool is_on = false;
    std::optional<Cidr> network;
    std::uint64_t subnet_len = 0;
    std::optional<Ip> subnet_min;
    std::optional<Ip> subnet_max;
};

/// What differs between the families in flannel's checks.
struct FamilyRules {
    std::string_view network, len, min, max; ///< names of the keys
    unsigned longest_len;                    ///< leaves room for a tunnel and a bridge device
    unsigned longest_network;                ///< when no length is given
    unsigned default_len;
};
constexpr FamilyRules kRulesV4{"Network", "SubnetLen", "SubnetMin", "SubnetMax", 30, 28, 24};
constexpr FamilyRules kRulesV6{"IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax", 126, 124, 64};
const FamilyRules& rules_of(Family family) { return family == Family::v4 ? kRulesV4 : kRulesV6; }

constexpr std::uint16_t kFlannelPort = 8472;
constexpr unsigned kMinMtuV4 = 576;       // RFC 791: every host takes it
constexpr unsigned kMinMtuV6 = 1280 + 70; // RFC 8200 5, and VXLAN over IPv6 around it

constexpr std::string_view kBackendExample = R"({"Type":"vxlan"})";
constexpr std::string_view kBackendTypes = "want vxlan, host-gw or alloc";

std::string cidr_example(Family family)
{
    return family == Family::v4 ? "an IPv4 CIDR such as \"10.42.0.0/16\"" : "an IPv6 CIDR such as \"fd00:42::/48\"";
}

/// A name from the file: as it is if that reads well, else quoted and cut.
std::string shown_name(const std::string& name)
{
    const bool is_plain =
        !name.empty() && name.size() < 32 &&
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == name.npos;
    return is_plain ? name : JsonValue{.kind = Kind::string, .text = name}.brief();
}

/// Makes fields and errors of one file.
class Reader {
public:
    explicit Reader(std::string_view origin) : origin_(origin) {}

    Error bad(std::string_view key, const std::string& value, const std::string& allowed) const
    {
        return Error{EINVAL, origin_ + ": " + std::string(key) + " " + value + ": " + allowed};
    }
    GoField boolean(std::string_view name, std::string key, bool& out) const
    {
        return {name, [this, key = std::move(key), &out](const JsonValue& value) -> Result<> {
                    if (!value.is(Kind::boolean)) return bad(key, value.brief(), "want true or false" + bare(value));
                    out = value.boolean;
                    return Ok{};
                }};
    }
    template <typename T>
    GoField number(std::string_view name, std::string key, std::int64_t least, std::int64_t most, T& out,
                   std::string_view why = {}) const
    {
        return {name, [this, key = std::move(key), least, most, &out, why](const JsonValue& value) -> Result<> {
                    if (!value.is(Kind::integer) || value.integer < least || value.integer > most)
                        return bad(key, value.brief(),
                                   "want a whole number from " + std::to_string(least) + " to " + std::to_string(most) +
                                       std::string(why) + bare(value));
                    out = static_cast<T>(value.integer);
                    return Ok{};
                }};
    }
    GoField cidr(std::string_view name, Family family, std::optional<Cidr>& out) const
    {
        return {name, [this, name, family, &out](const JsonValue& value) -> Result<> {
                    auto parsed = Cidr::parse(value.text);
                    if (!value.is(Kind::string) || !parsed || parsed->family() != family)
                        return bad(name, value.brief(), "want " + cidr_example(family));
                    out = *parsed;
                    return Ok{};
                }};
    }
    GoField address(std::string_view name, Family family, std::optional<Ip>& out) const
    {
        return {name, [this, name, family, &out](const JsonValue& value) -> Result<> {
                    auto parsed = Ip::parse(value.text);
                    if (!value.is(Kind::string) || !parsed || parsed->family() != family)
                        return bad(name, value.brief(),
                                   "want an " + std::string(to_string(family)) + " address without length, such as " +
                                       (family == Family::v4 ? "\"10.42.1.0\"" : "\"fd00:42:0:1::\""));
                    out = parsed->is_unspecified() ? std::nullopt : std::optional(*parsed);
                    return Ok{};
                }};
    }
    GoField object(std::string_view name, std::string_view example, const JsonValue*& out) const
    {
        return {name, [this, name, example, &out](const JsonValue& value) -> Result<> {
                    if (!value.is(Kind::object))
                        return bad(name, value.brief(), "want an object such as " + std::string(example));
                    out = &value;
                    return Ok{};
                }};
    }

private:
    /// For the most frequent mistake with numbers and booleans.
    static std::string bare(const JsonValue& value) { return value.is(Kind::string) ? ", without quotes" : ""; }

    std::string origin_;
};

/// flannel's rule for the length that each node gets.
Result<unsigned> subnet_len(const Reader& reader, const RawFamily& raw, const FamilyRules& rules)
{
    const unsigned network_bits = raw.network->bits();
    if (network_bits > rules.longest_network)
        return reader.bad(rules.network, raw.network->to_string(),
                          "want /" + std::to_string(rules.longest_network) +
                              " or wider (a smaller number), all nodes share it");
    if (const auto len = raw.subnet_len; len != 0) {
        if (len > rules.longest_len || len < network_bits + 2)
            return reader.bad(rules.len, std::to_string(len),
                              "want a length from " + std::to_string(network_bits + 2) + " (2 more than " +
                                  std::string(rules.network) + " " + raw.network->to_string() + ") to " +
                                  std::to_string(rules.longest_len));
        return static_cast<unsigned>(len);
    }
    return network_bits + 2 <= rules.default_len ? rules.default_len : network_bits + 2;
}

/// One end of the range: as given, or `fallback`.
Result<Cidr> range_end(const Reader& reader, std::string_view key, const std::optional<Ip>& given, const Cidr& fallback,
                       const Cidr& network)
{
    if (!given) return fallback;
    TWILL_TRY_AS(subnet, Cidr::make(*given, fallback.bits()));
    if (!network.contains(*given) || subnet.address() != *given)
        return reader.bad(key, given->to_string(),
                          "want the first address of a /" + std::to_string(fallback.bits()) +
                              " (what one node gets) inside the network " + network.to_string());
    return subnet;
}

Result<NetworkConf> check_family(const Reader& reader, const RawFamily& raw, Family family, Subnets subnets)
{
    const FamilyRules& rules = rules_of(family);
    if (!raw.network)
        return reader.bad(rules.network, "absent",
                          "want " + cidr_example(family) + ", or Enable" + std::string(to_string(family)) + " false");
    NetworkConf conf;
    conf.network = *raw.network;
    if (subnets == Subnets::given) return conf;
    TWILL_TRY_AS(len, subnet_len(reader, raw, rules));
    conf.subnet_len = len;
    // The first subnet is left out: its first address would be the network's own.
    TWILL_TRY_AS(first, Cidr::make(conf.network.address(), len));
    TWILL_TRY_AS(last, Cidr::make(conf.network.last(), len));
    TWILL_TRY_AS(min, range_end(reader, rules.min, raw.subnet_min, first.next(), conf.network));
    TWILL_TRY_AS(max, range_end(reader, rules.max, raw.subnet_max, last, conf.network));
    if (max.address() < min.address())
        return reader.bad(rules.max, max.address().to_string(),
                          "want " + min.address().to_string() + " (" + std::string(rules.min) + ") or later");
    conf.subnet_min = min;
    conf.subnet_max = max;
    return conf;
}

Result<Backend> backend_type(const Reader& reader, const JsonValue* backend)
{
    const std::string allowed(kBackendTypes);
    if (backend == nullptr)
        return reader.bad("Backend", "absent",
                          "want an object such as " + std::string(kBackendExample) +
                              "; without it flannel takes udp, which is not supported");
    std::optional<std::string> written;
    TWILL_TRY(decode_go(*backend, {{"Type", [&](const JsonValue& value) -> Result<> {
                                        if (!value.is(Kind::string))
                                            return reader.bad("Backend.Type", value.brief(), allowed + ", in quotes");
                                        written = value.text;
                                        return Ok{};
                                    }}}));
    if (!written) return reader.bad("Backend.Type", "absent", allowed);
    std::string type = *written;
    std::transform(type.begin(), type.end(), type.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; });
    for (const Backend known : {Backend::vxlan, Backend::host_gw, Backend::alloc})
        if (type == to_string(known)) return known;
    return reader.bad("Backend.Type", shown_name(*written), "not supported; " + allowed);
}

Result<> read_vxlan(const Reader& reader, const JsonValue& backend, NetConf& conf)
{
    const unsigned min_mtu = conf.network.v6 ? kMinMtuV6 : kMinMtuV4;
    const std::string_view why_mtu = conf.network.v6 ? " (IPv6 needs 1280, VXLAN 70 around it)" : "";
    unsigned mtu = 0;
    TWILL_TRY(decode_go(backend, {reader.number("VNI", "Backend.VNI", 0, Vni::kMax, conf.vni.value),
                                  reader.number("Port", "Backend.Port", 0, 65535, conf.port),
                                  reader.number("MTU", "Backend.MTU", min_mtu, 65535, mtu, why_mtu),
                                  reader.boolean("GBP", "Backend.GBP", conf.gbp),
                                  reader.boolean("Learning", "Backend.Learning", conf.learning),
                                  reader.boolean("DirectRouting", "Backend.DirectRouting", conf.direct_routing)}));
    if (mtu != 0) conf.mtu = mtu;
    if (conf.port == 0) conf.port = kFlannelPort;
    return Ok{};
}

std::string joined(const std::vector<std::string_view>& words)
{
    std::string text;
    for (const auto word : words) text += (text.empty() ? "" : ", ") + std::string(word);
    return text;
}

/// Keys of `Twill` that may be lists of strings.
constexpr std::array<std::string_view, 2> kListKeys = {"masqPorts", "nonMasqueradeCIDRs"};

/// Strings as a flag's comma list.
std::optional<std::string> list_text(const JsonValue& value)
{
    std::string text;
    for (const auto& item : value.items) {
        if (!item.is(Kind::string)) return std::nullopt;
        text += (text.empty() ? "" : ",") + item.text;
    }
    return text;
}

/// A scalar as a flag's value; nullopt for anything else.
std::optional<std::string> flag_text(const JsonValue& value)
{
    switch (value.kind) {
    case Kind::string:
        return value.text;
    case Kind::boolean:
    case Kind::integer:
    case Kind::real:
        return value.brief();
    default:
        return std::nullopt;
    }
}

Result<> read_twill(const Reader& reader, const JsonValue& object, const std::vector<std::string_view>& keys,
                    std::map<std::string, std::string>& out, const std::string& prefix)
{
    for (std::size_t i = 0; i < object.keys.size(); ++i) {
        const std::string name = prefix + object.keys[i];
        const JsonValue& value = object.items[i];
        const bool is_top = prefix.empty();
        if (is_top && std::find(keys.begin(), keys.end(), name) == keys.end()) {
            return reader.bad("Twill." + shown_name(name), value.brief(), "unknown key; want one of " + joined(keys));
        }
        if (value.is(Kind::null)) continue;
        if (is_top && name == "feature") {
            if (!value.is(Kind::object))
                return reader.bad("Twill.feature", value.brief(), "want an object such as {\"tcx\":\"off\"}");
            TWILL_TRY(read_twill(reader, value, keys, out, "feature."));
            continue;
        }
        const bool is_list = is_top && value.is(Kind::array) && std::ranges::count(kListKeys, name) != 0;
        const auto text = is_list ? list_text(value) : flag_text(value);
        if (!text) {
            return reader.bad("Twill." + shown_name(name), value.brief(), "want one value such as \"off\"");
        }
        out.insert_or_assign(name, *text);
    }
    return Ok{};
}

} // namespace

std::string_view to_string(Backend backend)
{
    switch (backend) {
    case Backend::vxlan:
        return "vxlan";
    case Backend::host_gw:
        return "host-gw";
    case Backend::alloc:
        return "alloc";
    }
    return {};
}

PerFamily<std::optional<Cidr>> NetConf::networks() const
{
    PerFamily<std::optional<Cidr>> all;
    for (const auto family : kFamilies)
        if (network[family]) all[family] = network[family]->network;
    return all;
}

Result<NetConf> NetConf::parse(std::string_view text, std::string_view origin,
                               const std::vector<std::string_view>& twill_keys, Subnets subnets)
{
    auto root = parse_json(text);
    if (!root) return Error{EINVAL, std::string(origin) + ": " + root.error().what};
    const Reader reader(origin);
    if (!root->is(Kind::object))
        return reader.bad("the whole text", root->brief(),
                          R"(want an object such as {"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}})");

    NetConf conf;
    PerFamily<RawFamily> raw;
    raw.v4.is_on = true;
    const JsonValue* backend = nullptr;
    const JsonValue* twill = nullptr;
    std::vector<GoField> fields = {reader.boolean("EnableIPv4", "EnableIPv4", raw.v4.is_on),
                                   reader.boolean("EnableIPv6", "EnableIPv6", raw.v6.is_on),
                                   reader.boolean("EnableNFTables", "EnableNFTables", conf.enable_nftables),
                                   reader.object("Backend", kBackendExample, backend),
                                   reader.object("Twill", R"({"overlay":"veth"})", twill)};
    for (const Family family : kFamilies) {
        const FamilyRules& rules = rules_of(family);
        RawFamily& into = raw[family];
        fields.push_back(reader.cidr(rules.network, family, into.network));
        const std::int64_t most =
            subnets == Subnets::given ? std::numeric_limits<std::int64_t>::max() : rules.longest_len;
        fields.push_back(reader.number(rules.len, std::string(rules.len), 0, most, into.subnet_len));
        fields.push_back(reader.address(rules.min, family, into.subnet_min));
        fields.push_back(reader.address(rules.max, family, into.subnet_max));
    }
    TWILL_TRY(decode_go(*root, fields));

    if (!raw.v4.is_on && !raw.v6.is_on)
        return reader.bad("EnableIPv4", "false", "want true, or EnableIPv6 true: no family is on");
    for (const Family family : kFamilies) {
        if (!raw[family].is_on) continue;
        TWILL_TRY_AS(network, check_family(reader, raw[family], family, subnets));
        conf.network[family] = network;
    }
    TWILL_TRY_AS(type, backend_type(reader, backend));
    conf.backend = type;
    if (type == Backend::vxlan) TWILL_TRY(read_vxlan(reader, *backend, conf));
    if (twill != nullptr) TWILL_TRY(read_twill(reader, *twill, twill_keys, conf.twill, ""));
    return conf;
}

} // namespace twill
