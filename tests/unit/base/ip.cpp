// SPDX-License-Identifier: Apache-2.0
#include "twill/ip.hpp"

#include <doctest/doctest.h>

#include "twill/mac.hpp"

using namespace twill;

TEST_CASE("ip: text and bytes round-trip in both families, and one type holds both")
{
    CHECK(Ip::parse("192.0.2.1")->to_string() == "192.0.2.1");
    CHECK(Ip::parse("2001:db8::1")->to_string() == "2001:db8::1");
    CHECK(Ip::parse("192.0.2.1")->is_v4());
    CHECK_FALSE(Ip::parse("2001:db8::1")->is_v4());
    CHECK(*Ip::parse("::ffff:192.0.2.1") == *Ip::parse("192.0.2.1"));
    CHECK(Ip::parse("192.0.2.1")->network_size() == 4);
    CHECK(Ip::parse("::")->is_unspecified());
    CHECK(Ip::parse("0.0.0.0")->is_unspecified());
    for (const char* bad : {"", "192.0.2", "192.0.2.256", "192.0.2.1/24", "fe80::1%eth0", "host"}) {
        CAPTURE(bad);
        CHECK_FALSE(Ip::parse(bad).has_value());
    }
}

TEST_CASE("ip.plus: carries over bytes and stays within the family")
{
    CHECK(Ip::parse("10.0.0.255")->plus(1) == *Ip::parse("10.0.1.0"));
    CHECK(Ip::parse("255.255.255.255")->plus(1) == *Ip::parse("0.0.0.0"));
    CHECK(Ip::parse("2001:db8::ffff:ffff:ffff:ffff")->plus(1) == *Ip::parse("2001:db8:0:1::"));
}

TEST_CASE("cidr: host bits are masked off, as flannel does")
{
    CHECK(Cidr::parse("10.42.1.7/24")->to_string() == "10.42.1.0/24");
    CHECK(Cidr::parse("fd00:42:1::7/64")->to_string() == "fd00:42:1::/64");
    CHECK(Cidr::parse("0.0.0.0/0")->contains(*Ip::parse("203.0.113.9")));
    CHECK_FALSE(Cidr::parse("0.0.0.0/0")->contains(*Ip::parse("2001:db8::1")));
    CHECK(Cidr::parse("10.42.1.0/24")->to_key() == "10.42.1.0-24");
    for (const char* bad : {"10.42.0.0", "10.42.0.0/33", "10.42.0.0/", "10.42.0.0/-1", "10.42.0.0/1x", "fd00::/129"}) {
        CAPTURE(bad);
        CHECK_FALSE(Cidr::parse(bad).has_value());
    }
}

TEST_CASE("cidr: containment, overlap, last and next")
{
    const auto wide = *Cidr::parse("10.42.0.0/16");
    const auto narrow = *Cidr::parse("10.42.255.0/24");
    CHECK(wide.contains(narrow));
    CHECK_FALSE(narrow.contains(wide));
    CHECK(narrow.overlaps(wide));
    CHECK_FALSE(narrow.overlaps(*Cidr::parse("10.42.254.0/24")));
    CHECK(narrow.last() == *Ip::parse("10.42.255.255"));
    CHECK(Cidr::parse("10.42.1.0/24")->next() == *Cidr::parse("10.42.2.0/24"));
    CHECK(Cidr::parse("fd00:42:1::/64")->last() == *Ip::parse("fd00:42:1:0:ffff:ffff:ffff:ffff"));
}

TEST_CASE("mac: text round-trips, random ones are unicast and locally administered")
{
    CHECK(Mac::parse("0A:1b:2c:3d:4e:5f")->to_string() == "0a:1b:2c:3d:4e:5f");
    for (const char* bad : {"", "0a:1b:2c:3d:4e", "0a:1b:2c:3d:4e:5g", "0a-1b-2c-3d-4e-5f", "0a:1b:2c:3d:4e:5f:"}) {
        CAPTURE(bad);
        CHECK_FALSE(Mac::parse(bad).has_value());
    }
    const Mac random = Mac::random();
    CHECK(random.is_unicast());
    CHECK((random.bytes[0] & 2) == 2);
    CHECK(random != Mac::random());
}
