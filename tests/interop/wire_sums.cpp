// SPDX-License-Identifier: Apache-2.0
// tw-interop-wire: the UDP checksums of VXLAN over IPv6 that an interface sends, until a signal. One line for each kind
// of frame: to which node, what is inside, how many sums were zero, right and wrong. The wire's offloads must be off:
// what the NIC is to finish is not on the wire yet. --send: 20 datagrams such as nothing else in the lab sends.
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/packet.hpp"
#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill::interop {
namespace {

constexpr std::size_t kIp6 = ETH_HLEN, kUdp = kIp6 + 40, kInner = kUdp + 8 + 8 + ETH_HLEN;
constexpr std::uint8_t kUdpProto = 17, kFragment = 44;
volatile std::sig_atomic_t g_stop = 0;

struct Sums {
    unsigned long zero = 0, valid = 0, wrong = 0;
};
using Kind = std::pair<std::string, std::string>; ///< outer destination, what is inside

Error failed(const std::string& what)
{
    const int code = errno;
    return {code, what + ": " + std::strerror(code)};
}

std::uint16_t word(const std::uint8_t* at) { return static_cast<std::uint16_t>(at[0] << 8 | at[1]); }

const char* inside(std::uint8_t next_header)
{
    switch (next_header) {
    case 6:
        return "tcp";
    case kUdpProto:
        return "udp";
    case kFragment:
        return "fragment";
    case 58:
        return "icmp6";
    case 60:
        return "options";
    default:
        return "other";
    }
}

/// RFC 8200, 8.1: over the pseudo header and all of the datagram.
bool is_sum_valid(const std::uint8_t* frame, std::size_t udp_len)
{
    return test::ones_sum(frame + kIp6 + 8, 32 + udp_len, static_cast<std::uint32_t>(udp_len + kUdpProto)) == 0xffff;
}

void judge(const std::uint8_t* frame, std::size_t size, std::uint16_t port, std::map<Kind, Sums>& seen)
{
    if (size < kInner + 40 || word(frame + 12) != ETH_P_IPV6) return;
    const auto to = Ip::from_network(frame + kIp6 + 24, 16);
    if (frame[kIp6 + 6] == kFragment) {
        ++seen[{to->to_string(), "outer-fragment"}].valid; // its sum is spread over several
        return;
    }
    if (frame[kIp6 + 6] != kUdpProto || word(frame + kUdp + 2) != port) return;
    const std::size_t udp_len = word(frame + kUdp + 4);
    auto& sums = seen[{to->to_string(), inside(frame[kInner + 6])}];
    if (word(frame + kUdp + 6) == 0)
        ++sums.zero;
    else if (kUdp + udp_len <= size && is_sum_valid(frame, udp_len))
        ++sums.valid;
    else
        ++sums.wrong;
}

/// What the interface sends and receives, copied as it passes: what is only queued may be written to by then, by
/// whoever got the packet.
class Ring {
public:
    static Result<Ring> open(const std::string& interface)
    {
        Ring ring;
        ring.fd_ = Fd{::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)};
        const int version = TPACKET_V2;
        const tpacket_req size{kBlock, kBlocks, kFrame, kFrames};
        sockaddr_ll address{};
        address.sll_family = AF_PACKET;
        address.sll_protocol = htons(ETH_P_ALL);
        address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
        const int fd = ring.fd_.get();
        if (fd < 0 || ::setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) != 0 ||
            ::setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &size, sizeof(size)) != 0)
            return failed("packet socket");
        ring.memory_ = ::mmap(nullptr, std::size_t{kBlock} * kBlocks, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (ring.memory_ == MAP_FAILED) return failed("packet socket");
        if (address.sll_ifindex == 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
            return failed("packets of " + interface);
        return ring;
    }

    /// Calls with each frame that was sent, as far as it was kept.
    template <typename F>
    void take(F&& on_sent)
    {
        pollfd ready{fd_.get(), POLLIN, 0};
        if (::poll(&ready, 1, 200) <= 0) return;
        for (;; next_ = (next_ + 1) % kFrames) {
            auto* at = static_cast<std::uint8_t*>(memory_) + std::size_t{kFrame} * next_;
            auto* head = reinterpret_cast<volatile tpacket2_hdr*>(at);
            if ((head->tp_status & TP_STATUS_USER) == 0) return;
            std::atomic_thread_fence(std::memory_order_acquire);
            sockaddr_ll from{};
            std::memcpy(&from, at + TPACKET_ALIGN(sizeof(tpacket2_hdr)), sizeof(from));
            if (from.sll_pkttype == PACKET_OUTGOING) on_sent(at + head->tp_mac, head->tp_snaplen);
            std::atomic_thread_fence(std::memory_order_release);
            head->tp_status = TP_STATUS_KERNEL;
        }
    }

private:
    static constexpr unsigned kFrame = 2048, kFrames = 16384, kBlock = 1 << 20, kBlocks = kFrame * kFrames / kBlock;
    Fd fd_;
    void* memory_ = nullptr; ///< for the life of the process
    unsigned next_ = 0;
};

