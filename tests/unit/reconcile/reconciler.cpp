// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/reconciler.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/fake_dataplane.hpp"

using namespace twill;
using std::chrono::milliseconds;

namespace {

class FakeClock final : public Clock {
public:
    WallTime wall() const override { return {}; }
    SteadyTime steady() const override { return now; }
    SteadyTime now{std::chrono::hours(1)};
};

Cidr cidr(unsigned i)
{
    return *Cidr::make(Ip::v4(10, static_cast<std::uint8_t>(i / 256), static_cast<std::uint8_t>(i % 256), 0), 24);
}
Ip node(unsigned i) { return Ip::v4(172, 16, static_cast<std::uint8_t>(i / 256), static_cast<std::uint8_t>(i % 256)); }
Peer peer(unsigned i, unsigned node_number)
{
    return {cidr(i), node(node_number), node(node_number), IfIndex{3}, 1450, PeerMode::encap, {}, false};
}
Peer peer(unsigned i) { return peer(i, i); }
Peers peers(std::initializer_list<unsigned> numbers)
{
    Peers made;
    for (const unsigned i : numbers) made.emplace(cidr(i), peer(i));
    return made;
}
Endpoints endpoints(std::initializer_list<unsigned> numbers)
{
    Endpoints made;
    for (const unsigned i : numbers) made.emplace(node(i), Endpoint{node(i), IfIndex{4}, {}, {}, false});
    return made;
}

struct Node {
    test::FakeDataplane kernel;
    FakeClock clock;
    Reconciler reconciler{kernel, clock};
    std::optional<milliseconds> run() { return reconciler.run(); }
    /// Runs again when it asked for it.
    std::optional<milliseconds> run_after(std::optional<milliseconds> wait)
    {
        REQUIRE(wait.has_value());
        clock.now += *wait;
        return run();
    }
};

} // namespace

TEST_CASE("diff: puts what is absent or different, deletes what is not wanted, in key order")
{
    using Table = std::map<int, char>;
    using D = Delta<int, char>;
    CHECK(diff(Table{}, Table{}).empty());
    CHECK(diff(Table{{1, 'a'}}, Table{{1, 'a'}}).empty());
    CHECK(diff(Table{{1, 'a'}, {3, 'c'}, {5, 'e'}}, Table{{0, 'z'}, {3, 'x'}, {5, 'e'}, {9, 'y'}}) ==
          D{{{1, 'a'}, {3, 'c'}}, {0, 9}});
}

