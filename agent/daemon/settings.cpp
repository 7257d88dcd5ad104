// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/settings.hpp"

#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <limits>
#include <optional>
#include <system_error>
#include <utility>

#include "maps/abi/limits.h"

namespace twill {

namespace {

template <typename T, std::size_t N>
using Choices = std::array<std::pair<std::string_view, T>, N>;

constexpr Choices<OverlayKind, 2> kOverlays = {{{"vxlan", OverlayKind::vxlan}, {"veth", OverlayKind::veth}}};
constexpr Choices<FastPath, 4> kFastPaths = {
    {{"auto", FastPath::automatic}, {"on", FastPath::on}, {"off", FastPath::off}, {"required", FastPath::required}}};
constexpr Choices<AntiSpoof, 3> kAntiSpoofs = {
    {{"loose", AntiSpoof::loose}, {"strict", AntiSpoof::strict}, {"off", AntiSpoof::off}}};
constexpr Choices<FeatureSetting, 3> kFeatureSettings = {
    {{"auto", FeatureSetting::automatic}, {"on", FeatureSetting::on}, {"off", FeatureSetting::off}}};
constexpr Choices<log::Format, 3> kLogFormats = {
    {{"auto", log::Format::automatic}, {"text", log::Format::text}, {"json", log::Format::json}}};

/// -nat-max: 300 bytes each.
constexpr std::int64_t kNatMaxLeast = 1024;
constexpr std::int64_t kNatMaxMost = 4'000'000;

constexpr std::array<std::string_view, 4> kFeatures = {"tcx", "ct_lookup", "encap_l2_eth", "check_mtu"};

/// Keys of `Twill` in net-conf.json beside the flags that they set; "feature" is an object and read apart.
constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kNetConfKeys = {
    {{"overlay", "overlay"},
     {"overlayName", "overlay-name"},
     {"fastPath", "fast-path"},
     {"antiSpoof", "anti-spoof"},
     {"masqPorts", "masq-ports"},
     {"natMax", "nat-max"},
     {"nonMasqueradeCIDRs", "non-masquerade-cidrs"},
     {"feature", "feature"}}};

template <typename T, std::size_t N>
std::string_view name_of(const Choices<T, N>& choices, T value)
{
    for (const auto& [name, choice] : choices)
        if (choice == value) return name;
    return "";
}

template <typename Names>
std::string joined(const Names& names)
{
    std::string out;
    for (const auto& name : names) out += (out.empty() ? "" : ", ") + std::string(name);
    return out;
}

template <typename T, std::size_t N>
std::string allowed_names(const Choices<T, N>& choices)
{
    std::vector<std::string_view> names;
    for (const auto& choice : choices) names.push_back(choice.first);
    return joined(names);
}

/// One setting's winning text.
struct Chosen {
    std::string value;
    Origin origin = Origin::builtin;
    std::string subject; ///< how errors name its place: "flag -overlay"

    Error refuse(std::string_view allowed) const
    {
        return {EINVAL, subject + " \"" + value + "\": allowed: " + std::string(allowed)};
    }
};

template <typename T, std::size_t N>
Result<T> choice(const Choices<T, N>& choices, const Chosen& chosen)
{
    for (const auto& [name, value] : choices)
        if (name == chosen.value) return value;
    return chosen.refuse(allowed_names(choices));
}

/// Merges the sources; remembers the origin of everything that was asked for.
class Merge {
public:
    Merge(const Flags& flags, const std::map<std::string, std::string>& net_conf, std::string_view net_conf_origin,
          Settings& settings)
        : flags_(flags), net_conf_(net_conf), net_conf_origin_(net_conf_origin), settings_(settings)
    {}

    Chosen operator()(std::string_view name)
    {
        const auto found = flags_.values.find(name);
        const Origin origin = found == flags_.values.end() ? Origin::builtin : found->second.origin;
        Chosen chosen{flags_.text(name), origin, subject(name, origin)};
        if (chosen.origin == Origin::builtin) take_net_conf(name, chosen);
        settings_.origins.insert_or_assign(std::string(name), chosen.origin);
        return chosen;
    }

