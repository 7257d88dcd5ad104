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

} // namespace twill::nl
