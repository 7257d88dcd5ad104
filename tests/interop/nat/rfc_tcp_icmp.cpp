// SPDX-License-Identifier: Apache-2.0
// What the RFCs ask of a NAT for TCP and ICMP: RFC 5382 and RFC 5508. docs/nat-requirements.md has them all.
#include <netinet/in.h>

#include "tests/interop/nat/talk.hpp"

namespace twill::interop::nat {
namespace {

using namespace test;

void every_order(Talk& t)
{
    Flow flow = t.connect(24000);
    t.check(t.say(flow, kAck | kPush) && t.hear(flow, kAck | kPush), "three-way handshake");
    Flow both = t.tcp(24001);
    t.check(t.hear(both, kSyn), "simultaneous open: SYN");
    --both.seq;
    t.check(t.say(both, kSyn | kAck), "simultaneous open: the pod's SYN ACK");
    --both.ack;
    t.check(t.hear(both, kSyn | kAck), "simultaneous open: the other");
    t.check(t.say(both, kAck, 10) && t.hear(both, kAck, 10), "simultaneous open: data");
    Flow half = t.connect(24002);
    t.check(t.hear(half, kFin | kAck) && t.say(half, kAck, 500) && t.say(half, kFin | kAck), "half closed");
}

void filtering(Talk& t)
{
    Flow flow = t.connect(24003);
    t.check(!t.hear_from(flow, t.e.outside, 81), "not another port of it");
    t.check(!t.hear_from(flow, t.e.node_b, 80), "not somebody else");
    t.check(t.hear(flow), "the far end");
}

void idle(Talk& t)
{
    Flow flow = t.connect(24004);
    t.world().pass(2 * 3600 + 4 * 60);
    t.check(t.hear(flow), "after 2 hours and 4 minutes");
    t.world().pass(2 * 3600 + 4 * 60);
    t.check(t.say(flow), "and again");
}

void no_alg(Talk& t)
{
    Flow flow = t.connect(24005, 21);
    const std::string text = "PORT 10,42,10,2,78,32\r\n";
    const Payload port{.bytes = Bytes(text.begin(), text.end())};
    const auto heard = t.send(
        Where::pod1,
        t.ip_to(t.e.pod1, t.e.outside, IPPROTO_TCP) +
            Layers{
                Tcp{.sport = 24005, .dport = 21, .flags = kAck | kPush, .seq = flow.seq, .ack = flow.ack, .csum = {}},
                port});
    t.check(heard.size() == 1 && std::equal(port.bytes.rbegin(), port.bytes.rend(), heard[0].frame.rbegin()),
            "as it is");
}

void no_overloading(Talk& t)
{
    Flow one = t.tcp(24006);
    Flow two = t.open(t.e.pod2, t.e.outside, IPPROTO_TCP, 24006, 80);
    t.check(one.made && two.made && one.port != two.port, "two ports");
    t.check(t.hear(one, kSyn | kAck) && t.hear(two, kSyn | kAck), "and each its answers");
}

void errors(Talk& t, bool after)
{
    Flow flow = t.connect(24007);
    for (const Kind kind : {kPortUnreachable, kTooBig, kTimeExceeded}) {
        const bool arrives = t.error_in(flow, t.e.node_b, kind);
        if (!after) t.check(arrives, "translated");
        if (after) t.check(t.hear(flow) && t.say(flow), "the connection lives");
    }
}

// --- RFC 5508 ------------------------------------------------------------------------------------------------------

void queries(Talk& t)
{
    Flow flow = t.ping(24010);
    t.check(flow.address == t.e.wire && t.hear(flow) && t.say(flow) && t.hear(flow), "echo");
}

/// A quoted packet whose transport checksum is wrong, in an error that is right.
void quoted_sum(Talk& t)
{
    Flow flow = t.udp(24011);
    Udp inner{.sport = flow.port, .dport = 53, .len = {}, .csum = {}};
    const Layers address = t.ip_to(flow.address, t.e.outside, IPPROTO_UDP, 61);
    const Bytes right = build(Layers{Eth{}} + address + Layers{inner, Payload::of(8)});
    const std::size_t at = check_at(*view(right));
    // Wrong by as much in every world.
    const std::uint32_t wrong = (static_cast<std::uint32_t>(right[at]) << 8U | right[at + 1]) + 0x0101U;
    inner.csum = static_cast<std::uint16_t>((wrong & 0xffffU) + (wrong >> 16U));
    const Layers quoted = address + Layers{inner, Payload::of(8)};
    const Layer head = t.v4() ? Layer{Icmp{.type = 11, .id = 0, .seq = 0}} : Layer{Icmp6{.type = 3, .id = 0, .seq = 0}};
    const auto heard = t.send(Where::wire, t.ip_to(t.e.node_b, flow.address, t.v4() ? 1 : 58) + Layers{head} + quoted);
    t.check(heard.size() == 1 && heard[0].view.dst == t.e.pod1, "translated all the same");
}

/// Options in the quoted header, or extension headers.
void quoted_options(Talk& t)
{
    Flow flow = t.udp(24012);
    Layers quoted = t.ip_to(flow.address, t.e.outside, IPPROTO_UDP, 61);
    if (auto* four = std::get_if<Ip4>(&quoted[0])) four->options = {0x94, 4, 0, 0};
    if (auto* six = std::get_if<Ip6>(&quoted[0])) six->ext = {Ext6{.type = 60}};
    const Layer head = t.v4() ? Layer{Icmp{.type = 11, .id = 0, .seq = 0}} : Layer{Icmp6{.type = 3, .id = 0, .seq = 0}};
    const auto heard =
        t.send(Where::wire, t.ip_to(t.e.node_b, flow.address, t.v4() ? 1 : 58) + Layers{head} + quoted +
                                Layers{Udp{.sport = flow.port, .dport = 53, .len = {}, .csum = {}}, Payload::of(8)});
    t.check(heard.size() == 1 && heard[0].view.dst == t.e.pod1, "skipped");
    if (heard.size() != 1) return;
    const auto about = view(heard[0].frame, heard[0].view.quote);
    t.check(about && about->sport == 24012 && about->src == t.e.pod1, "and reverted behind them");
}

void of_nobody(Talk& t)
{
    Flow flow = t.udp(24013);
    flow.dport = 99;
    t.check(!t.error_in(flow, t.e.node_b, kPortUnreachable), "not to a pod");
    flow.dport = 53;
    t.check(t.error_in(flow, t.e.node_b, kPortUnreachable), "that of a flow, and what it quotes, reverted");
}

void from_the_pod(Talk& t)
{
    Flow flow = t.udp(24014);
    t.check(t.hear(flow), "in");
    t.check(t.error_out(flow, t.e.pod1, kPortUnreachable), "reverted, and from our address");
}

void no_refresh(Talk& t)
{
    Flow flow = t.ping(24015);
    t.world().pass(20);
    t.check(t.error_in(flow, t.e.node_b, kTimeExceeded), "arrives");
    t.check(t.hear(flow), "is no end");
    Flow other = t.ping(24016);
    t.world().pass(20);
    t.error_in(other, t.e.node_b, kTimeExceeded);
    t.world().pass(15);
    t.check(!t.hear(other), "and prolongs nothing");
}

void types(Talk& t)
{
    Flow flow = t.udp(24017);
    for (const Kind kind : {kPortUnreachable, kTimeExceeded}) t.check(t.error_in(flow, t.e.outside, kind), "passes");
    // The node makes them, too: TTL that ends here.
    const auto heard =
        t.send(Where::pod1, t.ip_to(t.e.pod1, t.e.outside, IPPROTO_UDP, 1) +
                                Layers{Udp{.sport = 24018, .dport = 53, .len = {}, .csum = {}}, Payload::of(8)});
    t.check(heard.size() == 1 && heard[0].view.quote != 0 && heard[0].where == Where::pod1, "made here");
}

/// Router solicitation and the like: neither query nor error.
void others(Talk& t)
{
    const Layer head =
        t.v4() ? Layer{Icmp{.type = 40, .id = 0, .seq = 0}} : Layer{Icmp6{.type = 200, .id = 0, .seq = 0}};
    t.send(Where::pod1, t.ip_to(t.e.pod1, t.e.outside, t.v4() ? 1 : 58) + Layers{head, Payload::of(8)});
}

} // namespace

std::vector<Conversation> rfc_tcp_icmp_conversations()
{
    return {
        {"RFC 5382 REQ-2: every valid order of packets", every_order},
        {"RFC 5382 REQ-3: filtering by address and port", filtering},
        {"RFC 5382 REQ-5: an established connection may be idle for 2 hours and 4 minutes", idle, ""},
        {"RFC 5382 REQ-6: no application level gateway", no_alg},
        {"RFC 5382 REQ-7: no port overloading", no_overloading},
        {"RFC 5382 REQ-9: ICMP errors are translated", [](Talk& t) { errors(t, false); }},
        {"RFC 5382 REQ-10: and end no connection", [](Talk& t) { errors(t, true); }},
        {"RFC 5508 REQ-1: queries and their answers", queries},
        {"RFC 5508 REQ-3 b): options of the quoted packet are skipped", quoted_options},
        {"RFC 5508 REQ-3 c): the quoted transport checksum is not verified", quoted_sum},
        {"RFC 5508 REQ-4: errors from outside", of_nobody},
        {"RFC 5508 REQ-5: errors of pods", from_the_pod},
        {"RFC 5508 REQ-6: an error neither ends nor prolongs a query's flow", no_refresh, ""},
        {"RFC 5508 REQ-10 a): unreachable, time exceeded, echo", types},
        {"RFC 5508 REQ-11: other messages go as they are", others},
    };
}

} // namespace twill::interop::nat
