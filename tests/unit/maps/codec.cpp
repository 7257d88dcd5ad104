// SPDX-License-Identifier: Apache-2.0
#include "maps/codec.hpp"

#include <doctest/doctest.h>

#include <cstring>

using namespace twill;

TEST_CASE("codec: addresses, prefixes and keys survive the way into the map ABI and back")
{
    for (const char* text :
         {"10.42.1.0/24", "0.0.0.0/0", "192.0.2.9/32", "fd00:42:1::/64", "::/0", "2001:db8::1/128"}) {
        CAPTURE(text);
        const Cidr cidr = *Cidr::parse(text);
        CHECK(from_abi(to_abi(cidr.address())) == cidr.address());
        CHECK(from_net(to_net(cidr)) == cidr);
        if (cidr.family() == Family::v4)
            CHECK(*from_key(to_key_v4(cidr)) == cidr);
        else
            CHECK(*from_key(to_key_v6(cidr)) == cidr);
    }
    CHECK_FALSE(from_key(tw_cidr_v4{.bits = 33, .addr = {}}).has_value());
}

TEST_CASE("codec: an IPv4 mask covers the IPv4-mapped prefix, so no IPv6 address matches")
{
    const tw_net net = to_net(*Cidr::parse("10.42.0.0/16"));
    const Ip mask = from_abi(net.mask);
    for (std::size_t i = 0; i < 14; ++i) CHECK(mask.bytes()[i] == 0xff);
}

TEST_CASE("codec: no_net has an address that its mask cannot yield")
{
    const tw_net net = no_net();
    const Ip mask = from_abi(net.mask), addr = from_abi(net.addr);
    bool possible = true;
    for (std::size_t i = 0; i < 16; ++i) possible = possible && (addr.bytes()[i] & mask.bytes()[i]) == addr.bytes()[i];
    CHECK_FALSE(possible);
}

TEST_CASE("codec: both directions of a flow are one key, with the lower end first")
{
    const Ip low = *Ip::parse("10.42.1.2"), high = *Ip::parse("10.42.10.1");
    const tw_flow one = to_flow(high, 80, low, 40000, 6), other = to_flow(low, 40000, high, 80, 6);
    CHECK(std::memcmp(&one, &other, sizeof one) == 0);
    CHECK(from_abi(one.a) == low);
    CHECK(one.a_port == 40000);
    CHECK(one.b_port == 80);
    CHECK(one.proto == 6);
    CHECK(to_flow(low, 7, low, 5, 17).a_port == 5);
}
