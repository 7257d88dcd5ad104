// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/addr.hpp"

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>

#include "agent/nl/attributes.hpp"
#include "agent/nl/dump.hpp"
#include "agent/nl/message.hpp"

namespace twill::nl {
namespace {

ifaddrmsg header_for(const Address& address)
{
    ifaddrmsg header{};
    header.ifa_family = address.ip.is_v4() ? AF_INET : AF_INET6;
    header.ifa_prefixlen = static_cast<std::uint8_t>(address.bits);
    header.ifa_scope = address.scope;
    header.ifa_index = static_cast<unsigned>(address.ifindex.value);
    return header;
}

std::string subject(const char* operation, const Address& address)
{
    return std::string{operation} + " " + address.ip.to_string() + "/" + std::to_string(address.bits) + " ifindex " +
           std::to_string(address.ifindex.value);
}

} // namespace

Result<Address> parse_address(const nlmsghdr* message)
{
    const auto* header = header_of<ifaddrmsg>(message);
    if (header == nullptr) return Error{EBADMSG, "address message: too short"};
    if (header->ifa_family != AF_INET && header->ifa_family != AF_INET6)
        return Error{EPROTONOSUPPORT, "address message: neither IPv4 nor IPv6"};
    const Attributes attributes{message, sizeof *header};
    // On a point-to-point link IFA_ADDRESS is the other end's.
    auto ip = attributes.ip(IFA_LOCAL);
    if (!ip) ip = attributes.ip(IFA_ADDRESS);
    const bool is_v6 = header->ifa_family == AF_INET6;
    if (!ip || header->ifa_prefixlen > (is_v6 ? 128 : 32)) return Error{EBADMSG, "address message: no address"};
    const std::uint32_t flags = attributes.u32(IFA_FLAGS).value_or(header->ifa_flags);
    Address address;
    address.ifindex = {static_cast<int>(header->ifa_index)};
    address.ip = *ip;
    address.bits = header->ifa_prefixlen;
    address.scope = header->ifa_scope;
    address.is_deprecated = (flags & IFA_F_DEPRECATED) != 0;
    address.is_permanent = (flags & IFA_F_PERMANENT) != 0;
    // The same bit means "secondary" on IPv4.
    address.is_temporary = is_v6 && (flags & IFA_F_TEMPORARY) != 0;
    address.is_secondary = !is_v6 && (flags & IFA_F_SECONDARY) != 0;
    address.is_tentative = (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0 && (flags & IFA_F_OPTIMISTIC) == 0;
    return address;
}

Result<std::vector<Address>> addresses(Socket& socket)
{
    Message message{RTM_GETADDR, 0};
    message.header(ifaddrmsg{});
    return read_all(socket, message, "addresses", parse_address);
}

Result<> put_address(Socket& socket, const Address& address)
{
    Message message{RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE};
    message.header(header_for(address));
    message.ip(IFA_LOCAL, address.ip);
    message.ip(IFA_ADDRESS, address.ip);
    if (!address.ip.is_v4()) message.u32(IFA_FLAGS, IFA_F_NODAD);
    return socket.change(message, subject("put address", address));
}

Result<> del_address(Socket& socket, const Address& address)
{
    Message message{RTM_DELADDR, 0};
    message.header(header_for(address));
    message.ip(IFA_LOCAL, address.ip);
    auto done = socket.change(message, subject("delete address", address));
    if (!done && (done.error().code == EADDRNOTAVAIL || done.error().code == ENODEV)) return Ok{};
    return done;
}

} // namespace twill::nl
