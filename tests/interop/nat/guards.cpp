// SPDX-License-Identifier: Apache-2.0
// The node's own connections, and those that netfilter translates, are never disturbed, whoever came first.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstring>

#include "tests/interop/nat/talk.hpp"

namespace twill::interop::nat {
namespace {

using namespace test;

constexpr std::uint16_t kPort = 2400, kKernels = 2500; ///< the second: of the rule in lab.sh

struct Address {
    sockaddr_storage storage{};
    socklen_t size = 0;
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Address address_of(const Ip& ip, std::uint16_t port)
{
    Address out;
    if (ip.is_v4()) {
        auto& in = reinterpret_cast<sockaddr_in&>(out.storage);
        in.sin_family = AF_INET;
        in.sin_port = htons(port);
        std::memcpy(&in.sin_addr, ip.network(), 4);
        out.size = sizeof in;
    } else {
        auto& in = reinterpret_cast<sockaddr_in6&>(out.storage);
        in.sin6_family = AF_INET6;
        in.sin6_port = htons(port);
        std::memcpy(&in.sin6_addr, ip.network(), 16);
        out.size = sizeof in;
    }
    return out;
}

/// A socket of the node's own, from its address on the wire and kPort, that talks to `far`.
class Own {
public:
    Own(Talk& t, int type, const Ip& far, std::uint16_t dport) : t_(t), type_(type)
    {
        heard_ = t.act("the node opens", [&] {
            socket_.reset(::socket(t.v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK,
                                   type == SOCK_RAW ? static_cast<int>(t.echo()) : 0));
            const int one = 1;
            ::setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
            const Address from = address_of(t.e.wire, type == SOCK_RAW ? 0 : kPort),
                          to = address_of(far, type == SOCK_RAW ? 0 : dport);
            ok_ = ::bind(socket_.get(), from.get(), from.size) == 0;
            ok_ = ok_ && (::connect(socket_.get(), to.get(), to.size) == 0 || errno == EINPROGRESS);
            if (type == SOCK_DGRAM) ok_ = ok_ && ::send(socket_.get(), "host", 4, 0) == 4;
        });
        t.check(ok_, "the socket");
    }
    /// At once, and what that says to the far end is over before anybody else speaks.
    ~Own()
    {
        t_.act("the node closes", [&] {
            const linger now{.l_onoff = 1, .l_linger = 0};
            ::setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
            socket_.reset();
        });
    }
    Own(const Own&) = delete;
    Own& operator=(const Own&) = delete;
    const std::vector<Heard>& heard() const { return heard_; }
    /// What its packet looked like outside.
    Flow flow(const Ip& far, std::uint8_t proto, std::uint16_t dport)
    {
        Flow flow{.near = t_.e.wire, .far = far, .proto = proto, .sport = kPort, .dport = dport, .address = t_.e.wire};
        flow = t_.learned(flow, heard_);
        if (!heard_.empty()) flow.port = heard_[0].view.sport;
        return flow;
    }
    bool has_data() const
    {
        char byte = 0;
        return ::recv(socket_.get(), &byte, 1, MSG_DONTWAIT) == 1;
    }
    bool is_connected() const
    {
        tcp_info info{};
        socklen_t size = sizeof info;
        return ::getsockopt(socket_.get(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
               info.tcpi_state == TCP_ESTABLISHED;
    }
    std::uint32_t seq() const
    {
        if (heard_.empty()) return 0;
        std::uint32_t value = 0;
        std::memcpy(&value, heard_[0].frame.data() + heard_[0].view.l4 + 4, 4);
        return ntohl(value);
    }

private:
    Talk& t_;
    int type_;
    Fd socket_;
    bool ok_ = false;
    std::vector<Heard> heard_;
};

struct OnlyPort {
    OnlyPort(Talk& t, std::uint16_t port) : world(t.world()) { world.set_ports({port, port}); }
    ~OnlyPort() { world.set_ports({}); }
    OnlyPort(const OnlyPort&) = delete;
    OnlyPort& operator=(const OnlyPort&) = delete;
    World& world;
};

void answer(Talk& t, const Ip& far, std::uint16_t sport, std::uint16_t dport)
{
    t.send(Where::wire, t.ip_to(far, t.e.wire, IPPROTO_UDP) +
                            Layers{Udp{.sport = sport, .dport = dport, .len = {}, .csum = {}}, Payload::of(4)});
}

void udp_host_first(Talk& t)
{
    const OnlyPort only(t, kPort);
    Own own(t, SOCK_DGRAM, t.e.outside, 53);
    t.check(own.heard().size() == 1 && own.heard()[0].view.sport == kPort, "by its own port");
    t.check(!t.open(t.e.pod1, t.e.outside, IPPROTO_UDP, 25000, 53).made, "the pod does not get it");
    answer(t, t.e.outside, 53, kPort);
    t.check(own.has_data(), "the node gets its answer");
    Flow elsewhere = t.open(t.e.pod1, t.e.outside, IPPROTO_UDP, 25000, 54);
    t.check(elsewhere.made && elsewhere.port == kPort, "to another port outside it is free");
    t.check(t.hear(elsewhere), "and that is the pod's");
}

void udp_pod_first(Talk& t)
{
    Flow pod;
    {
        const OnlyPort only(t, kPort);
        pod = t.open(t.e.pod1, t.e.outside, IPPROTO_UDP, 25001, 53);
        t.check(pod.made && pod.port == kPort, "the pod has the port");
    }
    t.world().set_ports({2400, 2463});
    Own own(t, SOCK_DGRAM, t.e.outside, 53);
    t.check(own.heard().size() == 1 && own.heard()[0].view.sport != kPort, "the node gets another");
    if (own.heard().size() == 1) answer(t, t.e.outside, 53, own.heard()[0].view.sport);
    t.check(own.has_data(), "the node gets its answer");
    t.check(t.hear(pod), "the pod its own");
    t.check(!own.has_data(), "the node none of it");
    t.world().set_ports({});
}

void tcp_host_first(Talk& t)
{
    const OnlyPort only(t, kPort);
    Own own(t, SOCK_STREAM, t.e.outside, 80);
    t.check(own.heard().size() == 1 && own.heard()[0].view.sport == kPort, "by its own port");
    t.check(!t.open(t.e.pod1, t.e.outside, IPPROTO_TCP, 25002, 80).made, "the pod does not get it");
    Flow host = own.flow(t.e.outside, IPPROTO_TCP, 80);
    host.seq = own.seq() + 1;
    t.hear(host, kSyn | kAck);
    t.check(own.is_connected(), "the node's connection stands");
    t.check(!t.open(t.e.pod1, t.e.outside, IPPROTO_TCP, 25003, 80).made, "nor now");
}

void tcp_pod_first(Talk& t)
{
    Flow pod;
    {
        const OnlyPort only(t, kPort);
        pod = t.connect(25004);
        t.check(pod.made && pod.port == kPort, "the pod has the port");
    }
    t.world().set_ports({2400, 2463});
    Own own(t, SOCK_STREAM, t.e.outside, 80);
    t.check(own.heard().size() == 1 && own.heard()[0].view.sport != kPort, "the node gets another");
    Flow host = own.flow(t.e.outside, IPPROTO_TCP, 80);
    host.seq = own.seq() + 1;
    t.hear(host, kSyn | kAck);
    t.check(own.is_connected(), "the node's connection stands");
    t.check(t.hear(pod) && t.say(pod), "and the pod's");
    t.world().set_ports({});
}

void tcp_listener(Talk& t)
{
    const OnlyPort only(t, kPort);
    Fd listener;
    t.act("the node listens", [&] {
        listener.reset(::socket(t.v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const int one = 1;
        ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        const Address at = address_of(t.e.wire, kPort);
        t.check(::bind(listener.get(), at.get(), at.size) == 0 && ::listen(listener.get(), 1) == 0, "listens");
    });
    t.check(!t.open(t.e.pod1, t.e.outside, IPPROTO_TCP, 25005, 80).made, "its port is nobody else's");
}

void ping_both(Talk& t)
{
    Flow pod = t.ping(0x61);
    const Layer request = t.v4() ? Layer{Icmp{.type = 8, .id = pod.port}} : Layer{Icmp6{.type = 128, .id = pod.port}};
    Bytes message = build(Layers{Eth{}, ip_layer(t.e.wire, t.e.outside), request});
    Fd raw;
    const auto heard = t.act("the node pings with the identifier that the pod's has outside", [&] {
        raw.reset(::socket(t.v4() ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, t.echo()));
        const Address to = address_of(t.e.outside, 0);
        const std::size_t head = 14 + (t.v4() ? 20 : 40);
        ::sendto(raw.get(), message.data() + head, message.size() - head, 0, to.get(), to.size);
    });
    t.check(heard.size() == 1 && heard[0].view.sport != pod.port, "it gets another");
    t.check(t.hear(pod), "the pod's reply is the pod's");
    if (heard.size() != 1) return;
    const std::uint16_t id = heard[0].view.sport;
    const Layer reply = t.v4() ? Layer{Icmp{.type = 0, .id = id}} : Layer{Icmp6{.type = 129, .id = id}};
    const auto in = t.send(Where::wire, t.ip_to(t.e.outside, t.e.wire, t.echo()) + Layers{reply});
    t.check(in.empty(), "the node's reply is the node's");
}

/// A flow of netfilter's has the port of the rule in lab.sh.
void netfilter_guard(Talk& t)
{
    const OnlyPort only(t, kKernels);
    Flow kernels = t.open(t.e.pod2, t.e.outside, IPPROTO_UDP, 25008, 5300);
    t.check(kernels.made && kernels.port == kKernels, "netfilter translates it");
    // The rule is about pod 2 only: this one is twill's, to the same far end.
    Flow ours = t.open(t.e.pod1, t.e.outside, IPPROTO_UDP, 25009, 5300);
    t.check(!ours.made || ours.port != kKernels, "its port is taken");
    t.check(t.hear(kernels) && t.say(kernels), "and it goes on");
    t.check(t.world().flows("tw_nat_rev") == 0, "twill has no part in it");
}

} // namespace

std::vector<Conversation> guard_conversations()
{
    return {
        {"guard: UDP, the node's socket first", udp_host_first, ""},
        {"guard: UDP, the pod's flow first", udp_pod_first, ""},
        {"guard: TCP, the node's connection first", tcp_host_first, ""},
        {"guard: TCP, the pod's connection first", tcp_pod_first, ""},
        {"guard: TCP, a port on which the node listens", tcp_listener, ""},
        {"guard: ping, the same identifier", ping_both, ""},
        {"guard: the port of a flow that netfilter translates", netfilter_guard, ""},
    };
}

} // namespace twill::interop::nat
