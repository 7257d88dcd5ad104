// SPDX-License-Identifier: Apache-2.0
// tw-bench-load: one load between two network namespaces, measured. Client and server are two processes, each on a
// CPU of its own; what they must know of each other they share in memory, so that no message of ours is on the path.
#pragma once

#include <netinet/in.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill::bench {

using Clock = std::chrono::steady_clock;

struct Options {
    std::string load;
    std::string from, to; ///< namespaces of client and server: names below /run/netns
    std::string address;  ///< of the server
    double seconds = 1;
    double warmup_s = 0.2;
    int client_cpu = 0, server_cpu = 1; ///< -1: wherever the scheduler likes
    int buffer_bytes = 0;               ///< of every socket, both ways; 0: the kernel tunes
    unsigned size_bytes = 64;           ///< udp: payload
};

struct Shared {
    std::atomic<int> port{0}; ///< host order; 0 until the server listens
    std::atomic<std::uint64_t> delivered{0};
};

/// What was measured, by the name under which it is printed.
using Values = std::vector<std::pair<std::string, double>>;

/// The state of the machine at one moment.
struct Moment {
    Clock::time_point at;
    std::uint64_t delivered; ///< bytes (stream) or datagrams (udp) that the server has
    double busy_s;           ///< CPU time of the whole machine that was not idle
};
Moment now(const Shared& shared);
double seconds_between(const Moment& a, const Moment& b);

/// Calls `step` until `seconds` are over; an error ends it.
template <typename Step>
Result<> repeat_for(double seconds, Step step)
{
    const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    do {
        TWILL_TRY(step());
    } while (Clock::now() < end);
    return Ok{};
}

/// The same, and longer where nothing arrived: on a busy machine the server may not have had its turn.
template <typename Step>
Result<Moment> repeat_until_delivered(double seconds, const Shared& shared, Step step)
{
    constexpr double kLimit_s = 10;
    const Moment start = now(shared);
    for (;;) {
        TWILL_TRY(repeat_for(seconds, step));
        const Moment end = now(shared);
        if (end.delivered > start.delivered) return end;
        if (seconds_between(start, end) > kLimit_s) return Error{ETIMEDOUT, "nothing arrived in 10 s"};
    }
}

Error system_error(const std::string& act);
Result<sockaddr_storage> make_address(const Options& options, int port);
/// A socket with the buffers of `options`; TCP ones are cubic and do not wait for more data.
Result<Fd> make_socket(const Options& options, int family, int type);
Result<Fd> connect_to(const Options& options, const Shared& shared, int type);
/// Bound to a free port, which is published; listening when `type` is SOCK_STREAM.
Result<Fd> bind_to(const Options& options, Shared& shared, int type);

/// A server runs until it is killed; a client runs for its time.
using Serve = Result<> (*)(const Options&, Shared&);
using Measure = Result<Values> (*)(const Options&, Shared&);

Result<> serve_stream(const Options& options, Shared& shared);
Result<> serve_rr(const Options& options, Shared& shared);
Result<> serve_crr(const Options& options, Shared& shared);
Result<> serve_udp(const Options& options, Shared& shared);
Result<Values> measure_stream(const Options& options, Shared& shared);
Result<Values> measure_rr(const Options& options, Shared& shared);
Result<Values> measure_rr32(const Options& options, Shared& shared);
Result<Values> measure_crr(const Options& options, Shared& shared);
Result<Values> measure_udp(const Options& options, Shared& shared);

} // namespace twill::bench
