// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/nl/link.hpp"
#include "agent/nl/monitor.hpp"
#include "tests/netns/nl_sandbox.hpp"

namespace twill::nl {
namespace {

using test::Namespace;
using test::run_until;
using test::shell;

// Writes every event down as one line.
struct Recorder final : MonitorListener {
    std::vector<std::string> lines;
    std::function<void()> on_event = [] {};

    void add(bool gone, const std::string& line)
    {
        lines.push_back((gone ? "gone " : "") + line);
        on_event();
    }
    void on_link(const Link& link, bool gone) override { add(gone, "link " + link.name); }
    void on_address(const Address& address, bool gone) override { add(gone, "address " + address.ip.to_string()); }
    void on_route(const Route& route, bool gone) override { add(gone, "route " + route.dst.to_string()); }
    void on_neighbour(const Neighbour& neighbour, bool gone) override
    {
        add(gone, "neighbour " + neighbour.ip.to_string() + " " + neighbour.mac.to_string());
    }
    void on_fdb(const FdbEntry& entry, bool gone) override { add(gone, "fdb " + entry.mac.to_string()); }
    void on_vtep(const VtepEntry& entry, bool gone) override { add(gone, "vtep " + entry.mac.to_string()); }
    void on_qdisc(IfIndex ifindex) override { add(false, "qdisc " + std::to_string(ifindex.value)); }
    void on_resync() override { add(false, "resync"); }

    bool has(const std::string& line) const { return std::find(lines.begin(), lines.end(), line) != lines.end(); }
};

struct Watched : Namespace {
    Loop loop;
    Recorder seen;
    std::unique_ptr<Monitor> monitor;

    void start(MonitorOptions options = {})
    {
        auto started = Monitor::start(loop, seen, options);
        REQUIRE_MESSAGE(started, started.error().what);
        monitor = *std::move(started);
    }
    void expect(const std::string& command, const std::string& line)
    {
        shell(command);
        INFO(command << " should tell: " << line);
        CHECK(run_until(loop, [&] { return seen.has(line); }));
    }
};

} // namespace

TEST_CASE_FIXTURE(Watched, "monitor: what is made and what goes is told, for each kind of object")
{
    start();
    expect("ip link add cni0 type bridge && ip link set cni0 up", "link cni0");
    expect("ip link add pod type veth peer podp && ip link set podp up && ip link set pod up", "link podp");
    expect("ip addr add 10.42.1.1/24 dev cni0", "address 10.42.1.1");
    expect("ip addr add fd00:42::1/64 dev cni0 nodad", "address fd00:42::1");
    expect("ip route add 198.51.100.0/24 dev cni0", "route 198.51.100.0/24");
    expect("ip -6 route add 2001:db8:7::/48 dev cni0", "route 2001:db8:7::/48");
    expect("ip neigh add 10.42.1.9 lladdr 02:00:00:00:00:09 dev cni0", "neighbour 10.42.1.9 02:00:00:00:00:09");
    expect("ip link set pod master cni0 && bridge fdb add 02:00:00:00:00:42 dev pod master static",
           "fdb 02:00:00:00:00:42");
    expect("tc qdisc add dev pod clsact", "qdisc " + std::to_string((*link(socket(), "pod"))->index.value));

    expect("bridge fdb del 02:00:00:00:00:42 dev pod master", "gone fdb 02:00:00:00:00:42");
    // The bridge took its port's MAC, which flushed its neighbours.
    shell("ip neigh replace 10.42.1.9 lladdr 02:00:00:00:00:09 dev cni0 && ip neigh del 10.42.1.9 dev cni0");
    CHECK(run_until(loop, [&] {
        return std::any_of(seen.lines.begin(), seen.lines.end(),
                           [](const auto& line) { return line.starts_with("gone neighbour 10.42.1.9"); });
    }));
    expect("ip route del 198.51.100.0/24", "gone route 198.51.100.0/24");
    expect("ip addr del 10.42.1.1/24 dev cni0", "gone address 10.42.1.1");
    expect("ip link del pod", "gone link podp");
    CHECK_FALSE(seen.has("resync"));
    CHECK_FALSE(seen.has("route 10.42.1.1/32")); // of the local table
}

TEST_CASE_FIXTURE(Watched, "monitor: leaving a bridge is no loss of the interface")
{
    shell("ip link add cni0 type bridge && ip link set cni0 up && ip link add pod type veth peer podp && ip link set "
          "pod up");
    start();
    shell("ip link set pod master cni0 && ip link set pod nomaster && ip link set pod alias done");
    test::run_idle(loop);
    CHECK(seen.has("link pod"));
    CHECK_FALSE(seen.has("gone link pod"));
}

TEST_CASE_FIXTURE(Watched, "monitor: a loss becomes one resync, nothing older than it is told, what follows is")
{
    shell("ip link add wire type veth peer far && ip link set wire up");
    start({.receive_buffer_bytes = 16384});
    shell("for i in $(seq 0 999); do echo addr add 10.1.$((i / 250)).$((i % 250 + 1))/32 dev wire; done | ip -batch -");
    REQUIRE(run_until(loop, [&] { return seen.has("resync"); }));
    CHECK(seen.lines == std::vector<std::string>{"resync"});
    expect("ip addr add 203.0.113.5/32 dev wire", "address 203.0.113.5");
    CHECK(std::count(seen.lines.begin(), seen.lines.end(), "resync") == 1);
}

TEST_CASE_FIXTURE(Watched, "monitor: the default buffer holds a burst of a thousand changes")
{
    shell("ip link add wire type veth peer far && ip link set wire up");
    start();
    shell("for i in $(seq 0 999); do echo route add 10.1.$((i / 256)).$((i % 256))/32 dev wire; done | ip -batch -");
    CHECK(run_until(loop, [&] { return seen.has("route 10.1.3.231/32"); }));
    CHECK_FALSE(seen.has("resync"));
    CHECK(std::count_if(seen.lines.begin(), seen.lines.end(),
                        [](const auto& line) { return line.starts_with("route 10.1."); }) == 1000);
}

TEST_CASE_FIXTURE(Watched, "monitor: the listener may destroy the monitor inside a callback")
{
    start();
    seen.on_event = [&] { monitor.reset(); };
    shell("ip link add v0 type veth peer v1 && ip link add v2 type veth peer v3");
    CHECK(run_until(loop, [&] { return monitor == nullptr; }));
    test::run_idle(loop);
    CHECK(seen.lines.size() == 1);
}

} // namespace twill::nl
