// SPDX-License-Identifier: Apache-2.0
// tw_from_pod: sources that are no endpoint are told to the agent, and not faster than it can listen.
#include <doctest/doctest.h>

#include <cstdlib>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

/// Longer than the 100 us that one interface's claims are apart, shorter than the 50 ms of one address's.
void let_pass() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

/// The `n`th address of node a's CIDR above its pods.
Ip invented(const Net& net, int n)
{
    const std::string last = std::to_string(100 + n);
    return ip((net.family == Family::v4 ? "10.42.1." : "fd00:42:0:1::") + last);
}

Bytes claim(const Net& net, int n)
{
    return build(Layers{Eth{kGateway, kPod1}, ip_layer(invented(net, n), net.pod_b)} + udp());
}

bool is_about(const tw_event& event, const Ip& address)
{
    return std::memcmp(&event.addr, address.bytes().data(), 16) == 0;
}

} // namespace

TEST_CASE("from_pod: a source that is no endpoint of this interface is left to the stack and reported")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        CAPTURE(net.name);
        const Layers frame = Layers{Eth{kGateway, kPod1}, ip_layer(net.free_a, net.pod_b)} + udp();
        let_pass();
        const Outcome first = a.from_pod(frame);
        expect_untouched(first, frame, TW_R_NEW_SOURCE);
        REQUIRE(first.events.size() == 1);
        CHECK(first.events[0].kind == TW_EVENT_CLAIM);
        CHECK(first.events[0].ifindex == a.pod1);
        CHECK(std::equal(kPod1.bytes.begin(), kPod1.bytes.end(), first.events[0].mac));
        CHECK(memcmp(&first.events[0].addr, net.free_a.bytes().data(), 16) == 0);

        // An endpoint, but of another interface: the same, and the claim names the interface it came from.
        const Layers moved = Layers{Eth{kGateway, kPod1}, ip_layer(net.pod2, net.pod_b)} + udp();
        let_pass();
        const Outcome other = a.from_pod(moved);
        expect_untouched(other, moved, TW_R_NEW_SOURCE);
        REQUIRE(other.events.size() == 1);
        CHECK(other.events[0].ifindex == a.pod1);
    }
}

TEST_CASE("from_pod: a claim is reported once in a while, not for every packet")
{
    const Node a = node_a();
    const Net& net = nets()[0];
    const Layers frame = Layers{Eth{kGateway, kPod1}, ip_layer(net.free_a, net.pod_b)} + udp();
    std::size_t events = 0;
    for (int i = 0; i < 20; ++i) events += a.from_pod(frame).events.size();
    CHECK(events >= 1);
    CHECK(events < 20);
}

TEST_CASE("from_pod: claims of one interface are 100 us apart, and what was not told is told later")
{
    // Two runs may be further apart on a busy machine: what matters is that two in quick succession happen and make one
    // event. A trial that has none is no failure unless all are.
    for (const Net& net : nets()) {
        bool limited = false;
        for (int trial = 0; trial < 50 && !limited; ++trial) {
            const Node a = node_a();
            let_pass();
            a.dp->run_only(Program::from_pod, claim(net, 1), a.pod1);
            a.dp->run_only(Program::from_pod, claim(net, 2), a.pod1);
            const auto events = a.dp->take_events();
            REQUIRE(events.size() >= 1);
            CHECK(is_about(events[0], invented(net, 1)));
            if (events.size() != 1) continue;
            limited = true;
            let_pass();
            a.dp->run_only(Program::from_pod, claim(net, 2), a.pod1);
            const auto later = a.dp->take_events();
            REQUIRE(later.size() == 1);
            CHECK(is_about(later[0], invented(net, 2)));
        }
        // An emulated CPU needs longer than that for each run. (WARN would print what the VM runner takes for a
        // kernel's.)
        if (std::getenv("TWILL_VM") == nullptr) CHECK(limited);
    }
}

TEST_CASE("from_pod: an interface that invents addresses does not silence another")
{
    const Node a = node_a();
    for (const Net& net : nets()) {
        let_pass();
        for (int i = 0; i < 20; ++i) a.dp->run_only(Program::from_pod, claim(net, i), a.pod1);
        a.dp->take_events();
        a.dp->run_only(Program::from_pod, claim(net, 50), a.pod2);
        const auto events = a.dp->take_events();
        REQUIRE(events.size() == 1);
        CHECK(events[0].ifindex == a.pod2);
        let_pass();
    }
}

TEST_CASE("from_pod: however many addresses an interface invents, no more than one in 100 us is reported")
{
    using Clock = std::chrono::steady_clock;
    const Node a = node_a();
    const Net& net = nets()[0];
    const auto start = Clock::now();
    for (int i = 0; i < 150; ++i) a.dp->run_only(Program::from_pod, claim(net, i), a.pod1);
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count();
    const auto events = a.dp->take_events();
    CHECK(events.size() >= 1);
    CHECK(static_cast<long>(events.size()) <= took / 100 + 1);
}