    std::string subject(std::string_view name, Origin origin) const
    {
        const FlagSpec* flag = find_flag(name);
        if (origin == Origin::environment && flag != nullptr) return "environment " + env_name(*flag);
        return "flag -" + std::string(name);
    }

    const FlagValue& list(std::string_view name)
    {
        static const FlagValue kNone;
        const auto found = flags_.values.find(name);
        const FlagValue& value = found == flags_.values.end() ? kNone : found->second;
        settings_.origins.insert_or_assign(std::string(name), value.origin);
        return value;
    }

    const std::string& variable(std::string_view name) const { return flags_.variable(name); }

    const std::map<std::string, std::string>& net_conf() const { return net_conf_; }
    const std::string& net_conf_origin() const { return net_conf_origin_; }

private:
    void take_net_conf(std::string_view name, Chosen& chosen) const
    {
        for (const auto& [key, flag] : kNetConfKeys) {
            const auto found = flag == name ? net_conf_.find(std::string(key)) : net_conf_.end();
            if (found != net_conf_.end())
                chosen = {found->second, Origin::net_conf, net_conf_origin_ + ": Twill." + std::string(key)};
        }
    }

    const Flags& flags_;
    const std::map<std::string, std::string>& net_conf_;
    std::string net_conf_origin_;
    Settings& settings_;
};

/// What the kernel's dev_valid_name() takes, without '%', which it would replace by a number.
bool is_interface_name(std::string_view name)
{
    if (name.empty() || name.size() > 15 || name == "." || name == "..") return false;
    return std::ranges::none_of(name, [](unsigned char c) {
        return c == '/' || c == ':' || c == '%' || std::isspace(c) != 0 || std::iscntrl(c) != 0;
    });
}

/// Absolute, without "." and ".." in it; slashes at the end are cut.
Result<std::string> absolute_path(const Chosen& chosen)
{
    std::string path = chosen.value;
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    const std::string with_end = path + "/";
    if (path.size() < 2 || path[0] != '/' || with_end.find("/../") != std::string::npos ||
        with_end.find("/./") != std::string::npos)
        return chosen.refuse("an absolute path");
    return path;
}

/// A file's name may be relative, as with flannel.
Result<std::string> file_path(const Chosen& chosen)
{
    std::error_code failed;
    const auto path = std::filesystem::absolute(chosen.value, failed).lexically_normal();
    if (chosen.value.empty() || failed || !path.has_filename()) return chosen.refuse("the name of a file");
    return path.string();
}

Result<std::optional<Ip>> address(const Chosen& chosen, Family family)
{
    if (chosen.value.empty()) return std::optional<Ip>{};
    const auto ip = Ip::parse(chosen.value);
    if (!ip || ip->is_unspecified() || ip->family() != family)
        return chosen.refuse("an " + std::string(to_string(family)) + " address");
    return std::optional<Ip>{*ip};
}

Result<std::int64_t> number(const Chosen& chosen, std::int64_t low, std::int64_t high, std::string_view allowed = {})
{
    Flags one;
    one.values["x"].values = {chosen.value};
    const std::int64_t value = one.integer("x");
    if (value < low || value > high)
        return chosen.refuse(allowed.empty() ? std::to_string(low) + " to " + std::to_string(high)
                                             : std::string(allowed));
    return value;
}

Result<> set_feature(Settings& settings, const Chosen& chosen, std::string_view name, std::string_view value)
{
    const auto known = settings.features.find(name);
    const bool is_known = known != settings.features.end();
    for (const auto& [text, setting] : kFeatureSettings) {
        if (!is_known || text != value) continue;
        known->second = setting;
        settings.origins.insert_or_assign("feature." + std::string(name), chosen.origin);
        return Ok{};
    }
    if (!is_known)
        return Error{EINVAL, chosen.subject + " \"" + std::string(name) + "\": allowed names: " + joined(kFeatures)};
    return Error{EINVAL, chosen.subject + " \"" + std::string(name) + "=" + std::string(value) +
                             "\": allowed: " + allowed_names(kFeatureSettings)};
}

/// "tcx=off,ct_lookup=on".
Result<> set_feature_list(Settings& settings, const Chosen& chosen)
{
    std::string_view rest = chosen.value;
    while (!rest.empty()) {
        const auto comma = rest.find(',');
        const std::string_view item = rest.substr(0, comma);
        rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
        const auto equals = item.find('=');
        if (equals == std::string_view::npos) return chosen.refuse("NAME=auto|on|off, NAME of " + joined(kFeatures));
        TWILL_TRY(set_feature(settings, chosen, item.substr(0, equals), item.substr(equals + 1)));
    }
    return Ok{};
}

/// NetConf::parse() gives one "feature.NAME" for each member of the object `feature`.
Result<> set_net_conf_features(Settings& settings, const Merge& merge)
{
    constexpr std::string_view kPrefix = "feature.";
    for (const auto& [key, text] : merge.net_conf()) {
        if (!key.starts_with(kPrefix)) continue;
        const Chosen chosen{text, Origin::net_conf, merge.net_conf_origin() + ": Twill.feature"};
        TWILL_TRY(set_feature(settings, chosen, key.substr(kPrefix.size()), text));
    }
    return Ok{};
}

Result<> set_features(Settings& settings, Merge& merge)
{
    for (const auto name : kFeatures) {
        settings.features[std::string(name)] = FeatureSetting::automatic;
        settings.origins["feature." + std::string(name)] = Origin::builtin;
    }
    TWILL_TRY(set_net_conf_features(settings, merge));
    const FlagValue& given = merge.list("feature");
    for (const auto& value : given.values)
        TWILL_TRY(set_feature_list(settings, Chosen{value, given.origin, merge.subject("feature", given.origin)}));
    return Ok{};
}

/// Selectors that mean nothing are passed over like those that match nothing, as with flannel: another one may serve.
Result<> set_iface(Settings& settings, Merge& merge)
{
    settings.iface.names = merge.list("iface").values;
    settings.iface.regexes = merge.list("iface-regex").values;
    settings.iface.can_reach = merge("iface-can-reach").value;
    TWILL_TRY_AS(v4, address(merge("public-ip"), Family::v4));
    TWILL_TRY_AS(v6, address(merge("public-ipv6"), Family::v6));
    settings.iface.public_ip = {v4, v6};
    return Ok{};
}

Result<> set_flannel(Settings& settings, Merge& merge)
{
    const auto flag = [&](std::string_view name) { return merge(name).value == "true"; };
    TWILL_TRY(set_iface(settings, merge));
    TWILL_TRY_AS(subnet_file, file_path(merge("subnet-file")));
    TWILL_TRY_AS(margin, number(merge("subnet-lease-renew-margin"), 1, 1439));
    constexpr std::numeric_limits<std::int64_t> kAny;
    constexpr std::numeric_limits<std::int32_t> kLevels; // klog's
    TWILL_TRY_AS(port, number(merge("healthz-port"), kAny.min(), 65535, "0 to 65535"));
    TWILL_TRY_AS(verbosity, number(merge("v"), kLevels.min(), kLevels.max()));
    settings.subnet_file = std::move(subnet_file);
    settings.renew_margin = std::chrono::minutes{margin};
    settings.healthz_ip = merge("healthz-ip").value;
    settings.healthz_port =
        static_cast<std::uint16_t>(std::max<std::int64_t>(port, 0)); // below 0 is off, as with flannel
    settings.verbosity = static_cast<int>(verbosity);
    settings.ip_masq = flag("ip-masq");
    settings.ip_masq_fully_random_disable = flag("ip-masq-fully-random-disable");
    settings.iptables_forward_rules = flag("iptables-forward-rules");
    settings.ip_blackhole_route = flag("ip-blackhole-route");
    return Ok{};
}

/// A comma list without its blanks and empty members.
std::vector<std::string> split_list(std::string_view text)
{
    std::vector<std::string> out;
    while (!text.empty()) {
        const auto comma = text.find(',');
        std::string item{text.substr(0, comma)};
        text = comma == text.npos ? std::string_view{} : text.substr(comma + 1);
        std::erase_if(item, [](unsigned char c) { return std::isspace(c) != 0; });
        if (!item.empty()) out.push_back(std::move(item));
    }
    return out;
}

Result<> set_masquerade(Settings& settings, Merge& merge)
{
    const Chosen ports = merge("masq-ports");
    if (!ports.value.empty()) {
        auto ranges = parse_port_ranges(ports.value);
        if (!ranges) return ports.refuse("ports from 1 to 65535 and ranges of them such as 1024-29999,40000");
        settings.masq_ports = *std::move(ranges);
    }
    TWILL_TRY_AS(most, number(merge("nat-max"), kNatMaxLeast, kNatMaxMost));
    TWILL_TRY_AS(patience, number(merge("detach-timeout"), 0, 86400));
    settings.detach_timeout = std::chrono::seconds{patience};
    settings.nat_max = static_cast<unsigned>(most);
    const Chosen except = merge("non-masquerade-cidrs");
    for (const auto& item : split_list(except.value)) {
        const auto cidr = Cidr::parse(item);
        if (!cidr) return except.refuse("networks such as 192.0.2.0/24,2001:db8::/32");
        settings.non_masquerade.push_back(*cidr);
    }
    if (settings.non_masquerade.size() > TW_NAT_EXCEPT)
        return except.refuse("at most " + std::to_string(TW_NAT_EXCEPT) + " networks");
    return Ok{};
}

Result<> set_etcd(Settings& settings, Merge& merge)
{
    const Chosen endpoints = merge("etcd-endpoints");
    settings.etcd.endpoints = split_list(endpoints.value);
    settings.etcd.prefix = merge("etcd-prefix").value;
    settings.etcd.key_file = merge("etcd-keyfile").value;
    settings.etcd.cert_file = merge("etcd-certfile").value;
    settings.etcd.ca_file = merge("etcd-cafile").value;
    settings.etcd.username = merge("etcd-username").value;
    settings.etcd.password = merge("etcd-password").value;
    if (settings.store_kind == StoreKind::etcd && settings.etcd.endpoints.empty())
        return endpoints.refuse("URLs, comma separated");
    return Ok{};
}

void set_kube(Settings& settings, Merge& merge)
{
    settings.kube.api_url = merge("kube-api-url").value;
    settings.kube.kubeconfig = merge("kubeconfig-file").value;
    settings.kube.annotation_prefix = merge("kube-annotation-prefix").value;
    settings.kube.net_config_path = merge("net-config-path").value;
    settings.kube.set_network_unavailable = merge("set-node-network-unavailable").value == "true";
    settings.kube.pod_name = merge.variable("POD_NAME");
    settings.kube.pod_namespace = merge.variable("POD_NAMESPACE");
    settings.kube.service_host = merge.variable("KUBERNETES_SERVICE_HOST");
    settings.kube.service_port = merge.variable("KUBERNETES_SERVICE_PORT");
}

/// A directory if -store names one; else Kubernetes if asked for; else etcd, as with flannel.
Result<> set_store(Settings& settings, Merge& merge)
{
    const Chosen chosen = merge("store");
    const bool is_kube = merge("kube-subnet-mgr").value == "true";
    settings.store_kind = is_kube ? StoreKind::kubernetes : StoreKind::etcd;
    if (!chosen.value.empty()) {
        constexpr std::string_view kFile = "file://";
        if (is_kube) return chosen.refuse("nothing beside -kube-subnet-mgr, a node has one store");
        const bool is_file = chosen.value.starts_with(kFile);
        const auto dir = absolute_path(Chosen{is_file ? chosen.value.substr(kFile.size()) : "", chosen.origin, ""});
        if (!dir) return chosen.refuse("file:///dir");
        settings.store_kind = StoreKind::file;
        settings.store = std::string(kFile) + *dir;
    }
    set_kube(settings, merge);
    return set_etcd(settings, merge);
}

Result<> set_node(Settings& settings, const Chosen& chosen)
{
    settings.node = chosen.value;
    if (settings.node.empty() && settings.store_kind == StoreKind::kubernetes) return Ok{}; // the store finds it out
    if (settings.node.empty()) {
        std::array<char, 256> host{};
        if (gethostname(host.data(), host.size() - 1) != 0) return Error{errno, "gethostname"};
        settings.node = host.data();
    }
    const bool is_printable = std::ranges::all_of(settings.node, [](unsigned char c) { return std::isgraph(c) != 0; });
    if (settings.node.empty() || settings.node.size() > 253 || !is_printable)
        return chosen.refuse("1 to 253 printable characters without blanks");
    return Ok{};
}

Result<> set_twill(Settings& settings, Merge& merge)
{
    settings.detach = merge("detach").value == "true";
    settings.preflight = merge("preflight").value == "true";
    TWILL_TRY(set_store(settings, merge));
    TWILL_TRY(set_node(settings, merge("node")));
    TWILL_TRY_AS(bpf_root, absolute_path(merge("bpf-root")));
    TWILL_TRY_AS(cni_state_dir, absolute_path(merge("cni-state-dir")));
    const Chosen socket = merge("socket");
    TWILL_TRY_AS(socket_path, absolute_path(socket));
    if (socket_path.size() >= sizeof(sockaddr_un::sun_path)) return socket.refuse("a path of at most 107 characters");
    TWILL_TRY_AS(overlay, choice(kOverlays, merge("overlay")));
    TWILL_TRY_AS(fast_path, choice(kFastPaths, merge("fast-path")));
    TWILL_TRY_AS(anti_spoof, choice(kAntiSpoofs, merge("anti-spoof")));
    TWILL_TRY_AS(log_format, choice(kLogFormats, merge("log-format")));
    const Chosen name = merge("overlay-name");
    if (!is_interface_name(name.value))
        return name.refuse("an interface name: 1 to 15 characters without blank, '/', ':' and '%'");
    settings.bpf_root = std::move(bpf_root);
    settings.cni_state_dir = std::move(cni_state_dir);
    settings.socket_path = std::move(socket_path);
    settings.overlay = overlay;
    settings.overlay_name = name.value;
    settings.fast_path = fast_path;
    settings.anti_spoof = anti_spoof;
    settings.log_format = log_format;
    TWILL_TRY(set_masquerade(settings, merge));
    return set_features(settings, merge);
}

} // namespace

std::string_view to_string(FastPath value) { return name_of(kFastPaths, value); }
std::string_view to_string(AntiSpoof value) { return name_of(kAntiSpoofs, value); }
std::string_view to_string(FeatureSetting value) { return name_of(kFeatureSettings, value); }

std::string_view to_string(Origin value)
{
    switch (value) {
    case Origin::builtin:
        return "default";
    case Origin::net_conf:
        return "net-conf.json";
    case Origin::environment:
        return "environment";
    case Origin::command_line:
        return "command line";
    }
    return "";
}

std::span<const std::string_view> feature_names() { return kFeatures; }

std::vector<std::string_view> net_conf_keys()
{
    std::vector<std::string_view> keys;
    keys.reserve(kNetConfKeys.size());
    for (const auto& row : kNetConfKeys) keys.push_back(row.first);
    return keys;
}

FeatureSetting Settings::feature(std::string_view name) const
{
    const auto found = features.find(name);
    return found == features.end() ? FeatureSetting::automatic : found->second;
}

Result<Settings> make_settings(const Flags& flags, const std::map<std::string, std::string>& net_conf,
                               std::string_view net_conf_origin)
{
    Settings settings;
    Merge merge{flags, net_conf, net_conf_origin, settings};
    TWILL_TRY(set_flannel(settings, merge));
    TWILL_TRY(set_twill(settings, merge));
    return settings;
}

} // namespace twill
