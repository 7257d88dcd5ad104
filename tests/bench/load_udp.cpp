// SPDX-License-Identifier: Apache-2.0
// One sender, as fast as it can, one system call a datagram. What counts is what the receiving program gets.
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "tests/bench/load.hpp"

namespace twill::bench {

namespace {

constexpr unsigned kBatch = 64;    // of a receive call: the receiver must not be what limits
constexpr unsigned kPerCheck = 16; // datagrams between two looks at the clock

} // namespace

Result<> serve_udp(const Options& options, Shared& shared)
{
    TWILL_TRY_AS(fd, bind_to(options, shared, SOCK_DGRAM));
    std::array<std::array<char, 2048>, kBatch> buffers;
    std::array<iovec, kBatch> parts{};
    std::array<mmsghdr, kBatch> messages{};
    for (unsigned i = 0; i < kBatch; ++i) {
        parts[i] = {buffers[i].data(), buffers[i].size()};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (;;) {
        const int got = ::recvmmsg(fd.get(), messages.data(), kBatch, MSG_WAITFORONE, nullptr);
        if (got < 0 && errno != EINTR) return system_error("receive");
        if (got > 0) shared.delivered.fetch_add(static_cast<unsigned>(got), std::memory_order_relaxed);
    }
}

Result<Values> measure_udp(const Options& options, Shared& shared)
{
    TWILL_TRY_AS(fd, connect_to(options, shared, SOCK_DGRAM));
    const std::vector<char> payload(options.size_bytes, 'x');
    std::uint64_t sent = 0;
    const auto send_some = [&]() -> Result<> {
        for (unsigned i = 0; i < kPerCheck; ++i) {
            if (::send(fd.get(), payload.data(), payload.size(), 0) >= 0)
                ++sent;
            else if (errno != ENOBUFS && errno != EAGAIN) // a full queue is a loss that the sender sees
                return system_error("send");
        }
        return Ok{};
    };
    TWILL_TRY(repeat_for(options.warmup_s, send_some));
    const auto before = sent;
    const Moment start = now(shared);
    TWILL_TRY_AS(end, repeat_until_delivered(options.seconds, shared, send_some));
    const double offered = static_cast<double>(sent - before);
    const double delivered = static_cast<double>(end.delivered - start.delivered);
    const double loss = 1 - delivered / offered;
    return Values{{"udp" + std::to_string(options.size_bytes), delivered / seconds_between(start, end)},
                  {"loss", loss > 0 ? loss : 0}};
}

} // namespace twill::bench
