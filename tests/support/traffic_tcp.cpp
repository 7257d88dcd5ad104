// SPDX-License-Identifier: Apache-2.0
// A connection starts with one byte that says what it is for: 'S' sink (the server answers the end of the stream with
// checksum and length), 'R' request/response (each message is echoed), 'Q' quiet (nothing is said until somebody wakes
// the server, which then speaks first), 'W' wakes; 'U' and 'D' are traffic_paced.cpp's. Both ends run on one machine:
// host byte order.
#include "tests/support/traffic.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>

namespace twill::traffic {

namespace {

constexpr std::size_t kChunk = 128u << 10;
constexpr std::size_t kMessage = 64;

struct Trailer {
    std::uint64_t checksum, bytes;
};

Error stream_error(const char* act)
{
    const int code = errno;
    if (code == EAGAIN) return Error{ETIMEDOUT, std::string(act) + ": no progress within the timeout"};
    return Error{code, std::string(act) + ": " + std::strerror(code)};
}

} // namespace

Result<> send_all(int fd, const void* data, std::size_t len)
{
    const auto* at = static_cast<const char*>(data);
    while (len > 0) {
        const ssize_t sent = ::send(fd, at, len, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return stream_error("send");
        at += sent;
        len -= static_cast<std::size_t>(sent);
    }
    return Ok{};
}

Result<> receive_all(int fd, void* data, std::size_t len)
{
    auto* at = static_cast<char*>(data);
    while (len > 0) {
        const ssize_t got = ::recv(fd, at, len, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return stream_error("receive");
        if (got == 0) return Error{ECONNRESET, "receive: the stream ended early"};
        at += got;
        len -= static_cast<std::size_t>(got);
    }
    return Ok{};
}

namespace {

void serve_sink(int fd)
{
    const auto buffer = std::make_unique<std::array<std::byte, kChunk>>();
    Checksum checksum;
    std::uint64_t bytes = 0;
    for (;;) {
        const ssize_t got = ::recv(fd, buffer->data(), buffer->size(), 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return;
        if (got == 0) break;
        checksum.update({buffer->data(), static_cast<std::size_t>(got)});
        bytes += static_cast<std::uint64_t>(got);
    }
    const Trailer trailer{checksum.value(), bytes};
    (void)send_all(fd, &trailer, sizeof(trailer));
}

struct Sleepers {
    std::mutex mutex;
    std::condition_variable woken;
    unsigned wakes = 0;
};

Sleepers& sleepers()
{
    static Sleepers all;
    return all;
}

/// Says one byte when the server is woken next.
void serve_quiet(int fd)
{
    auto& all = sleepers();
    std::unique_lock lock(all.mutex);
    all.woken.wait(lock, [&, before = all.wakes] { return all.wakes != before; });
    lock.unlock();
    (void)send_all(fd, "Q", 1);
    char rest = 0;
    (void)receive_all(fd, &rest, 1); // until the client has it
}

void serve_wake(int fd)
{
    auto& all = sleepers();
    {
        const std::lock_guard lock(all.mutex);
        ++all.wakes;
    }
    all.woken.notify_all();
    (void)send_all(fd, "W", 1);
}

void serve_connection(Fd fd)
{
    const timeval forever{0, 0}; // a sink may idle while its path is down
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
    char mode = 0;
    if (!receive_all(fd.get(), &mode, 1)) return;
    if (mode == 'S') serve_sink(fd.get());
    if (mode == 'Q') serve_quiet(fd.get());
    if (mode == 'W') serve_wake(fd.get());
    if (mode == 'U') serve_upload(fd.get());
    if (mode == 'D') serve_download(fd.get());
    std::array<char, kMessage> message;
    while (mode == 'R' && receive_all(fd.get(), message.data(), message.size()) &&
           send_all(fd.get(), message.data(), message.size())) {
    }
}

} // namespace

void serve_tcp(const Fd& listener)
{
    while (!interrupted()) {
        pollfd ready{listener.get(), POLLIN, 0};
        if (::poll(&ready, 1, 100) <= 0) continue;
        Fd fd{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)};
        if (fd) std::thread(serve_connection, std::move(fd)).detach();
    }
}

Result<int> tcp_client(const Options& options)
{
    TWILL_TRY_AS(fd, connect_to(options, SOCK_STREAM));
    TWILL_TRY(send_all(fd.get(), "S", 1));
    const auto start = Clock::now();
    const bool timed = options.until_signal || options.seconds > 0;
    const auto buffer = std::make_unique<std::array<std::byte, kChunk>>();
    Random{options.seed}.fill(*buffer);
    Checksum checksum;
    std::uint64_t bytes = 0;
    const auto wants_more = [&] {
        if (!timed) return bytes < options.bytes;
        if (interrupted()) return false;
        return options.until_signal || seconds_since(start) < options.seconds;
    };
    while (wants_more()) {
        const std::size_t len = timed ? kChunk : std::min<std::uint64_t>(kChunk, options.bytes - bytes);
        const std::span chunk{buffer->data(), len};
        // No two chunks are the same; to fill all of each anew would cost more than to send it.
        std::memcpy(buffer->data(), &bytes, sizeof(bytes));
        checksum.update(chunk);
        TWILL_TRY(send_all(fd.get(), chunk.data(), chunk.size()));
        bytes += len;
    }
    ::shutdown(fd.get(), SHUT_WR);
    Trailer trailer{};
    TWILL_TRY(receive_all(fd.get(), &trailer, sizeof(trailer)));
    const double seconds = seconds_since(start);
    const bool ok = trailer.bytes == bytes && trailer.checksum == checksum.value();

    Report report{"tcp-client"};
    report.text("result", ok ? "ok" : "corrupt");
    report.count("bytes", bytes);
    report.number("seconds", seconds);
    report.number("mbit_s", static_cast<double>(bytes) * 8e-6 / seconds);
    report.print(options.json);
    return ok ? 0 : 1;
}

Result<int> tcp_rr(const Options& options)
{
    TWILL_TRY_AS(fd, connect_to(options, SOCK_STREAM));
    TWILL_TRY(send_all(fd.get(), "R", 1));
    const double limit_s = options.seconds > 0 ? options.seconds : 1;
    std::array<std::byte, kMessage> sent, received;
    std::vector<std::int64_t> samples_ns;
    Random random{options.seed};
    bool ok = true;
    const auto start = Clock::now();
    while (ok && !interrupted() && (options.until_signal || seconds_since(start) < limit_s)) {
        random.fill(sent);
        const auto before = Clock::now();
        TWILL_TRY(send_all(fd.get(), sent.data(), sent.size()));
        TWILL_TRY(receive_all(fd.get(), received.data(), received.size()));
        samples_ns.push_back(std::chrono::nanoseconds(Clock::now() - before).count());
        ok = sent == received;
    }
    Report report{"tcp-rr"};
    report.text("result", ok ? "ok" : "corrupt");
    report.count("transactions", samples_ns.size());
    report.number("per_second", static_cast<double>(samples_ns.size()) / seconds_since(start));
    report.latency("rtt", samples_ns);
    report.print(options.json);
    return ok ? 0 : 1;
}

/// Connects, says what for, and waits for the server's byte.
Result<int> wait_for(const Options& options, const char* mode, const char* name)
{
    TWILL_TRY_AS(fd, connect_to(options, SOCK_STREAM));
    TWILL_TRY(send_all(fd.get(), mode, 1));
    char said = 0;
    TWILL_TRY(receive_all(fd.get(), &said, 1));
    Report report{name};
    report.text("result", said == *mode ? "ok" : "corrupt");
    report.print(options.json);
    return said == *mode ? 0 : 1;
}

Result<int> tcp_quiet(const Options& options) { return wait_for(options, "Q", "tcp-quiet"); }
Result<int> tcp_wake(const Options& options) { return wait_for(options, "W", "tcp-wake"); }

} // namespace twill::traffic
