// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/link.hpp"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cerrno>

#include "agent/nl/attributes.hpp"
#include "agent/nl/dump.hpp"
#include "agent/nl/message.hpp"

namespace twill::nl {
namespace {

Vxlan parse_vxlan(const Attributes& data)
{
    return {.port = data.be16(IFLA_VXLAN_PORT).value_or(0),
            .vni = data.u32(IFLA_VXLAN_ID).value_or(0),
            .collect_metadata = data.u8(IFLA_VXLAN_COLLECT_METADATA).value_or(0) != 0,
            .learning = data.u8(IFLA_VXLAN_LEARNING).value_or(0) != 0,
            .zero_csum6_rx = data.u8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX).value_or(0) != 0,
            .zero_csum6_tx = data.u8(IFLA_VXLAN_UDP_ZERO_CSUM6_TX).value_or(0) != 0,
            .gbp = data[IFLA_VXLAN_GBP] != nullptr,
            .lower = {data.s32(IFLA_VXLAN_LINK).value_or(0)},
            .local = data[IFLA_VXLAN_LOCAL] != nullptr ? data.ip(IFLA_VXLAN_LOCAL) : data.ip(IFLA_VXLAN_LOCAL6)};
}

std::uint8_t parse_addr_gen_mode(const nlattr* af_spec)
{
    const Attributes inet6{Attributes{af_spec}[AF_INET6]};
    return inet6.u8(IFLA_INET6_ADDR_GEN_MODE).value_or(0);
}

std::string subject(std::string_view operation, IfIndex index)
{
    return std::string{operation} + " ifindex " + std::to_string(index.value);
}

ifinfomsg header_for(IfIndex index)
{
    ifinfomsg info{};
    info.ifi_family = AF_UNSPEC;
    info.ifi_index = index.value;
    return info;
}

Message set_request(IfIndex index)
{
    Message message{RTM_SETLINK, 0};
    message.header(header_for(index));
    return message;
}

Result<> set_flags(Socket& socket, IfIndex index, unsigned flags, std::string_view operation)
{
    ifinfomsg info = header_for(index);
    info.ifi_flags = flags;
    info.ifi_change = flags;
    Message message{RTM_SETLINK, 0};
    message.header(info);
    return socket.change(message, subject(operation, index));
}

Result<std::optional<Link>> ask_link(Socket& socket, Message& message, const std::string& what)
{
    std::optional<Link> found;
    // Statistics are half of a link's message and of no use here.
    message.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    auto asked = socket.ask(message, what, [&](const nlmsghdr* reply) -> Result<> {
        TWILL_TRY_AS(parsed, parse_link(reply));
        found = std::move(parsed);
        return Ok{};
    });
    if (!asked && asked.error().code != ENODEV) return asked.error();
    return found;
}

// The alias cannot be set while a link is created: see kUnfinishedGroup.
Result<> set_alias_of(Socket& socket, std::string_view name, std::string_view alias)
{
    TWILL_TRY_AS(found, link(socket, name));
    if (!found) return Error{ENODEV, "link " + std::string{name} + ": gone while it was set up"};
    auto named = set_alias(socket, found->index, alias);
    if (!named) (void)del_link(socket, found->index);
    return named;
}

} // namespace

Result<Link> parse_link(const nlmsghdr* message)
{
    const auto* info = header_of<ifinfomsg>(message);
    if (info == nullptr) return Error{EBADMSG, "link message: too short"};
    const Attributes attributes{message, sizeof *info};
    // A bridge tells its ports' state in the same message type; wireless drivers send events that describe no link.
    if (info->ifi_family != AF_UNSPEC || attributes[IFLA_WIRELESS] != nullptr)
        return Error{EPROTONOSUPPORT, "link message: not of a link"};
    Link link;
    link.index = {info->ifi_index};
    link.name = attributes.text(IFLA_IFNAME);
    if (!link.index || link.name.empty()) return Error{EBADMSG, "link message: no index or no name"};
    link.type = info->ifi_type;
    link.flags = info->ifi_flags;
    link.mac = attributes.mac(IFLA_ADDRESS);
    link.mtu = attributes.u32(IFLA_MTU).value_or(0);
    link.master = {attributes.s32(IFLA_MASTER).value_or(0)};
    link.alias = attributes.text(IFLA_IFALIAS);
    link.qdisc = attributes.text(IFLA_QDISC);
    link.lower = {attributes.s32(IFLA_LINK).value_or(0)};
    link.lower_netns = attributes.s32(IFLA_LINK_NETNSID).value_or(-1);
    link.group = attributes.u32(IFLA_GROUP).value_or(0);
    link.addr_gen_mode = parse_addr_gen_mode(attributes[IFLA_AF_SPEC]);

    const Attributes link_info{attributes[IFLA_LINKINFO]};
    link.kind = link_info.text(IFLA_INFO_KIND);
    link.is_bridge_port = link_info.text(IFLA_INFO_SLAVE_KIND) == "bridge";
    if (link.kind == "vxlan") link.vxlan = parse_vxlan(Attributes{link_info[IFLA_INFO_DATA]});
    return link;
}

Result<std::vector<Link>> links(Socket& socket)
{
    Message message{RTM_GETLINK, 0};
    message.header(header_for({}));
    message.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    return read_all(socket, message, "links", parse_link);
}

