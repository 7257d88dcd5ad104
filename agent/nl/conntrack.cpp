// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/conntrack.hpp"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "agent/nl/attributes.hpp"
#include "agent/nl/dump.hpp"
#include "agent/nl/message.hpp"
#include "twill/fd.hpp"

namespace twill::nl {

namespace {

constexpr int kGet = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;

struct Side {
    Tuple tuple;
    std::uint8_t proto;
};

Result<Side> parse_side(const nlattr* nest)
{
    const Attributes side(nest);
    const Attributes ip(side[CTA_TUPLE_IP]);
    const Attributes proto(side[CTA_TUPLE_PROTO]);
    const auto number = proto.u8(CTA_PROTO_NUM);
    if (!number) return Error{EBADMSG, "conntrack message: no protocol"};
    if (*number != IPPROTO_TCP && *number != IPPROTO_UDP) return Error{EPROTONOSUPPORT, "conntrack message"};
    const auto src = ip[CTA_IP_V4_SRC] != nullptr ? ip.ip(CTA_IP_V4_SRC) : ip.ip(CTA_IP_V6_SRC);
    const auto dst = ip[CTA_IP_V4_DST] != nullptr ? ip.ip(CTA_IP_V4_DST) : ip.ip(CTA_IP_V6_DST);
    const auto sport = proto.be16(CTA_PROTO_SRC_PORT);
    const auto dport = proto.be16(CTA_PROTO_DST_PORT);
    if (!src || !dst || src->family() != dst->family() || !sport || !dport)
        return Error{EBADMSG, "conntrack message: addresses or ports are missing"};
    return Side{{*src, *dst, *sport, *dport}, *number};
}

Message request()
{
    Message message{kGet, 0};
    nfgenmsg header{};
    header.nfgen_family = AF_UNSPEC;
    header.version = NFNETLINK_V0;
    message.header(header);
    return message;
}

/// About the connection whose opener sends `tuple`, which names it.
Message about(int type, std::uint8_t proto_number, const Tuple& tuple)
{
    const bool is_v4 = tuple.src.is_v4();
    Message message{NFNL_SUBSYS_CTNETLINK << 8 | type, 0};
    nfgenmsg header{};
    header.nfgen_family = is_v4 ? AF_INET : AF_INET6;
    header.version = NFNETLINK_V0;
    message.header(header);
    nlattr* original = message.begin(CTA_TUPLE_ORIG | NLA_F_NESTED);
    nlattr* ip = message.begin(CTA_TUPLE_IP | NLA_F_NESTED);
    message.ip(is_v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, tuple.src);
    message.ip(is_v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, tuple.dst);
    message.end(ip);
    nlattr* proto = message.begin(CTA_TUPLE_PROTO | NLA_F_NESTED);
    message.u8(CTA_PROTO_NUM, proto_number);
    message.be16(CTA_PROTO_SRC_PORT, tuple.sport);
    message.be16(CTA_PROTO_DST_PORT, tuple.dport);
    message.end(proto);
    message.end(original);
    return message;
}

} // namespace

Result<Connection> parse_connection(const nlmsghdr* message)
{
    if (header_of<nfgenmsg>(message) == nullptr) return Error{EBADMSG, "conntrack message: too short"};
    const Attributes attributes{message, sizeof(nfgenmsg)};
    TWILL_TRY_AS(original, parse_side(attributes[CTA_TUPLE_ORIG]));
    TWILL_TRY_AS(reply, parse_side(attributes[CTA_TUPLE_REPLY]));
    if (original.proto != reply.proto) return Error{EBADMSG, "conntrack message: two protocols"};
    const auto status = attributes.bytes<4>(CTA_STATUS); // network order
    const bool is_translated = status && ((*status)[3] & (IPS_SRC_NAT | IPS_DST_NAT)) != 0;
    return Connection{original.proto, is_translated, original.tuple, reply.tuple};
}

Result<std::vector<Connection>> connections(const std::function<bool(const Connection&)>& keep)
{
    TWILL_TRY_AS(socket, Socket::open(NETLINK_NETFILTER));
    Message message = request();
    return read_all(socket, message, "conntrack table", parse_connection, keep);
}

Result<> forget(const std::vector<Connection>& connections)
{
    TWILL_TRY_AS(socket, Socket::open(NETLINK_NETFILTER));
    for (const auto& connection : connections) {
        Message message = about(IPCTNL_MSG_CT_DELETE, connection.proto, connection.original);
        auto done = socket.change(message, "conntrack entry");
        if (!done && done.error().code != ENOENT) return done;
    }
    return Ok{};
}

bool tracks_connections(Family family)
{
    // To ourselves, and asked for. The loopback address serves both ways.
    const Ip self = family == Family::v4 ? Ip::v4(127, 0, 0, 1) : *Ip::parse("::1");
    sockaddr_storage address{};
    socklen_t size = 0;
    if (family == Family::v4) {
        auto& in = reinterpret_cast<sockaddr_in&>(address);
        in.sin_family = AF_INET;
        std::memcpy(&in.sin_addr, self.network(), sizeof in.sin_addr);
        size = sizeof in;
    } else {
        auto& in6 = reinterpret_cast<sockaddr_in6&>(address);
        in6.sin6_family = AF_INET6;
        std::memcpy(&in6.sin6_addr, self.network(), sizeof in6.sin6_addr);
        size = sizeof in6;
    }
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    const Fd probe(::socket(generic->sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!probe || ::bind(probe.get(), generic, size) != 0 || ::getsockname(probe.get(), generic, &size) != 0 ||
        ::sendto(probe.get(), "", 1, 0, generic, size) != 1)
        return false;
    const std::uint16_t port = ntohs(family == Family::v4 ? reinterpret_cast<sockaddr_in&>(address).sin_port
                                                          : reinterpret_cast<sockaddr_in6&>(address).sin6_port);
    auto socket = Socket::open(NETLINK_NETFILTER);
    if (!socket) return false;
    Message message = about(IPCTNL_MSG_CT_GET, IPPROTO_UDP, {self, self, port, port});
    return static_cast<bool>(socket->ask(message, "conntrack", [](const nlmsghdr*) -> Result<> { return Ok{}; }));
}

bool has_conntrack()
{
    constexpr const char* kSetting = "/proc/sys/net/netfilter/nf_conntrack_max";
    if (access(kSetting, F_OK) == 0) return true;
    auto socket = Socket::open(NETLINK_NETFILTER);
    Message message = request();
    // A question about no connection in particular is refused, after the modules are there.
    if (socket) (void)socket->ask(message, "conntrack", [](const nlmsghdr*) -> Result<> { return Ok{}; });
    return access(kSetting, F_OK) == 0;
}

} // namespace twill::nl
