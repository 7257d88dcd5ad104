// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/route.hpp"

#include <endian.h>
#include <linux/lwtunnel.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "agent/nl/attributes.hpp"
#include "agent/nl/dump.hpp"
#include "agent/nl/message.hpp"

namespace twill::nl {
namespace {

static_assert(kRouteUnicast == RTN_UNICAST && kRouteLocal == RTN_LOCAL && kRouteUnreachable == RTN_UNREACHABLE);

constexpr std::uint8_t family_number(Family family) { return family == Family::v4 ? AF_INET : AF_INET6; }

struct NextHop {
    IfIndex ifindex;
    std::optional<Ip> gateway;
    bool onlink = false;
};

std::optional<Ip> parse_gateway(const Attributes& attributes)
{
    if (const auto gateway = attributes.ip(RTA_GATEWAY)) return gateway;
    // An IPv4 route through an IPv6 neighbour: struct rtvia is the family, then the address.
    const auto via6 = attributes.bytes<2 + 16>(RTA_VIA);
    if (!via6) return std::nullopt;
    auto ip = Ip::from_network(via6->data() + 2, 16);
    if (!ip) return std::nullopt;
    return *ip;
}

NextHop parse_nexthop(const rtmsg& header, const Attributes& attributes)
{
    NextHop hop;
    if (const auto first = attributes.bytes<sizeof(rtnexthop)>(RTA_MULTIPATH)) {
        rtnexthop head;
        std::memcpy(&head, first->data(), sizeof head);
        hop.ifindex = {head.rtnh_ifindex};
        hop.onlink = (head.rtnh_flags & RTNH_F_ONLINK) != 0;
        hop.gateway = parse_gateway(attributes.nested_after(RTA_MULTIPATH, sizeof head, head.rtnh_len));
        return hop;
    }
    hop.ifindex = {attributes.s32(RTA_OIF).value_or(0)};
    hop.onlink = (header.rtm_flags & RTNH_F_ONLINK) != 0;
    hop.gateway = parse_gateway(attributes);
    return hop;
}

unsigned parse_mtu(const Attributes& attributes)
{
    return Attributes{attributes[RTA_METRICS]}.u32(RTAX_MTU).value_or(0);
}

// LWTUNNEL_IP6_* have the numbers of LWTUNNEL_IP_*.
static_assert(int{LWTUNNEL_IP_ID} == int{LWTUNNEL_IP6_ID} && int{LWTUNNEL_IP_DST} == int{LWTUNNEL_IP6_DST} &&
              int{LWTUNNEL_IP_SRC} == int{LWTUNNEL_IP6_SRC} && int{LWTUNNEL_IP_FLAGS} == int{LWTUNNEL_IP6_FLAGS});
constexpr std::uint16_t kTunnelCsum = 0x01; // TUNNEL_CSUM of linux/if_tunnel.h, which clashes with net/if.h

// Other encapsulations (mpls, seg6, ...) are none of ours.
std::optional<Encap> parse_encap(const Attributes& attributes)
{
    const auto type = attributes.bytes<sizeof(std::uint16_t)>(RTA_ENCAP_TYPE);
    if (!type) return std::nullopt;
    std::uint16_t number = 0;
    std::memcpy(&number, type->data(), sizeof number);
    if (number != LWTUNNEL_ENCAP_IP && number != LWTUNNEL_ENCAP_IP6) return std::nullopt;
    const Attributes tunnel{attributes[RTA_ENCAP]};
    const auto dst = tunnel.ip(LWTUNNEL_IP_DST);
    if (!dst) return std::nullopt;
    Encap encap;
    encap.dst = *dst;
    encap.src = tunnel.ip(LWTUNNEL_IP_SRC);
    if (encap.src && encap.src->is_unspecified()) encap.src.reset();
    if (const auto id = tunnel.bytes<sizeof encap.id>(LWTUNNEL_IP_ID)) {
        std::memcpy(&encap.id, id->data(), sizeof encap.id);
        encap.id = be64toh(encap.id);
    }
    encap.csum = (tunnel.be16(LWTUNNEL_IP_FLAGS).value_or(0) & kTunnelCsum) != 0;
    return encap;
}

void put_encap(Message& message, const Encap& encap)
{
    const std::uint16_t type = encap.dst.is_v4() ? LWTUNNEL_ENCAP_IP : LWTUNNEL_ENCAP_IP6;
    const std::uint64_t id = htobe64(encap.id);
    message.put(RTA_ENCAP_TYPE, &type, sizeof type);
    nlattr* nest = message.begin(RTA_ENCAP);
    message.put(LWTUNNEL_IP_ID, &id, sizeof id);
    message.ip(LWTUNNEL_IP_DST, encap.dst);
    if (encap.src) message.ip(LWTUNNEL_IP_SRC, *encap.src);
    message.be16(LWTUNNEL_IP_FLAGS, encap.csum ? kTunnelCsum : 0);
    message.end(nest);
}

Result<std::optional<RouteLookup>> parse_lookup(const nlmsghdr* message)
{
    const auto* header = header_of<rtmsg>(message);
    if (header == nullptr) return Error{EBADMSG, "route message: too short"};
    if (header->rtm_type != RTN_UNICAST && header->rtm_type != RTN_LOCAL) return std::optional<RouteLookup>{};
    const Attributes attributes{message, sizeof *header};
    const NextHop hop = parse_nexthop(*header, attributes);
    return std::optional{RouteLookup{.ifindex = hop.ifindex,
                                     .gateway = hop.gateway,
                                     .source = attributes.ip(RTA_PREFSRC),
                                     .mtu = parse_mtu(attributes),
                                     .type = header->rtm_type}};
}

// What the kernel says about a destination that it would not send to: no route, unreachable, prohibit, blackhole. The
// last is EINVAL, which a well-formed lookup cannot be otherwise.
bool is_unreachable(int code)
{
    return code == ENETUNREACH || code == EHOSTUNREACH || code == EACCES || code == EINVAL || code == ENETDOWN;
}

void put_route_body(Message& message, const Route& route)
{
    rtmsg header{};
    header.rtm_family = family_number(route.dst.family());
    header.rtm_dst_len = static_cast<std::uint8_t>(route.dst.bits());
    header.rtm_table = route.table < 256 ? static_cast<std::uint8_t>(route.table) : std::uint8_t{RT_TABLE_UNSPEC};
    header.rtm_protocol = route.protocol;
    header.rtm_scope = route.scope;
    header.rtm_type = route.type;
    header.rtm_flags = route.onlink ? RTNH_F_ONLINK : 0;
    message.header(header);
    message.ip(RTA_DST, route.dst.address());
    message.u32(RTA_TABLE, route.table);
    if (route.ifindex) message.u32(RTA_OIF, static_cast<std::uint32_t>(route.ifindex.value));
    if (route.metric != 0) message.u32(RTA_PRIORITY, route.metric);
    if (route.prefsrc) message.ip(RTA_PREFSRC, *route.prefsrc);
    if (route.gateway && route.gateway->family() == route.dst.family()) message.ip(RTA_GATEWAY, *route.gateway);
    if (route.gateway && route.gateway->family() != route.dst.family()) {
        std::array<char, 2 + 16> via{};
        const std::uint16_t family = family_number(route.gateway->family());
        std::memcpy(via.data(), &family, sizeof family);
        std::memcpy(via.data() + 2, route.gateway->network(), route.gateway->network_size());
        message.put(RTA_VIA, via.data(), 2 + route.gateway->network_size());
    }
    if (route.encap) put_encap(message, *route.encap);
    if (route.mtu != 0) {
        nlattr* metrics = message.begin(RTA_METRICS);
        message.u32(RTAX_MTU, route.mtu);
        message.end(metrics);
    }
}

std::string subject(const char* operation, const Route& route)
{
    return std::string{operation} + " " + route.dst.to_string();
}

} // namespace

Result<Route> parse_route(const nlmsghdr* message)
{
    const auto* header = header_of<rtmsg>(message);
    if (header == nullptr) return Error{EBADMSG, "route message: too short"};
    const bool is_v6 = header->rtm_family == AF_INET6;
    if ((!is_v6 && header->rtm_family != AF_INET) || (header->rtm_flags & RTM_F_CLONED) != 0)
        return Error{EPROTONOSUPPORT, "route message: not of a routing table"};
    const Attributes attributes{message, sizeof *header};
    const Ip any = is_v6 ? Ip{} : Ip::v4(0, 0, 0, 0);
    const Ip dst = attributes.ip(RTA_DST).value_or(any);
    // ::ffff:0:0/96 and longer is IPv4 by the vocabulary's convention, and in no table that matters here.
    if (dst.family() != any.family()) return Error{EPROTONOSUPPORT, "route message: IPv4-mapped destination"};
    auto cidr = Cidr::make(dst, header->rtm_dst_len);
    if (!cidr) return Error{EBADMSG, "route message: prefix length"};
    const NextHop hop = parse_nexthop(*header, attributes);
    Route route;
    route.dst = *cidr;
    route.ifindex = hop.ifindex;
    route.gateway = hop.gateway;
    route.prefsrc = attributes.ip(RTA_PREFSRC);
    route.mtu = parse_mtu(attributes);
    route.metric = attributes.u32(RTA_PRIORITY).value_or(0);
    route.table = attributes.u32(RTA_TABLE).value_or(header->rtm_table);
    route.type = header->rtm_type;
    route.protocol = header->rtm_protocol;
    route.scope = header->rtm_scope;
    route.onlink = hop.onlink;
    route.encap = parse_encap(attributes);
    return route;
}

Result<std::vector<Route>> routes(Socket& socket, Family family)
{
    rtmsg header{};
    header.rtm_family = family_number(family);
    Message message{RTM_GETROUTE, 0};
    message.header(header);
    // Kernels with strict checking filter by it; the others send everything.
    message.u32(RTA_TABLE, RT_TABLE_MAIN);
    auto all = read_all(socket, message, "routes", parse_route,
                        [](const Route& route) { return route.table == RT_TABLE_MAIN; });
    // The table is made with its first route.
    if (!all && all.error().code == ENOENT) return std::vector<Route>{};
    return all;
}

Result<std::vector<Route>> routes(Socket& socket)
{
    TWILL_TRY_AS(all, routes(socket, Family::v4));
    TWILL_TRY_AS(more, routes(socket, Family::v6));
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

Result<> put_route(Socket& socket, const Route& route)
{
    Message message{RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE};
    put_route_body(message, route);
    return socket.change(message, subject("put route", route));
}

Result<> prepend_route(Socket& socket, const Route& route)
{
    Message message{RTM_NEWROUTE, NLM_F_CREATE};
    put_route_body(message, route);
    auto done = socket.change(message, subject("put route", route));
    if (!done && done.error().code == EEXIST) return Ok{};
    return done;
}

Result<> del_route(Socket& socket, const Route& route)
{
    Message message{RTM_DELROUTE, 0};
    put_route_body(message, route);
    auto done = socket.change(message, subject("delete route", route));
    if (!done && (done.error().code == ESRCH || done.error().code == ENODEV)) return Ok{};
    return done;
}

namespace {

/// Asks with what `add` puts into the question besides the destination.
Result<std::optional<RouteLookup>> look_up(Socket& socket, const Ip& to, std::uint8_t src_len,
                                           const std::function<void(Message&)>& add)
{
    rtmsg header{};
    header.rtm_family = family_number(to.family());
    header.rtm_dst_len = static_cast<std::uint8_t>(to.network_size() * 8);
    header.rtm_src_len = src_len;
    Message message{RTM_GETROUTE, 0};
    message.header(header);
    message.ip(RTA_DST, to);
    add(message);
    std::optional<RouteLookup> found;
    auto asked = socket.ask(message, "route to " + to.to_string(), [&](const nlmsghdr* reply) -> Result<> {
        TWILL_TRY_AS(parsed, parse_lookup(reply));
        found = parsed;
        return Ok{};
    });
    if (!asked && !is_unreachable(asked.error().code)) return asked.error();
    return found;
}

} // namespace

Result<std::optional<RouteLookup>> lookup(Socket& socket, const Ip& to)
{
    return look_up(socket, to, 0, [](Message&) {});
}

Result<std::optional<RouteLookup>> lookup_forwarded(Socket& socket, const Ip& to, const Ip& from, IfIndex in)
{
    return look_up(socket, to, static_cast<std::uint8_t>(from.network_size() * 8), [&](Message& message) {
        message.ip(RTA_SRC, from);
        message.u32(RTA_IIF, static_cast<std::uint32_t>(in.value));
    });
}

} // namespace twill::nl
