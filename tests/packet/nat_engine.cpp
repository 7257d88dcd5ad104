// SPDX-License-Identifier: Apache-2.0
// How flows are found, made, kept and forgotten.
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <netinet/in.h>

#include <cstring>
#include <set>

#include "tests/packet/nat.hpp"

using namespace twill;
using namespace twill::test;

namespace {

constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kAck = 0x10, kFin = 0x11, kRst = 0x04;

Layers udp_of(std::uint16_t sport, std::uint16_t dport)
{
    return {Udp{.sport = sport, .dport = dport, .len = {}, .csum = {}}, Payload::of(9)};
}
Layers tcp_of(std::uint16_t sport, std::uint16_t dport, std::uint8_t flags)
{
    return {Tcp{.sport = sport, .dport = dport, .flags = flags}, Payload::of(5)};
}
Layers ping(const Net& net, std::uint16_t id, bool reply = false)
{
    if (net.family == Family::v4)
        return {Icmp{.type = static_cast<std::uint8_t>(reply ? 0 : 8), .id = id}, Payload::of(20)};
    return {Icmp6{.type = static_cast<std::uint8_t>(reply ? 129 : 128), .id = id}, Payload::of(20)};
}

tw_nat_flow only_half(const NatNode& a, const char* map)
{
    const auto all = a.halves(map);
    REQUIRE(all.size() == 1);
    return all[0].second;
}

/// The state that both halves agree on.
int state(const NatNode& a)
{
    const tw_nat_flow fwd = only_half(a, "tw_nat_fwd"), rev = only_half(a, "tw_nat_rev");
    CHECK(fwd.state == rev.state);
    CHECK(fwd.until == rev.until);
    return fwd.state;
}

} // namespace

TEST_CASE("nat: a UDP flow goes out by the node's address, and its replies come back to the pod")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto out = a.send(leaving(net.pod1, net.outside) + udp_of(40000, 53));
        REQUIRE(out);
        CHECK(out->src == net.node_a);
        CHECK(out->dst == net.outside);
        CHECK(out->dport == 53);
        CHECK(out->sport >= 1024);
        CHECK(out->sport <= 1087);
        CHECK(state(a) == TW_NAT_UDP);
        const auto in = a.receive(arriving(net.outside, net.node_a) + udp_of(53, out->sport));
        REQUIRE(in);
        CHECK(*in == Seen{net.outside, net.pod1, IPPROTO_UDP, 53, 40000});
        CHECK(state(a) == TW_NAT_UDP_BOTH);
        // The next packet is of the same flow.
        CHECK(a.send(leaving(net.pod1, net.outside) + udp_of(40000, 53)) == out);
        CHECK(a.count("tw_nat_fwd") == 1);
    }
}

TEST_CASE("nat: TCP through a whole life, with the kernel's states")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto out = a.send(leaving(net.pod1, net.outside) + tcp_of(2000, 80, kSyn));
        REQUIRE(out);
        CHECK(state(a) == TW_NAT_SYN_SENT);
        const auto say = [&](std::uint8_t flags) {
            CHECK(a.send(leaving(net.pod1, net.outside) + tcp_of(2000, 80, flags)) == out);
            return state(a);
        };
        const auto hear = [&](std::uint8_t flags) {
            CHECK(a.receive(arriving(net.outside, net.node_a) + tcp_of(80, out->sport, flags)) ==
                  Seen{net.outside, net.pod1, IPPROTO_TCP, 80, 2000});
            return state(a);
        };
        CHECK(hear(kSynAck) == TW_NAT_SYN_RECV);
        CHECK(say(kAck) == TW_NAT_ESTABLISHED);
        CHECK(hear(kAck) == TW_NAT_ESTABLISHED);
        CHECK(say(kFin) == TW_NAT_FIN_WAIT);
        CHECK(hear(kAck) == TW_NAT_CLOSE_WAIT);
        CHECK(hear(kFin) == TW_NAT_LAST_ACK);
        CHECK(say(kAck) == TW_NAT_TIME_WAIT);
        CHECK(say(kSyn) == TW_NAT_SYN_SENT);
        CHECK(hear(kRst) == TW_NAT_CLOSE);
    }
}

