// SPDX-License-Identifier: Apache-2.0
// tw-traffic: the load generator of the lab. One source of truth for what a client and a server say to each other.
#pragma once

#include <netinet/in.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill::traffic {

using Clock = std::chrono::steady_clock;

/// Everything that the command line can say.
struct Options {
    std::string command;
    std::string address;
    std::uint16_t port = 0;          ///< host order
    std::uint64_t bytes = 16u << 20; ///< tcp-client, udp-gso: how much to send
    std::uint64_t seed = 1;
    unsigned rate_pps = 1000;
    unsigned mbit = 8;  ///< tcp-upload, tcp-download: the pace
    double seconds = 0; ///< 0: the default of the command
    unsigned size_bytes = 64;
    unsigned timeout_s = 10;
    std::uint64_t max_lost = 0; ///< more than that is exit code 1
    bool until_signal = false;
    bool json = false;
    bool background = false;
};

/// An IPv4 or IPv6 socket address.
struct Address {
    sockaddr_storage storage{};
    socklen_t len = 0;

    int family() const { return storage.ss_family; }
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    /// EINVAL names the text at fault.
    static Result<Address> make(const std::string& text, std::uint16_t port);
};

/// Checksum of a byte stream; independent of how the stream is cut into chunks.
class Checksum {
public:
    void update(std::span<const std::byte> data);
    std::uint64_t value() const;

private:
    void mix(std::uint64_t word);
    std::uint64_t state_ = 0x9e3779b97f4a7c15u;
    std::uint64_t partial_ = 0; ///< bytes that do not fill a word yet, little endian
    unsigned filled_ = 0;
};

/// splitmix64: the payload of a seed.
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next();
    void fill(std::span<std::byte> out);

private:
    std::uint64_t state_;
};

/// What a command measured, in the order in which it is printed.
class Report {
public:
    explicit Report(std::string command) { text("command", std::move(command)); }
    void text(std::string key, std::string value);
    void count(std::string key, std::uint64_t value);
    void number(std::string key, double value);
    void list(std::string key, const std::vector<std::uint64_t>& values);
    /// p50, p99 and max of `samples_ns` in microseconds, under "<key>_p50_us" and so on.
    void latency(const std::string& key, std::vector<std::int64_t>& samples_ns);
    /// One line: "key=value key=value", or one JSON object.
    void print(bool json) const;

private:
    struct Field {
        std::string key, value;
        bool quoted;
    };
    std::vector<Field> fields_;
};

/// Set by SIGINT and SIGTERM once catch_signals() was called.
bool interrupted();
void catch_signals();

double seconds_since(Clock::time_point start);

Result<> send_all(int fd, const void* data, std::size_t len);
/// Reads exactly `len` bytes; ECONNRESET when the stream ends before.
Result<> receive_all(int fd, void* data, std::size_t len);

/// A socket with congestion control cubic (TCP) and the timeouts of `options`, connected to options.address.
Result<Fd> connect_to(const Options& options, int type);
/// A bound socket; listening when `type` is SOCK_STREAM.
Result<Fd> bind_to(const Options& options, int type);

// The commands. Each prints its report; the value is the exit code.
Result<int> tcp_client(const Options& options);
Result<int> tcp_rr(const Options& options);
Result<int> tcp_quiet(const Options& options);
Result<int> tcp_wake(const Options& options);
Result<int> tcp_upload(const Options& options);
Result<int> tcp_download(const Options& options);
Result<int> udp_flood(const Options& options);
Result<int> udp_gso(const Options& options);
Result<int> ping_storm(const Options& options);

// The servers: they run until a signal.
void serve_tcp(const Fd& listener);
void serve_udp(const Fd& socket);
void serve_upload(int fd);
void serve_download(int fd);

} // namespace twill::traffic
