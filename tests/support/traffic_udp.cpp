// SPDX-License-Identifier: Apache-2.0
// Every datagram starts with a Header. The server echoes a probe as it is and answers a segment with a verdict on its
// length and checksum. Both ends run on one machine: host byte order.
#include "tests/support/traffic.hpp"

#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

namespace twill::traffic {

namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr std::uint32_t kMagic = 0x7477696c;
constexpr std::size_t kMaxDatagram = 65507;

enum class Kind : std::uint32_t { probe, segment, intact, damaged };

struct Header {
    std::uint32_t magic = kMagic;
    Kind kind = Kind::probe;
    std::uint64_t seq = 0;
    std::uint64_t checksum = 0; ///< of what follows the header
    std::uint64_t len = 0;      ///< of the whole datagram
};

std::uint64_t checksum_of(std::span<const std::byte> payload)
{
    Checksum checksum;
    checksum.update(payload);
    return checksum.value();
}

/// The header of a datagram that is whole; magic 0 otherwise.
Header read_header(std::span<const std::byte> datagram)
{
    Header header;
    header.magic = 0;
    if (datagram.size() >= sizeof(header)) std::memcpy(&header, datagram.data(), sizeof(header));
    return header;
}

bool is_intact(const Header& header, std::span<const std::byte> datagram)
{
    return header.len == datagram.size() && header.checksum == checksum_of(datagram.subspan(sizeof(header)));
}

/// Writes header and random payload over the whole of `out`.
void compose(std::span<std::byte> out, Kind kind, std::uint64_t seq, Random& random)
{
    const auto payload = out.subspan(sizeof(Header));
    random.fill(payload);
    Header header;
    header.kind = kind;
    header.seq = seq;
    header.checksum = checksum_of(payload);
    header.len = out.size();
    std::memcpy(out.data(), &header, sizeof(header));
}

Result<std::size_t> datagram_size(const Options& options)
{
    if (options.size_bytes < sizeof(Header) || options.size_bytes > kMaxDatagram)
        return Error{EINVAL, "--size " + std::to_string(options.size_bytes) + ": 32 to 65507"};
    return std::size_t{options.size_bytes};
}

/// What one flood saw.
class Flood {
public:
    void sent(Clock::time_point at)
    {
        if (sent_at_.empty()) last_reply_ = at;
        sent_at_.push_back(at);
    }
    void replied(std::uint64_t seq, Clock::time_point at)
    {
        if (seq >= sent_at_.size()) return;
        if (seen_.size() < sent_at_.size()) seen_.resize(sent_at_.size());
        if (seen_[seq]) {
            ++duplicates_;
            return;
        }
        seen_[seq] = true;
        rtt_ns_.push_back(duration_cast<nanoseconds>(at - sent_at_[seq]).count());
        longest_gap_ = std::max(longest_gap_, at - last_reply_);
        last_reply_ = at;
    }
    std::uint64_t total() const { return sent_at_.size(); }
    std::uint64_t lost() const { return sent_at_.size() - rtt_ns_.size(); }
    void damaged() { ++damaged_; }
    void send_failed() { ++send_errors_; }
    bool all_back() const { return lost() == 0; }

    int print(const Options& options)
    {
        Report report{options.command};
        const bool ok = total() > 0 && lost() + send_errors_ <= options.max_lost && damaged_ == 0;
        report.text("result", ok ? "ok" : "lossy");
        report.count("sent", total());
        report.count("received", rtt_ns_.size());
        report.count("lost", lost());
        report.count("duplicates", duplicates_);
        report.count("damaged", damaged_);
        report.count("send_errors", send_errors_);
        report.list("lost_at_ms", lost_at());
        report.number("longest_gap_ms", static_cast<double>(nanoseconds(longest_gap_).count()) * 1e-6);
        report.latency("rtt", rtt_ns_);
        report.print(options.json);
        return ok ? 0 : 1;
    }

private:
    /// When the first thousand of the lost ones were sent, in milliseconds of the wall clock.
    std::vector<std::uint64_t> lost_at() const
    {
        const auto offset = std::chrono::system_clock::now().time_since_epoch() - Clock::now().time_since_epoch();
        std::vector<std::uint64_t> out;
        for (std::size_t i = 0; i < sent_at_.size() && out.size() < 1000; ++i)
            if (i >= seen_.size() || !seen_[i])
                out.push_back(static_cast<std::uint64_t>(
                    duration_cast<milliseconds>(sent_at_[i].time_since_epoch() + offset).count()));
        return out;
    }

