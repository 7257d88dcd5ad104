// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netlink/msg.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "agent/nl/addr.hpp"
#include "agent/nl/conntrack.hpp"
#include "agent/nl/link.hpp"
#include "agent/nl/message.hpp"
#include "agent/nl/neigh.hpp"
#include "agent/nl/qdisc.hpp"
#include "agent/nl/route.hpp"

namespace twill::nl {
namespace {

// A message in memory of its own size, so that the sanitizer sees every read beyond it.
class Copy {
public:
    Copy(const nlmsghdr* message, std::size_t size) : bytes_(new char[std::max(size, sizeof(nlmsghdr))])
    {
        std::memcpy(bytes_.get(), message, std::max(size, sizeof(nlmsghdr)));
        header()->nlmsg_len = static_cast<std::uint32_t>(size);
    }
    nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(bytes_.get()); }
    char* bytes() { return bytes_.get(); }

private:
    std::unique_ptr<char[]> bytes_;
};

const nlmsghdr* raw(Message& message)
{
    REQUIRE(message.is_valid());
    return nlmsg_hdr(message.get());
}

Ip ip(const char* text) { return *Ip::parse(text); }
Mac mac(const char* text) { return *Mac::parse(text); }

Message vxlan_link()
{
    ifinfomsg info{};
    info.ifi_index = 7;
    info.ifi_type = 1;
    info.ifi_flags = 1;
    Message message{RTM_NEWLINK, 0};
    message.header(info);
    message.text(IFLA_IFNAME, "twill0");
    message.mac(IFLA_ADDRESS, mac("02:00:00:00:00:01"));
    message.u32(IFLA_MTU, 1450);
    message.u32(IFLA_MASTER, 9);
    message.text(IFLA_IFALIAS, "twill overlay");
    message.text(IFLA_QDISC, "noqueue");
    nlattr* link_info = message.begin(IFLA_LINKINFO);
    message.text(IFLA_INFO_KIND, "vxlan");
    nlattr* data = message.begin(IFLA_INFO_DATA);
    message.u8(IFLA_VXLAN_COLLECT_METADATA, 1);
    message.be16(IFLA_VXLAN_PORT, 8472);
    message.u8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1);
    message.end(data);
    message.text(IFLA_INFO_SLAVE_KIND, "bridge");
    message.end(link_info);
    nlattr* spec = message.begin(IFLA_AF_SPEC);
    nlattr* inet6 = message.begin(AF_INET6);
    message.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    message.end(inet6);
    message.end(spec);
    return message;
}

Message address6()
{
    ifaddrmsg header{};
    header.ifa_family = AF_INET6;
    header.ifa_prefixlen = 64;
    header.ifa_index = 3;
    Message message{RTM_NEWADDR, 0};
    message.header(header);
    message.ip(IFA_ADDRESS, ip("2001:db8::1"));
    message.u32(IFA_FLAGS, IFA_F_TEMPORARY | IFA_F_DEPRECATED);
    return message;
}

Message multipath_route()
{
    rtmsg header{};
    header.rtm_family = AF_INET;
    header.rtm_dst_len = 16;
    header.rtm_table = RT_TABLE_MAIN;
    header.rtm_type = RTN_UNICAST;
    Message message{RTM_NEWROUTE, 0};
    message.header(header);
    message.ip(RTA_DST, ip("10.42.0.0"));
    message.ip(RTA_PREFSRC, ip("10.42.1.0"));
    message.u32(RTA_PRIORITY, 5);
    nlattr* metrics = message.begin(RTA_METRICS);
    message.u32(RTAX_MTU, 1400);
    message.end(metrics);
    struct {
        rtnexthop hop{};
        nlattr gateway_header{};
        std::uint8_t gateway[4] = {192, 0, 2, 1};
    } one;
    one.hop.rtnh_len = sizeof one;
    one.hop.rtnh_ifindex = 4;
    one.hop.rtnh_flags = RTNH_F_ONLINK;
    one.gateway_header.nla_type = RTA_GATEWAY;
    one.gateway_header.nla_len = sizeof one.gateway_header + sizeof one.gateway;
    message.put(RTA_MULTIPATH, &one, sizeof one);
    return message;
}

Message via6_route()
{
    rtmsg header{};
    header.rtm_family = AF_INET;
    header.rtm_type = RTN_UNICAST;
    Message message{RTM_NEWROUTE, 0};
    message.header(header);
    message.u32(RTA_OIF, 2);
    message.u32(RTA_TABLE, 1000);
    std::uint8_t via[18] = {AF_INET6, 0};
    std::memcpy(via + 2, ip("fe80::1").network(), 16);
    message.put(RTA_VIA, via, sizeof via);
    return message;
}

