// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/port.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

namespace twill::interop {
namespace {

constexpr int kBufferBytes = 64 << 20; // the segments of one super-packet, many times over

Error failed(const std::string& what)
{
    const int code = errno;
    return {code, what + ": " + std::strerror(code)};
}

Result<> set(const Fd& fd, int level, int option, int value, const char* name)
{
    if (::setsockopt(fd.get(), level, option, &value, sizeof(value)) != 0) return failed(name);
    return Ok{};
}

Result<> bind_to(const Fd& fd, int ifindex, int protocol)
{
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(static_cast<std::uint16_t>(protocol));
    address.sll_ifindex = ifindex;
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
        return failed("bind packet socket");
    return Ok{};
}

} // namespace

Result<Port> Port::open(const std::string& interface, bool headers)
{
    const int ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
    if (ifindex == 0) return failed("interface " + interface);
    Port port;
    port.headers_ = headers;
    // Protocol 0: nothing is queued before the interface is set.
    port.in_.reset(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    port.out_.reset(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    if (!port.in_ || !port.out_) return failed("packet socket");
    TWILL_TRY(set(port.in_, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1, "PACKET_IGNORE_OUTGOING"));
    if (headers) TWILL_TRY(set(port.in_, SOL_PACKET, PACKET_VNET_HDR, 1, "PACKET_VNET_HDR"));
    TWILL_TRY(set(port.in_, SOL_SOCKET, SO_RCVBUFFORCE, kBufferBytes, "SO_RCVBUFFORCE"));
    TWILL_TRY(set(port.out_, SOL_SOCKET, SO_SNDBUFFORCE, kBufferBytes, "SO_SNDBUFFORCE"));
    TWILL_TRY(set(port.out_, SOL_PACKET, PACKET_VNET_HDR, 1, "PACKET_VNET_HDR"));
    TWILL_TRY(bind_to(port.in_, ifindex, ETH_P_ALL));
    TWILL_TRY(bind_to(port.out_, ifindex, 0));
    return port;
}

int Port::send(const Bytes& frame, const std::optional<Offload>& offload)
{
    Offload header = offload.value_or(Offload{});
    std::array<iovec, 2> parts = {iovec{&header, sizeof(header)},
                                  iovec{const_cast<std::uint8_t*>(frame.data()), frame.size()}};
    return ::writev(out_.get(), parts.data(), parts.size()) < 0 ? errno : 0;
}

std::optional<Bytes> Port::receive(Offload* offload)
{
    static std::array<std::uint8_t, 1 << 17> buffer;
    const ssize_t got = ::recv(in_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0) return std::nullopt;
    const ssize_t head = headers_ ? static_cast<ssize_t>(sizeof(Offload)) : 0;
    if (offload != nullptr && headers_) std::memcpy(offload, buffer.data(), sizeof(Offload));
    return Bytes(buffer.begin() + head, buffer.begin() + got);
}

unsigned Port::lost()
{
    tpacket_stats stats{};
    socklen_t size = sizeof(stats);
    if (::getsockopt(in_.get(), SOL_PACKET, PACKET_STATISTICS, &stats, &size) != 0) return 0;
    return stats.tp_drops;
}

} // namespace twill::interop