TEST_CASE("nat: a TCP packet that is no bare SYN makes no flow and goes as it is")
{
    const NatNode a = nat_node();
    for (const Net& net : nets())
        for (const std::uint8_t flags : U8s{kAck, kSynAck, kFin, kRst, 0}) {
            const Layers frame = leaving(net.pod1, net.outside) + tcp_of(2000, 80, flags);
            expect_untouched(a.to_wire(frame), frame, TW_R_NAT_NOT);
            CHECK(a.count("tw_nat_rev") == 0);
        }
}

TEST_CASE("nat: an echo request gets another identifier, its reply the pod's")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto out = a.send(leaving(net.pod1, net.outside) + ping(net, 7));
        REQUIRE(out);
        CHECK(out->src == net.node_a);
        const auto in = a.receive(arriving(net.outside, net.node_a) + ping(net, out->sport, true));
        REQUIRE(in);
        CHECK(in->dst == net.pod1);
        CHECK(in->dport == 7);
        // A pod's own answer, and a request to the node, are no part of it.
        const Layers answer = leaving(net.pod1, net.outside) + ping(net, 7, true);
        expect_untouched(a.to_wire(answer), answer, TW_R_NAT_NOT);
        const Layers asked = arriving(net.outside, net.node_a) + ping(net, out->sport);
        expect_untouched(a.from_wire(asked), asked, TW_R_NOT_OURS);
    }
}

TEST_CASE("nat: a port in the range that is free is kept, unless all are to be random")
{
    for (const Net& net : nets()) {
        const NatNode keeps = nat_node();
        for (std::uint16_t port = 1024; port < 1088; ++port) {
            const auto out = keeps.send(leaving(net.pod1, net.outside) + udp_of(port, 53));
            REQUIRE(out);
            CHECK(out->sport == port);
        }
        const NatNode random = nat_node([](tw_cfg& cfg) { cfg.nat_keep = 0; }, {1024, 5119});
        int kept = 0;
        for (std::uint16_t port = 1024; port < 1088; ++port) {
            const auto out = random.send(leaving(net.pod1, net.outside) + udp_of(port, 53));
            REQUIRE(out);
            kept += out->sport == port;
        }
        CHECK(kept < 8);
    }
}

TEST_CASE("nat: two pods with one port get two, and each its own replies")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto first = a.send(leaving(net.pod1, net.outside) + udp_of(1030, 53));
        const auto second = a.send(leaving(net.pod2, net.outside) + udp_of(1030, 53));
        REQUIRE(first);
        REQUIRE(second);
        CHECK(first->sport == 1030);
        CHECK(second->sport != 1030);
        CHECK(a.receive(arriving(net.outside, net.node_a) + udp_of(53, 1030))->dst == net.pod1);
        CHECK(a.receive(arriving(net.outside, net.node_a) + udp_of(53, second->sport))->dst == net.pod2);
    }
}

TEST_CASE("nat: every port is used before one is refused, and flows that there are go on")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        std::set<std::uint16_t> used;
        for (std::uint16_t port = 0; port < 64; ++port) {
            const auto out =
                a.send(leaving(net.pod1, net.outside) + udp_of(static_cast<std::uint16_t>(port + 9000), 53));
            REQUIRE(out);
            used.insert(out->sport);
        }
        CHECK(used.size() == 64);
        expect(a.to_wire(leaving(net.pod1, net.outside) + udp_of(8000, 53)), kShot, TW_R_NAT_PORTS);
        CHECK(a.send(leaving(net.pod1, net.outside) + udp_of(9001, 53)));
        // To another port, or address, there are as many again.
        CHECK(a.send(leaving(net.pod1, net.outside) + udp_of(8000, 54)));
        CHECK(a.send(leaving(net.pod1, net.node_b) + udp_of(8000, 53)));
        // Those whose time is over make room.
        a.pass(31);
        CHECK(a.send(leaving(net.pod1, net.outside) + udp_of(8001, 53)));
    }
}

TEST_CASE("nat: a block of ports that pods' own ports have filled is no end of the search")
{
    const NatNode a = nat_node([](tw_cfg& cfg) { cfg.nat_max = 1024; }, {1024, 1151}); // two blocks
    for (const Net& net : nets())
        for (int round = 0; round < 20; ++round) {
            a.reset({1024, 1151});
            for (std::uint16_t port = 1024; port < 1088; ++port)
                REQUIRE(a.send(leaving(net.pod1, net.outside) + udp_of(port, 53)));
            CHECK(a.send(leaving(net.pod2, net.outside) + udp_of(1030, 53)));
        }
}

