// SPDX-License-Identifier: Apache-2.0
#include "agent/store/allocator.hpp"

#include <doctest/doctest.h>

#include <set>

using namespace twill;

namespace {

NetConf conf_of(std::string_view text) { return *NetConf::parse(text, "test", {}); }
NetConf conf_v4() { return conf_of(R"({"Network":"10.42.0.0/16","Backend":{"Type":"alloc"}})"); }
/// Three subnets of IPv4, one of IPv6.
NetConf conf_dual()
{
    return conf_of(R"({"Network":"10.42.0.0/22","EnableIPv6":true,"IPv6Network":"fd00:42::/48",
        "IPv6SubnetMin":"fd00:42:0:7::","IPv6SubnetMax":"fd00:42:0:7::","Backend":{"Type":"alloc"}})");
}

HeldSubnet held(const std::string& key, const std::string& ip = "192.0.2.99")
{
    HeldSubnet entry{key, *LeaseKey::parse(key), {}, {}, false, false};
    if (!ip.empty()) entry.public_ip.v4 = *Ip::parse(ip);
    return entry;
}
HeldSubnet reservation(const std::string& key, const std::string& ip)
{
    auto entry = held(key, ip);
    entry.is_reservation = true;
    return entry;
}
HeldSubnet expired(const std::string& key)
{
    auto entry = held(key);
    entry.is_expired = true;
    return entry;
}

AllocationRequest request_of(const std::string& ip)
{
    AllocationRequest request{"node-a", {}, {}, {}};
    const Ip address = *Ip::parse(ip);
    request.public_ip[address.family()] = address;
    return request;
}
const AllocationRequest kMine = request_of("192.0.2.10");
Lease lease_of(const std::string& key, const std::string& node, const std::string& ip)
{
    Lease lease;
    lease.key = key;
    lease.node = node;
    lease.pods = LeaseKey::parse(key)->pods;
    lease.public_ip.v4 = *Ip::parse(ip);
    return lease;
}
std::uint32_t first(std::uint32_t) { return 0; }
std::uint32_t last(std::uint32_t bound) { return bound - 1; }

std::string pick(const NetConf& conf, const std::vector<HeldSubnet>& entries, const AllocationRequest& request = kMine,
                 const RandomSource& random = first)
{
    const auto allocation = allocate(conf, entries, request, random);
    return allocation ? allocation->pods.to_string() : allocation.error().what;
}

} // namespace

TEST_CASE("allocate: one of the first 100 free subnets, the network's first one left out")
{
    CHECK(pick(conf_v4(), {}) == "10.42.1.0-24");
    CHECK(pick(conf_v4(), {}, kMine, last) == "10.42.100.0-24");
    CHECK(pick(conf_v4(), {held("10.42.1.0-24"), held("10.42.3.0-24")}) == "10.42.2.0-24");
    CHECK(pick(conf_v4(), {held("10.42.1.0-24"), held("10.42.3.0-24")}, kMine, last) == "10.42.102.0-24");
}

TEST_CASE("allocate: a lease of the own address is kept if it fits")
{
    CHECK(pick(conf_v4(), {held("10.42.9.0-24", "192.0.2.10")}) == "10.42.9.0-24");
    CHECK(allocate(conf_v4(), {held("10.42.9.0-24", "192.0.2.10")}, kMine, first)->replace.empty());

    const auto longer = allocate(conf_v4(), {held("10.42.9.0-25", "192.0.2.10")}, kMine, first);
    CHECK(longer->pods.to_string() == "10.42.1.0-24");
    CHECK(longer->replace == std::vector<std::string>{"10.42.9.0-25"});
    CHECK(pick(conf_v4(), {held("10.43.9.0-24", "192.0.2.10")}) == "10.42.1.0-24");

    AllocationRequest running = kMine;
    running.held = lease_of("10.42.9.0-24", "node-a", "192.0.2.10");
    CHECK(pick(conf_v4(), {held("10.42.9.0-24", "192.0.2.10"), reservation("10.42.5.0-24", "192.0.2.10")}, running) ==
          "10.42.9.0-24");
}

TEST_CASE("allocate: a reservation of the own address wins and stays one; others' are taken")
{
    const auto mine = allocate(
        conf_v4(), {held("10.42.2.0-24", "192.0.2.10"), reservation("10.42.5.0-24", "192.0.2.10")}, kMine, first);
    CHECK(mine->pods.to_string() == "10.42.5.0-24");
    CHECK(mine->is_reservation);
    CHECK(pick(conf_v4(), {reservation("10.42.1.0-24", "192.0.2.77")}) == "10.42.2.0-24");

    const auto unfit = allocate(conf_v4(), {reservation("10.43.5.0-24", "192.0.2.10")}, kMine, first);
    CHECK_FALSE(unfit->is_reservation);
    CHECK(unfit->replace.empty()); // the user's: left alone

    const auto grown = allocate(conf_dual(), {reservation("10.42.2.0-24", "192.0.2.10")}, kMine, first);
    CHECK(grown->pods.to_string() == "10.42.2.0-24&fd00:42:0:7::-64");
    CHECK(grown->is_reservation);
    CHECK(grown->replace == std::vector<std::string>{"10.42.2.0-24"});
}