/// As ctnetlink tells it: a service's address at the opener's side, the backend's at the other.
Message connection(std::uint8_t proto, std::uint8_t status)
{
    Message message{NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW, 0};
    message.header(nfgenmsg{.nfgen_family = AF_INET, .version = NFNETLINK_V0, .res_id = 0});
    const auto side = [&](int attribute, const char* src, const char* dst, std::uint16_t sport, std::uint16_t dport) {
        nlattr* tuple = message.begin(attribute);
        nlattr* addresses = message.begin(CTA_TUPLE_IP);
        message.ip(CTA_IP_V4_SRC, ip(src));
        message.ip(CTA_IP_V4_DST, ip(dst));
        message.end(addresses);
        nlattr* ports = message.begin(CTA_TUPLE_PROTO);
        message.u8(CTA_PROTO_NUM, proto);
        message.be16(CTA_PROTO_SRC_PORT, sport);
        message.be16(CTA_PROTO_DST_PORT, dport);
        message.end(ports);
        message.end(tuple);
    };
    side(CTA_TUPLE_ORIG, "10.42.1.2", "10.96.0.10", 40000, 80);
    side(CTA_TUPLE_REPLY, "10.42.2.3", "10.42.1.2", 5001, 40000);
    const std::uint8_t bits[4] = {0, 0, 1, status};
    message.put(CTA_STATUS, bits, sizeof bits);
    return message;
}

Message neighbour(std::uint8_t family)
{
    ndmsg header{};
    header.ndm_family = family;
    header.ndm_ifindex = 6;
    header.ndm_state = NUD_PERMANENT;
    Message message{RTM_NEWNEIGH, 0};
    message.header(header);
    if (family != AF_BRIDGE) message.ip(NDA_DST, ip("192.0.2.9"));
    message.mac(NDA_LLADDR, mac("02:00:00:00:00:09"));
    if (family == AF_BRIDGE) message.u32(NDA_MASTER, 5);
    return message;
}

Message qdisc()
{
    tcmsg header{};
    header.tcm_ifindex = 8;
    header.tcm_parent = TC_H_ROOT;
    header.tcm_handle = 0x10000;
    Message message{RTM_NEWQDISC, 0};
    message.header(header);
    message.text(TCA_KIND, "tbf");
    return message;
}

void parse_all(const nlmsghdr* message)
{
    (void)parse_link(message);
    (void)parse_address(message);
    (void)parse_route(message);
    (void)parse_neighbour(message);
    (void)parse_fdb(message);
    (void)parse_qdisc(message);
    (void)parse_connection(message);
}

std::vector<Message> samples()
{
    std::vector<Message> all;
    all.push_back(vxlan_link());
    all.push_back(address6());
    all.push_back(multipath_route());
    all.push_back(via6_route());
    all.push_back(neighbour(AF_INET));
    all.push_back(neighbour(AF_BRIDGE));
    all.push_back(qdisc());
    all.push_back(connection(IPPROTO_TCP, IPS_DST_NAT));
    return all;
}

} // namespace

TEST_CASE("nl: a link message gives every field")
{
    Message message = vxlan_link();
    const auto link = parse_link(raw(message));
    REQUIRE(link);
    CHECK(link->index == IfIndex{7});
    CHECK(link->name == "twill0");
    CHECK(link->kind == "vxlan");
    CHECK(link->type == 1);
    CHECK(link->mac == mac("02:00:00:00:00:01"));
    CHECK(link->mtu == 1450);
    CHECK(link->is_up());
    CHECK(link->master == IfIndex{9});
    CHECK(link->is_bridge_port);
    CHECK(link->alias == "twill overlay");
    CHECK(link->qdisc == "noqueue");
    CHECK(link->addr_gen_mode == IN6_ADDR_GEN_MODE_NONE);
    CHECK(link->lower_netns == -1);
    CHECK(link->vxlan == Vxlan{.port = 8472, .collect_metadata = true, .zero_csum6_rx = true});
}

TEST_CASE("nl: a bridge port's state and a wireless event are not links")
{
    ifinfomsg info{};
    info.ifi_family = AF_BRIDGE;
    info.ifi_index = 7;
    Message port{RTM_NEWLINK, 0};
    port.header(info);
    port.text(IFLA_IFNAME, "veth0");
    CHECK(parse_link(raw(port)).error().code == EPROTONOSUPPORT);

    info.ifi_family = AF_UNSPEC;
    Message wireless{RTM_NEWLINK, 0};
    wireless.header(info);
    wireless.text(IFLA_IFNAME, "wlan0");
    wireless.text(IFLA_WIRELESS, "event");
    CHECK(parse_link(raw(wireless)).error().code == EPROTONOSUPPORT);
}

TEST_CASE("nl: an address message gives its flags from the wide attribute")
{
    Message message = address6();
    const auto address = parse_address(raw(message));
    REQUIRE(address);
    CHECK(address->ip == ip("2001:db8::1"));
    CHECK(address->bits == 64);
    CHECK(address->is_temporary);
    CHECK(address->is_deprecated);
    CHECK_FALSE(address->is_permanent);
}

