// SPDX-License-Identifier: Apache-2.0
// Flows that conntrack knows as translated are the stack's; plain ones and unknown ones are not. The entries are made
// over ctnetlink, as kube-proxy's DNAT rule would have left them.
#include <doctest/doctest.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <sys/socket.h>

#include <memory>

#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

struct FreeSocket {
    void operator()(nl_sock* sock) const { nl_socket_free(sock); }
};
struct FreeMessage {
    void operator()(nl_msg* message) const { nlmsg_free(message); }
};

struct End {
    Ip address;
    std::uint16_t port;
};

void put_tuple(nl_msg* message, int type, const End& src, const End& dst, std::uint8_t proto)
{
    const bool v4 = src.address.is_v4();
    const int size = static_cast<int>(src.address.network_size());
    nlattr* tuple = nla_nest_start(message, type | NLA_F_NESTED);
    nlattr* addresses = nla_nest_start(message, CTA_TUPLE_IP | NLA_F_NESTED);
    nla_put(message, v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, size, src.address.network());
    nla_put(message, v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, size, dst.address.network());
    nla_nest_end(message, addresses);
    nlattr* ports = nla_nest_start(message, CTA_TUPLE_PROTO | NLA_F_NESTED);
    nla_put_u8(message, CTA_PROTO_NUM, proto);
    nla_put_u16(message, CTA_PROTO_SRC_PORT, htons(src.port));
    nla_put_u16(message, CTA_PROTO_DST_PORT, htons(dst.port));
    nla_nest_end(message, ports);
    nla_nest_end(message, tuple);
}

/// A connection client -> service in the namespace's conntrack; with `backend`, its destination is translated to that.
/// 0 or a negative libnl error.
int put_connection(const End& client, const End& service, const End* backend, std::uint8_t proto)
{
    const std::unique_ptr<nl_sock, FreeSocket> sock(nl_socket_alloc());
    if (const int rc = nl_connect(sock.get(), NETLINK_NETFILTER); rc < 0) return rc;
    std::unique_ptr<nl_msg, FreeMessage> message(
        nlmsg_alloc_simple(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK));
    nfgenmsg family{};
    family.nfgen_family = client.address.is_v4() ? AF_INET : AF_INET6;
    nlmsg_append(message.get(), &family, sizeof family, NLMSG_ALIGNTO);
    put_tuple(message.get(), CTA_TUPLE_ORIG, client, service, proto);
    put_tuple(message.get(), CTA_TUPLE_REPLY, service, client, proto);
    nla_put_u32(message.get(), CTA_TIMEOUT, htonl(600));
    nla_put_u32(message.get(), CTA_STATUS, htonl(IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED));
    if (proto == IPPROTO_TCP) {
        nlattr* info = nla_nest_start(message.get(), CTA_PROTOINFO | NLA_F_NESTED);
        nlattr* state = nla_nest_start(message.get(), CTA_PROTOINFO_TCP | NLA_F_NESTED);
        nla_put_u8(message.get(), CTA_PROTOINFO_TCP_STATE, 3); // ESTABLISHED
        nla_nest_end(message.get(), state);
        nla_nest_end(message.get(), info);
    }
    if (backend != nullptr) {
        const bool v4 = backend->address.is_v4();
        nlattr* nat = nla_nest_start(message.get(), CTA_NAT_DST | NLA_F_NESTED);
        nla_put(message.get(), v4 ? CTA_NAT_V4_MINIP : CTA_NAT_V6_MINIP,
                static_cast<int>(backend->address.network_size()), backend->address.network());
        nlattr* port = nla_nest_start(message.get(), CTA_NAT_PROTO | NLA_F_NESTED);
        nla_put_u16(message.get(), CTA_PROTONAT_PORT_MIN, htons(backend->port));
        nla_put_u16(message.get(), CTA_PROTONAT_PORT_MAX, htons(backend->port));
        nla_nest_end(message.get(), port);
        nla_nest_end(message.get(), nat);
    }
    return nl_send_sync(sock.get(), message.release()); // frees it
}

/// Tests of one process share the namespace and so its conntrack: each takes client ports of its own.
std::uint16_t fresh_port()
{
    static std::uint16_t next = 20000;
    return next++;
}

Layers segment(std::uint8_t proto, std::uint16_t sport, std::uint16_t dport, std::uint8_t flags = 0x10)
{
    if (proto == IPPROTO_TCP) return {Tcp{.sport = sport, .dport = dport, .flags = flags}, Payload::of(5)};
    return {Udp{.sport = sport, .dport = dport}, Payload::of(5)};
}

Ip service_of(const Net& net) { return net.family == Family::v4 ? ip("10.96.0.10") : ip("fd00:96::10"); }

/// Node a with the conntrack lookup, or nothing where the kernel has none.
bool has_lookup()
{
    const bool has = kernel_has("bpf_skb_ct_lookup", "nf_conntrack");
    if (!has) MESSAGE("not tested: this kernel has no bpf_skb_ct_lookup");
    return has;
}

Node asking_node()
{
    return node_a([](tw_cfg& cfg) { cfg.ct_lookup = 1; });
}

} // namespace

