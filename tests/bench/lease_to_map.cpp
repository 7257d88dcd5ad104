// SPDX-License-Identifier: Apache-2.0
// bench_lease_to_map: how long it takes from the moment a lease is in the store's directory until its peer is in the
// map. Too short for a shell that starts a process to look.
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>
#include <thread>

#include "maps/abi/peer.h"
#include "maps/codec.hpp"
#include "maps/map.hpp"

using namespace twill;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto kLimit = std::chrono::seconds(30);
constexpr auto kPause = std::chrono::microseconds(20); // leaves the CPU to the agent

/// Milliseconds from the renaming to the entry.
Result<double> time_one(const Map<tw_cidr_v4, tw_peer>& peers, const Cidr& pods, const std::string& from,
                        const std::string& to)
{
    const tw_cidr_v4 key = to_key_v4(pods);
    const auto start = Clock::now();
    if (std::rename(from.c_str(), to.c_str()) != 0) return Error{errno, "rename " + from + ": " + std::strerror(errno)};
    for (;;) {
        TWILL_TRY_AS(found, peers.get(key));
        const auto passed = Clock::now() - start;
        if (found) return std::chrono::duration<double, std::milli>(passed).count();
        if (passed > kLimit) return Error{ETIMEDOUT, to + ": not in the map after 30 s"};
        std::this_thread::sleep_for(kPause);
    }
}

Result<> time_all(const std::string& pin)
{
    using Peers = Map<tw_cidr_v4, tw_peer>;
    TWILL_TRY_AS(peers, Peers::open(pin));
    std::string text, from, to;
    while (std::cin >> text >> from >> to) {
        const auto pods = Cidr::parse(text);
        if (!pods || !pods->address().is_v4()) return Error{EINVAL, "pod CIDR " + text + ": not one of IPv4"};
        TWILL_TRY_AS(ms, time_one(peers, *pods, from, to));
        std::printf("%.3f\n", ms);
    }
    return Ok{};
}

} // namespace

int main(int argc, char** argv)
{
    if (argc != 2 || argv[1][0] == '-') {
        std::fputs(
            "usage: bench_lease_to_map PIN_OF_TW_PEERS_V4\n"
            "Each line of input is a pod CIDR, a file with its lease, and the place in the store to move it to.\n"
            "One line of output for each: milliseconds until the peer was in the map.\n",
            stderr);
        return 2;
    }
    const auto done = time_all(argv[1]);
    if (!done) std::fprintf(stderr, "bench_lease_to_map: %s\n", done.error().what.c_str());
    return done ? 0 : 1;
}
