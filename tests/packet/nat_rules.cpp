// SPDX-License-Identifier: Apache-2.0
// flannel's rules, one test for each row of its two tables (docs/design/masquerade.md), on the wire and on the overlay
// device.
#include <bpf/bpf.h>
#include <doctest/doctest.h>

#include <cstring>

#include "tests/packet/nat.hpp"

using namespace twill;
using namespace twill::test;

namespace {

constexpr std::uint32_t kKubeProxy = 0x4000;

NatNode with_rules(tw_nat_rules rules)
{
    return nat_node([&](tw_cfg& cfg) { cfg.nat = static_cast<std::uint8_t>(rules); });
}

/// What becomes of a first packet on the wire: the reason it is counted under.
tw_reason fate(const NatNode& node, const Ip& src, const Ip& dst, std::uint32_t mark = 0)
{
    const Layers frame = leaving(src, dst) + udp();
    const Outcome outcome = node.to_wire(frame, mark);
    CHECK(outcome.verdict == kUnspec);
    if (outcome.reason() == TW_R_NAT_NOT) expect_bytes(build(frame), outcome.out);
    return outcome.reason();
}

const tw_nat_rules kBoth[] = {TW_NAT_IPTABLES, TW_NAT_NFT};

} // namespace

TEST_CASE("nat rules: row 1, what kube-proxy has marked is kube-proxy's")
{
    for (const tw_nat_rules rules : kBoth)
        for (const Net& net : nets()) {
            const NatNode a = with_rules(rules);
            CHECK(fate(a, net.pod1, net.outside, kKubeProxy) == TW_R_NAT_NOT);
            // iptables looks at the one bit, nft compares the whole mark.
            CHECK(fate(a, net.pod1, net.outside, kKubeProxy | 1) ==
                  (rules == TW_NAT_NFT ? TW_R_NAT_OUT : TW_R_NAT_NOT));
            CHECK(fate(a, net.pod2, net.outside, 0x8000) == TW_R_NAT_OUT);
        }
}

TEST_CASE("nat rules: row 2, a pod of this node, or the node by its overlay address, to any pod")
{
    for (const tw_nat_rules rules : kBoth)
        for (const Net& net : nets()) {
            const NatNode a = with_rules(rules);
            for (const Ip& src : {net.pod1, overlay_address(net)})
                for (const Ip& dst : {net.pod_b, net.pod2, net.free_cluster}) CHECK(fate(a, src, dst) == TW_R_NAT_NOT);
        }
}

TEST_CASE("nat rules: row 3, a pod of another node to a pod of this one")
{
    for (const tw_nat_rules rules : kBoth)
        for (const Net& net : nets()) CHECK(fate(with_rules(rules), net.pod_b, net.pod1) == TW_R_NAT_NOT);
}

TEST_CASE("nat rules: row 4, from outside to a pod of this node; with nft to any pod")
{
    for (const tw_nat_rules rules : kBoth)
        for (const Net& net : nets()) {
            const NatNode a = with_rules(rules);
            for (const Ip& src : {net.outside, net.node_a, net.node_b}) {
                CHECK(fate(a, src, net.pod1) == TW_R_NAT_NOT);
                if (rules == TW_NAT_NFT) CHECK(fate(a, src, net.pod_b) == TW_R_NAT_NOT);
            }
        }
}

TEST_CASE("nat rules: row 5, a pod to what is no pod, nodes too, gets the interface's address")
{
    for (const tw_nat_rules rules : kBoth)
        for (const Net& net : nets()) {
            const NatNode a = with_rules(rules);
            for (const Ip& dst : {net.outside, net.node_b}) {
                const auto out = a.send(leaving(net.pod1, dst) + udp());
                REQUIRE(out);
                CHECK(out->src == net.node_a);
                CHECK(out->dst == dst);
            }
        }
}

TEST_CASE("nat rules: row 5, not to multicast")
{
    for (const tw_nat_rules rules : kBoth) {
        const NatNode a = with_rules(rules);
        CHECK(fate(a, nets()[0].pod1, ip("224.0.0.251")) == TW_R_NAT_NOT);
        CHECK(fate(a, nets()[0].pod1, ip("239.1.2.3")) == TW_R_NAT_NOT);
        CHECK(fate(a, nets()[1].pod1, ip("ff02::fb")) == TW_R_NAT_NOT);
    }
}

TEST_CASE("nat rules: row 5, pod to pod in transit, where neither is of this node, with iptables only")
{
    for (const tw_nat_rules rules : kBoth)
        for (const Net& net : nets())
            CHECK(fate(with_rules(rules), net.pod_b, net.pod_c) == (rules == TW_NAT_NFT ? TW_R_NAT_NOT : TW_R_NAT_OUT));
}

