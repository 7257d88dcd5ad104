// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/daemon/flags.hpp"
#include "agent/daemon/iface.hpp"
#include "agent/daemon/log.hpp"
#include "agent/daemon/masq_ports.hpp"
#include "agent/dataplane/overlay_device.hpp"
#include "twill/result.hpp"

namespace twill {

enum class FastPath : std::uint8_t { automatic, on, off, required };
enum class AntiSpoof : std::uint8_t { loose, strict, off };
enum class FeatureSetting : std::uint8_t { automatic, on, off };
enum class StoreKind : std::uint8_t { file, etcd, kubernetes };
/// The spelling of the flags: "auto", "on", "off", "required"; "loose", ...
std::string_view to_string(FastPath value);
std::string_view to_string(AntiSpoof value);
std::string_view to_string(FeatureSetting value);
/// "default", "net-conf.json", "environment", "command line".
std::string_view to_string(Origin value);

/// Names that -feature knows: "tcx", "ct_lookup", "encap_l2_eth", "check_mtu".
std::span<const std::string_view> feature_names();
/// The keys allowed in the object `Twill` of net-conf.json: what NetConf::parse() wants.
std::vector<std::string_view> net_conf_keys();

/// flannel's flags of the etcd store, as given.
struct EtcdFlags {
    std::vector<std::string> endpoints; ///< at least one
    std::string prefix;
    std::string key_file;
    std::string cert_file;
    std::string ca_file;
    std::string username;
    std::string password;
    bool operator==(const EtcdFlags&) const = default;
};

/// flannel's flags and variables of the Kubernetes store, as given.
struct KubeFlags {
    std::string api_url;
    std::string kubeconfig;
    std::string annotation_prefix;
    std::string net_config_path;
    std::string pod_name; ///< with pod_namespace: which pod's node this is, when `node` is empty
    std::string pod_namespace;
    std::string service_host; ///< of the API server, inside a pod
    std::string service_port;
    bool set_network_unavailable = true;
    bool operator==(const KubeFlags&) const = default;
};

/// Everything that can be set, typed and checked.
struct Settings {
    // flannel's
    IfaceOptions iface;
    std::string subnet_file;
    bool ip_masq = false;
    bool ip_masq_fully_random_disable = false;
    std::chrono::minutes renew_margin{60}; ///< 1..1439
    EtcdFlags etcd;
    KubeFlags kube;
    std::string healthz_ip;         ///< address or host name; empty: all addresses
    std::uint16_t healthz_port = 0; ///< host order; 0: off
    bool iptables_forward_rules = true;
    bool ip_blackhole_route = false;
    // twill's, of masquerade
    std::vector<PortRange> masq_ports; ///< empty: what the kernel's settings leave
    std::vector<Cidr> non_masquerade;  ///< destinations that are not masqueraded
    unsigned nat_max = 0;              ///< flows that there is room for
    int verbosity = 0;                 ///< -v; from 4 on debug lines are written
    // twill's
    StoreKind store_kind = StoreKind::etcd;
    std::string store;       ///< "file:///dir", empty for the other kinds
    std::string node;        ///< empty only with Kubernetes, which then tells by the pod's name
    std::string bpf_root;    ///< absolute, no slash at the end
    std::string socket_path; ///< absolute, fits sun_path
    std::string cni_state_dir;
    OverlayKind overlay = OverlayKind::vxlan;
    std::string overlay_name; ///< a valid interface name
    FastPath fast_path = FastPath::automatic;
    AntiSpoof anti_spoof = AntiSpoof::loose;
    std::map<std::string, FeatureSetting, std::less<>> features; ///< every known name
    log::Format log_format = log::Format::automatic;
    std::chrono::seconds detach_timeout{300}; ///< for masqueraded flows to end; 0: they end at once
    bool detach = false;                      ///< take the data plane away and exit
    bool preflight = false;                   ///< tell what a take-over meets, and exit

    /// Flag name -> where its value came from; a feature is "feature.tcx".
    std::map<std::string, Origin, std::less<>> origins;
    bool operator==(const Settings&) const = default;

    log::Level log_level() const { return verbosity >= 4 ? log::Level::debug : log::Level::info; }
    FeatureSetting feature(std::string_view name) const;
};

/// Merges command line > environment > `Twill` object of net-conf.json > default. `net_conf` is NetConf::twill, empty
/// before the store was read: settings that only matter at start (store, socket, ...) cannot come from there.
/// `net_conf_origin` names the file in errors. EINVAL, one line: "<origin>: <key> "<value>": allowed: ...".
Result<Settings> make_settings(const Flags& flags, const std::map<std::string, std::string>& net_conf = {},
                               std::string_view net_conf_origin = "net-conf.json");

} // namespace twill
