// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/packets.hpp"

#include "tests/interop/cluster.hpp"

namespace twill::interop {

using namespace test;

namespace {

constexpr std::size_t kEth = 14;

struct Transport {
    std::size_t at;   ///< of the header, from the start of the frame
    std::size_t size; ///< of the header
    std::uint16_t csum_offset;
    bool is_tcp, is_v6;
};

/// Of a frame without options and extension headers.
Transport transport_of(const Bytes& frame)
{
    const bool is_v6 = frame[12] == 0x86;
    const std::size_t at = kEth + (is_v6 ? 40 : 20);
    const bool is_tcp = frame[is_v6 ? kEth + 6 : kEth + 9] == 6;
    return {at, is_tcp ? 20U : 8U, static_cast<std::uint16_t>(is_tcp ? 16 : 6), is_tcp, is_v6};
}

/// The sum over the pseudo header: what the one who finishes the checksum starts with.
void write_partial_sum(Bytes& frame, const Transport& transport)
{
    const std::size_t addresses = transport.is_v6 ? kEth + 8 : kEth + 12;
    const std::size_t length = frame.size() - transport.at;
    const auto sum =
        ones_sum(frame.data() + addresses, transport.is_v6 ? 32 : 8,
                 static_cast<std::uint32_t>((transport.is_tcp ? 6 : 17) + (length & 0xffff) + (length >> 16U)));
    frame[transport.at + transport.csum_offset] = static_cast<std::uint8_t>(sum >> 8U);
    frame[transport.at + transport.csum_offset + 1] = static_cast<std::uint8_t>(sum & 0xffU);
}

} // namespace

Packet from_pod(char pod, const Layers& layers, std::string what)
{
    const Layers eth = {Eth{gateway_mac('a', pod), pod_mac('a', pod)}};
    return {.bytes = build(eth + layers),
            .origin = pod == 'p' ? Origin::pod_p : Origin::pod_q,
            .offload = {},
            .what = std::move(what)};
}

Packet from_host(const Layers& layers, std::string what)
{
    return {.bytes = build(layers), .origin = Origin::host, .offload = {}, .what = std::move(what)};
}

Layers tunnel(char from, Family family, const Layers& inner)
{
    const Layers outer = {Eth{wire_mac('b'), far_mac()}, ip_layer(public_ip(from, family), public_ip('b', family)),
                          Udp{.sport = 50123, .dport = kOverlayPort}, Vxlan{}, Eth{vtep_mac('b'), vtep_mac(from)}};
    return outer + inner;
}

Packet from_wire(const Layers& layers, std::string what)
{
    return {.bytes = build(layers), .origin = Origin::wire, .offload = {}, .what = std::move(what)};
}

Packet as_partial(Packet packet)
{
    const Transport transport = transport_of(packet.bytes);
    write_partial_sum(packet.bytes, transport);
    packet.offload = Offload{};
    packet.offload->flags = kNeedsCsum;
    packet.offload->csum_start = static_cast<std::uint16_t>(transport.at);
    packet.offload->csum_offset = transport.csum_offset;
    return packet;
}

Packet as_super(Packet packet, std::uint16_t size)
{
    packet = as_partial(std::move(packet));
    const Transport transport = transport_of(packet.bytes);
    packet.offload->gso_type = transport.is_tcp ? (transport.is_v6 ? kGsoTcp6 : kGsoTcp4) : kGsoUdp;
    packet.offload->gso_size = size;
    packet.offload->hdr_len = static_cast<std::uint16_t>(transport.at + transport.size);
    return packet;
}

} // namespace twill::interop
