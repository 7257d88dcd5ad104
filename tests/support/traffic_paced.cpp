// SPDX-License-Identifier: Apache-2.0
// Streams at a pace, for tests that want many of them and no machine at its limit. 'U': the client sends; 'D': the
// server does, at the pace that the client asks for, until the client ends its side. Data comes in frames: length,
// bytes; the one of length 0 is the last, after it the sender's SHA-256. 'U' is answered with the receiver's. Both ends
// run on one machine: host byte order.
#include "tests/support/traffic.hpp"
#include "tests/support/traffic_sha256.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace twill::traffic {

namespace {

constexpr std::size_t kFrame = 16u << 10;

struct Stream {
    std::uint64_t bytes = 0;
    Digest digest{};
    Clock::duration longest_gap{}; ///< between two frames
};

/// The kernel's own pacing (TCP does it without a qdisc since 4.13).
void pace(int fd, unsigned mbit)
{
    const unsigned bytes_per_s = mbit * 125'000u;
    ::setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_per_s, sizeof(bytes_per_s));
    const int buffer = 64 << 10; // so that what is sent is soon there
    ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
}

template <typename Predicate>
Result<Stream> send_frames(int fd, std::uint64_t seed, Predicate wants_more)
{
    struct {
        std::uint32_t len = kFrame;
        std::array<std::byte, kFrame> data;
    } frame;
    Random random{seed};
    random.fill(frame.data);
    Sha256 sha;
    Stream out;
    auto last = Clock::now();
    while (wants_more(out.bytes)) {
        std::memcpy(frame.data.data(), &out.bytes, sizeof(out.bytes)); // no two frames are the same
        sha.update(frame.data);
        TWILL_TRY(send_all(fd, &frame, sizeof(frame)));
        out.bytes += kFrame;
        const auto now = Clock::now();
        out.longest_gap = std::max(out.longest_gap, now - last);
        last = now;
    }
    const std::uint32_t end = 0;
    TWILL_TRY(send_all(fd, &end, sizeof(end)));
    out.digest = sha.digest();
    TWILL_TRY(send_all(fd, out.digest.data(), out.digest.size()));
    return out;
}

/// `on_frame` is told after each. The stream's `digest` is what was received; the sender's is compared by the caller.
template <typename OnFrame>
Result<Stream> receive_frames(int fd, Digest& said, OnFrame on_frame)
{
    std::array<std::byte, kFrame> data;
    Sha256 sha;
    Stream out;
    auto last = Clock::now();
    for (;;) {
        std::uint32_t len = 0;
        TWILL_TRY(receive_all(fd, &len, sizeof(len)));
        if (len == 0) break;
        if (len > kFrame) return Error{EPROTO, "a frame of " + std::to_string(len) + " bytes"};
        TWILL_TRY(receive_all(fd, data.data(), len));
        sha.update({data.data(), len});
        out.bytes += len;
        const auto now = Clock::now();
        out.longest_gap = std::max(out.longest_gap, now - last);
        last = now;
        on_frame();
    }
    TWILL_TRY(receive_all(fd, said.data(), said.size()));
    out.digest = sha.digest();
    return out;
}

int print(const Options& options, const Stream& stream, const Digest& other, Clock::time_point start)
{
    Report report{options.command};
    const bool ok = stream.digest == other && stream.bytes > 0;
    report.text("result", ok ? "ok" : "corrupt");
    report.count("bytes", stream.bytes);
    report.number("seconds", seconds_since(start));
    report.number("longest_gap_ms", std::chrono::duration<double, std::milli>(stream.longest_gap).count());
    report.text("sha256", to_hex(stream.digest));
    report.text("sha256_there", to_hex(other));
    report.print(options.json);
    return ok ? 0 : 1;
}

/// As long as the client has not ended its side.
bool is_open(int fd)
{
    pollfd state{fd, POLLIN, 0};
    return ::poll(&state, 1, 0) == 0;
}

} // namespace

void serve_upload(int fd)
{
    Digest said;
    const auto stream = receive_frames(fd, said, [] {});
    if (stream && stream->digest == said) (void)send_all(fd, said.data(), said.size());
    if (stream && stream->digest != said) (void)send_all(fd, stream->digest.data(), stream->digest.size());
}

void serve_download(int fd)
{
    std::uint32_t mbit = 0;
    if (!receive_all(fd, &mbit, sizeof(mbit))) return;
    pace(fd, mbit);
    (void)send_frames(fd, 2, [fd](std::uint64_t) { return is_open(fd); });
}

Result<int> tcp_upload(const Options& options)
{
    TWILL_TRY_AS(fd, connect_to(options, SOCK_STREAM));
    pace(fd.get(), options.mbit);
    TWILL_TRY(send_all(fd.get(), "U", 1));
    const auto start = Clock::now();
    TWILL_TRY_AS(stream, send_frames(fd.get(), options.seed, [&](std::uint64_t bytes) {
                     return !interrupted() && (options.until_signal || bytes < options.bytes);
                 }));
    Digest there;
    TWILL_TRY(receive_all(fd.get(), there.data(), there.size()));
    return print(options, stream, there, start);
}

Result<int> tcp_download(const Options& options)
{
    TWILL_TRY_AS(fd, connect_to(options, SOCK_STREAM));
    const std::uint32_t mbit = options.mbit;
    TWILL_TRY(send_all(fd.get(), "D", 1));
    TWILL_TRY(send_all(fd.get(), &mbit, sizeof(mbit)));
    const auto start = Clock::now();
    std::uint64_t frames = 0;
    Digest there;
    TWILL_TRY_AS(stream, receive_frames(fd.get(), there, [&] {
                     ++frames;
                     if (interrupted() || (!options.until_signal && frames * kFrame >= options.bytes))
                         ::shutdown(fd.get(), SHUT_WR);
                 }));
    return print(options, stream, there, start);
}

} // namespace twill::traffic
