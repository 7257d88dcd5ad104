// SPDX-License-Identifier: Apache-2.0
// ICMP errors about masqueraded packets, both ways.
#include <netinet/in.h>

#include "tests/interop/nat/talk.hpp"

namespace twill::interop::nat {
namespace {

using namespace test;

void every_in(Talk& t, Flow flow)
{
    t.check(flow.made, "out");
    for (const Kind kind : {kPortUnreachable, kTooBig, kTimeExceeded, kParameter})
        for (const std::size_t quoted : {8U, 0U}) {
            t.check(t.error_in(flow, t.e.node_b, kind, quoted), "from a router");
            t.check(t.error_in(flow, flow.far, kind, quoted), "from the far end");
        }
}

void every_out(Talk& t, Flow flow)
{
    t.check(t.hear(flow, kSyn | kAck), "in");
    for (const Kind kind : {kPortUnreachable, kTooBig, kTimeExceeded, kParameter})
        for (const std::size_t quoted : {8U, 0U}) t.check(t.error_out(flow, flow.near, kind, quoted), "by the pod");
}

/// A reply that ends on this node: the error is the node's own.
void hop_limit(Talk& t)
{
    Flow flow = t.udp(22000);
    const auto heard =
        t.send(Where::wire, t.ip_to(t.e.outside, flow.address, IPPROTO_UDP, 1) +
                                Layers{Udp{.sport = 53, .dport = flow.port, .len = {}, .csum = {}}, Payload::of(8)});
    t.check(heard.size() == 1 && heard[0].view.quote != 0, "an error comes back");
    if (heard.size() != 1) return;
    const auto about = view(heard[0].frame, heard[0].view.quote);
    t.check(about && about->dst == flow.address && about->dport == flow.port, "about what was sent");
}

/// A reply that the pod's link cannot carry.
void too_big(Talk& t)
{
    Flow flow = t.open(t.e.pod2, t.e.outside, IPPROTO_UDP, 22001, 53);
    Layers layers = t.ip_to(t.e.outside, flow.address, IPPROTO_UDP);
    if (auto* four = std::get_if<Ip4>(&layers[0])) four->frag = 0x4000;
    const auto heard = t.send(
        Where::wire, layers + Layers{Udp{.sport = 53, .dport = flow.port, .len = {}, .csum = {}}, Payload::of(1440)});
    t.check(heard.size() == 1 && heard[0].view.quote != 0, "an error comes back");
    if (heard.size() != 1) return;
    const auto about = view(heard[0].frame, heard[0].view.quote);
    t.check(about && about->dst == flow.address && about->dport == flow.port, "about what was sent");
}

/// The node's own error to the pod about what the pod sent.
void to_the_pod(Talk& t)
{
    const auto heard =
        t.send(Where::pod1, t.ip_to(t.e.pod1, t.e.outside, IPPROTO_UDP, 1) +
                                Layers{Udp{.sport = 22002, .dport = 53, .len = {}, .csum = {}}, Payload::of(8)});
    t.check(heard.size() == 1 && heard[0].where == Where::pod1, "an error comes back");
}

void about_nobody(Talk& t)
{
    Flow flow = t.udp(22003);
    flow.made = true;
    Flow stranger = flow;
    stranger.port ^= 0x800;
    t.check(!t.error_in(stranger, t.e.node_b, kTimeExceeded), "not the pod's");
    stranger = flow;
    stranger.dport = 99;
    t.check(!t.error_in(stranger, t.e.node_b, kTimeExceeded), "not the pod's");
    // An error does not end a flow, nor an error about an error.
    t.check(t.error_in(flow, t.e.node_b, kTimeExceeded), "the pod's");
    t.check(t.hear(flow), "the flow lives");
}

} // namespace

std::vector<Conversation> error_conversations()
{
    return {
        {"errors: in, about UDP", [](Talk& t) { every_in(t, t.udp(22010)); }},
        {"errors: in, about TCP", [](Talk& t) { every_in(t, t.tcp(22011)); }},
        {"errors: in, about echo", [](Talk& t) { every_in(t, t.ping(22012)); }},
        {"errors: in, about SCTP",
         [](Talk& t) { every_in(t, t.open(t.e.pod1, t.e.outside, IPPROTO_SCTP, 22013, 5060)); }},
        {"errors: in, about GRE", [](Talk& t) { every_in(t, t.open(t.e.pod1, t.e.outside, 47, 0, 0)); }},
        {"errors: in, by the second interface",
         [](Talk& t) { every_in(t, t.open(t.e.pod1, t.e.outside2, IPPROTO_UDP, 22014, 53)); }},
        {"errors: out, about UDP", [](Talk& t) { every_out(t, t.udp(22020)); }},
        {"errors: out, about TCP", [](Talk& t) { every_out(t, t.tcp(22021)); }},
        {"errors: out, about echo", [](Talk& t) { every_out(t, t.ping(22022)); }},
        {"errors: out, the node's own, a reply's TTL ends", hop_limit},
        {"errors: out, the node's own, a reply is too large for the pod's link", too_big},
        {"errors: to the pod, the node's own", to_the_pod},
        {"errors: about nobody's packet", about_nobody},
    };
}

} // namespace twill::interop::nat