TEST_CASE("nat: as many flows as there may be, then new ones are refused and old ones live")
{
    const NatNode a = nat_node([](tw_cfg& cfg) { cfg.nat_max = 16; }, {1024, 5119});
    for (const Net& net : nets()) {
        a.reset({1024, 5119});
        for (std::uint16_t i = 0; i < 16; ++i)
            REQUIRE(a.send(leaving(net.pod1, net.outside) + tcp_of(static_cast<std::uint16_t>(2000 + i), 80, kSyn)));
        expect(a.to_wire(leaving(net.pod1, net.outside) + tcp_of(3000, 80, kSyn)), kShot, TW_R_NAT_TABLE);
        for (std::uint16_t i = 0; i < 16; ++i)
            CHECK(a.send(leaving(net.pod1, net.outside) + tcp_of(static_cast<std::uint16_t>(2000 + i), 80, kAck)));
        a.pass(121); // SYN_SENT
        CHECK(a.send(leaving(net.pod1, net.outside) + tcp_of(3000, 80, kSyn)));
    }
}

TEST_CASE("nat: a flow whose time is over is none, and a packet before that gives it new time")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto out = a.send(leaving(net.pod1, net.outside) + udp_of(40000, 53));
        REQUIRE(out);
        for (int i = 0; i < 3; ++i) {
            a.pass(20);
            CHECK(a.send(leaving(net.pod1, net.outside) + udp_of(40000, 53)) == out);
        }
        a.pass(31);
        const Layers late = arriving(net.outside, net.node_a) + udp_of(53, out->sport);
        expect_untouched(a.from_wire(late), late, TW_R_NOT_OURS);
        CHECK(a.send(leaving(net.pod1, net.outside) + udp_of(40000, 53)));
        // Established TCP lives for days.
        const auto tcp = a.send(leaving(net.pod1, net.outside) + tcp_of(2000, 80, kSyn));
        REQUIRE(tcp);
        a.receive(arriving(net.outside, net.node_a) + tcp_of(80, tcp->sport, kSynAck));
        a.send(leaving(net.pod1, net.outside) + tcp_of(2000, 80, kAck));
        a.pass(431000);
        CHECK(a.send(leaving(net.pod1, net.outside) + tcp_of(2000, 80, kAck)) == tcp);
        a.pass(433000);
        const Layers dead = leaving(net.pod1, net.outside) + tcp_of(2000, 80, kAck);
        expect_untouched(a.to_wire(dead), dead, TW_R_NAT_NOT);
    }
}

TEST_CASE("nat: half of a flow is completed from the other")
{
    const NatNode a = nat_node();
    for (const Net& net : nets())
        for (const bool lose_rev : {true, false}) {
            a.reset();
            const auto out = a.send(leaving(net.pod1, net.outside) + udp_of(40000, 53));
            REQUIRE(out);
            const char* lost = lose_rev ? "tw_nat_rev" : "tw_nat_fwd";
            const auto before = a.halves(lost);
            REQUIRE(before.size() == 1);
            REQUIRE(bpf_map_delete_elem(a.dp->map(lost), &before[0].first) == 0);
            a.pass(2); // looked at once in a second
            if (lose_rev)
                CHECK(a.send(leaving(net.pod1, net.outside) + udp_of(40000, 53)) == out);
            else
                CHECK(a.receive(arriving(net.outside, net.node_a) + udp_of(53, out->sport)));
            const auto after = a.halves(lost);
            REQUIRE(after.size() == 1);
            CHECK(std::memcmp(&before[0].first, &after[0].first, sizeof(tw_nat_key)) == 0);
            CHECK(ip_of(after[0].second.addr) == ip_of(before[0].second.addr));
            CHECK(after[0].second.port == before[0].second.port);
            state(a);
        }
}

TEST_CASE("nat: a half whose other half belongs to another flow by now is none")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto out = a.send(leaving(net.pod1, net.outside) + udp_of(40000, 53));
        REQUIRE(out);
        auto rev = a.halves("tw_nat_rev");
        rev[0].second.addr = abi(net.pod2);
        REQUIRE(bpf_map_update_elem(a.dp->map("tw_nat_rev"), &rev[0].first, &rev[0].second, BPF_EXIST) == 0);
        a.pass(2);
        const auto again = a.send(leaving(net.pod1, net.outside) + udp_of(40000, 53));
        REQUIRE(again);
        CHECK(again->sport != out->sport);
    }
}

