// SPDX-License-Identifier: Apache-2.0
// What the RFCs ask of a NAT for UDP: RFC 4787, and its updates in RFC 7857. docs/nat-requirements.md has them all.
#include <netinet/in.h>

#include <set>

#include "tests/interop/nat/talk.hpp"

namespace twill::interop::nat {
namespace {

using namespace test;

Layers datagram(const Talk& t, const Ip& src, const Ip& dst, std::uint16_t sport, std::uint16_t dport, std::size_t size)
{
    return t.ip_to(src, dst, IPPROTO_UDP) +
           Layers{Udp{.sport = sport, .dport = dport, .len = {}, .csum = {}}, Payload::of(size)};
}

void one_address(Talk& t)
{
    for (const std::uint16_t dport : {std::uint16_t{53}, std::uint16_t{123}, std::uint16_t{443}})
        for (const Ip& far : {t.e.outside, t.e.node_b})
            for (const std::uint8_t proto : {std::uint8_t{IPPROTO_UDP}, std::uint8_t{IPPROTO_TCP}})
                t.check(t.open(t.e.pod1, far, proto, 23000, dport).address == t.e.wire, "one address for all");
}

void no_overloading(Talk& t, std::uint8_t proto)
{
    std::set<std::uint16_t> ports;
    for (const Ip& pod : {t.e.pod1, t.e.pod2}) {
        Flow flow = t.open(pod, t.e.outside, proto, 23001, proto == t.echo() ? 0 : 53);
        t.check(flow.made && ports.insert(flow.port).second, "a port of its own");
        t.check(t.hear(flow, kSyn | kAck), "and its own answers");
    }
}

void port_range(Talk& t)
{
    Flow flow = t.udp(23002);
    t.check(flow.port >= 1024, "a port from 1024");
    // REQ-3 a) would have 1..1023 for these; ours come from 1024 on, and nothing breaks.
    flow = t.udp(500);
    t.check(flow.made && flow.port >= 1024, "of a low port, too");
    t.check(t.hear(flow), "and it is answered");
}

void lives_two_minutes(Talk& t)
{
    Flow flow = t.udp(23003);
    t.check(t.hear(flow), "answered");
    t.world().pass(115);
    t.check(t.hear(flow), "alive after nearly two minutes");
}

void refresh(Talk& t, bool outbound)
{
    Flow flow = t.udp(23004);
    t.check(t.hear(flow), "answered");
    for (int i = 0; i < 3; ++i) {
        t.world().pass(100);
        t.check(outbound ? t.say(flow) : t.hear(flow), "alive");
    }
    t.world().pass(100);
    t.check(t.hear(flow), "still alive");
}

void filtering(Talk& t, std::uint8_t proto)
{
    Flow flow = proto == IPPROTO_TCP ? t.connect(23005, 53) : t.udp(23005);
    t.check(t.hear(flow), "the far end");
    t.check(!t.hear_from(flow, t.e.outside, 54), "not another port of it");
    t.check(!t.hear_from(flow, t.e.node_b, 53), "not somebody else");
    t.check(t.hear(flow), "the far end");
}

void no_alg(Talk& t)
{
    const std::string text = "INVITE sip:a@b SIP/2.0\r\nContact: <sip:a@" + t.e.pod1.to_string() + ":23006>\r\n\r\n";
    const Payload sip{.bytes = Bytes(text.begin(), text.end())};
    const auto heard = t.send(Where::pod1, t.ip_to(t.e.pod1, t.e.outside, IPPROTO_UDP) +
                                               Layers{Udp{.sport = 23006, .dport = 5060, .len = {}, .csum = {}}, sip});
    t.check(heard.size() == 1 && std::equal(sip.bytes.rbegin(), sip.bytes.rend(), heard[0].frame.rbegin()),
            "what is said inside is nobody's business");
    Flow flow{.near = t.e.pod1, .far = t.e.outside, .proto = IPPROTO_UDP, .sport = 23006, .dport = 5060};
    t.learned(flow, heard);
}

/// The same after a conflict as before.
void deterministic(Talk& t)
{
    Flow first = t.udp(23007);
    Flow second = t.open(t.e.pod2, t.e.outside, IPPROTO_UDP, 23007, 53);
    for (Flow* flow : {&first, &second}) {
        t.check(flow->address == t.e.wire && t.hear(*flow) && t.say(*flow), "translated");
        t.check(!t.hear_from(*flow, t.e.node_b, 53), "filtered");
    }
}

void errors_do_not_end(Talk& t)
{
    Flow flow = t.udp(23008);
    for (const Kind kind : {kPortUnreachable, kTooBig, kTimeExceeded, kParameter})
        t.check(t.error_in(flow, t.e.outside, kind), "the error arrives");
    t.check(t.hear(flow), "and the flow lives");
    t.check(t.say(flow), "both ways");
}

/// eth1 carries 1400 bytes.
void too_big_for_the_wire(Talk& t)
{
    Layers layers = datagram(t, t.e.pod1, t.e.outside2, 23009, 53, 1440);
    if (auto* four = std::get_if<Ip4>(&layers[0])) four->frag = 0x4000;
    const auto heard = t.send(Where::pod1, layers);
    t.check(heard.size() == 1 && heard[0].where == Where::pod1 && heard[0].view.quote != 0, "the pod is told");
}

void fragments_in_order(Talk& t)
{
    Flow flow = t.udp(23010);
    const auto out = t.fragments(datagram(t, t.e.pod1, t.e.outside, 23010, 53, 4000), 1400, 901);
    t.check(t.send_all(Where::pod1, out).size() == out.size(), "out");
    const auto in = t.fragments(datagram(t, t.e.outside, flow.address, 53, flow.port, 4000), 1400, 902);
    const auto heard = t.send_all(Where::wire, in);
    t.check(heard.size() == in.size(), "in");
    for (const Heard& one : heard) t.check(one.view.dst == t.e.pod1, "to the pod");
}

// --- RFC 7857 ------------------------------------------------------------------------------------------------------

void reset_is_translated(Talk& t)
{
    Flow flow = t.connect(23020);
    t.check(t.hear(flow, kRst | kAck), "translated");
    t.check(t.say(flow, kAck, 0), "what is still on its way, too");
    t.world().pass(9);
    t.check(t.say(flow, kAck, 0), "for a while");
    t.world().pass(11);
    t.check(!t.say(flow, kAck, 0), "not for ever");
}

/// One port outside serves several far ends.
void overlapping(Talk& t)
{
    t.world().set_ports({5000, 5000});
    std::set<std::uint16_t> ports;
    for (const std::uint16_t dport : {std::uint16_t{53}, std::uint16_t{54}, std::uint16_t{55}}) {
        Flow flow = t.open(t.e.pod1, t.e.outside, IPPROTO_UDP, static_cast<std::uint16_t>(23021 + dport), dport);
        t.check(flow.made, "there is room");
        t.check(t.hear(flow), "and who is meant is clear");
        ports.insert(flow.port);
    }
    t.world().set_ports({});
    t.check(ports == std::set<std::uint16_t>{5000}, "one port");
}

void strangers_do_not_refresh(Talk& t)
{
    Flow flow = t.udp(23022);
    t.check(t.hear(flow), "answered");
    for (int i = 0; i < 3; ++i) {
        t.world().pass(45);
        t.hear_from(flow, t.e.node_b, 53);
        t.error_in(flow, t.e.node_b, kTimeExceeded);
    }
    t.check(!t.hear(flow), "its time is over");
}

void random_ports(Talk& t)
{
    std::set<std::uint16_t> ports;
    unsigned odd = 0, kept = 0, next = 0;
    for (std::uint16_t i = 0; i < 64; ++i) {
        const Flow flow = t.udp(static_cast<std::uint16_t>(23100 + 2 * i));
        odd += flow.port & 1U;
        kept += t.kept(flow);
        next += ports.contains(static_cast<std::uint16_t>(flow.port - 1));
        ports.insert(flow.port);
    }
    // By chance: all of one parity 2^-63; five of 64 kept, or neighbours, of 28976 less than 10^-10.
    t.check(odd > 0 && odd < 64, "both parities");
    t.check(kept < 5, "not the pod's");
    t.check(next < 5, "not one after the other");
}

} // namespace

std::vector<Conversation> rfc_conversations()
{
    return {
        {"RFC 4787 REQ-2: paired, one address for all of a pod's flows", one_address},
        {"RFC 4787 REQ-3: no port overloading", [](Talk& t) { no_overloading(t, IPPROTO_UDP); }},
        {"RFC 4787 REQ-3 b): ports from 1024 stay there", port_range},
        {"RFC 4787 REQ-5: an answered flow lives two minutes", lives_two_minutes, ""},
        {"RFC 4787 REQ-6: what goes out refreshes", [](Talk& t) { refresh(t, true); }, ""},
        {"RFC 4787 REQ-6 a): what comes in refreshes, too", [](Talk& t) { refresh(t, false); }, ""},
        {"RFC 4787 REQ-8: filtering by address and port", [](Talk& t) { filtering(t, IPPROTO_UDP); }},
        {"RFC 4787 REQ-10: no application level gateway", no_alg},
        {"RFC 4787 REQ-11: deterministic", deterministic},
        {"RFC 4787 REQ-12: ICMP errors pass and end nothing", errors_do_not_end},
        {"RFC 4787 REQ-13: too large a packet is answered with an error", too_big_for_the_wire},
        {"RFC 4787 REQ-14: fragments in order", fragments_in_order},
        {"RFC 7857 2.2: a reset is translated, and so is what follows for a while", reset_is_translated, ""},
        {"RFC 7857 3: ports overlap between far ends", overlapping, ""},
        {"RFC 7857 4: address pooling paired", one_address},
        {"RFC 7857 7: strangers and errors do not refresh", strangers_do_not_refresh, ""},
        {"RFC 7857 8: no parity is preserved", random_ports, ""},
        {"RFC 7857 9: ports are random", random_ports, ""},
    };
}

} // namespace twill::interop::nat
