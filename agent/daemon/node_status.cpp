// SPDX-License-Identifier: Apache-2.0
#include <net/if.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>

#include "agent/daemon/migrate.hpp"
#include "agent/daemon/node.hpp"

namespace twill {

namespace {

std::string kernel_release()
{
    utsname name{};
    return uname(&name) == 0 ? name.release : "";
}

std::string interface_name(IfIndex ifindex)
{
    char name[IF_NAMESIZE] = "";
    if_indextoname(static_cast<unsigned>(ifindex.value), name);
    return name;
}

bool is_zero(const char* sysctl)
{
    std::ifstream file(std::string("/proc/sys/net/") + sysctl);
    int value = 1;
    return file >> value && value == 0;
}

Status::Lease lease_status(const Lease& lease)
{
    Status::Lease status;
    status.key = lease.key;
    status.backend = lease.backend_type;
    status.expires = lease.expires;
    for (const auto family : kFamilies) {
        if (lease.pods[family]) status.pods.push_back(lease.pods[family]->to_string());
        if (lease.public_ip[family]) status.public_ip.push_back(lease.public_ip[family]->to_string());
        if (lease.vtep_mac[family]) status.vtep_mac.push_back(lease.vtep_mac[family]->to_string());
    }
    return status;
}

} // namespace

Status Node::status() const
{
    Status status;
    status.version = version();
    status.kernel = kernel_release();
    status.node = own_ && settings_.node.empty() ? own_->node : settings_.node;
    status.pid = getpid();
    status.started = started_;
    status.ready = ready_;
    status.store = {store_->describe(), !store_trouble_, store_trouble_ ? store_trouble_->what : ""};
    if (own_) status.lease = lease_status(*own_);
    if (conf_)
        for (const auto family : kFamilies)
            if (conf_->network[family]) status.network.push_back(conf_->network[family]->network.to_string());
    if (wire_.wire.index) status.wires.push_back({wire_.wire.name, wire_.wire.index.value, wire_.wire.mtu});
    const auto overlay_status = [&](Family family) -> Status::Overlay {
        const std::string kind = has_flannel_devices() ? "flannel" : std::string(to_string(overlay_kind()));
        return {overlay_name(family), overlay_[family].value, kind, vtep_mac_[family].to_string()};
    };
    if (overlay_.v4) status.overlay = overlay_status(Family::v4);
    if (overlay_.v6 != overlay_.v4 && overlay_.v6)
        (overlay_.v4 ? status.overlay6.emplace() : status.overlay) = overlay_status(Family::v6);
    const auto* carrying = carrier();
    if (carrying != nullptr) status.data_plane.kind = carrying == reconciler_.get() ? "programs" : "kernel overlay";
    if (no_programs_) status.data_plane.why = no_programs_->what;
    status.fast_path = {std::string(to_string(settings_.fast_path)), is_swept_ && cfg_ && cfg_->fast != 0,
                        filter_.value_or("")};
    if (settings_.fast_path == FastPath::off)
        status.fast_path.why = "switched off";
    else if (no_programs_)
        status.fast_path.why = "no programs";
    status.masquerade = masquerade_status();
    if (probed_)
        for (const auto& feature : kFeatures)
            status.features.push_back({std::string(feature.name), features_.*feature.on,
                                       std::string(to_string(settings_.feature(feature.name))),
                                       std::string(feature.effect)});
    if (attachments_)
        for (const auto& where : attachments_->current())
            status.attachments.push_back({std::string(program_name(where.hook)), where.ifindex.value,
                                          interface_name(where.ifindex), attachments_->uses_tcx() ? "tcx" : "clsact"});
    for (const auto& pending : plan_.pending)
        status.pending.push_back({pending.pods.to_string(), pending.node.to_string(), pending.why});
    if (carrying == nullptr) carrying = reconciler_ ? reconciler_.get() : kernel_reconciler_.get();
    for (const auto* one : {reconciler_.get(), kernel_reconciler_.get()}) {
        if (one == nullptr) continue;
        for (const auto& pending : one->pending_peers())
            status.pending.push_back({pending.pods.to_string(), pending.node.to_string(), pending.why});
        for (const auto& pending : one->pending_endpoints())
            status.pending.push_back({pending.ip.to_string(), "", pending.why});
    }
    if (carrying != nullptr) {
        status.peers.programmed = carrying->programmed_peers().size();
        status.endpoints = carrying->programmed_endpoints().size();
    }
    status.peers.pending = status.pending.size();
    for (const auto& bad : leases_.bad()) status.bad_leases.push_back({bad.key, bad.why});
    status.addr_conflict = endpoints_.addr_conflicts();
    for (const auto& conflict : endpoints_.conflicts())
        status.conflicts.push_back(
            {conflict.ip.to_string(), conflict.owner.value, conflict.claimant.value, conflict.count});

    if (refused_)
        status.warnings.push_back("programs that ask conntrack (ct_lookup) are refused by the kernel: " +
                                  refused_->what);
    if (preload_trouble_)
        status.warnings.push_back("connections that were translated before twilld started may have ended: " +
                                  preload_trouble_->what);
    if (trouble_) status.warnings.push_back(trouble_->what);
    if (is_config_old_)
        status.warnings.emplace_back("the configuration changed after the start: restart twilld to use it");
    if (conf_ && conf_->network.v4 && is_zero("ipv4/ip_forward"))
        status.warnings.emplace_back("net.ipv4.ip_forward is 0: the node does not forward what needs its stack");
    if (conf_ && conf_->network.v6 && is_zero("ipv6/conf/all/forwarding"))
        status.warnings.emplace_back(
            "net.ipv6.conf.all.forwarding is 0: the node does not forward what needs its stack");
    if (has_flannel_devices())
        status.warnings.emplace_back("on flannel's devices: what they decapsulate (outer fragments, UDP super-packets, "
                                     "what comes by an interface that is no wire) is checked by its inner source only");
    if (own_ && conf_->backend == Backend::vxlan && overlay_kind() == OverlayKind::veth)
        status.warnings.emplace_back(
            "no vxlan device (overlay veth): outer fragments, UDP super-packets that come by VXLAN and "
            "what the programs cannot encapsulate are lost (no_device); NICs do not parse VXLAN");
    if (kernel_ && !is_flannels_ && conf_->network.v6 && vtep_mac_.v6 != vtep_mac_.v4)
        status.warnings.push_back("the kernel overlay does not take what comes for the IPv6 VtepMAC " +
                                  vtep_mac_.v6.to_string() + ": the device has " + vtep_mac_.v4.to_string());
    if (const auto why = no_masquerade(); !why.empty()) status.warnings.push_back(why);
    status.warnings.insert(status.warnings.end(), forward_advice_.begin(), forward_advice_.end());
    status.warnings.insert(status.warnings.end(), flannel_rules_.begin(), flannel_rules_.end());
    for (const auto ifindex : egress_.without_ethernet)
        status.warnings.push_back("masquerade: not by " + interface_name(ifindex) + ": it has no Ethernet header");
    for (const auto& other : pins_.other_schemas())
        status.warnings.push_back("pins of another version: " + pins_.root() + "/" + other);
    return status;
}

std::string Node::migration() const
{
    std::vector<Lease> leases;
    for (const auto& [key, lease] : leases_.leases()) leases.push_back(lease);
    return migration_json(&leases, own_ ? own_->key : "", check_migration(read_migrate_input(settings_, conf_)));
}

} // namespace twill
