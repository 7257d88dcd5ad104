// SPDX-License-Identifier: Apache-2.0
// Each row of flannel's rules, where it applies: on the wire, on the second interface that leads out, on the overlay.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

#include "tests/interop/nat/talk.hpp"

namespace twill::interop::nat {
namespace {

using namespace test;

/// A flow of UDP from one to the other, and its answer. What the row decides is compared with the kernel; here is only
/// what `is` says of twill: kept or masqueraded with that address.
void row(Talk& t, const Ip& src, const Ip& dst, const std::optional<Ip>& expected, std::uint16_t dport = 53)
{
    Flow flow = t.open(src, dst, IPPROTO_UDP, 21000, dport);
    t.check(flow.made, "out");
    t.check(flow.address == expected.value_or(src), "as " + flow.address.to_string());
    t.check(t.hear(flow), "the answer");
    t.check(t.say(flow), "the next");
    // The same by TCP.
    Flow tcp = t.open(src, dst, IPPROTO_TCP, 21000, dport);
    t.check(tcp.made && tcp.address == expected.value_or(src), "TCP as " + tcp.address.to_string());
    t.check(t.hear(tcp, kSyn | kAck), "TCP's answer");
    t.check(t.say(tcp, kAck, 10), "TCP's next");
}

bool nft(const Talk& t) { return const_cast<Talk&>(t).world().twill().rules == TW_NAT_NFT; }
std::optional<Ip> with_iptables(const Talk& t, const Ip& address) { return nft(t) ? std::optional<Ip>{} : address; }

/// A datagram of the node's own, from one of its addresses.
std::vector<Heard> from_host(Talk& t, const Ip& src, std::uint16_t sport, const Ip& dst, std::uint16_t dport)
{
    return t.act("the node sends", [&] {
        const bool v4 = src.is_v4();
        const Fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        const auto address = [&](const Ip& ip, std::uint16_t port) {
            sockaddr_storage out{};
            if (v4) {
                auto& in = reinterpret_cast<sockaddr_in&>(out);
                in.sin_family = AF_INET;
                in.sin_port = htons(port);
                std::memcpy(&in.sin_addr, ip.network(), 4);
            } else {
                auto& in = reinterpret_cast<sockaddr_in6&>(out);
                in.sin6_family = AF_INET6;
                in.sin6_port = htons(port);
                std::memcpy(&in.sin6_addr, ip.network(), 16);
            }
            return out;
        };
        const sockaddr_storage from = address(src, sport), to = address(dst, dport);
        const socklen_t size = v4 ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
        ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&from), size);
        ::sendto(fd.get(), "node", 4, 0, reinterpret_cast<const sockaddr*>(&to), size);
    });
}

void from_node(Talk& t, const Ip& src, const Ip& dst, const std::optional<Ip>& expected)
{
    Flow flow{.near = src, .far = dst, .proto = IPPROTO_UDP, .sport = 21001, .dport = 53, .address = src};
    flow = t.learned(flow, from_host(t, src, 21001, dst, 53));
    t.check(flow.made && flow.address == expected.value_or(src), "as " + flow.address.to_string());
}

} // namespace

