// SPDX-License-Identifier: Apache-2.0
// Conversations by protocol: what is said between a pod and the outside.
#include <netinet/in.h>

#include "tests/interop/nat/talk.hpp"

namespace twill::interop::nat {
namespace {

using namespace test;

Layers plain_udp(const Talk& t, const Ip& src, const Ip& dst, std::uint16_t sport, std::uint16_t dport,
                 std::size_t size = 16)
{
    return t.ip_to(src, dst, IPPROTO_UDP) +
           Layers{Udp{.sport = sport, .dport = dport, .len = {}, .csum = {}}, Payload::of(size)};
}

void tcp_life(Talk& t)
{
    Flow flow = t.connect(20000);
    t.check(flow.made && flow.address == t.e.wire, "masqueraded");
    t.check(t.say(flow, kAck | kPush, 100), "data out");
    t.check(t.hear(flow, kAck, 0), "acknowledged");
    t.check(t.hear(flow, kAck | kPush, 300), "data in");
    t.check(t.say(flow, kAck, 0), "acknowledged");
    t.check(t.say(flow, kFin | kAck), "half closed");
    t.check(t.hear(flow, kAck | kPush, 200), "data after the half close");
    t.check(t.hear(flow, kFin | kAck), "closed");
    t.check(t.say(flow, kAck, 0), "last acknowledgement");
    t.check(t.hear(flow, kAck, 0), "one more of the far end");
}

void tcp_reset(Talk& t, bool near)
{
    Flow flow = t.connect(20001);
    t.check(t.say(flow, kAck | kPush, 20), "data");
    t.check(near ? t.say(flow, kRst | kAck) : t.hear(flow, kRst | kAck), "reset");
}

void tcp_refused(Talk& t)
{
    Flow flow = t.tcp(20002);
    flow.ack = 0;
    t.check(t.hear(flow, kRst | kAck), "refused");
}

void tcp_again(Talk& t)
{
    Flow flow = t.tcp(20003);
    const std::uint16_t port = flow.port;
    --flow.seq;
    t.check(t.say(flow, kSyn), "SYN again");
    --flow.seq;
    t.check(t.say(flow, kSyn), "and again");
    t.check(flow.port == port, "one port for all");
    ++flow.seq;
    flow.seq = 1001;
    t.check(t.hear(flow, kSyn | kAck), "answered");
    t.check(t.say(flow, kAck, 0), "established");
}

void tcp_both(Talk& t)
{
    Flow flow = t.tcp(20004);
    t.check(t.hear(flow, kSyn), "both ask");
    --flow.seq;
    t.check(t.say(flow, kSyn | kAck), "both answer");
    --flow.ack;
    t.check(t.hear(flow, kSyn | kAck), "both answer");
    t.check(t.say(flow, kAck, 0), "established");
    t.check(t.hear(flow, kAck | kPush, 9), "data");
}

void tcp_server_first(Talk& t)
{
    Flow flow = t.connect(20005, 22);
    t.check(t.hear(flow, kAck | kPush, 40), "the server speaks first");
    t.check(t.say(flow, kAck | kPush, 40), "then the client");
}

/// The same four-tuple again after the first connection is over.
void tcp_reopened(Talk& t)
{
    Flow flow = t.connect(20006);
    t.say(flow, kFin | kAck);
    t.hear(flow, kFin | kAck);
    t.say(flow, kAck, 0);
    flow.seq = 900000;
    Flow again = flow;
    const auto heard = t.send_from(flow.near, t.ip_to(flow.near, flow.far, 6) +
                                                  t.transport(flow, true, flow.sport, flow.dport, kSyn, 0));
    again = t.learned(again, heard);
    again.ack = 700000;
    ++again.seq;
    t.check(t.hear(again, kSyn | kAck), "answered");
    t.check(t.say(again, kAck, 0), "established");
}

void tcp_midway(Talk& t)
{
    Flow flow{.near = t.e.pod1,
              .far = t.e.outside,
              .proto = 6,
              .sport = 20007,
              .dport = 80,
              .address = t.e.pod1,
              .port = 20007};
    flow.at = Where::pod1;
    t.check(t.say(flow, kAck, 10), "as it is");
}

void tcp_answer_to_nobody(Talk& t)
{
    Flow flow{.near = t.e.pod1,
              .far = t.e.outside,
              .proto = 6,
              .sport = 20008,
              .dport = 80,
              .address = t.e.pod1,
              .port = 20008};
    flow.at = Where::pod1;
    t.check(t.say(flow, kSyn | kAck), "as it is");
}

void udp_both_ways(Talk& t)
{
    Flow flow = t.udp(20010);
    t.check(flow.made && flow.address == t.e.wire, "masqueraded");
    for (int i = 0; i < 3; ++i) {
        t.check(t.hear(flow, 0, 40), "in");
        t.check(t.say(flow, 0, 0), "out, empty");
        t.check(t.say(flow, 0, 1400), "out, large");
    }
}

void udp_many_remotes(Talk& t)
{
    std::vector<Flow> flows;
    for (const Ip& far : {t.e.outside, t.e.node_b, t.e.on_link, t.e.outside2})
        for (const std::uint16_t port : std::initializer_list<std::uint16_t>{53, 123})
            flows.push_back(t.open(t.e.pod1, far, IPPROTO_UDP, 20011, port));
    for (Flow& flow : flows) {
        t.check(flow.made, "out");
        t.check(t.hear(flow), "in");
        t.check(t.say(flow), "and out");
    }
}

void udp_two_pods(Talk& t)
{
    Flow one = t.udp(20012);
    Flow two = t.open(t.e.pod2, t.e.outside, IPPROTO_UDP, 20012, 53);
    t.check(one.port != two.port, "two ports");
    t.check(t.hear(one), "the first's answer");
    t.check(t.hear(two), "the second's");
}

void udp_kept(Talk& t)
{
    Flow one = t.udp(20012);
    t.note(t.kept(one) ? "kept" : "changed");
    t.check(t.kept(one), "kept");
    Flow two = t.open(t.e.pod2, t.e.outside, IPPROTO_UDP, 20012, 53);
    t.check(!t.kept(two), "it is taken");
    t.check(t.hear(one) && t.hear(two), "answers");
}

/// A pod to what another pod has outside: neither the kernel nor twill turns it round. The node answers with an error.
void udp_hairpin(Talk& t)
{
    Flow inside = t.udp(20013);
    t.send_from(t.e.pod2, plain_udp(t, t.e.pod2, t.e.wire, 20014, 4));
    t.check(t.hear(inside), "the first flow is as before");
}

void udp_without_sum(Talk& t)
{
    if (!t.v4()) return;
    const auto bare = [&](const Ip& src, const Ip& dst, std::uint16_t sport, std::uint16_t dport) {
        Udp head{.sport = sport, .dport = dport, .len = {}, .csum = {}};
        head.csum = 0;
        return t.ip_to(src, dst, IPPROTO_UDP) + Layers{head, Payload::of(12)};
    };
    Flow flow{.near = t.e.pod1, .far = t.e.outside, .proto = IPPROTO_UDP, .sport = 20015, .dport = 53};
    flow = t.learned(flow, t.send(Where::pod1, bare(t.e.pod1, t.e.outside, 20015, 53)));
    t.check(flow.made, "out");
    t.send(Where::wire, bare(t.e.outside, flow.address, 53, flow.port));
}

void udp_wrong_sum(Talk& t)
{
    Udp head{.sport = 20016, .dport = 53, .len = {}, .csum = {}};
    head.csum = 0x1234;
    Flow flow{.near = t.e.pod1, .far = t.e.outside, .proto = IPPROTO_UDP, .sport = 20016, .dport = 53};
    flow = t.learned(flow,
                     t.send(Where::pod1, t.ip_to(t.e.pod1, t.e.outside, IPPROTO_UDP) + Layers{head, Payload::of(12)}));
    t.note(flow.made ? "out" : "not out");
}

void ping(Talk& t)
{
    Flow flow = t.ping(77);
    t.check(flow.made && flow.address == t.e.wire, "masqueraded");
    for (int i = 0; i < 3; ++i) {
        t.check(t.hear(flow), "reply");
        t.check(t.say(flow), "request");
    }
    Flow other = t.open(t.e.pod2, t.e.outside, t.echo(), 77, 0);
    t.check(other.port != flow.port, "two identifiers");
    t.check(t.hear(other), "the other pod's reply");
    t.check(t.hear(flow), "and the first one's");
}

void ping_unasked(Talk& t)
{
    Flow flow = t.ping(78);
    const auto reply = [&](const Ip& src, const Ip& dst, std::uint16_t id) {
        const Layer head = t.v4() ? Layer{Icmp{.type = 0, .id = id}} : Layer{Icmp6{.type = 129, .id = id}};
        return t.ip_to(src, dst, t.echo()) + Layers{head, Payload::of(5)};
    };
    t.send(Where::pod1, reply(t.e.pod1, t.e.outside, 99));
    t.send(Where::wire, reply(t.e.outside, t.e.wire, static_cast<std::uint16_t>(flow.port ^ 0x1000U)));
    t.send(Where::wire, reply(t.e.node_b, t.e.wire, flow.port));
}

/// The other questions of RFC 792 that have an identifier.
void timestamp(Talk& t)
{
    if (!t.v4()) return;
    const auto packet = [&](const Ip& src, const Ip& dst, std::uint8_t type, std::uint16_t id) {
        return t.ip_to(src, dst, 1) + Layers{Icmp{.type = type, .id = id}, Payload::of(12)};
    };
    Flow flow{.near = t.e.pod1, .far = t.e.outside, .proto = 1, .sport = 79};
    flow = t.learned(flow, t.send(Where::pod1, packet(t.e.pod1, t.e.outside, 13, 79)));
    t.check(flow.made && flow.address == t.e.wire, "masqueraded");
    const auto heard = t.send(Where::wire, packet(t.e.outside, flow.address, 14, flow.port));
    t.check(heard.size() == 1 && heard[0].view.dst == t.e.pod1 && heard[0].view.dport == 79, "its reply");
    Flow echo = t.open(t.e.pod1, t.e.outside, 1, 79, 0);
    t.check(t.hear(echo), "an echo with that identifier");
}

void sctp_life(Talk& t)
{
    Flow flow = t.open(t.e.pod1, t.e.outside, IPPROTO_SCTP, 20020, 5060);
    t.check(flow.made && flow.address == t.e.wire, "INIT");
    t.check(t.hear(flow, 2), "INIT ACK");
    t.check(t.say(flow, 10), "COOKIE ECHO");
    t.check(t.hear(flow, 11), "COOKIE ACK");
    t.check(t.say(flow, 0), "DATA");
    t.check(t.hear(flow, 0), "DATA");
}

void sctp_two_pods(Talk& t)
{
    Flow one = t.open(t.e.pod1, t.e.outside, IPPROTO_SCTP, 20021, 5060);
    Flow two = t.open(t.e.pod2, t.e.outside, IPPROTO_SCTP, 20021, 5060);
    t.check(one.made && !two.made, "the second is refused");
}

void gre(Talk& t)
{
    Flow flow = t.open(t.e.pod1, t.e.outside, 47, 0, 0);
    t.check(flow.made && flow.address == t.e.wire, "out");
    t.check(t.hear(flow), "in");
    t.check(t.say(flow), "out again");
}

void gre_two_pods(Talk& t)
{
    Flow one = t.open(t.e.pod1, t.e.outside, 47, 0, 0);
    Flow two = t.open(t.e.pod2, t.e.outside, 47, 0, 0);
    t.check(one.made && !two.made, "the second is refused");
    t.check(t.hear(one), "the first lives");
}

void straight(Talk& t, std::uint8_t proto)
{
    // Somebody outside who knows a route to the pods: the "near" end is outside.
    Flow flow = t.open(t.e.outside, t.e.pod1, proto, 20030, 8080);
    t.check(flow.made && flow.address == t.e.outside && flow.out == Where::pod1, "in, as it is");
    t.check(t.hear(flow, proto == IPPROTO_SCTP ? 2 : kSyn | kAck), "the pod's answer, as it is");
    t.check(t.say(flow, proto == IPPROTO_SCTP ? 10 : kAck, 0), "in");
    t.check(t.hear(flow, proto == IPPROTO_SCTP ? 11 : kAck, 50), "out");
    if (proto == IPPROTO_TCP) t.check(t.hear(flow, kFin | kAck), "closed by the pod");
}

void extensions(Talk& t)
{
    const auto odd = [&](Layers layers) {
        for (Layer& layer : layers) {
            if (auto* four = std::get_if<Ip4>(&layer)) four->options = {0x94, 4, 0, 0}; // router alert
            if (auto* six = std::get_if<Ip6>(&layer)) six->ext = {Ext6{.type = 60}, Ext6{.type = 60}};
        }
        return layers;
    };
    Flow flow{.near = t.e.pod1, .far = t.e.outside, .proto = IPPROTO_UDP, .sport = 20031, .dport = 53};
    flow = t.learned(flow, t.send(Where::pod1, odd(plain_udp(t, t.e.pod1, t.e.outside, 20031, 53))));
    t.check(flow.made && flow.address == t.e.wire, "out");
    const auto heard = t.send(Where::wire, odd(plain_udp(t, t.e.outside, flow.address, 53, flow.port)));
    t.check(heard.size() == 1 && heard[0].view.dst == t.e.pod1, "in");
}

Flow fragmented(Talk& t, std::vector<std::size_t> order, std::size_t size, bool from_pod)
{
    Flow flow = t.udp(20032);
    const Layers packet = from_pod ? plain_udp(t, t.e.pod1, t.e.outside, 20032, 53, 2900)
                                   : plain_udp(t, t.e.outside, flow.address, 53, flow.port, 2900);
    const auto parts = t.fragments(packet, size, 777);
    std::vector<Layers> packets;
    packets.reserve(order.size());
    for (const std::size_t i : order) packets.push_back(parts.at(i));
    const std::size_t arrived = t.send_all(from_pod ? Where::pod1 : Where::wire, packets).size();
    t.check(order[0] != 0 || arrived == order.size(), std::to_string(arrived) + " arrived");
    return flow;
}

void fragments_of_ping(Talk& t)
{
    Flow flow = t.ping(80);
    const Layer head = t.v4() ? Layer{Icmp{.type = 8, .id = 80}} : Layer{Icmp6{.type = 128, .id = 80}};
    const auto parts =
        t.fragments(t.ip_to(t.e.pod1, t.e.outside, t.echo()) + Layers{head, Payload::of(3000)}, 1400, 778);
    const std::size_t arrived = t.send_all(Where::pod1, parts).size();
    t.check(arrived == 3, std::to_string(arrived) + " arrived");
    t.check(t.hear(flow), "reply");
}

/// A super-packet: the NIC would make segments of it.
void segments(Talk& t, std::uint8_t proto)
{
    Flow flow = proto == IPPROTO_TCP ? t.connect(20033) : t.udp(20033);
    for (const bool out : {true, false}) {
        const Layers layers =
            (out ? t.ip_to(t.e.pod1, t.e.outside, proto) : t.ip_to(t.e.outside, flow.address, proto)) +
            t.transport(flow, out, out ? flow.sport : flow.dport, out ? flow.dport : flow.port, kAck, 5600);
        t.send_segments(out ? Where::pod1 : Where::wire, layers, 1400);
        (out ? flow.seq : flow.ack) += 5600;
    }
}

} // namespace

std::vector<Conversation> protocol_conversations()
{
    const char* const kPorts =
        "only what can begin a connection makes a flow: conntrack takes up one that it did not see";
    const char* const kFragment = "no reassembly: a fragment that comes before the first one has no flow yet";
    return {
        {"TCP: from the first SYN to the last ACK", tcp_life},
        {"TCP: reset by the pod", [](Talk& t) { tcp_reset(t, true); }},
        {"TCP: reset by the far end", [](Talk& t) { tcp_reset(t, false); }},
        {"TCP: refused", tcp_refused},
        {"TCP: SYN is repeated", tcp_again},
        {"TCP: simultaneous open", tcp_both},
        {"TCP: the server speaks first", tcp_server_first},
        {"TCP: the same ports again", tcp_reopened},
        {"TCP: a connection that nobody saw begin", tcp_midway, "inkc", kPorts},
        {"TCP: an answer to nobody", tcp_answer_to_nobody},
        {"UDP: both ways", udp_both_ways},
        {"UDP: many remote ends from one port", udp_many_remotes},
        {"UDP: two pods from one port", udp_two_pods},
        {"UDP: a port that is free is kept", udp_kept, "k"},
        {"UDP: hairpin", udp_hairpin},
        {"UDP: without a checksum", udp_without_sum},
        {"UDP: with a wrong checksum", udp_wrong_sum, "inkc",
         "checksums are not verified, the receiver does: conntrack calls such a packet invalid and it goes "
         "untranslated"},
        {"ICMP: echo", ping},
        {"ICMP: echo replies that nobody asked for", ping_unasked},
        {"ICMP: timestamp", timestamp},
        {"SCTP: an association", sctp_life},
        {"SCTP: two pods from one port", sctp_two_pods, "inkc",
         "SCTP keeps its port: the second association is refused"},
        {"GRE: as other protocols", gre},
        {"GRE: two pods", gre_two_pods},
        {"straight to a pod: TCP", [](Talk& t) { straight(t, IPPROTO_TCP); }},
        {"straight to a pod: UDP", [](Talk& t) { straight(t, IPPROTO_UDP); }},
        {"straight to a pod: echo", [](Talk& t) { straight(t, t.echo()); }},
        {"straight to a pod: SCTP", [](Talk& t) { straight(t, IPPROTO_SCTP); }},
        {"straight to a pod: GRE", [](Talk& t) { straight(t, 47); }},
        {"headers: IPv4 options, IPv6 extensions", extensions},
        {"fragments: out, in order",
         [](Talk& t) {
             fragmented(t, {0, 1, 2}, 1400, true);
         }},
        {"fragments: in, in order",
         [](Talk& t) {
             fragmented(t, {0, 1, 2}, 1400, false);
         }},
        {"fragments: out, small ones",
         [](Talk& t) {
             fragmented(t, {0, 1, 2, 3, 4, 5, 6}, 440, true);
         }},
        {"fragments: out, the middle one last",
         [](Talk& t) {
             fragmented(t, {0, 2, 1}, 1400, true);
         },
         "ink"}, // conntrack puts them in order
        {"fragments: out, the first one last",
         [](Talk& t) {
             fragmented(t, {1, 2, 0}, 1400, true);
         },
         "inkc", kFragment},
        {"fragments: in, the first one last",
         [](Talk& t) {
             fragmented(t, {1, 2, 0}, 1400, false);
         },
         "inkc", kFragment},
        {"fragments: of a ping", fragments_of_ping},
        {"segments: TCP", [](Talk& t) { segments(t, IPPROTO_TCP); }},
        {"segments: UDP", [](Talk& t) { segments(t, IPPROTO_UDP); }},
    };
}

} // namespace twill::interop::nat
