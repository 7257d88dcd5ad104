// SPDX-License-Identifier: Apache-2.0
#include "tests/support/traffic.hpp"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace twill::traffic {

namespace {

volatile sig_atomic_t g_interrupted = 0;

std::string fixed(double value)
{
    char text[64];
    std::snprintf(text, sizeof(text), "%.3f", value);
    return text;
}

} // namespace

Result<Address> Address::make(const std::string& text, std::uint16_t port)
{
    Address address;
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
    if (::inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        address.len = sizeof(*v4);
        return address;
    }
    if (::inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        address.len = sizeof(*v6);
        return address;
    }
    return Error{EINVAL, "address " + text + ": neither IPv4 nor IPv6"};
}

void Checksum::mix(std::uint64_t word)
{
    state_ = (state_ ^ word) * 0xff51afd7ed558ccdu;
    state_ ^= state_ >> 32;
}

void Checksum::update(std::span<const std::byte> data)
{
    std::size_t at = 0;
    for (; filled_ != 0 && at < data.size(); ++at) {
        partial_ |= std::to_integer<std::uint64_t>(data[at]) << (8 * filled_);
        if (++filled_ == 8) {
            mix(partial_);
            partial_ = filled_ = 0;
        }
    }
    for (; at + 8 <= data.size(); at += 8) {
        std::uint64_t word;
        std::memcpy(&word, data.data() + at, sizeof(word));
        mix(word);
    }
    for (; at < data.size(); ++at) partial_ |= std::to_integer<std::uint64_t>(data[at]) << (8 * filled_++);
}

std::uint64_t Checksum::value() const
{
    Checksum last = *this;
    last.mix(partial_ ^ (std::uint64_t{filled_} << 56));
    return last.state_;
}

std::uint64_t Random::next()
{
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void Random::fill(std::span<std::byte> out)
{
    for (std::size_t at = 0; at < out.size(); at += 8) {
        const std::uint64_t word = next();
        std::memcpy(out.data() + at, &word, std::min<std::size_t>(8, out.size() - at));
    }
}

void Report::text(std::string key, std::string value) { fields_.push_back({std::move(key), std::move(value), true}); }

void Report::count(std::string key, std::uint64_t value)
{
    fields_.push_back({std::move(key), std::to_string(value), false});
}

void Report::number(std::string key, double value) { fields_.push_back({std::move(key), fixed(value), false}); }

void Report::list(std::string key, const std::vector<std::uint64_t>& values)
{
    std::string text = "[";
    for (const std::uint64_t value : values) text += (text.size() > 1 ? "," : "") + std::to_string(value);
    fields_.push_back({std::move(key), text + "]", false});
}

void Report::latency(const std::string& key, std::vector<std::int64_t>& samples_ns)
{
    if (samples_ns.empty()) return;
    std::sort(samples_ns.begin(), samples_ns.end());
    const auto at = [&](std::size_t percent) {
        const std::size_t index = std::min(samples_ns.size() - 1, samples_ns.size() * percent / 100);
        return static_cast<double>(samples_ns[index]) / 1000.0;
    };
    number(key + "_p50_us", at(50));
    number(key + "_p99_us", at(99));
    number(key + "_max_us", at(100));
}

void Report::print(bool json) const
{
    std::string line = json ? "{" : "";
    for (const Field& field : fields_) {
        if (&field != &fields_.front()) line += json ? "," : " ";
        if (json)
            line += '"' + field.key + "\":" + (field.quoted ? '"' + field.value + '"' : field.value);
        else
            line += field.key + "=" + field.value;
    }
    line += json ? "}\n" : "\n";
    std::fputs(line.c_str(), stdout);
    std::fflush(stdout);
}

bool interrupted() { return g_interrupted != 0; }

void catch_signals()
{
    struct sigaction action {};
    action.sa_handler = [](int) { g_interrupted = 1; };
    for (int signum : {SIGINT, SIGTERM}) ::sigaction(signum, &action, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

namespace {

Error sock_error(const Options& options, const char* act)
{
    const int code = errno == EINPROGRESS ? ETIMEDOUT : errno; // what a timed-out connect() says
    return Error{code, std::string(act) + " " + options.address + " port " + std::to_string(options.port) + ": " +
                           std::strerror(code)};
}

Result<Fd> make_socket(const Options& options, int family, int type)
{
    Fd fd{::socket(family, type | SOCK_CLOEXEC, 0)};
    if (!fd) return sock_error(options, "socket");
    const timeval timeout{static_cast<time_t>(options.timeout_s), 0};
    const int on = 1, buffer = 4 << 20;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    if (type == SOCK_STREAM) {
        // The host's default may be bbr, whose pacing hides what the path can do. Absent: the default stays.
        ::setsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
        ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    } else if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)) != 0) {
        ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    }
    return fd;
}

} // namespace

Result<Fd> connect_to(const Options& options, int type)
{
    TWILL_TRY_AS(address, Address::make(options.address, options.port));
    TWILL_TRY_AS(fd, make_socket(options, address.family(), type));
    if (::connect(fd.get(), address.get(), address.len) != 0) return sock_error(options, "connect");
    return fd;
}

Result<Fd> bind_to(const Options& options, int type)
{
    TWILL_TRY_AS(address, Address::make(options.address, options.port));
    TWILL_TRY_AS(fd, make_socket(options, address.family(), type));
    const int on = 1, off = 0;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address.family() == AF_INET6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (::bind(fd.get(), address.get(), address.len) != 0) return sock_error(options, "bind");
    if (type == SOCK_STREAM && ::listen(fd.get(), 128) != 0) return sock_error(options, "listen");
    return fd;
}

} // namespace twill::traffic