Result<std::optional<Link>> link(Socket& socket, IfIndex index)
{
    Message message{RTM_GETLINK, 0};
    message.header(header_for(index));
    return ask_link(socket, message, subject("link", index));
}

Result<std::optional<Link>> link(Socket& socket, std::string_view name)
{
    Message message{RTM_GETLINK, 0};
    message.header(header_for({}));
    message.text(IFLA_IFNAME, name);
    return ask_link(socket, message, "link " + std::string{name});
}

Result<> create_vxlan(Socket& socket, const VxlanSpec& spec)
{
    Message message{RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL};
    message.header(header_for({}));
    message.text(IFLA_IFNAME, spec.name);
    message.mac(IFLA_ADDRESS, spec.mac);
    message.u32(IFLA_MTU, spec.mtu);
    if (!spec.alias.empty()) message.u32(IFLA_GROUP, kUnfinishedGroup);
    nlattr* info = message.begin(IFLA_LINKINFO);
    message.text(IFLA_INFO_KIND, "vxlan");
    nlattr* data = message.begin(IFLA_INFO_DATA);
    if (spec.single) {
        message.u32(IFLA_VXLAN_ID, spec.single->vni);
        message.u32(IFLA_VXLAN_LINK, static_cast<std::uint32_t>(spec.single->lower.value));
        const bool is_v4 = spec.single->local.family() == Family::v4;
        message.ip(is_v4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, spec.single->local);
    } else {
        // The kernel opens an IPv4 and an IPv6 socket then (vxlan_sock_add, drivers/net/vxlan).
        message.u8(IFLA_VXLAN_COLLECT_METADATA, 1);
    }
    message.u8(IFLA_VXLAN_LEARNING, 0);
    message.be16(IFLA_VXLAN_PORT, spec.port);
    message.u8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, spec.single ? 0 : 1);
    message.u8(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, 0);
    if (spec.gbp) message.flag(IFLA_VXLAN_GBP);
    message.end(data);
    message.end(info);
    TWILL_TRY(socket.change(message, "create vxlan " + spec.name));
    return spec.alias.empty() ? Result<>(Ok{}) : set_alias_of(socket, spec.name, spec.alias);
}

Result<> create_veth_pair(Socket& socket, const VethSpec& spec)
{
    ifinfomsg header = header_for({});
    if (spec.noarp) header.ifi_flags = header.ifi_change = IFF_NOARP;
    Message message{RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL};
    message.header(header);
    message.text(IFLA_IFNAME, spec.name);
    message.mac(IFLA_ADDRESS, spec.mac);
    message.u32(IFLA_MTU, spec.mtu);
    message.u32(IFLA_GROUP, kUnfinishedGroup);
    nlattr* info = message.begin(IFLA_LINKINFO);
    message.text(IFLA_INFO_KIND, "veth");
    nlattr* data = message.begin(IFLA_INFO_DATA);
    nlattr* peer = message.begin(VETH_INFO_PEER);
    message.header(header);
    message.text(IFLA_IFNAME, spec.peer_name);
    message.u32(IFLA_MTU, spec.mtu);
    message.end(peer);
    message.end(data);
    message.end(info);
    TWILL_TRY(socket.change(message, "create veth pair " + spec.name + " and " + spec.peer_name));
    TWILL_TRY(set_alias_of(socket, spec.peer_name, spec.alias));
    return set_alias_of(socket, spec.name, spec.alias);
}

Result<> set_up(Socket& socket, IfIndex index) { return set_flags(socket, index, IFF_UP, "set up"); }

Result<> set_noarp(Socket& socket, IfIndex index) { return set_flags(socket, index, IFF_NOARP, "set noarp"); }

Result<> set_mtu(Socket& socket, IfIndex index, unsigned mtu)
{
    Message message = set_request(index);
    message.u32(IFLA_MTU, mtu);
    return socket.change(message, subject("set mtu " + std::to_string(mtu), index));
}

Result<> set_mac(Socket& socket, IfIndex index, const Mac& mac)
{
    Message message = set_request(index);
    message.mac(IFLA_ADDRESS, mac);
    return socket.change(message, subject("set mac " + mac.to_string(), index));
}

Result<> set_alias(Socket& socket, IfIndex index, std::string_view alias)
{
    Message message = set_request(index);
    message.text(IFLA_IFALIAS, alias);
    message.u32(IFLA_GROUP, 0);
    return socket.change(message, subject("set alias", index));
}

Result<> set_addr_gen_none(Socket& socket, IfIndex index)
{
    Message message = set_request(index);
    nlattr* spec = message.begin(IFLA_AF_SPEC);
    nlattr* inet6 = message.begin(AF_INET6);
    message.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    message.end(inet6);
    message.end(spec);
    auto done = socket.change(message, subject("set addrgenmode none", index));
    if (!done && done.error().code == EAFNOSUPPORT) return Ok{};
    return done;
}

Result<> del_link(Socket& socket, IfIndex index)
{
    Message message{RTM_DELLINK, 0};
    message.header(header_for(index));
    auto done = socket.change(message, subject("delete link", index));
    if (!done && done.error().code == ENODEV) return Ok{};
    return done;
}

} // namespace twill::nl
