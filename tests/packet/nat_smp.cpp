// SPDX-License-Identifier: Apache-2.0
// Two CPUs at the same time: no port is given to two flows to one remote end, and no half is left alone.
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <map>
#include <thread>

#include "tests/packet/nat.hpp"

using namespace twill;
using namespace twill::test;

namespace {

constexpr std::uint8_t kSyn = 0x02;

/// One CPU's part: flows of its own pod to the same remote end as everybody's.
struct Part {
    std::map<std::uint16_t, std::uint16_t> ports; ///< the pod's to the one outside
    unsigned refused = 0;
};

/// Runs the program on this thread's CPU; the source port outside, 0: refused.
std::uint16_t leave(const NatNode& node, Bytes frame)
{
    Bytes out(256);
    __sk_buff context{};
    context.ifindex = node.wire;
    DECLARE_LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame.data(), .data_out = out.data(),
                        .data_size_in = static_cast<__u32>(frame.size()),
                        .data_size_out = static_cast<__u32>(out.size()), .ctx_in = &context,
                        .ctx_size_in = sizeof context);
    if (bpf_prog_test_run_opts(node.dp->fd(Program::to_wire), &opts) != 0) return 0;
    if (static_cast<int>(opts.retval) != kUnspec) return 0;
    out.resize(opts.data_size_out);
    return seen(out).sport;
}

void stay_on(unsigned cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

} // namespace

TEST_CASE("nat smp: flows made on all CPUs at once have ports of their own, and both halves")
{
    const auto cpus = static_cast<unsigned>(sysconf(_SC_NPROCESSORS_ONLN));
    const Ports range{1024, 1279};
    const NatNode a = nat_node([](tw_cfg& cfg) { cfg.nat_max = 8192; }, range);
    for (const Net& net : nets())
        for (int round = 0; round < 20; ++round) {
            a.reset(range);
            std::vector<Part> parts(std::min(cpus, 4U));
            std::atomic<unsigned> ready{0};
            std::vector<std::thread> threads;
            for (unsigned cpu = 0; cpu < parts.size(); ++cpu)
                threads.emplace_back([&, cpu] {
                    stay_on(cpu);
                    std::vector<Bytes> frames;
                    for (std::uint16_t i = 0; i < 80; ++i) // the same wishes everywhere
                        frames.push_back(build(leaving(net.pod1.plus(cpu), net.outside) +
                                               Layers{Tcp{.sport = static_cast<std::uint16_t>(1024 + i),
                                                          .dport = 80,
                                                          .flags = kSyn,
                                                          .csum = {}}}));
                    ready.fetch_add(1);
                    while (ready.load() < parts.size()) std::this_thread::yield();
                    for (std::uint16_t i = 0; i < frames.size(); ++i) {
                        const std::uint16_t port = leave(a, frames[i]);
                        if (port != 0)
                            parts[cpu].ports[static_cast<std::uint16_t>(1024 + i)] = port;
                        else
                            ++parts[cpu].refused;
                    }
                });
            for (std::thread& thread : threads) thread.join();
            std::map<std::uint16_t, unsigned> used;
            std::size_t made = 0;
            for (const Part& part : parts)
                for (const auto& [pod, outside] : part.ports) ++used[outside], ++made;
            CHECK(used.size() == made);
            const auto fwd = a.halves("tw_nat_fwd"), rev = a.halves("tw_nat_rev");
            CHECK(fwd.size() == made);
            CHECK(rev.size() == made);
            std::size_t pairs = 0;
            for (const auto& [key, flow] : fwd) {
                tw_nat_key other{};
                other.src = key.dst;
                other.dst = flow.addr;
                other.sport = key.dport;
                other.dport = flow.port;
                other.proto = key.proto;
                tw_nat_flow half{};
                pairs += bpf_map_lookup_elem(a.dp->map("tw_nat_rev"), &other, &half) == 0 &&
                         std::memcmp(&half.addr, &key.src, sizeof half.addr) == 0 && half.port == key.sport;
            }
            CHECK(pairs == made);
            CHECK(made * 100 >= parts.size() * 80 * 95); // some tries may be lost to others
        }
}
