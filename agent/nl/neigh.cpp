// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/neigh.hpp"

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>

#include "agent/nl/attributes.hpp"
#include "agent/nl/dump.hpp"
#include "agent/nl/message.hpp"

namespace twill::nl {
namespace {

ndmsg header_for(const Neighbour& neighbour)
{
    ndmsg header{};
    header.ndm_family = neighbour.ip.is_v4() ? AF_INET : AF_INET6;
    header.ndm_ifindex = neighbour.ifindex.value;
    return header;
}

std::string subject(const char* operation, const Neighbour& neighbour)
{
    return std::string{operation} + " " + neighbour.ip.to_string() + " ifindex " +
           std::to_string(neighbour.ifindex.value);
}

std::string subject(const char* operation, const VtepEntry& entry)
{
    return std::string{operation} + " " + entry.mac.to_string() + " ifindex " + std::to_string(entry.device.value) +
           " dst " + entry.node.to_string();
}

Message vtep_request(int type, int flags, const VtepEntry& entry, bool with_node)
{
    ndmsg header{};
    header.ndm_family = AF_BRIDGE;
    header.ndm_ifindex = entry.device.value;
    header.ndm_flags = NTF_SELF;
    header.ndm_state = NUD_PERMANENT;
    Message message{type, flags};
    message.header(header);
    message.mac(NDA_LLADDR, entry.mac);
    if (with_node) message.ip(NDA_DST, entry.node);
    return message;
}

} // namespace

Result<Neighbour> parse_neighbour(const nlmsghdr* message)
{
    const auto* header = header_of<ndmsg>(message);
    if (header == nullptr) return Error{EBADMSG, "neighbour message: too short"};
    if ((header->ndm_family != AF_INET && header->ndm_family != AF_INET6) || (header->ndm_flags & NTF_PROXY) != 0)
        return Error{EPROTONOSUPPORT, "neighbour message: not an ARP or ND entry"};
    const Attributes attributes{message, sizeof *header};
    const auto ip = attributes.ip(NDA_DST);
    if (!ip) return Error{EBADMSG, "neighbour message: no address"};
    return Neighbour{
        .ifindex = {header->ndm_ifindex}, .ip = *ip, .mac = attributes.mac(NDA_LLADDR), .state = header->ndm_state};
}

Result<FdbEntry> parse_fdb(const nlmsghdr* message)
{
    const auto* header = header_of<ndmsg>(message);
    if (header == nullptr) return Error{EBADMSG, "fdb message: too short"};
    const Attributes attributes{message, sizeof *header};
    const auto bridge = attributes.s32(NDA_MASTER);
    // NTF_SELF: the entry is the device's own (a NIC's filter, vxlan's table), not the bridge's.
    if (header->ndm_family != AF_BRIDGE || (header->ndm_flags & NTF_SELF) != 0 || !bridge ||
        attributes[NDA_LLADDR] == nullptr)
        return Error{EPROTONOSUPPORT, "fdb message: not a bridge's"};
    return FdbEntry{.mac = attributes.mac(NDA_LLADDR),
                    .port = {header->ndm_ifindex},
                    .bridge = {*bridge},
                    .is_local = (header->ndm_state & NUD_PERMANENT) != 0};
}

Result<std::vector<Neighbour>> neighbours(Socket& socket)
{
    Message message{RTM_GETNEIGH, 0};
    message.header(ndmsg{});
    return read_all(socket, message, "neighbours", parse_neighbour);
}

Result<> put_neighbour(Socket& socket, const Neighbour& neighbour)
{
    ndmsg header = header_for(neighbour);
    header.ndm_state = NUD_PERMANENT;
    Message message{RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE};
    message.header(header);
    message.ip(NDA_DST, neighbour.ip);
    message.mac(NDA_LLADDR, neighbour.mac);
    return socket.change(message, subject("put neighbour", neighbour));
}

Result<> del_neighbour(Socket& socket, const Neighbour& neighbour)
{
    Message message{RTM_DELNEIGH, 0};
    message.header(header_for(neighbour));
    message.ip(NDA_DST, neighbour.ip);
    auto done = socket.change(message, subject("delete neighbour", neighbour));
    if (!done && (done.error().code == ENOENT || done.error().code == ENODEV)) return Ok{};
    return done;
}

Result<std::vector<FdbEntry>> fdb(Socket& socket)
{
    ndmsg header{};
    header.ndm_family = AF_BRIDGE;
    Message message{RTM_GETNEIGH, 0};
    message.header(header);
    return read_all(socket, message, "bridge forwarding entries", parse_fdb);
}

Result<VtepEntry> parse_vtep(const nlmsghdr* message)
{
    const auto* header = header_of<ndmsg>(message);
    if (header == nullptr) return Error{EBADMSG, "fdb message: too short"};
    const Attributes attributes{message, sizeof *header};
    const Mac mac = attributes.mac(NDA_LLADDR);
    const auto node = attributes.ip(NDA_DST);
    if (header->ndm_family != AF_BRIDGE || (header->ndm_flags & NTF_SELF) == 0 ||
        (header->ndm_state & NUD_PERMANENT) == 0 || mac.is_zero() || !node)
        return Error{EPROTONOSUPPORT, "fdb message: not a permanent entry of a vxlan device"};
    return VtepEntry{.device = {header->ndm_ifindex}, .mac = mac, .node = *node};
}

Result<std::vector<VtepEntry>> vteps(Socket& socket, IfIndex device)
{
    ndmsg header{};
    header.ndm_family = AF_BRIDGE;
    header.ndm_ifindex = device.value;
    Message message{RTM_GETNEIGH, 0};
    message.header(header);
    // Not every kernel filters by the device.
    return read_all(socket, message, "vxlan forwarding entries", parse_vtep,
                    [device](const VtepEntry& entry) { return entry.device == device; });
}

Result<> put_vtep(Socket& socket, const VtepEntry& entry)
{
    Message message = vtep_request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, entry, true);
    return socket.change(message, subject("put fdb entry", entry));
}

Result<> del_vtep(Socket& socket, const VtepEntry& entry)
{
    Message message = vtep_request(RTM_DELNEIGH, 0, entry, false);
    auto done = socket.change(message, subject("delete fdb entry", entry));
    if (!done && (done.error().code == ENOENT || done.error().code == ENODEV)) return Ok{};
    return done;
}

} // namespace twill::nl
