// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/migrate.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/dataplane/flannel_device.hpp"
#include "agent/reconcile/desired_peers.hpp"

namespace twill {

namespace {

using enum MigrateCheck::Verdict;
using Json = nlohmann::ordered_json;

std::vector<const nl::Link*> flannel_devices(const MigrateInput& input)
{
    std::vector<const nl::Link*> out;
    for (const auto& link : input.links)
        if (is_flannel_name(link.name) && link.name != "flannel.ipip") out.push_back(&link);
    return out;
}

const nl::Link* find(const MigrateInput& input, const std::string& name)
{
    const auto it = std::ranges::find(input.links, name, &nl::Link::name);
    return it == input.links.end() ? nullptr : &*it;
}

/// The port that the overlay has, or will have: of the configuration, else of flannel's device.
std::optional<std::uint16_t> port_of(const MigrateInput& input)
{
    if (input.conf) {
        if (input.conf->backend == Backend::vxlan) return input.conf->port;
        return std::nullopt;
    }
    for (const auto* link : flannel_devices(input))
        if (link->vxlan) return link->vxlan->port;
    return std::nullopt;
}

MigrateCheck check_backend(const MigrateInput& input)
{
    const std::string name = "backend";
    if (!input.conf_error.empty()) return {name, stop, input.conf_error};
    if (input.conf) {
        std::string text(to_string(input.conf->backend));
        if (input.conf->backend == Backend::vxlan)
            text += ", VNI " + std::to_string(input.conf->vni.value) + ", UDP port " + std::to_string(input.conf->port);
        return {name, ok, text};
    }
    struct Other {
        const char* device;
        const char* backend;
    };
    for (const Other& other : {Other{"flannel-wg", "wireguard"}, Other{"flannel-wg-v6", "wireguard"},
                               Other{"flannel.ipip", "ipip"}, Other{"flannel0", "udp"}})
        if (find(input, other.device) != nullptr)
            return {name, stop,
                    std::string(other.device) + " is of flannel's backend " + other.backend +
                        ", which twill does not have: change the cluster to vxlan or host-gw first"};
    if (flannel_devices(input).empty())
        return {name, note, "not known: no net-conf.json was read, and there is no vxlan device of flannel's"};
    return {name, ok, "vxlan, as flannel's device says; no net-conf.json was read"};
}

std::string describe(const MigrateInput& input, const nl::Link& link)
{
    std::string text = link.name + ": VNI " + std::to_string(link.vxlan->vni) + ", UDP port " +
                       std::to_string(link.vxlan->port) + ", MTU " + std::to_string(link.mtu);
    if (input.wire && link.lower == input.wire->index) text += ", on " + input.wire->name;
    return text;
}

/// What flanneld too would make a device anew for.
std::string fault_of(const MigrateInput& input, const nl::Link& link)
{
    if (link.vxlan->collect_metadata) return " is a collect-metadata device, which flannel never makes";
    if (input.conf && link.vxlan->port != input.conf->port)
        return " has UDP port " + std::to_string(link.vxlan->port) + ", the configuration says " +
               std::to_string(input.conf->port);
    if (input.conf && link.vxlan->gbp != input.conf->gbp) return ": GBP is not as configured";
    if (input.wire && link.lower && link.lower != input.wire->index)
        return " is not on " + input.wire->name + ", the interface that the flags choose";
    return "";
}

MigrateCheck check_device(const MigrateInput& input)
{
    const std::string name = "device";
    std::vector<const nl::Link*> devices;
    std::string missing;
    if (input.conf && input.conf->backend != Backend::vxlan) return {name, ok, "none is needed"};
    if (input.conf) {
        for (const auto family : kFamilies) {
            if (!input.conf->network[family]) continue;
            const std::string device = flannel_device_name(family, input.conf->vni);
            if (const auto* link = find(input, device))
                devices.push_back(link);
            else
                missing += (missing.empty() ? "" : ", ") + device;
        }
    } else {
        devices = flannel_devices(input);
    }
    std::string text;
    for (const auto* link : devices) {
        if (!link->vxlan) return {name, stop, link->name + " is no vxlan device"};
        if (auto fault = fault_of(input, *link); !fault.empty())
            return {name, note,
                    link->name + fault +
                        ": twilld makes it anew, as flanneld would, and what goes through it stops for as long"};
        text += (text.empty() ? "" : "; ") + describe(input, *link);
    }
    if (devices.empty()) return {name, note, "nothing to adopt: no device of flannel's is there"};
    if (!missing.empty()) return {name, note, text + "; not there: " + missing + ": twilld makes it"};
    return {name, ok, text};
}

MigrateCheck check_port(const MigrateInput& input)
{
    const auto port = port_of(input);
    if (!port) return {"port", ok, "no UDP port is used"};
    for (const auto& link : input.links)
        if (link.vxlan && link.vxlan->port == *port && !is_flannel_name(link.name) && link.name != input.overlay_name)
            return {"port", stop,
                    link.name + ", which is not flannel's, receives on UDP port " + std::to_string(*port) + ", too"};
    return {"port", ok, "no other vxlan device has UDP port " + std::to_string(*port)};
}

MigrateCheck check_mtu(const MigrateInput& input)
{
    if (!input.wire) return {"mtu", note, "the interface between nodes is not known"};
    unsigned underlay = input.wire->mtu;
    if (input.conf && input.conf->mtu) underlay = *input.conf->mtu;
    const bool is_vxlan = input.conf ? input.conf->backend == Backend::vxlan : !flannel_devices(input).empty();
    const unsigned want = underlay - (is_vxlan ? encap_overhead(Family::v4) : 0); // flannel: for both families
    const std::string reason = std::to_string(want) + " is what " + input.wire->name + " with MTU " +
                               std::to_string(input.wire->mtu) + " leaves";
    if (underlay > input.wire->mtu)
        return {"mtu", stop,
                "MTU " + std::to_string(underlay) + " of the configuration is more than " + input.wire->name + " has"};
    for (const auto* link : flannel_devices(input))
        if (link->mtu > want)
            return {"mtu", note,
                    link->name + " has MTU " + std::to_string(link->mtu) + ", which is lowered: " + reason};
    if (input.env && input.env->mtu != want)
        return {"mtu", note,
                "FLANNEL_MTU of subnet.env is " + std::to_string(input.env->mtu) + ": " + reason +
                    ". Pods keep theirs until they are made anew"};
    return {"mtu", ok, reason};
}

MigrateCheck check_firewall(const MigrateInput& input)
{
    if (!input.obstacle_error.empty()) return {"firewall", note, "rules cannot be read: " + input.obstacle_error};
    if (!input.obstacle) return {"firewall", ok, "no rule stands between pods"};
    return {"firewall", note,
            *input.obstacle + ": with -fast-path=auto the kernel's stack goes on to carry what it decides about"};
}

MigrateCheck check_kernel(const MigrateInput& input)
{
    if (!input.features)
        return {"kernel", note,
                "it cannot be probed, the kernel overlay would carry the node: " + input.features_error};
    std::string missing;
    bool is_needed = false;
    for (const auto& feature : kFeatures) {
        if ((*input.features).*feature.on || !feature.is_demanded()) continue;
        is_needed = is_needed || feature.use == FeatureUse::need;
        missing += (missing.empty() ? "" : "; ") + std::string(feature.name) + ": " + std::string(feature.effect);
    }
    if (missing.empty()) return {"kernel", ok, "it has all that the programs use"};
    return {"kernel", note, (is_needed ? "the kernel overlay would carry the node: " : "it lacks ") + missing};
}

MigrateCheck check_bpffs(const MigrateInput& input)
{
    if (input.has_bpffs) return {"bpffs", ok, input.bpf_root};
    return {"bpffs", note,
            input.bpf_root + " is not on a BPF file system, the kernel overlay would carry the node: mount -t bpf"};
}

MigrateCheck check_leftovers(const MigrateInput& input)
{
    std::string found;
    const auto add = [&](const std::string& what) { found += (found.empty() ? "" : "; ") + what; };
    const auto devices = flannel_devices(input);
    std::optional<std::uint32_t> vni;
    if (input.conf) vni = input.conf->vni.value;
    for (const auto* link : devices) {
        if (!link->vxlan || link->vxlan->collect_metadata) continue;
        if (!vni) vni = link->vxlan->vni;
        if (link->vxlan->vni != *vni)
            add(link->name + " of another VNI: ip link del " + link->name + ", when no flanneld uses it");
    }
    const auto* own = find(input, input.overlay_name);
    if (own != nullptr && !devices.empty())
        return {"leftovers", stop,
                input.overlay_name +
                    " of an earlier twilld is there: it would be used, not flannel's: twillctl detach first"};
    if (own == nullptr && devices.empty() && !input.pins.empty()) add("pins without a device: twillctl detach");
    if (found.empty()) return {"leftovers", ok, "none"};
    return {"leftovers", note, found};
}

const char* to_text(MigrateCheck::Verdict verdict)
{
    if (verdict == ok) return "ok";
    return verdict == note ? "note" : "stop";
}

} // namespace

std::vector<MigrateCheck> check_migration(const MigrateInput& input)
{
    return {check_backend(input),  check_device(input), check_port(input),  check_mtu(input),
            check_firewall(input), check_kernel(input), check_bpffs(input), check_leftovers(input)};
}

std::string migration_json(const std::vector<Lease>* leases, const std::string& own_key,
                           const std::vector<MigrateCheck>& checks)
{
    Json out;
    out["nodes"] = nullptr;
    if (leases != nullptr) {
        out["nodes"] = Json::array();
        for (const auto& lease : *leases) {
            Json pods = Json::array();
            Json addresses = Json::array();
            for (const auto family : kFamilies) {
                if (lease.pods[family]) pods.push_back(lease.pods[family]->to_string());
                if (lease.public_ip[family]) addresses.push_back(lease.public_ip[family]->to_string());
            }
            out["nodes"].push_back(Json{{"node", lease.node},
                                        {"runs", lease.marker ? "twill" : "flannel"},
                                        {"own", lease.key == own_key},
                                        {"pods", pods},
                                        {"public_ip", addresses},
                                        {"backend", lease.backend_type}});
        }
    }
    out["checks"] = Json::array();
    for (const auto& check : checks)
        out["checks"].push_back(Json{{"name", check.name}, {"verdict", to_text(check.verdict)}, {"text", check.text}});
    return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace twill