TEST_CASE("diff: of 10,000 peers only what differs")
{
    Peers desired, actual;
    for (unsigned i = 0; i < 10'000; ++i) desired.emplace(cidr(i), peer(i));
    actual = desired;
    CHECK(diff(desired, actual).empty());
    actual.erase(cidr(17));
    actual.at(cidr(4711)).mtu = 1400;
    actual.emplace(cidr(10'001), peer(10'001));
    const auto delta = diff(desired, actual);
    CHECK(delta.put.size() == 2);
    CHECK(delta.del == std::vector{cidr(10'001)});
}

TEST_CASE("backoff: doubles from 100 ms to 30 s, and starts again after a reset")
{
    Backoff backoff;
    CHECK(backoff.next() == milliseconds(100));
    CHECK(backoff.next() == milliseconds(200));
    for (int i = 0; i < 20; ++i) (void)backoff.next();
    CHECK(backoff.next() == milliseconds(30'000));
    backoff.reset();
    CHECK(backoff.next() == milliseconds(100));
}

TEST_CASE_FIXTURE(Node, "reconciler: a restart adopts the maps, fixes only what differs and deletes what is stale")
{
    kernel.peers = peers({1, 2, 3});
    kernel.peers.at(cidr(2)).mtu = 1400;
    for (const auto& [pods, old] : kernel.peers) kernel.nodes[old.node] = pods;
    CHECK(reconciler.adopt());
    CHECK(reconciler.programmed_peers() == kernel.peers);

    reconciler.set_peers(peers({1, 2, 4}));
    CHECK_FALSE(run().has_value());
    CHECK(kernel.writes == std::vector<std::string>{"put 10.0.2.0/24", "put 10.0.4.0/24", "del 10.0.3.0/24"});
    CHECK(kernel.peers == peers({1, 2, 4}));
    CHECK_FALSE(run().has_value());
    CHECK(kernel.writes.size() == 3);
}

TEST_CASE_FIXTURE(Node, "reconciler: no peer is written before the first complete plan, endpoints may be")
{
    kernel.peers = peers({1});
    kernel.endpoints = endpoints({1});
    reconciler.set_endpoints(endpoints({2}));
    CHECK_FALSE(run().has_value());
    CHECK(kernel.peers == peers({1}));
    CHECK(kernel.endpoints == endpoints({2}));

    reconciler.set_peers({});
    CHECK_FALSE(run().has_value());
    CHECK(kernel.peers.empty());
}

TEST_CASE_FIXTURE(Node, "reconciler: endpoints of the maps stay until the desired ones are known")
{
    kernel.endpoints = endpoints({1});
    reconciler.set_peers(peers({1}));
    CHECK_FALSE(run().has_value());
    CHECK(kernel.endpoints == endpoints({1}));
}

TEST_CASE_FIXTURE(Node, "reconciler: maps that cannot be read are not written, and are read again with backoff")
{
    kernel.broken_read = Error{EPERM, "read tw_peers_v4: not permitted"};
    reconciler.set_peers(peers({1}));
    auto wait = run();
    CHECK(wait == milliseconds(100));
    CHECK(reconciler.adoption_trouble()->code == EPERM);
    CHECK(run() == milliseconds(100)); // asked too early: nothing is tried
    CHECK(kernel.writes.empty());
    wait = run_after(wait);
    CHECK(wait == milliseconds(200));

    kernel.broken_read.reset();
    CHECK_FALSE(run_after(wait).has_value());
    CHECK(kernel.peers == peers({1}));
    CHECK_FALSE(reconciler.adoption_trouble().has_value());
}

TEST_CASE_FIXTURE(Node, "reconciler: one broken entry stops no other, is shown, and heals")
{
    kernel.broken_peers[cidr(1)] = EPERM;
    reconciler.set_peers(peers({1, 2, 3}));
    auto wait = run();
    CHECK(kernel.peers == peers({2, 3}));
    CHECK(reconciler.pending_peers() ==
          std::vector{PendingPeer{cidr(1), node(1), "write 10.0.1.0/24: broken on demand"}});
    CHECK(wait == milliseconds(100));
    wait = run_after(wait);
    CHECK(wait == milliseconds(200));
    wait = run_after(wait);
    CHECK(wait == milliseconds(400));

    kernel.broken_peers.clear();
    CHECK_FALSE(run_after(wait).has_value());
    CHECK(kernel.peers == peers({1, 2, 3}));
    CHECK(reconciler.pending_peers().empty());
}

TEST_CASE_FIXTURE(Node,
                  "reconciler: while an entry waits, others are written at once and its retry is neither lost nor "
                  "hastened")
{
    kernel.broken_peers[cidr(1)] = EPERM;
    reconciler.set_peers(peers({1}));
    CHECK(run() == milliseconds(100));
    for (unsigned i = 2; i < 6; ++i) { // more news than backoff
        clock.now += milliseconds(20);
        auto desired = peers({1});
        desired.emplace(cidr(i), peer(i));
        reconciler.set_peers(desired);
        CHECK(run() == milliseconds(100 - 20 * (i - 1)));
        CHECK(kernel.peers.count(cidr(i)) == 1);
    }
    CHECK(std::count(kernel.writes.begin(), kernel.writes.end(), "put 10.0.1.0/24") == 1);
    clock.now += milliseconds(20);
    CHECK(run() == milliseconds(200));
    CHECK(std::count(kernel.writes.begin(), kernel.writes.end(), "put 10.0.1.0/24") == 2);
}

TEST_CASE_FIXTURE(Node, "reconciler: a waiting entry whose desired value changes is tried at once")
{
    kernel.broken_peers[cidr(1)] = EPERM;
    reconciler.set_peers(peers({1}));
    CHECK(run().has_value());
    kernel.broken_peers.clear();
    reconciler.set_peers({{cidr(1), peer(1, 9)}});
    CHECK_FALSE(run().has_value());
    CHECK(kernel.peers.at(cidr(1)).node == node(9));
}

TEST_CASE_FIXTURE(Node, "reconciler: an entry that is no longer wanted is no longer pending")
{
    kernel.broken_peers[cidr(1)] = EPERM;
    reconciler.set_peers(peers({1}));
    CHECK(run().has_value());
    reconciler.set_peers({});
    CHECK_FALSE(run().has_value());
    CHECK(reconciler.pending_peers().empty());
}

TEST_CASE_FIXTURE(Node, "reconciler: a full map: what finds room after this pass's deletes is put in the same pass")
{
    kernel.peers_max = 2;
    kernel.peers = peers({1, 2});
    reconciler.set_peers(peers({2, 3}));
    CHECK_FALSE(run().has_value());
    CHECK(kernel.peers == peers({2, 3}));
    CHECK(kernel.writes == std::vector<std::string>{"put 10.0.3.0/24", "del 10.0.1.0/24", "put 10.0.3.0/24"});
}

TEST_CASE_FIXTURE(Node, "reconciler: a full map: what finds no room waits, and is put as soon as a delete makes some")
{
    kernel.peers_max = 2;
    reconciler.set_peers(peers({1, 2, 3, 4}));
    CHECK(run() == milliseconds(100));
    CHECK(kernel.peers == peers({1, 2}));
    CHECK(reconciler.pending_peers().size() == 2);

    reconciler.set_peers(peers({2, 3, 4})); // 1 goes before the backoff is over
    CHECK(run().has_value());
    CHECK(kernel.peers == peers({2, 3}));
    CHECK(reconciler.pending_peers().size() == 1);
    CHECK(reconciler.pending_peers()[0].why == "put 10.0.4.0/24: map is full");

    kernel.peers_max = 9;
    CHECK_FALSE(run_after(milliseconds(100)).has_value());
    CHECK(kernel.peers == peers({2, 3, 4}));
}

TEST_CASE_FIXTURE(Node, "reconciler: a delete that fails is shown and retried")
{
    kernel.peers = peers({1});
    kernel.broken_peers[cidr(1)] = EPERM;
    reconciler.set_peers({});
    const auto wait = run();
    CHECK(reconciler.pending_peers() ==
          std::vector{PendingPeer{cidr(1), node(1), "delete: write 10.0.1.0/24: broken on demand"}});
    kernel.broken_peers.clear();
    CHECK_FALSE(run_after(wait).has_value());
    CHECK(kernel.peers.empty());
}

TEST_CASE_FIXTURE(Node, "reconciler: endpoints that fail do not hold up peers, and each table has its own backoff")
{
    kernel.endpoints_max = 0;
    reconciler.set_endpoints(endpoints({1}));
    reconciler.set_peers(peers({1}));
    auto wait = run();
    CHECK(kernel.peers == peers({1}));
    CHECK(reconciler.pending_endpoints() == std::vector{PendingEndpoint{node(1), "put 172.16.0.1: map is full"}});
    wait = run_after(wait);
    CHECK(wait == milliseconds(200));

    kernel.broken_peers[cidr(2)] = ENOMEM;
    reconciler.set_peers(peers({1, 2}));
    CHECK(run() == milliseconds(100));
}

TEST_CASE_FIXTURE(Node, "reconciler: a node that moves to another pod CIDR keeps its node entry, whatever the order")
{
    for (const bool to_lower : {true, false}) {
        CAPTURE(to_lower);
        const unsigned from = to_lower ? 5 : 2;
        const unsigned to = to_lower ? 2 : 5;
        reconciler.set_peers({{cidr(from), peer(from, 7)}});
        CHECK_FALSE(run().has_value());
        reconciler.set_peers({{cidr(to), peer(to, 7)}});
        CHECK_FALSE(run().has_value());
        CHECK(kernel.peers.size() == 1);
        CHECK(kernel.nodes == std::map<Ip, Cidr>{{node(7), cidr(to)}});
    }
}

TEST_CASE_FIXTURE(Node, "reconciler: two nodes that swap their addresses end with the right node entries")
{
    reconciler.set_peers({{cidr(1), peer(1, 1)}, {cidr(2), peer(2, 2)}});
    CHECK_FALSE(run().has_value());
    reconciler.set_peers({{cidr(1), peer(1, 2)}, {cidr(2), peer(2, 1)}});
    CHECK_FALSE(run().has_value());
    CHECK(kernel.nodes == std::map<Ip, Cidr>{{node(2), cidr(1)}, {node(1), cidr(2)}});
}

TEST_CASE_FIXTURE(Node, "reconciler: adopting again repairs what somebody else changed in the maps")
{
    reconciler.set_peers(peers({1, 2}));
    CHECK_FALSE(run().has_value());
    kernel.peers.erase(cidr(1));
    CHECK(reconciler.adopt());
    CHECK_FALSE(run().has_value());
    CHECK(kernel.peers == peers({1, 2}));
}

TEST_CASE_FIXTURE(Node, "reconciler: 10,000 peers are written once, and a change of one is one write")
{
    Peers desired;
    for (unsigned i = 0; i < 10'000; ++i) desired.emplace(cidr(i), peer(i));
    reconciler.set_peers(desired);
    CHECK_FALSE(run().has_value());
    CHECK(kernel.writes.size() == 10'000);
    desired.at(cidr(77)).mtu = 1400;
    reconciler.set_peers(desired);
    CHECK_FALSE(run().has_value());
    CHECK(kernel.writes.size() == 10'001);
}
