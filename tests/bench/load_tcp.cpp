// SPDX-License-Identifier: Apache-2.0
// A transaction is one byte there and one byte back: what is measured is packets, not copies.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "tests/bench/load.hpp"

namespace twill::bench {

namespace {

constexpr std::size_t kChunk = 128u << 10;
constexpr std::size_t kConnections = 32;

/// The byte, or nothing at the end of the stream.
Result<bool> receive_byte(int fd)
{
    char byte = 0;
    const ssize_t got = ::recv(fd, &byte, 1, 0);
    if (got < 0) return system_error("receive");
    return got == 1;
}

Result<> send_byte(int fd)
{
    const char byte = 'x';
    if (::send(fd, &byte, 1, MSG_NOSIGNAL) != 1) return system_error("send");
    return Ok{};
}

Result<> transaction(int fd)
{
    TWILL_TRY(send_byte(fd));
    TWILL_TRY_AS(answered, receive_byte(fd));
    if (!answered) return Error{ECONNRESET, "transaction: the server closed the connection"};
    return Ok{};
}

Result<Fd> accept_from(const Fd& listener)
{
    Fd fd{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)};
    if (!fd) return system_error("accept");
    return fd;
}

Result<Fd> make_epoll()
{
    Fd epoll{::epoll_create1(EPOLL_CLOEXEC)};
    if (!epoll) return system_error("epoll");
    return epoll;
}

Result<> watch(const Fd& epoll, const Fd& fd)
{
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd.get();
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) return system_error("epoll add");
    return Ok{};
}

/// `percent` of sorted nanoseconds, in microseconds.
double percentile_us(const std::vector<std::int64_t>& sorted_ns, std::size_t percent)
{
    return static_cast<double>(sorted_ns[(sorted_ns.size() - 1) * percent / 100]) / 1000;
}

} // namespace

Result<> serve_stream(const Options& options, Shared& shared)
{
    TWILL_TRY_AS(listener, bind_to(options, shared, SOCK_STREAM));
    TWILL_TRY_AS(fd, accept_from(listener));
    const auto buffer = std::make_unique<std::array<char, kChunk>>();
    for (;;) {
        const ssize_t got = ::recv(fd.get(), buffer->data(), buffer->size(), 0);
        if (got <= 0) return got < 0 ? Result<>{system_error("receive")} : Result<>{Ok{}};
        shared.delivered.fetch_add(static_cast<std::uint64_t>(got), std::memory_order_relaxed);
    }
}

Result<Values> measure_stream(const Options& options, Shared& shared)
{
    TWILL_TRY_AS(fd, connect_to(options, shared, SOCK_STREAM));
    const auto buffer = std::make_unique<std::array<char, kChunk>>();
    buffer->fill('x');
    const auto send_chunk = [&]() -> Result<> {
        if (::send(fd.get(), buffer->data(), buffer->size(), MSG_NOSIGNAL) < 0) return system_error("send");
        return Ok{};
    };
    TWILL_TRY(repeat_for(options.warmup_s, send_chunk));
    const Moment start = now(shared);
    TWILL_TRY_AS(end, repeat_until_delivered(options.seconds, shared, send_chunk));
    const double bytes = static_cast<double>(end.delivered - start.delivered);
    return Values{{"tcp_stream", bytes * 8e-9 / seconds_between(start, end)},
                  {"cpu_per_gb", (end.busy_s - start.busy_s) / (bytes * 1e-9)}};
}

/// One connection is served as an ordinary blocking server would; more than one through epoll.
Result<> serve_rr(const Options& options, Shared& shared)
{
    TWILL_TRY_AS(listener, bind_to(options, shared, SOCK_STREAM));
    std::vector<Fd> connections;
    if (options.load == "rr") {
        TWILL_TRY_AS(fd, accept_from(listener));
        for (;;) {
            TWILL_TRY_AS(more, receive_byte(fd.get()));
            if (!more) return Ok{};
            TWILL_TRY(send_byte(fd.get()));
        }
    }
    TWILL_TRY_AS(epoll, make_epoll());
    TWILL_TRY(watch(epoll, listener));
    std::array<epoll_event, kConnections> events{};
    for (;;) {
        const int count = ::epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), -1);
        for (const auto& event : std::span{events}.first(static_cast<std::size_t>(std::max(count, 0)))) {
            if (event.data.fd == listener.get()) {
                TWILL_TRY_AS(fd, accept_from(listener));
                TWILL_TRY(watch(epoll, fd));
                connections.push_back(std::move(fd));
                continue;
            }
            TWILL_TRY_AS(more, receive_byte(event.data.fd));
            if (!more) return Ok{};
            TWILL_TRY(send_byte(event.data.fd));
        }
    }
}