TEST_CASE("conntrack: a pod's connection to a service is the stack's in both directions, and is remembered as such")
{
    if (!has_lookup()) return;
    for (const Net& net : nets())
        for (const std::uint8_t proto : U8s{IPPROTO_TCP, IPPROTO_UDP}) {
            const Node a = asking_node();
            const std::uint16_t port = fresh_port();
            const End backend{net.pod_b, 5001};
            REQUIRE(put_connection({net.pod1, port}, {service_of(net), 80}, &backend, proto) == 0);

            // The reply comes from the backend; straight into the pod it would miss the translation back.
            const Outcome reply = a.from_wire(from_b(net, net.pod1) + segment(proto, 5001, port));
            expect(reply, kRedirect, TW_R_TO_STACK);
            CHECK(a.dp->flow(net.pod1, port, net.pod_b, 5001, proto) == TW_VERDICT_STACK);
            // What a pod itself sends on these ports belongs to the same connection.
            const Layers out = pod_frame(net, net.pod_b) + segment(proto, port, 5001);
            expect_untouched(a.from_pod(out), out, TW_R_FLOW_STACK);
        }
}

TEST_CASE("conntrack: the backend on this node answers through the stack")
{
    if (!has_lookup()) return;
    for (const Net& net : nets())
        for (const Ip& client : {net.pod_b, net.pod2}) {
            const Node a = asking_node();
            const std::uint16_t port = fresh_port();
            const End backend{net.pod1, 5001};
            REQUIRE(put_connection({client, port}, {service_of(net), 80}, &backend, IPPROTO_TCP) == 0);
            const Layers reply = pod_frame(net, client) + segment(IPPROTO_TCP, 5001, port);
            expect_untouched(a.from_pod(reply), reply, TW_R_FLOW_STACK);
        }
}

TEST_CASE("conntrack: a plain connection and one that conntrack never saw take the fast path")
{
    if (!has_lookup()) return;
    const Node a = asking_node();
    for (const Net& net : nets())
        for (const std::uint8_t proto : U8s{IPPROTO_TCP, IPPROTO_UDP}) {
            const std::uint16_t port = fresh_port();
            REQUIRE(put_connection({net.pod1, port}, {net.pod_b, 5001}, nullptr, proto) == 0);
            for (const std::uint16_t each : U16s{port, fresh_port()}) {
                expect(a.from_pod(pod_frame(net, net.pod_b) + segment(proto, each, 5001)), kRedirect, TW_R_TO_VXLAN);
                expect(a.from_wire(from_b(net, net.pod1) + segment(proto, 5001, each)), kRedirect, TW_R_TO_LOCAL);
                CHECK(a.dp->flow(net.pod1, each, net.pod_b, 5001, proto) == TW_VERDICT_FAST);
            }
        }
}

TEST_CASE("conntrack: a new connection on the ports of an old one is judged anew")
{
    if (!has_lookup()) return;
    const Node a = asking_node();
    for (const Net& net : nets()) {
        const std::uint16_t port = fresh_port();
        a.dp->add_flow(net.pod1, port, net.pod_b, 5001, IPPROTO_TCP, TW_VERDICT_STACK);
        const Layers data = pod_frame(net, net.pod_b) + segment(IPPROTO_TCP, port, 5001);
        expect_untouched(a.from_pod(data), data, TW_R_FLOW_STACK);
        expect(a.from_pod(pod_frame(net, net.pod_b) + segment(IPPROTO_TCP, port, 5001, 0x02)), kRedirect,
               TW_R_TO_VXLAN);
    }
}

TEST_CASE("conntrack: to_pod and from_host remember translated flows and leave plain ones alone")
{
    if (!has_lookup()) return;
    for (const Net& net : nets()) {
        const Node a = asking_node();
        const std::uint16_t service = fresh_port();
        const std::uint16_t plain = fresh_port();
        const End backend{net.pod1, 5001};
        REQUIRE(put_connection({net.pod_b, service}, {service_of(net), 80}, &backend, IPPROTO_TCP) == 0);
        REQUIRE(put_connection({net.pod_b, plain}, {net.pod1, 5001}, nullptr, IPPROTO_TCP) == 0);
        for (const std::uint16_t port : U16s{service, plain}) {
            const Layers frame =
                Layers{Eth{kPod1, kGateway}, ip_layer(net.pod_b, net.pod1)} + segment(IPPROTO_TCP, port, 5001);
            expect_untouched(a.to_pod(frame), frame, TW_R_FROM_STACK);
        }
        CHECK(a.dp->flow(net.pod1, 5001, net.pod_b, service, IPPROTO_TCP) == TW_VERDICT_STACK);
        CHECK(a.dp->flow(net.pod1, 5001, net.pod_b, plain, IPPROTO_TCP) == TW_VERDICT_FAST);

        const End remote{net.pod_b, 6001};
        REQUIRE(put_connection({net.pod1, service}, {service_of(net), 81}, &remote, IPPROTO_TCP) == 0);
        a.from_host(Layers{Eth{kVtepB, kVtepA}, ip_layer(net.pod1, net.pod_b)} + segment(IPPROTO_TCP, service, 6001));
        CHECK(a.dp->flow(net.pod1, service, net.pod_b, 6001, IPPROTO_TCP) == TW_VERDICT_STACK);
    }
}

TEST_CASE("conntrack: an ICMP error about a translated flow is the stack's")
{
    if (!has_lookup()) return;
    for (const Net& net : nets()) {
        const Node a = asking_node();
        const std::uint16_t port = fresh_port();
        const End backend{net.pod_b, 5001};
        REQUIRE(put_connection({net.pod1, port}, {service_of(net), 80}, &backend, IPPROTO_UDP) == 0);
        const Layer error = net.family == Family::v4 ? Layer{Icmp{.type = 3, .code = 3, .id = 0, .seq = 0}}
                                                     : Layer{Icmp6{.type = 1, .code = 4, .id = 0, .seq = 0}};
        const Layers frame =
            from_b(net, net.pod1) + Layers{error, ip_layer(net.pod1, net.pod_b)} + segment(IPPROTO_UDP, port, 5001);
        expect(a.from_wire(frame), kRedirect, TW_R_TO_STACK);
    }
}
