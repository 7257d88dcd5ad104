// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tests/bench/load.hpp"

namespace twill::bench {

namespace {

/// CPU time of the machine since boot that was not idle, from /proc/stat: user, nice, system, irq and softirq.
double machine_busy_s()
{
    std::array<unsigned long long, 7> ticks{};
    std::FILE* file = std::fopen("/proc/stat", "re");
    if (file == nullptr) return 0;
    auto& [user, nice, system, idle, iowait, irq, softirq] = ticks;
    const int got = std::fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait,
                                &irq, &softirq);
    std::fclose(file);
    if (got != 7) return 0;
    return static_cast<double>(user + nice + system + irq + softirq) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

socklen_t size_of(const sockaddr_storage& address)
{
    return address.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
}

} // namespace

Moment now(const Shared& shared)
{
    const double busy_s = machine_busy_s();
    return {Clock::now(), shared.delivered.load(std::memory_order_relaxed), busy_s};
}

double seconds_between(const Moment& a, const Moment& b) { return std::chrono::duration<double>(b.at - a.at).count(); }

Error system_error(const std::string& act)
{
    const int code = errno;
    if (code == EAGAIN) return {ETIMEDOUT, act + ": no progress for 5 s"};
    return {code, act + ": " + std::strerror(code)};
}

Result<sockaddr_storage> make_address(const Options& options, int port)
{
    sockaddr_storage address{};
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
    if (::inet_pton(AF_INET, options.address.c_str(), &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(static_cast<std::uint16_t>(port));
    } else if (::inet_pton(AF_INET6, options.address.c_str(), &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(static_cast<std::uint16_t>(port));
    } else {
        return Error{EINVAL, "address " + options.address + ": neither IPv4 nor IPv6"};
    }
    return address;
}

Result<Fd> make_socket(const Options& options, int family, int type)
{
    Fd fd{::socket(family, type | SOCK_CLOEXEC, 0)};
    if (!fd) return system_error("socket");
    const int on = 1, buffer = type == SOCK_STREAM ? options.buffer_bytes : 4 << 20;
    if (type == SOCK_STREAM) {
        if (::setsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) != 0) return system_error("cubic");
        ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    if (buffer > 0) {
        ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer));
        ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer));
    }
    return fd;
}

Result<Fd> connect_to(const Options& options, const Shared& shared, int type)
{
    TWILL_TRY_AS(address, make_address(options, shared.port.load()));
    TWILL_TRY_AS(fd, make_socket(options, address.ss_family, type));
    const timeval timeout{5, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size_of(address)) != 0) {
        if (errno == EINPROGRESS) errno = ETIMEDOUT; // what a connect that timed out says
        return system_error("connect to " + options.address);
    }
    return fd;
}

Result<Fd> bind_to(const Options& options, Shared& shared, int type)
{
    TWILL_TRY_AS(address, make_address(options, 0));
    TWILL_TRY_AS(fd, make_socket(options, address.ss_family, type));
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    socklen_t len = size_of(address);
    if (::bind(fd.get(), raw, len) != 0) return system_error("bind to " + options.address);
    if (type == SOCK_STREAM && ::listen(fd.get(), 128) != 0) return system_error("listen");
    if (::getsockname(fd.get(), raw, &len) != 0) return system_error("getsockname");
    const bool is_v4 = address.ss_family == AF_INET;
    shared.port =
        ntohs(is_v4 ? reinterpret_cast<sockaddr_in*>(raw)->sin_port : reinterpret_cast<sockaddr_in6*>(raw)->sin6_port);
    return fd;
}

} // namespace twill::bench