Result<std::map<Kind, Sums>> listen(const std::string& interface, std::uint16_t port)
{
    TWILL_TRY_AS(ring, Ring::open(interface));
    std::puts("ready");
    std::fflush(stdout);
    std::map<Kind, Sums> seen;
    while (g_stop == 0) ring.take([&](const std::uint8_t* frame, std::size_t size) { judge(frame, size, port, seen); });
    return seen;
}

/// Datagrams of a protocol that nobody knows (RFC 3692), every second one behind a destination options header.
Result<> send_odd(const std::string& to, unsigned count)
{
    const Fd fd{::socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, 253)};
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    TWILL_TRY_AS(ip, Ip::parse(to));
    std::memcpy(&address.sin6_addr, ip.network(), ip.network_size());
    if (!fd) return failed("raw socket");
    const std::array<std::uint8_t, 8> options = {0, 0, 1, 4, 0, 0, 0, 0}; // one PadN; the first byte is the kernel's
    for (unsigned i = 0; i < count; ++i) {
        const bool is_with = i % 2 == 1;
        if (::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_DSTOPTS, is_with ? options.data() : nullptr,
                         is_with ? options.size() : 0) != 0)
            return failed("IPV6_DSTOPTS");
        const std::vector<std::uint8_t> payload(101 + i, static_cast<std::uint8_t>(i + 1));
        if (::sendto(fd.get(), payload.data(), payload.size(), 0, reinterpret_cast<sockaddr*>(&address),
                     sizeof(address)) < 0)
            return failed("send to " + to);
    }
    return Ok{};
}

} // namespace
} // namespace twill::interop

int main(int argc, char** argv)
{
    using namespace twill::interop;
    const std::vector<std::string> args{argv + 1, argv + argc};
    std::uint16_t port = 8472;
    if (args.size() == 2 && args[0] == "--send") {
        const auto sent = send_odd(args[1], 20);
        if (!sent) std::fprintf(stderr, "tw-interop-wire: %s\n", sent.error().what.c_str());
        return sent ? 0 : 1;
    }
    if (args.size() == 2) std::from_chars(args[1].data(), args[1].data() + args[1].size(), port);
    if (args.empty() || args.size() > 2 || port == 0) {
        std::fputs("usage: tw-interop-wire INTERFACE [PORT] | --send ADDRESS\n", stderr);
        return 2;
    }
    struct sigaction action {};
    action.sa_handler = [](int) { g_stop = 1; };
    ::sigaction(SIGTERM, &action, nullptr);
    ::sigaction(SIGINT, &action, nullptr);
    const auto seen = listen(args[0], port);
    if (!seen) {
        std::fprintf(stderr, "tw-interop-wire: %s\n", seen.error().what.c_str());
        return 1;
    }
    for (const auto& [kind, sums] : *seen)
        std::printf("%s %s zero=%lu valid=%lu wrong=%lu\n", kind.first.c_str(), kind.second.c_str(), sums.zero,
                    sums.valid, sums.wrong);
    return 0;
}
