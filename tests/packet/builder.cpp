// SPDX-License-Identifier: Apache-2.0
// The packet builder itself, against bytes that were written down by hand.
#include <doctest/doctest.h>

#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

TEST_CASE("packet builder: an echo request has the bytes that RFC 791 and RFC 792 say")
{
    const Bytes frame = build({Eth{mac("02:00:00:00:00:02"), mac("02:00:00:00:00:01"), {}},
                               Ip4{.src = ip("192.0.2.1"), .dst = ip("192.0.2.2")}, Icmp{.id = 1, .seq = 1}});
    const Bytes expected = {0x02, 0, 0,    0,    0,    0x02, 0x02, 0, 0,    0,    0,    0x01, 0x08, 0x00, // Ethernet
                            0x45, 0, 0,    28,   0x12, 0x34, 0,    0, 0x40, 0x01, 0xe4, 0xa9,             // IPv4
                            192,  0, 2,    1,    192,  0,    2,    2,                                     //
                            0x08, 0, 0xf7, 0xfd, 0,    1,    0,    1};                                    // ICMP
    expect_bytes(expected, frame);
}

TEST_CASE("packet builder: every checksum that it writes holds, and the decoder notices a wrong one")
{
    for (const Net& net : nets())
        for (const Layers& transport : transports(net)) {
            Bytes frame = build(from_b(net, net.pod1) + transport);
            CAPTURE(describe(frame));
            CHECK_FALSE(bad_checksum(frame).has_value());
            frame.back() = static_cast<std::uint8_t>(frame.back() + 1);
            CHECK(bad_checksum(frame).has_value());
        }
}

TEST_CASE("packet builder: VXLAN adds 50 bytes over IPv4 and 70 over IPv6")
{
    for (const Net& net : nets()) {
        const std::size_t plain = build(pod_frame(net, net.pod_b) + udp()).size();
        CHECK(build(from_b(net, net.pod1) + udp()).size() == plain + net.overhead);
    }
}
