// SPDX-License-Identifier: Apache-2.0
// What an interface is decides what may come in there: enum tw_nat_if_flags.
#include <doctest/doctest.h>

#include "tests/packet/nat.hpp"

using namespace twill;
using namespace twill::test;

namespace {

void set_flags(const NatNode& node, std::uint32_t flags)
{
    tw_nat_if value{};
    REQUIRE(bpf_map_lookup_elem(node.dp->map("tw_nat_ifs"), &node.wire, &value) == 0);
    value.flags = flags;
    REQUIRE(bpf_map_update_elem(node.dp->map("tw_nat_ifs"), &node.wire, &value, BPF_ANY) == 0);
}

/// A pod's question to outside, and what comes as its answer.
Layers answer(const NatNode& node, const Net& net)
{
    const auto out = node.send(leaving(net.pod1, net.outside) + udp());
    REQUIRE(out);
    return arriving(net.outside, net.node_a) +
           Layers{Udp{.sport = out->dport, .dport = out->sport, .len = {}, .csum = {}}};
}

} // namespace

TEST_CASE("nat ways: a reply that came by a bridge goes round by its ingress, where conntrack is forgotten")
{
    for (const Net& net : nets()) {
        const NatNode a = nat_node();
        const Layers reply = answer(a, net);
        expect(a.from_wire(reply), kUnspec, TW_R_NAT_IN);
        set_flags(a, TW_NAT_IF_BRIDGE);
        const Outcome round = a.from_wire(reply);
        expect(round, kRedirect, TW_R_NAT_IN);
        expect_sums(round.out);
        CHECK(seen(round.out).dst == net.pod1);
    }
}

TEST_CASE("nat ways: by what is no wire come replies, and no peers")
{
    for (const Net& net : nets()) {
        const NatNode a = nat_node();
        const Layers vxlan =
            outer(net.node_b, net.node_a) + Layers{Eth{kVtepA, kVtepB, {}}, ip_layer(net.pod_b, net.pod1)} + udp();
        const Layers direct = Layers{Eth{kWireA, kRouter, {}}, ip_layer(net.pod_c, net.pod1)} + udp();
        set_flags(a, TW_NAT_IF_ASIDE);
        // Not yet in the cache, whose entries are of one interface each.
        expect_untouched(a.from_wire(vxlan), vxlan, TW_R_NOT_OURS);
        expect_untouched(a.from_wire(direct), direct, TW_R_NOT_OURS);
        expect(a.from_wire(answer(a, net)), kUnspec, TW_R_NAT_IN);
        set_flags(a, 0);
        expect(a.from_wire(vxlan), kRedirect, TW_R_TO_LOCAL);
        expect(a.from_wire(direct), kRedirect, TW_R_TO_LOCAL);
    }
}

TEST_CASE("nat ways: a flow that goes on by an interface with another address is a new one, but for TCP")
{
    for (const Net& net : nets()) {
        const NatNode a = nat_node();
        const auto question = leaving(net.pod1, net.outside);
        const auto before = a.send(question + udp());
        const auto syn = a.send(question + Layers{Tcp{.flags = 0x02}});
        REQUIRE(before);
        REQUIRE(syn);
        CHECK(before->src == net.node_a);
        a.set_address(a.wire, ip("203.0.113.99"), ip("2001:db8:99::1"));
        a.pass(1); // it is asked once a second
        const Ip now = net.family == Family::v4 ? ip("203.0.113.99") : ip("2001:db8:99::1");
        const auto after = a.send(question + udp());
        REQUIRE(after);
        CHECK(after->src == now);
        CHECK(a.send(question + udp()) == after);
        CHECK(a.send(question + Layers{Tcp{.flags = 0x10}}) == syn);
        // Its answers find back; those to the old address are nobody's any more.
        const auto answers = [&](const Ip& to, std::uint16_t port) {
            return a.receive(arriving(net.outside, to) +
                             Layers{Udp{.sport = before->dport, .dport = port, .len = {}, .csum = {}}});
        };
        REQUIRE(answers(now, after->sport));
        CHECK(answers(now, after->sport)->dst == net.pod1);
        a.pass(1); // when the other half is looked at
        CHECK_FALSE(answers(net.node_a, before->sport));
        CHECK(a.count("tw_nat_fwd") == 2);
    }
}