TEST_CASE("nl: a multipath route shows its first next hop")
{
    Message message = multipath_route();
    const auto route = parse_route(raw(message));
    REQUIRE(route);
    CHECK(route->dst == *Cidr::parse("10.42.0.0/16"));
    CHECK(route->ifindex == IfIndex{4});
    CHECK(route->gateway == ip("192.0.2.1"));
    CHECK(route->prefsrc == ip("10.42.1.0"));
    CHECK(route->mtu == 1400);
    CHECK(route->metric == 5);
    CHECK(route->onlink);
}

TEST_CASE("nl: an IPv4 default route through an IPv6 neighbour keeps its family")
{
    Message message = via6_route();
    const auto route = parse_route(raw(message));
    REQUIRE(route);
    CHECK(route->dst == *Cidr::parse("0.0.0.0/0"));
    CHECK(route->gateway == ip("fe80::1"));
    CHECK(route->table == 1000);
}

TEST_CASE("nl: ARP entries and bridge entries are told apart")
{
    Message arp = neighbour(AF_INET);
    Message bridge = neighbour(AF_BRIDGE);
    REQUIRE(parse_neighbour(raw(arp)));
    CHECK(parse_neighbour(raw(arp))->is_usable());
    CHECK(parse_fdb(raw(arp)).error().code == EPROTONOSUPPORT);
    REQUIRE(parse_fdb(raw(bridge)));
    CHECK(*parse_fdb(raw(bridge)) ==
          FdbEntry{.mac = mac("02:00:00:00:00:09"), .port = {6}, .bridge = {5}, .is_local = true});
    CHECK(parse_neighbour(raw(bridge)).error().code == EPROTONOSUPPORT);
}

TEST_CASE("nl: a connection has two directions, and is translated when conntrack says so")
{
    Message nat = connection(IPPROTO_TCP, IPS_CONFIRMED | IPS_DST_NAT);
    Message plain = connection(IPPROTO_UDP, IPS_CONFIRMED);
    Message other = connection(IPPROTO_SCTP, IPS_DST_NAT);
    const auto parsed = parse_connection(raw(nat));
    REQUIRE(parsed);
    CHECK(*parsed == Connection{IPPROTO_TCP,
                                true,
                                {ip("10.42.1.2"), ip("10.96.0.10"), 40000, 80},
                                {ip("10.42.2.3"), ip("10.42.1.2"), 5001, 40000}});
    REQUIRE(parse_connection(raw(plain)));
    CHECK_FALSE(parse_connection(raw(plain))->is_translated);
    CHECK(parse_connection(raw(other)).error().code == EPROTONOSUPPORT);
}

TEST_CASE("nl: shaped is what somebody set to limit, not what the kernel queues by default")
{
    const IfIndex pod{8};
    const auto shaped = [&](const char* kind, std::uint32_t parent, std::uint32_t handle) {
        return is_shaped({{.ifindex = pod, .kind = kind, .parent = parent, .handle = handle}}, pod);
    };
    CHECK(shaped("tbf", TC_H_ROOT, 0x10000));
    CHECK(shaped("htb", TC_H_ROOT, 0x80010000));
    CHECK(shaped("netem", TC_H_ROOT, 0x80010000));
    CHECK(shaped("fq", TC_H_ROOT, 0x80010000));
    CHECK(shaped("ingress", TC_H_INGRESS, 0xffff0000));
    CHECK_FALSE(shaped("fq", TC_H_ROOT, 0));
    CHECK_FALSE(shaped("fq_codel", TC_H_ROOT, 0));
    CHECK_FALSE(shaped("mq", TC_H_ROOT, 0));
    CHECK_FALSE(shaped("clsact", TC_H_INGRESS, 0xffff0000));
    CHECK_FALSE(shaped("tbf", 0x10001, 0x20000));
    CHECK_FALSE(is_shaped({{.ifindex = {9}, .kind = "tbf", .parent = TC_H_ROOT, .handle = 1}}, pod));
}

TEST_CASE("nl: no parser reads beyond a message that is cut at any length")
{
    for (auto& sample : samples()) {
        const nlmsghdr* whole = raw(sample);
        for (std::size_t size = 0; size <= whole->nlmsg_len; ++size) parse_all(Copy{whole, size}.header());
    }
}

TEST_CASE("nl: no parser reads beyond a message with any bytes in it")
{
    std::mt19937 random{116};
    for (auto& sample : samples()) {
        const nlmsghdr* whole = raw(sample);
        for (int round = 0; round < 4000; ++round) {
            const std::size_t size = NLMSG_HDRLEN + random() % (whole->nlmsg_len - NLMSG_HDRLEN + 1);
            Copy copy{whole, size};
            for (auto i = random() % 6; i > 0 && size > NLMSG_HDRLEN; --i)
                copy.bytes()[NLMSG_HDRLEN + random() % (size - NLMSG_HDRLEN)] = static_cast<char>(random());
            parse_all(copy.header());
        }
    }
}

} // namespace twill::nl
