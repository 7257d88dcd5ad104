// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "agent/daemon/node.hpp"
#include "agent/dataplane/flannel_device.hpp"
#include "agent/dataplane/overlay_device.hpp"
#include "agent/nl/route.hpp"

namespace twill {

/// Without encapsulation there is nothing to keep a vxlan device ready for.
OverlayKind Node::overlay_kind() const
{
    return conf_->backend == Backend::host_gw ? OverlayKind::veth : settings_.overlay;
}

std::string Node::overlay_name(Family family) const
{
    return has_flannel_devices() ? flannel_device_name(family, conf_->vni) : settings_.overlay_name;
}

OverlaySpec Node::overlay_spec() const
{
    OverlaySpec spec;
    spec.name = settings_.overlay_name;
    spec.kind = overlay_kind();
    spec.mac = vtep_mac_.v4;
    spec.port = conf_->port;
    spec.gbp = conf_->gbp;
    for (const auto family : kFamilies) {
        if (!conf_->network[family] || !own_->pods[family]) continue;
        const unsigned overhead = conf_->backend == Backend::vxlan ? encap_overhead(family) : 0;
        spec.family[family] =
            OverlayFamily{conf_->network[family]->network, *own_->pods[family], underlay_mtu() - overhead};
    }
    return spec;
}

Result<PerFamily<std::optional<Mac>>> Node::find_devices()
{
    PerFamily<std::optional<Mac>> macs;
    const bool may_be_flannels = overlay_kind() == OverlayKind::vxlan && conf_->backend == Backend::vxlan;
    TWILL_TRY_AS(ours, find_overlay(*socket_, settings_.overlay_name));
    if (ours) macs.v4 = ours->mac;
    if (!may_be_flannels || (ours && ours->vxlan)) return macs; // flannel's device cannot be up beside it
    for (const auto family : kFamilies) {
        if (!conf_->network[family]) continue;
        TWILL_TRY_AS(device, find_flannel_device(*socket_, family, conf_->vni));
        if (!device) continue;
        log::info("flannel's device is taken over", {{"interface", device->name}, {"mac", device->mac.to_string()}});
        macs[family] = device->mac;
        is_flannels_ = true;
    }
    if (is_flannels_) return macs;
    TWILL_TRY_AS(has_port, is_flannel_port(*socket_, conf_->port));
    if (has_port)
        log::info("a device of flannel's has the port: devices of its form are made", {{"port", conf_->port}});
    is_flannels_ = has_port;
    return macs;
}

Result<> Node::find_flannel_routes()
{
    KernelTables tables;
    TWILL_TRY_AS(routes, nl::routes(*socket_));
    tables.routes = std::move(routes);
    const auto entries = find_peers(tables, kernel_spec(KernelForm::flannel)).entries;
    is_flannels_ = std::any_of(entries.begin(), entries.end(),
                               [](const auto& entry) { return entry.second.route.protocol != kPeerRouteProtocol; });
    if (is_flannels_) log::info("flannel's routes are taken over", {{"routes", entries.size()}});
    return Ok{};
}

Result<PerFamily<IfIndex>> Node::ensure_devices()
{
    if (!has_flannel_devices()) {
        TWILL_TRY_AS(device, ensure_overlay(*socket_, overlay_spec()));
        return PerFamily<IfIndex>{device, device};
    }
    TWILL_TRY_AS(ours, find_overlay(*socket_, settings_.overlay_name)); // a veth pair of an earlier run
    if (ours) TWILL_TRY(remove_overlay(*socket_, settings_.overlay_name));
    PerFamily<IfIndex> devices;
    for (const auto family : kFamilies) {
        if (!conf_->network[family] || !own_->pods[family] || !node_ip_[family]) continue;
        const FlannelDevice want{.network = conf_->network[family]->network,
                                 .pods = *own_->pods[family],
                                 .vni = conf_->vni,
                                 .port = conf_->port,
                                 .gbp = conf_->gbp,
                                 .wire = wire_.wire.index,
                                 .local = *node_ip_[family],
                                 .mac = vtep_mac_[family],
                                 .mtu = underlay_mtu() - encap_overhead(family)};
        TWILL_TRY_AS(device, ensure_flannel_device(*socket_, want));
        devices[family] = device;
    }
    return devices;
}

} // namespace twill