std::vector<Conversation> rule_conversations()
{
    return {
        {"row 1, the wire: kube-proxy's mark", [](Talk& t) { row(t, t.e.pod1, t.e.outside, {}, 4000); }},
        {"row 1, second interface: kube-proxy's mark", [](Talk& t) { row(t, t.e.pod1, t.e.outside2, {}, 4000); }},
        {"row 1, overlay: kube-proxy's mark", [](Talk& t) { row(t, t.e.outside, t.e.pod_over, {}, 4000); },
         "ink"}, // who sets the mark has conntrack
        {"row 1, the wire: the mark among others",
         [](Talk& t) { row(t, t.e.pod1, t.e.outside, nft(t) ? std::optional(t.e.wire) : std::nullopt, 4001); }},
        {"row 1, second interface: the mark among others",
         [](Talk& t) { row(t, t.e.pod1, t.e.outside2, nft(t) ? std::optional(t.e.wire2) : std::nullopt, 4001); }},
        {"row 2, the wire: a pod here to one elsewhere", [](Talk& t) { row(t, t.e.pod1, t.e.pod_wire, {}); }},
        {"row 2, second interface: a pod here to one elsewhere", [](Talk& t) { row(t, t.e.pod1, t.e.pod_wire2, {}); }},
        {"row 2, overlay: a pod here to one elsewhere", [](Talk& t) { row(t, t.e.pod1, t.e.pod_over, {}); }},
        {"row 2, overlay: the node by its overlay address",
         [](Talk& t) { from_node(t, t.e.overlay, t.e.pod_over, {}); }},
        {"row 3, the wire: a pod elsewhere to one here", [](Talk& t) { row(t, t.e.pod_wire, t.e.pod1, {}); }},
        {"row 3, second interface: a pod elsewhere to one here", [](Talk& t) { row(t, t.e.pod_wire2, t.e.pod1, {}); }},
        {"row 3, overlay: a pod elsewhere to one here", [](Talk& t) { row(t, t.e.pod_over, t.e.pod1, {}); }},
        {"row 4, the wire: from outside to a pod here", [](Talk& t) { row(t, t.e.outside, t.e.pod1, {}); }},
        {"row 4, second interface: from outside to a pod here", [](Talk& t) { row(t, t.e.outside2, t.e.pod1, {}); }},
        {"row 5, the wire: a pod to the outside", [](Talk& t) { row(t, t.e.pod1, t.e.outside, t.e.wire); }},
        {"row 5, the wire: a pod to a node", [](Talk& t) { row(t, t.e.pod1, t.e.node_b, t.e.wire); }},
        {"row 5, the wire: by the address of the destination's link",
         [](Talk& t) { row(t, t.e.pod1, t.e.on_link, t.e.extra); }},
        {"row 5, second interface: a pod to the outside", [](Talk& t) { row(t, t.e.pod1, t.e.outside2, t.e.wire2); }},
        {"row 5, the wire: another node's pod by way of here",
         [](Talk& t) { row(t, t.e.pod_wire2, t.e.outside, t.e.wire); }},
        {"row 5, second interface: another node's pod by way of here",
         [](Talk& t) { row(t, t.e.pod_wire, t.e.outside2, t.e.wire2); }},
        {"row 5, the wire: another node's pod from the overlay",
         [](Talk& t) { row(t, t.e.pod_over, t.e.outside, t.e.wire); }},
        {"row 5, the wire: pods in transit",
         [](Talk& t) { row(t, t.e.pod_wire2, t.e.pod_wire, with_iptables(t, t.e.wire)); }},
        {"row 5, second interface: pods in transit",
         [](Talk& t) { row(t, t.e.pod_wire, t.e.pod_wire2, with_iptables(t, t.e.wire2)); }},
        {"row 5, overlay: pods in transit",
         [](Talk& t) { row(t, t.e.pod_wire, t.e.pod_over, with_iptables(t, t.e.overlay)); }},
        {"row 5, the wire: not to multicast", [](Talk& t) { from_node(t, t.e.gateway, t.e.group, {}); }},
        {"row 5, the wire: the node by its address among the pods",
         [](Talk& t) { from_node(t, t.e.gateway, t.e.outside, t.e.wire); }},
        {"row 6, the wire: from outside to a pod elsewhere",
         [](Talk& t) { row(t, t.e.outside2, t.e.pod_wire, with_iptables(t, t.e.wire)); }},
        {"row 6, second interface: from outside to a pod elsewhere",
         [](Talk& t) { row(t, t.e.outside, t.e.pod_wire2, with_iptables(t, t.e.wire2)); }},
        {"row 6, overlay: from outside to a pod elsewhere",
         [](Talk& t) { row(t, t.e.outside, t.e.pod_over, with_iptables(t, t.e.overlay)); }},
        {"row 6, the wire: the node to a pod elsewhere",
         [](Talk& t) { from_node(t, t.e.wire2, t.e.pod_wire, with_iptables(t, t.e.wire)); }},
        {"row 6, overlay: the node to a pod elsewhere",
         [](Talk& t) { from_node(t, t.e.wire, t.e.pod_over, with_iptables(t, t.e.overlay)); }},
        {"no row: the node to the outside", [](Talk& t) { from_node(t, t.e.wire, t.e.outside, {}); }},
        {"no row: through this node from outside to outside", [](Talk& t) { row(t, t.e.outside, t.e.outside2, {}); }},
        {"no row: a destination that the configuration excludes", [](Talk& t) { row(t, t.e.pod1, t.e.excluded, {}); },
         "inkc", "flannel has no such list: its kernel masquerades it"},
        {"no row: between pods of this node", [](Talk& t) { row(t, t.e.pod1, t.e.pod2, {}); }},
    };
}

} // namespace twill::interop::nat