TEST_CASE("allocate: the preferred subnet if it is free and fits, each family by itself")
{
    AllocationRequest request = kMine;
    request.preferred.v4 = *Cidr::parse("10.42.77.0/24");
    CHECK(pick(conf_v4(), {}, request) == "10.42.77.0-24");
    CHECK(pick(conf_v4(), {held("10.42.77.0-24")}, request) == "10.42.1.0-24");
    CHECK(pick(conf_v4(), {held("10.42.77.128-25")}, request) == "10.42.1.0-24");
    request.preferred.v4 = *Cidr::parse("10.42.0.0/24"); // before SubnetMin
    CHECK(pick(conf_v4(), {}, request) == "10.42.1.0-24");
    request.preferred.v4 = *Cidr::parse("10.42.3.0/24");
    request.preferred.v6 = *Cidr::parse("fd00:42:0:9::/64");
    CHECK(pick(conf_dual(), {}, request) == "10.42.3.0-24&fd00:42:0:7::-64");
}

TEST_CASE("allocate: overlap counts as taken, whatever the length, also when the lease is bad")
{
    CHECK(pick(conf_v4(), {held("10.42.0.0-20")}) == "10.42.16.0-24");
    CHECK(pick(conf_v4(), {held("10.42.1.64-26"), held("10.42.2.0-28"), held("10.42.2.128-28")}) == "10.42.3.0-24");
    CHECK(pick(conf_v4(), {held("10.42.1.0-24", "")}) == "10.42.2.0-24");
    CHECK(pick(conf_v4(), {held("10.42.0.0-17"), held("10.42.1.0-24"), held("10.42.128.0-24")}) == "10.42.129.0-24");
}

TEST_CASE("allocate: a full range is an error that names it; expired leases make room then, and only then")
{
    const std::vector<HeldSubnet> full = {held("10.42.1.0-24"), held("10.42.2.0-24"), held("10.42.3.0-24")};
    const auto none = allocate(conf_dual(), full, kMine, first);
    REQUIRE_FALSE(none.has_value());
    CHECK(none.error().code == ENOSPC);
    CHECK(none.error().what.find("10.42.1.0 to 10.42.3.0") != std::string::npos);

    CHECK(pick(conf_dual(), {expired("10.42.1.0-24")}) == "10.42.2.0-24&fd00:42:0:7::-64");
    const auto evicting =
        allocate(conf_dual(), {held("10.42.1.0-24"), expired("10.42.2.0-24"), held("10.42.3.0-24")}, kMine, first);
    REQUIRE(evicting);
    CHECK(evicting->pods.to_string() == "10.42.2.0-24&fd00:42:0:7::-64");
    CHECK(evicting->replace == std::vector<std::string>{"10.42.2.0-24"});
    CHECK(pick(conf_dual(), {held("fd00:42:0:7::-64")}).find("fd00:42:0:7::") != std::string::npos);
}

TEST_CASE("allocate: 255 nodes fill a /16, all distinct, and the end of the address space ends the search")
{
    std::vector<HeldSubnet> entries;
    std::set<std::string> keys;
    for (unsigned node = 0; node < 255; ++node) {
        const auto key = pick(conf_v4(), entries, kMine, last);
        CHECK(keys.insert(key).second);
        entries.push_back(held(key));
    }
    CHECK(allocate(conf_v4(), entries, kMine, last).error().code == ENOSPC);

    const auto top = conf_of(R"({"Network":"255.255.252.0/22","Backend":{"Type":"alloc"}})");
    CHECK(pick(top, {held("255.255.253.0-24"), held("255.255.254.0-24"), held("255.255.255.0-24")}).find("no free") ==
          0);
}

TEST_CASE("allocate: without IPv4 the IPv6 address says whose lease it is")
{
    const auto conf = conf_of(R"({"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:42::/48",
                                  "Backend":{"Type":"alloc"}})");
    auto entry = held("fd00:42:0:9::-64", "");
    entry.public_ip.v6 = *Ip::parse("2001:db8::10");
    CHECK(pick(conf, {entry}, request_of("2001:db8::10")) == "fd00:42:0:9::-64");
    CHECK(pick(conf, {entry}, request_of("2001:db8::11")) == "fd00:42:0:1::-64");
}
