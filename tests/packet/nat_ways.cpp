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
