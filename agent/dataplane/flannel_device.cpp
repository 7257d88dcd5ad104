// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/flannel_device.hpp"

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "agent/nl/addr.hpp"
#include "agent/nl/link.hpp"

namespace twill {
namespace {

std::string_view prefix_of(Family family) { return family == Family::v4 ? "flannel." : "flannel-v6."; }

/// As far as flannel compares it (vxlanLinksIncompat); its own address may be any of the wire's, as flannel chooses
/// among several by other rules than we do.
Result<bool> fits(nl::Socket& socket, const nl::Link& link, const FlannelDevice& want)
{
    if (!link.vxlan || link.vxlan->collect_metadata || link.vxlan->vni != want.vni.value ||
        link.vxlan->port != want.port || link.vxlan->gbp != want.gbp ||
        (link.vxlan->lower && link.vxlan->lower != want.wire))
        return false;
    if (link.vxlan->local == want.local) return true;
    TWILL_TRY_AS(addresses, nl::addresses(socket));
    return std::any_of(addresses.begin(), addresses.end(), [&](const nl::Address& address) {
        return address.ifindex == want.wire && address.ip == link.vxlan->local;
    });
}

Result<nl::Link> create(nl::Socket& socket, const std::string& name, const FlannelDevice& want)
{
    TWILL_TRY(nl::create_vxlan(socket, {.name = name,
                                        .mac = want.mac,
                                        .mtu = want.mtu,
                                        .port = want.port,
                                        .gbp = want.gbp,
                                        .alias = {},
                                        .single = nl::VxlanSpec::Single{want.vni.value, want.wire, want.local}}));
    TWILL_TRY_AS(created, nl::link(socket, name));
    if (!created) return Error{ENODEV, "device " + name + ": gone while it was set up"};
    // As flannel; where there is no IPv6 there is no such file.
    std::ofstream("/proc/sys/net/ipv6/conf/" + name + "/accept_ra") << "0\n";
    return *created;
}

Result<> ensure_address(nl::Socket& socket, IfIndex device, const FlannelDevice& want)
{
    nl::Address own;
    own.ifindex = device;
    own.ip = want.pods.address();
    own.bits = own.ip.family() == Family::v4 ? 32 : 128;
    TWILL_TRY_AS(addresses, nl::addresses(socket));
    bool has_own = false;
    for (const auto& address : addresses) {
        if (address.ifindex != device || !want.network.contains(address.ip)) continue;
        if (address.ip == own.ip && address.bits == own.bits)
            has_own = true;
        else
            TWILL_TRY(nl::del_address(socket, address));
    }
    return has_own ? Result<>(Ok{}) : nl::put_address(socket, own);
}

} // namespace

std::string flannel_device_name(Family family, Vni vni)
{
    return std::string(prefix_of(family)) + std::to_string(vni.value);
}

bool is_flannel_name(std::string_view name)
{
    return name.starts_with(prefix_of(Family::v4)) || name.starts_with(prefix_of(Family::v6));
}

Result<std::optional<nl::Link>> find_flannel_device(nl::Socket& socket, Family family, Vni vni)
{
    TWILL_TRY_AS(link, nl::link(socket, flannel_device_name(family, vni)));
    if (link && !link->vxlan) link.reset();
    return link;
}

Result<bool> is_flannel_port(nl::Socket& socket, std::uint16_t port)
{
    TWILL_TRY_AS(links, nl::links(socket));
    return std::any_of(links.begin(), links.end(), [&](const nl::Link& link) {
        return link.vxlan && !link.vxlan->collect_metadata && link.vxlan->port == port && is_flannel_name(link.name);
    });
}

Result<IfIndex> ensure_flannel_device(nl::Socket& socket, const FlannelDevice& want)
{
    const auto name = flannel_device_name(want.pods.family(), want.vni);
    TWILL_TRY_AS(link, nl::link(socket, name));
    if (link) {
        TWILL_TRY_AS(is_fit, fits(socket, *link, want));
        if (!is_fit) {
            TWILL_TRY(nl::del_link(socket, link->index));
            link.reset();
        }
    }
    if (!link) {
        TWILL_TRY_AS(created, create(socket, name, want));
        link = created;
    }
    if (link->mac != want.mac) TWILL_TRY(nl::set_mac(socket, link->index, want.mac));
    if (link->mtu != want.mtu) TWILL_TRY(nl::set_mtu(socket, link->index, want.mtu));
    TWILL_TRY(ensure_address(socket, link->index, want));
    if (!link->is_up()) TWILL_TRY(nl::set_up(socket, link->index));
    return link->index;
}

} // namespace twill