    std::vector<Clock::time_point> sent_at_;
    std::vector<bool> seen_;
    std::vector<std::int64_t> rtt_ns_;
    Clock::time_point last_reply_;
    Clock::duration longest_gap_{};
    std::uint64_t duplicates_ = 0, damaged_ = 0, send_errors_ = 0;
};

/// Waits up to `wait` for replies and takes all that are there.
void collect(int fd, Clock::duration wait, Flood& flood)
{
    const auto ns = std::max<std::int64_t>(0, nanoseconds(wait).count());
    const timespec timeout{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
    pollfd ready{fd, POLLIN, 0};
    if (::ppoll(&ready, 1, &timeout, nullptr) <= 0) return;
    std::array<std::byte, kMaxDatagram> buffer;
    for (;;) {
        const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (got < 0 && (errno == ECONNREFUSED || errno == EHOSTUNREACH || errno == ENETUNREACH)) continue;
        if (got < 0) return;
        const std::span datagram{buffer.data(), static_cast<std::size_t>(got)};
        const Header header = read_header(datagram);
        if (header.magic != kMagic || !is_intact(header, datagram))
            flood.damaged();
        else
            flood.replied(header.seq, Clock::now());
    }
}

void send_probe(int fd, std::span<std::byte> datagram, Random& random, Flood& flood)
{
    compose(datagram, Kind::probe, flood.total(), random);
    const auto now = Clock::now();
    // An ICMP error of an earlier datagram is reported by the next call; that datagram is counted as lost already.
    ssize_t rc = ::send(fd, datagram.data(), datagram.size(), MSG_DONTWAIT);
    if (rc < 0) rc = ::send(fd, datagram.data(), datagram.size(), 0);
    if (rc < 0)
        flood.send_failed();
    else
        flood.sent(now);
}

/// Sends `segments` segments of `size` bytes in one call; the kernel cuts them apart as late as it can.
ssize_t send_super(int fd, std::span<const std::byte> data, std::uint16_t size)
{
    std::array<char, CMSG_SPACE(sizeof(size))> control{};
    iovec vec{const_cast<std::byte*>(data.data()), data.size()};
    msghdr message{};
    message.msg_iov = &vec;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* cmsg = CMSG_FIRSTHDR(&message);
    cmsg->cmsg_level = SOL_UDP;
    cmsg->cmsg_type = UDP_SEGMENT;
    cmsg->cmsg_len = CMSG_LEN(sizeof(size));
    std::memcpy(CMSG_DATA(cmsg), &size, sizeof(size));
    return ::sendmsg(fd, &message, 0);
}

} // namespace

void serve_udp(const Fd& socket)
{
    std::array<std::byte, kMaxDatagram> buffer;
    while (!interrupted()) {
        sockaddr_storage from{};
        socklen_t from_len = sizeof(from);
        pollfd ready{socket.get(), POLLIN, 0};
        if (::poll(&ready, 1, 100) <= 0) continue;
        const ssize_t got = ::recvfrom(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT,
                                       reinterpret_cast<sockaddr*>(&from), &from_len);
        if (got < 0) continue;
        const std::span datagram{buffer.data(), static_cast<std::size_t>(got)};
        Header header = read_header(datagram);
        if (header.magic != kMagic) continue;
        std::size_t reply_len = datagram.size();
        if (header.kind == Kind::segment) {
            header.kind = is_intact(header, datagram) ? Kind::intact : Kind::damaged;
            std::memcpy(buffer.data(), &header, sizeof(header));
            reply_len = sizeof(header);
        }
        ::sendto(socket.get(), buffer.data(), reply_len, 0, reinterpret_cast<sockaddr*>(&from), from_len);
    }
}

Result<int> udp_flood(const Options& options)
{
    TWILL_TRY_AS(size, datagram_size(options));
    TWILL_TRY_AS(fd, connect_to(options, SOCK_DGRAM));
    const double limit_s = options.seconds > 0 ? options.seconds : 1;
    const nanoseconds period{1'000'000'000 / std::max(1u, options.rate_pps)};
    std::vector<std::byte> datagram(size);
    Random random{options.seed};
    Flood flood;
    const auto start = Clock::now();
    auto due = start;
    while (!interrupted() && (options.until_signal || seconds_since(start) < limit_s)) {
        if (Clock::now() >= due) {
            send_probe(fd.get(), datagram, random, flood);
            due += period;
        }
        collect(fd.get(), due - Clock::now(), flood);
    }
    const auto end = Clock::now();
    while (!flood.all_back() && seconds_since(end) < 1) collect(fd.get(), milliseconds(50), flood);
    return flood.print(options);
}

Result<int> ping_storm(const Options& options)
{
    TWILL_TRY_AS(size, datagram_size(options));
    TWILL_TRY_AS(fd, connect_to(options, SOCK_DGRAM));
    const double limit_s = options.seconds > 0 ? options.seconds : 1;
    std::vector<std::byte> datagram(size);
    Random random{options.seed};
    Flood flood;
    std::uint64_t given_up = 0;
    const auto start = Clock::now();
    while (!interrupted() && (options.until_signal || seconds_since(start) < limit_s)) {
        send_probe(fd.get(), datagram, random, flood);
        const auto before = Clock::now();
        while (flood.lost() > given_up && seconds_since(before) < 0.2) collect(fd.get(), milliseconds(20), flood);
        given_up = flood.lost();
    }
    return flood.print(options);
}

Result<int> udp_gso(const Options& options)
{
    TWILL_TRY_AS(size, datagram_size(options));
    TWILL_TRY_AS(fd, connect_to(options, SOCK_DGRAM));
    const std::size_t per_call = std::clamp<std::size_t>(60000 / size, 1, 64);
    std::vector<std::byte> super(per_call * size);
    std::array<std::byte, 2048> reply;
    Random random{options.seed};
    std::uint64_t sent = 0, intact = 0, damaged = 0, calls = 0;
    const timeval patience{0, 300'000};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    const auto start = Clock::now();
    while (sent * size < options.bytes && !interrupted()) {
        for (std::size_t i = 0; i < per_call; ++i)
            compose(std::span{super}.subspan(i * size, size), Kind::segment, sent + i, random);
        if (send_super(fd.get(), super, static_cast<std::uint16_t>(size)) < 0)
            return Error{errno, std::string("send of a UDP super-packet: ") + std::strerror(errno)};
        ++calls;
        sent += per_call;
        while (intact + damaged < sent) {
            const ssize_t got = ::recv(fd.get(), reply.data(), reply.size(), 0);
            if (got < 0) break;
            const Header header = read_header({reply.data(), static_cast<std::size_t>(got)});
            if (header.kind == Kind::intact)
                ++intact;
            else
                ++damaged;
        }
        if (intact + damaged < sent && calls >= 10 && intact == 0) break; // nothing comes back: no need to go on
    }
    Report report{"udp-gso"};
    const bool ok = sent > 0 && damaged == 0 && sent - intact <= options.max_lost;
    report.text("result", ok ? "ok" : "lossy");
    report.count("super_packets", calls);
    report.count("segments", sent);
    report.count("intact", intact);
    report.count("damaged", damaged);
    report.count("lost", sent - intact - damaged);
    report.number("mbit_s", static_cast<double>(intact * size) * 8e-6 / seconds_since(start));
    report.print(options.json);
    return ok ? 0 : 1;
}

} // namespace twill::traffic
