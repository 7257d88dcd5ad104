// SPDX-License-Identifier: Apache-2.0
#include "maps/codec.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace twill {

namespace {

/// An IPv4 prefix counts from bit 96 of the IPv4-mapped form.
constexpr unsigned kMapped = 96;

} // namespace

tw_addr to_abi(const Ip& ip)
{
    tw_addr addr;
    static_assert(sizeof(addr) == 16);
    std::memcpy(&addr, ip.bytes().data(), sizeof(addr));
    return addr;
}

Ip from_abi(const tw_addr& addr)
{
    std::array<std::uint8_t, 16> bytes;
    std::memcpy(bytes.data(), &addr, bytes.size());
    return Ip::from_bytes(bytes);
}

tw_addr to_mask(Family family, unsigned bits)
{
    if (family == Family::v4) bits += kMapped;
    std::array<std::uint8_t, 16> bytes{};
    for (unsigned i = 0; i < bytes.size(); ++i) {
        const unsigned set = std::min(8U, bits > i * 8 ? bits - i * 8 : 0);
        bytes[i] = static_cast<std::uint8_t>(0xff00U >> set);
    }
    return to_abi(Ip::from_bytes(bytes));
}

tw_net to_net(const Cidr& cidr) { return {to_abi(cidr.address()), to_mask(cidr.family(), cidr.bits())}; }

Cidr from_net(const tw_net& net)
{
    unsigned bits = 0;
    const Ip mask = from_abi(net.mask);
    for (const auto byte : mask.bytes()) bits += static_cast<unsigned>(std::popcount(byte));
    const Ip ip = from_abi(net.addr);
    if (ip.is_v4()) bits = bits > kMapped ? bits - kMapped : 0;
    return *Cidr::make(ip, bits);
}

tw_cidr_v4 to_key_v4(const Cidr& cidr)
{
    tw_cidr_v4 key{};
    key.bits = cidr.bits();
    std::memcpy(key.addr, cidr.address().network(), sizeof(key.addr));
    return key;
}

tw_cidr_v6 to_key_v6(const Cidr& cidr)
{
    tw_cidr_v6 key{};
    key.bits = cidr.bits();
    std::memcpy(key.addr, cidr.address().bytes().data(), sizeof(key.addr));
    return key;
}

Result<Cidr> from_key(const tw_cidr_v4& key)
{
    return Cidr::make(*Ip::from_network(key.addr, sizeof(key.addr)), key.bits);
}

Result<Cidr> from_key(const tw_cidr_v6& key)
{
    return Cidr::make(*Ip::from_network(key.addr, sizeof(key.addr)), key.bits);
}

void to_abi(const Mac& mac, unsigned char (&bytes)[6]) { std::copy(mac.bytes.begin(), mac.bytes.end(), bytes); }

Mac mac_from_abi(const unsigned char (&bytes)[6])
{
    Mac mac;
    std::copy(std::begin(bytes), std::end(bytes), mac.bytes.begin());
    return mac;
}

tw_flow to_flow(const Ip& ip, std::uint16_t port, const Ip& other, std::uint16_t other_port, std::uint8_t proto)
{
    const bool is_lower = std::pair(ip, port) <= std::pair(other, other_port);
    tw_flow flow{};
    flow.a = to_abi(is_lower ? ip : other);
    flow.b = to_abi(is_lower ? other : ip);
    flow.a_port = is_lower ? port : other_port;
    flow.b_port = is_lower ? other_port : port;
    flow.proto = proto;
    return flow;
}

tw_net no_net()
{
    tw_net net{};
    net.addr.low[3] = 1; // an address bit outside the (empty) mask: nothing matches
    return net;
}

} // namespace twill