TEST_CASE("nat: the host's own packet on a port that a masqueraded flow has gets another")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto pod = a.send(leaving(net.pod1, net.outside) + udp_of(1030, 53));
        REQUIRE(pod);
        REQUIRE(pod->sport == 1030);
        const auto host = a.send(leaving(net.node_a, net.outside) + udp_of(1030, 53));
        REQUIRE(host);
        CHECK(host->src == net.node_a);
        CHECK(host->sport != 1030);
        CHECK(a.receive(arriving(net.outside, net.node_a) + udp_of(53, host->sport)) ==
              Seen{net.outside, net.node_a, IPPROTO_UDP, 53, 1030});
        CHECK(a.receive(arriving(net.outside, net.node_a) + udp_of(53, 1030))->dst == net.pod1);
        // Elsewhere it keeps it, and nothing is noted.
        const Layers other = leaving(net.node_a, net.node_b) + udp_of(1030, 53);
        expect_untouched(a.to_wire(other), other, TW_R_NAT_NOT);
        CHECK(a.count("tw_nat_rev") == 2);
    }
}

TEST_CASE("nat: the host's ping keeps its identifier, and a pod's does not take it")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto host = a.send(leaving(net.node_a, net.outside) + ping(net, 1030));
        REQUIRE(host);
        CHECK(host->sport == 1030);
        const auto pod = a.send(leaving(net.pod1, net.outside) + ping(net, 1030));
        REQUIRE(pod);
        CHECK(pod->sport != 1030);
        CHECK(a.receive(arriving(net.outside, net.node_a) + ping(net, 1030, true))->dst == net.node_a);
    }
}

TEST_CASE("nat: SCTP keeps its ports, other protocols have none, and neither can be shared")
{
    const NatNode a = nat_node();
    const Payload sctp{.bytes = {0x13, 0x89, 0x0b, 0x80, 0, 0, 0, 0, 1, 2, 3, 4, 1, 0, 0, 4}}; // 5001 -> 2944, INIT
    for (const Net& net : nets())
        for (const std::uint8_t proto : U8s{IPPROTO_SCTP, 47}) {
            a.reset();
            const auto frame = [&](const Layers& head) {
                Layers out = head + Layers{sctp};
                for (Layer& layer : out) {
                    if (auto* v4 = std::get_if<Ip4>(&layer)) v4->proto = proto;
                    if (auto* v6 = std::get_if<Ip6>(&layer)) v6->next = proto;
                }
                return out;
            };
            const auto out = a.send(frame(leaving(net.pod1, net.outside)));
            REQUIRE(out);
            CHECK(out->src == net.node_a);
            if (proto == IPPROTO_SCTP) CHECK(out->sport == 5001);
            expect(a.to_wire(frame(leaving(net.pod2, net.outside))), kShot, TW_R_NAT_PORTS);
            CHECK(a.send(frame(leaving(net.pod2, net.node_b))));
        }
}

TEST_CASE("nat: SCTP that is no INIT makes no flow")
{
    const NatNode a = nat_node();
    for (const Net& net : nets())
        for (const std::uint8_t chunk : U8s{0, 2, 6, 10, 11}) {
            Layers frame = leaving(net.pod1, net.outside) +
                           Layers{Payload{.bytes = {0x13, 0x89, 0x0b, 0x80, 0, 0, 0, 0, 1, 2, 3, 4, chunk, 0, 0, 4}}};
            for (Layer& layer : frame) {
                if (auto* v4 = std::get_if<Ip4>(&layer)) v4->proto = IPPROTO_SCTP;
                if (auto* v6 = std::get_if<Ip6>(&layer)) v6->next = IPPROTO_SCTP;
            }
            expect_untouched(a.to_wire(frame), frame, TW_R_NAT_NOT);
        }
}

TEST_CASE("nat: notes about what came straight to pods take half of the places, and give way to flows")
{
    const NatNode a = nat_node([](tw_cfg& cfg) { cfg.nat_notes = 1, cfg.nat_max = 16; }, {1024, 5119});
    for (const Net& net : nets()) {
        a.reset({1024, 5119});
        for (std::uint16_t i = 0; i < 100; ++i)
            a.from_wire(arriving(net.outside, net.pod1) + udp_of(static_cast<std::uint16_t>(5000 + i), 53));
        CHECK(a.count("tw_nat_fwd") == 8);
        for (std::uint16_t i = 0; i < 16; ++i)
            CHECK(a.send(leaving(net.pod1, net.outside) + udp_of(static_cast<std::uint16_t>(2000 + i), 80)));
        CHECK(a.count("tw_nat_rev") == 16);
        CHECK(a.count("tw_nat_fwd") == 16);
        expect(a.to_wire(leaving(net.pod1, net.outside) + udp_of(3000, 80)), kShot, TW_R_NAT_TABLE);
    }
}

