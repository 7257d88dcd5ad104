// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/mask.hpp"

#include <algorithm>
#include <array>

#include "tests/interop/cluster.hpp"

namespace twill::interop {
namespace {

constexpr std::size_t kEth = 14;

unsigned get16(const Bytes& frame, std::size_t at) { return static_cast<unsigned>(frame[at]) << 8U | frame[at + 1]; }

void clear16(Bytes& frame, std::size_t at) { frame[at] = frame[at + 1] = 0; }

bool has_ipv4_at(const Bytes& frame, std::size_t at)
{
    return frame.size() >= at + 20 && frame[at] >> 4U == 4 && (frame[at] & 0xfU) >= 5 &&
           frame.size() >= at + (frame[at] & 0xfU) * 4U;
}

/// An address of the world's own node at `at`: its wire's, its overlay's, its bridge's. Not a pod's.
bool is_own(const Bytes& frame, std::size_t at, const World& world)
{
    const std::array own = {public_ip(world.node(), Family::v4), pod_ip(world.node(), Family::v4, 0),
                            pod_ip(world.node(), Family::v4, 1)};
    return std::any_of(own.begin(), own.end(), [&](const Ip& ip) {
        return std::equal(ip.network(), ip.network() + 4, frame.begin() + static_cast<long>(at));
    });
}

/// A node's address on the wire.
bool is_a_node(const Bytes& frame, std::size_t at)
{
    return (frame[at] == 192 && frame[at + 1] == 0) || (frame[at] == 198 && frame[at + 1] == 51);
}

/// Masks identification and checksum of the IPv4 header at `at`, if the node made it.
void mask_header(Bytes& frame, std::size_t at, const World& world, std::string& wrong)
{
    if (!has_ipv4_at(frame, at) || !is_own(frame, at + 12, world)) return;
    if (test::ones_sum(frame.data() + at, (frame[at] & 0xfU) * 4U) != 0xffff) wrong += " IPv4 header checksum;";
    clear16(frame, at + 4);
    clear16(frame, at + 10);
}

/// Masks the identification of a fragment whose IPv6 header is at `at`; whether there was one.
bool mask_fragment(Bytes& frame, std::size_t at)
{
    if (frame.size() < at + 40 || frame[at] >> 4U != 6) return false;
    unsigned next = frame[at + 6];
    for (at += 40; frame.size() >= at + 8; at += (frame[at + 1] + 1U) * 8U) {
        if (next == 44) {
            clear16(frame, at + 4);
            clear16(frame, at + 6);
            return true;
        }
        if (next != 0 && next != 43 && next != 60) return false;
        next = frame[at];
    }
    return false;
}

/// Does the outer UDP checksum of VXLAN over IPv6 hold?
bool holds6(const Bytes& frame)
{
    const std::size_t udp = kEth + 40, size = frame.size() - udp;
    const auto pseudo = test::ones_sum(frame.data() + kEth + 8, 32);
    return test::ones_sum(frame.data() + udp, size, static_cast<std::uint32_t>(pseudo + 17U + size)) == 0xffff;
}

} // namespace

std::size_t inner_offset(const Bytes& frame)
{
    if (frame.size() < kOuter4) return 0;
    const unsigned type = get16(frame, 12);
    std::size_t udp = 0;
    if (type == 0x0800 && has_ipv4_at(frame, kEth) && frame[kEth + 9] == 17 &&
        (get16(frame, kEth + 6) & 0x1fffU) == 0) {
        udp = kEth + (frame[kEth] & 0xfU) * 4U;
    } else if (type == 0x86dd && frame[kEth] >> 4U == 6) {
        unsigned next = frame[kEth + 6];
        udp = kEth + 40;
        while ((next == 0 || next == 43 || next == 60) && frame.size() >= udp + 8) {
            next = frame[udp];
            udp += (frame[udp + 1] + 1U) * 8U;
        }
        if (next != 17) return 0;
    }
    const std::size_t inner = udp + 8 + 8 + 14;
    return udp != 0 && frame.size() >= inner && get16(frame, udp + 2) == kOverlayPort ? inner : 0;
}

Masked mask(const Frame& frame, const World& world, bool is_offloaded)
{
    Masked masked{frame.bytes, {}};
    Bytes& bytes = masked.bytes;
    if (bytes.size() < kEth) return masked;
    const std::size_t inner = frame.port == 'w' ? inner_offset(bytes) : 0;
    if (get16(bytes, 12) == 0x0800) mask_header(bytes, kEth, world, masked.wrong);
    if (inner == kOuter4 && is_own(bytes, kEth + 12, world) && is_a_node(bytes, kEth + 16)) {
        const bool is_zero = get16(bytes, kEth + 26) == 0;
        if (is_zero != world.is_twill())
            masked.wrong += is_zero ? " UDP checksum of the kernel is zero;" : " UDP checksum of twill is not zero;";
        clear16(bytes, kEth + 26);
        mask_header(bytes, inner, world, masked.wrong);
    }
    if (inner == kOuter6 && mask_fragment(bytes, inner)) {
        // One that the wire is to finish covers no identification.
        if (!is_offloaded && get16(bytes, kEth + 46) != 0) {
            if (!holds6(frame.bytes)) masked.wrong += " outer UDP checksum;";
            clear16(bytes, kEth + 46);
        }
    } else if (inner == 0) {
        mask_fragment(bytes, kEth);
    }
    return masked;
}

} // namespace twill::interop