TEST_CASE("nat rules: row 6, from outside to a pod of another node, with iptables only")
{
    for (const tw_nat_rules rules : kBoth)
        for (const Net& net : nets())
            for (const Ip& src : {net.outside, net.node_b})
                CHECK(fate(with_rules(rules), src, net.pod_b) == (rules == TW_NAT_NFT ? TW_R_NAT_NOT : TW_R_NAT_OUT));
}

TEST_CASE("nat rules: everything else goes as it is")
{
    for (const tw_nat_rules rules : kBoth)
        for (const Net& net : nets()) {
            const NatNode a = with_rules(rules);
            CHECK(fate(a, net.node_a, net.outside) == TW_R_NAT_NOT);
            CHECK(fate(a, net.outside, net.node_b) == TW_R_NAT_NOT);
        }
}

TEST_CASE("nat rules: a destination that the configuration excludes")
{
    for (const Net& net : nets()) {
        const NatNode a = with_rules(TW_NAT_IPTABLES);
        const std::uint32_t bits = net.family == Family::v4 ? 96 + 24 : 64;
        tw_cidr_v6 key{.bits = bits, .addr = {}};
        const tw_addr addr = abi(net.outside);
        std::memcpy(key.addr, &addr, bits / 8);
        const std::uint32_t one = 1;
        REQUIRE(bpf_map_update_elem(a.dp->map("tw_nat_except"), &key, &one, BPF_ANY) == 0);
        CHECK(fate(a, net.pod1, net.outside) == TW_R_NAT_NOT);
        CHECK(fate(a, net.pod1, net.node_b) == TW_R_NAT_OUT);
    }
}

TEST_CASE("nat rules: an interface without an address of the family lets nothing out")
{
    for (const Net& net : nets()) {
        const NatNode a = with_rules(TW_NAT_IPTABLES);
        const tw_nat_if none{};
        REQUIRE(bpf_map_update_elem(a.dp->map("tw_nat_ifs"), &a.wire, &none, BPF_ANY) == 0);
        expect(a.to_wire(leaving(net.pod1, net.outside) + udp()), kShot, TW_R_NAT_ADDRESS);
    }
}

TEST_CASE("nat rules: switched off nothing is masqueraded, and replies are not looked for")
{
    for (const Net& net : nets()) {
        const Node a = node_a();
        const Layers frame = leaving(net.pod1, net.outside) + udp();
        expect_untouched(a.to_wire(frame), frame, TW_R_NAT_NOT);
    }
}

TEST_CASE("nat rules: row 6 on the overlay device, the source becomes the overlay's address and the answer finds back")
{
    for (const tw_nat_rules rules : kBoth)
        for (const Net& net : nets()) {
            const NatNode a = with_rules(rules);
            const Layers inner = udp();
            const Layers frame = Layers{Eth{kVtepC, kVtepA, {}}, ip_layer(net.node_a, net.pod_c)} + inner;
            // Directly routed, so what leaves is the packet itself.
            const Outcome out = a.from_host(frame);
            expect(out, kRedirect, TW_R_TO_DIRECT);
            const Seen is = seen(out.out);
            CHECK(is.src == (rules == TW_NAT_NFT ? net.node_a : overlay_address(net)));
            if (rules == TW_NAT_NFT) continue;
            expect_sums(out.out);
            Udp back{.sport = is.dport, .dport = is.sport, .len = {}, .csum = {}};
            const Outcome in =
                a.from_wire(outer(net.node_b, net.node_a) +
                            Layers{Eth{kVtepA, kVtepB, {}}, ip_layer(net.pod_b, overlay_address(net)), back});
            expect(in, kRedirect, TW_R_TO_STACK); // of another pod: not the flow's
            CHECK(seen(in.out).dst == overlay_address(net));
            const Outcome answer = a.from_wire(arriving(net.pod_c, overlay_address(net)) + Layers{back});
            expect(answer, kRedirect, TW_R_TO_STACK);
            CHECK(seen(answer.out) == Seen{net.pod_c, net.node_a, 17, is.dport, 40000});
            expect_sums(answer.out);
        }
}

TEST_CASE("nat rules: row 2 and 3 on the overlay device, pods among themselves keep their addresses")
{
    for (const tw_nat_rules rules : kBoth)
        for (const Net& net : nets()) {
            const NatNode a = with_rules(rules);
            for (const Ip& src : {net.pod1, overlay_address(net)}) {
                const Outcome out = a.from_host(Layers{Eth{kVtepC, kVtepA, {}}, ip_layer(src, net.pod_c)} + udp());
                expect(out, kRedirect, TW_R_TO_DIRECT);
                CHECK(seen(out.out).src == src);
            }
        }
}