TEST_CASE("nat: a protocol without ports that came straight to a pod is answered as it is")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto gre = [](Layers frame) {
            for (Layer& layer : frame) {
                if (auto* v4 = std::get_if<Ip4>(&layer)) v4->proto = 47;
                if (auto* v6 = std::get_if<Ip6>(&layer)) v6->next = 47;
            }
            return frame + Layers{Payload::of(12)};
        };
        const Layers in = gre(arriving(net.outside, net.pod1)), answer = gre(leaving(net.pod1, net.outside));
        expect_untouched(a.from_wire(in), in, TW_R_NOT_OURS);
        expect_untouched(a.to_wire(answer), answer, TW_R_NAT_NOT);
        a.pass(601);
        CHECK(a.send(answer));
    }
}

TEST_CASE("nat: a reply on its way on, out of another interface, is not masqueraded again")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto out = a.send(leaving(net.pod_b, net.outside) + udp_of(1040, 53)); // in transit
        REQUIRE(out);
        const auto in = a.receive(arriving(net.outside, net.node_a) + udp_of(53, out->sport));
        CHECK(in == Seen{net.outside, net.pod_b, IPPROTO_UDP, 53, 1040});
        const Layers on = leaving(net.outside, net.pod_b) + udp_of(53, 1040); // row 6, if it were not a reply
        expect_untouched(a.to_wire(on), on, TW_R_NAT_NOT);
    }
}

TEST_CASE("nat: the answer of a pod that is routed directly comes back, too")
{
    const NatNode a = nat_node();
    for (const Net& net : nets()) {
        a.reset();
        const auto out = a.send(leaving(net.outside, net.pod_c) + udp_of(1041, 53)); // row 6
        REQUIRE(out);
        CHECK(out->src == net.node_a);
        const Outcome in = a.from_wire(arriving(net.pod_c, net.node_a) + udp_of(53, out->sport));
        expect(in, kRedirect, TW_R_TO_STACK);
        CHECK(seen(in.out) == Seen{net.pod_c, net.outside, IPPROTO_UDP, 53, 1041});
        expect_sums(in.out);
    }
}

TEST_CASE("nat: UDP that came straight to a pod is answered as it is, where it was noted")
{
    const NatNode a = nat_node([](tw_cfg& cfg) { cfg.nat_notes = 1; });
    for (const Net& net : nets()) {
        a.reset();
        const Layers in = arriving(net.outside, net.pod1) + udp_of(5000, 53);
        expect_untouched(a.from_wire(in), in, TW_R_NOT_OURS);
        const Layers answer = leaving(net.pod1, net.outside) + udp_of(53, 5000);
        expect_untouched(a.to_wire(answer), answer, TW_R_NAT_NOT);
        CHECK(a.send(leaving(net.pod1, net.outside) + udp_of(54, 5000)));
        a.pass(121);
        CHECK(a.send(leaving(net.pod1, net.outside) + udp_of(53, 5000)));
    }
}

TEST_CASE("nat: 99.5 % of a large range are used towards one destination before the first flow is refused")
{
    constexpr Ports kLarge{1024, 29999};
    constexpr unsigned kPorts = kLarge.last - kLarge.first + 1;
    const NatNode a = nat_node([](tw_cfg& cfg) {
        cfg.nat_keep = 0;
        cfg.nat_max = 60000;
    });
    a.reset(kLarge);
    const Net& net = nets()[0];
    unsigned made = 0;
    int verdict = kUnspec;
    for (; made <= kPorts && verdict == kUnspec; ++made) {
        const Ip& pod = made < 20000 ? net.pod1 : net.pod2;
        const auto sport = static_cast<std::uint16_t>(1000 + made % 20000);
        verdict =
            a.dp->run_only(Program::to_wire, build(leaving(pod, net.outside) + udp_of(sport, 53)), a.wire).verdict;
    }
    --made; // the one that was refused
    MESSAGE(made, " of ", kPorts, " ports");
    CHECK(made * 1000 >= kPorts * 995);
    CHECK(a.count("tw_nat_rev") == made);
    CHECK(a.count("tw_nat_fwd") == made);
}