Result<Values> measure_rr(const Options& options, Shared& shared)
{
    TWILL_TRY_AS(fd, connect_to(options, shared, SOCK_STREAM));
    std::vector<std::int64_t> samples_ns;
    samples_ns.reserve(static_cast<std::size_t>(options.seconds * 400000)); // must not grow while it is measured
    TWILL_TRY(repeat_for(options.warmup_s, [&] { return transaction(fd.get()); }));
    const auto timed_transaction = [&]() -> Result<> {
        const auto before = Clock::now();
        TWILL_TRY(transaction(fd.get()));
        samples_ns.push_back(std::chrono::nanoseconds(Clock::now() - before).count());
        return Ok{};
    };
    TWILL_TRY(repeat_for(options.seconds, timed_transaction));
    std::sort(samples_ns.begin(), samples_ns.end());
    return Values{{"tcp_rr_p50", percentile_us(samples_ns, 50)}, {"tcp_rr_p99", percentile_us(samples_ns, 99)}};
}

Result<Values> measure_rr32(const Options& options, Shared& shared)
{
    TWILL_TRY_AS(epoll, make_epoll());
    std::vector<Fd> connections;
    for (std::size_t i = 0; i < kConnections; ++i) {
        TWILL_TRY_AS(fd, connect_to(options, shared, SOCK_STREAM));
        TWILL_TRY(watch(epoll, fd));
        TWILL_TRY(send_byte(fd.get()));
        connections.push_back(std::move(fd));
    }
    std::uint64_t transactions = 0;
    std::array<epoll_event, kConnections> events{};
    const auto answer_all = [&]() -> Result<> {
        const int count = ::epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), 5000);
        if (count <= 0) return Error{ETIMEDOUT, "rr32: no answer on any connection"};
        for (const auto& event : std::span{events}.first(static_cast<std::size_t>(count))) {
            TWILL_TRY_AS(answered, receive_byte(event.data.fd));
            if (!answered) return Error{ECONNRESET, "rr32: the server closed a connection"};
            TWILL_TRY(send_byte(event.data.fd));
            ++transactions;
        }
        return Ok{};
    };
    TWILL_TRY(repeat_for(options.warmup_s, answer_all));
    const auto before = transactions;
    const Moment start = now(shared);
    TWILL_TRY(repeat_for(options.seconds, answer_all));
    const double count = static_cast<double>(transactions - before);
    return Values{{"tcp_rr32", count / seconds_between(start, now(shared))}};
}

/// The server closes first: its port is the same for all, so TIME_WAIT does not use up the client's ports.
Result<> serve_crr(const Options& options, Shared& shared)
{
    TWILL_TRY_AS(listener, bind_to(options, shared, SOCK_STREAM));
    for (;;) {
        TWILL_TRY_AS(fd, accept_from(listener));
        TWILL_TRY_AS(more, receive_byte(fd.get()));
        if (more) TWILL_TRY(send_byte(fd.get()));
    }
}

Result<Values> measure_crr(const Options& options, Shared& shared)
{
    std::uint64_t transactions = 0;
    const auto connect_request_close = [&]() -> Result<> {
        TWILL_TRY_AS(fd, connect_to(options, shared, SOCK_STREAM));
        TWILL_TRY(transaction(fd.get()));
        TWILL_TRY_AS(more, receive_byte(fd.get()));
        if (more) return Error{EPROTO, "crr: more than one byte"};
        ++transactions;
        return Ok{};
    };
    TWILL_TRY(repeat_for(options.warmup_s, connect_request_close));
    const auto before = transactions;
    const Moment start = now(shared);
    TWILL_TRY(repeat_for(options.seconds, connect_request_close));
    const double count = static_cast<double>(transactions - before);
    return Values{{"tcp_crr", count / seconds_between(start, now(shared))}};
}

} // namespace twill::bench
