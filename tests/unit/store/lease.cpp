// SPDX-License-Identifier: Apache-2.0
#include "agent/store/lease.hpp"

#include <doctest/doctest.h>

#include "agent/store/rfc3339.hpp"

using namespace twill;

namespace {

const std::string kKey = "10.42.1.0-24";
const std::string kDualKey = "10.42.1.0-24&fd00:42:1::-64";
const std::string kFlannelValue = R"({"PublicIP":"192.0.2.10","PublicIPv6":null,"BackendType":"vxlan",)"
                                  R"("BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}})";

std::string error_of(const std::string& key, const std::string& json)
{
    const auto lease = parse_lease(key, json);
    return lease ? "no error" : lease.error().what;
}

Lease dual_lease()
{
    Lease lease;
    lease.key = kDualKey;
    lease.node = "node-a";
    lease.pods = {*Cidr::parse("10.42.1.0/24"), *Cidr::parse("fd00:42:1::/64")};
    lease.public_ip = {*Ip::parse("192.0.2.10"), *Ip::parse("2001:db8::10")};
    lease.backend_type = "vxlan";
    lease.vtep_mac = {*Mac::parse("0a:00:00:00:00:01"), *Mac::parse("0a:00:00:00:00:02")};
    lease.expires = *parse_rfc3339("2026-11-21T01:43:05Z");
    return lease;
}

} // namespace

TEST_CASE("lease key: one family, the other, both")
{
    CHECK(LeaseKey::parse(kKey)->pods.v4->to_string() == "10.42.1.0/24");
    CHECK_FALSE(LeaseKey::parse(kKey)->pods.v6);
    CHECK(LeaseKey::parse(kDualKey)->pods.v6->to_string() == "fd00:42:1::/64");
    CHECK_FALSE(LeaseKey::parse("fd00:42:1::-64")->pods.v4);
    for (const auto& key : {kKey, kDualKey, std::string("fd00:42:1::-64")})
        CHECK(LeaseKey::parse(key)->to_string() == key);
    CHECK(LeaseKey::parse("10.42.1.7-24")->to_string() == kKey);
}

TEST_CASE("lease key: bad ones are refused")
{
    for (const char* key :
         {"", "10.42.1.0", "10.42.1.0-", "-24", "10.42.1.0-32", "10.42.1.0-x", "10.42.1-24", "10.42.1.256-24",
          "10.42.1.0-24&", "10.42.1.0-24&fd00:42:1::", "10.42.1.0-24&fd00:42:1::-128", "&fd00:42:1::-64",
          "fd00:42:1::-64&10.42.1.0-24", "10.42.1.0-24&10.42.2.0-24", "::ffff:10.42.1.0-24", "10.42.1.0-24 ",
          "10.42.1.0/24", "../config"}) {
        CAPTURE(key);
        CHECK_FALSE(LeaseKey::parse(key).has_value());
    }
}

TEST_CASE("lease: flannel's own value is a lease, a reservation without Expiration")
{
    const auto lease = parse_lease(kKey, kFlannelValue);
    REQUIRE(lease);
    CHECK(lease->public_ip.v4 == Ip::parse("192.0.2.10").operator*());
    CHECK(lease->vtep_mac.v4->to_string() == "c6:d2:32:6f:8f:44");
    CHECK(lease->backend_type == "vxlan");
    CHECK(lease->node.empty());
    CHECK_FALSE(lease->expires);
    CHECK(
        parse_lease(kKey, R"({"publicip":"192.0.2.10","PublicIPv6":null,"BackendType":"host-gw","Expiration":null})"));
    CHECK(parse_lease(kKey, R"({"PublicIP":"192.0.2.10","BackendType":"wireguard","BackendData":{"PublicKey":"x"}})"));
    CHECK(parse_lease("fd00:42:1::-64", R"({"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1"})"));
}

TEST_CASE("lease: what is written is flannel's value with compact BackendData, and reads back the same")
{
    CHECK(
        format_lease(dual_lease(), Vni{1}) ==
        R"({"PublicIP":"192.0.2.10","PublicIPv6":"2001:db8::10","BackendType":"vxlan",)"
        R"("BackendData":{"VNI":1,"VtepMAC":"0a:00:00:00:00:01"},"BackendV6Data":{"VNI":1,"VtepMAC":"0a:00:00:00:00:02"},)"
        R"("Subnet":"10.42.1.0/24","IPv6Subnet":"fd00:42:1::/64","Expiration":"2026-11-21T01:43:05Z","Node":"node-a"})"
        "\n");
    CHECK(*parse_lease(kDualKey, format_lease(dual_lease(), Vni{1})) == dual_lease());

    Lease lease = *parse_lease(kKey, R"({"PublicIP":"192.0.2.10","BackendType":"host-gw"})");
    CHECK(format_lease(lease, Vni{1}) ==
          R"({"PublicIP":"192.0.2.10","PublicIPv6":null,"BackendType":"host-gw","Subnet":"10.42.1.0/24"})"
          "\n");
    lease.backend_type.clear();
    lease.node = "bad \xff utf-8";
    CHECK(parse_lease(kKey, format_lease(lease, Vni{1})));
}

TEST_CASE("lease: an error names field and value")
{
    CHECK(error_of(kKey, R"({"PublicIP":"192.0.2","BackendType":"host-gw"})") ==
          "PublicIP \"192.0.2\": want a unicast IPv4 address");
    CHECK(error_of("10.42.1.9-24", kFlannelValue) == "key \"10.42.1.9-24\": want it spelled 10.42.1.0-24");
    const std::pair<std::string, const char*> rows[] = {
        {"", "line 1, column 1"},
        {"[]", "an array"},
        {kFlannelValue.substr(0, 40), "line 1"},
        {"{}", "PublicIP absent"},
        {R"({"PublicIP":1})", "PublicIP 1"},
        {R"({"PublicIP":"224.0.0.1"})", "224.0.0.1"},
        {R"({"PublicIP":"192.0.2.1","BackendType":5})", "BackendType 5"},
        {R"({"PublicIP":"192.0.2.1","BackendType":"vxlan"})", "BackendData.VtepMAC absent"},
        {R"({"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VNI":1}})", "BackendData.VtepMAC absent"},
        {R"({"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":"x"})", "BackendData \"x\""},
        {R"({"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VtepMAC":"01:00:5e:00:00:01"}})", "01:00:5e"},
        {R"({"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VtepMAC":"00:00:00:00:00:00"}})", "unicast"},
        {R"({"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VNI":-1,"VtepMAC":"0a:00:00:00:00:01"}})",
         "BackendData.VNI -1"},
        {R"({"PublicIP":"192.0.2.1","Subnet":"10.42.2.0/24"})",
         "Subnet 10.42.2.0/24: want 10.42.1.0/24, as in the key"},
        {R"({"PublicIP":"192.0.2.1","Subnet":"x"})", "Subnet \"x\""},
        {R"({"PublicIP":"192.0.2.1","IPv6Subnet":"fd00::/64"})", "IPv6Subnet fd00::/64: want none"},
        {R"({"PublicIP":"192.0.2.1","Expiration":"tomorrow"})", "Expiration \"tomorrow\""},
        {R"({"PublicIP":"192.0.2.1","Expiration":5})", "Expiration 5"},
        {R"({"PublicIP":"192.0.2.1","Node":[]})", "Node an array"},
        {"{\"PublicIP\":\"192.0.2.1\",\"x\":\"" + std::string(kMaxLeaseBytes, 'x') + "\"}", "65536"},
    };
    for (const auto& [json, part] : rows) {
        CAPTURE(json.substr(0, 200));
        CHECK_MESSAGE(error_of(kKey, json).find(part) != std::string::npos, error_of(kKey, json));
    }
    CHECK(error_of(kDualKey, kFlannelValue) ==
          "PublicIPv6 absent: want an address, because fd00:42:1::/64 is in the key");
}

TEST_CASE("lease: no truncation and no changed byte throws")
{
    const std::string full = format_lease(dual_lease(), Vni{1});
    for (std::size_t size = 0; size + 1 < full.size(); ++size)
        CHECK_FALSE(parse_lease(kDualKey, full.substr(0, size)).has_value());
    for (std::size_t at = 0; at < full.size(); ++at)
        for (const char c : {'\0', '"', '{', '9', '\xff'}) {
            std::string changed = full;
            changed[at] = c;
            if (const auto lease = parse_lease(kDualKey, changed)) CHECK(lease->pods.v4);
        }
    CHECK_FALSE(parse_lease(kKey, std::string(60000, '[')).has_value());
}

TEST_CASE("marker: written and read; later versions and unknown members are accepted")
{
    CHECK(format_marker(Marker{true}) == "{\"v\":1,\"zeroCsum6\":true}\n");
    CHECK(*parse_marker(format_marker(Marker{true})) == Marker{true});
    CHECK(*parse_marker(R"({"v":2,"new":[1]})") == Marker{false});
    const Marker named{true, *Mac::parse("0a:00:00:00:00:01"), "x"};
    CHECK(format_marker(named) == "{\"v\":1,\"zeroCsum6\":true,\"vtepMAC\":\"0a:00:00:00:00:01\",\"since\":\"x\"}\n");
    CHECK(*parse_marker(format_marker(named)) == named);
    CHECK_FALSE(parse_marker(R"({"v":1,"zeroCsum6":true,"vtepMAC":"zz"})").has_value());
    CHECK_FALSE(parse_marker(R"({"v":1,"zeroCsum6":true,"vtepMAC":7})").has_value());
    CHECK_FALSE(parse_marker("[]").has_value());
    CHECK_FALSE(parse_marker("").has_value());
}

TEST_CASE("marker: it counts for the device that it names only, IPv6's where the lease has two")
{
    const auto four = *Mac::parse("0a:00:00:00:00:04"), six = *Mac::parse("0a:00:00:00:00:06");
    Lease lease;
    CHECK_FALSE(marker_of(std::nullopt, lease));
    lease.vtep_mac.v4 = four;
    CHECK(marker_of(Marker{true}, lease) == Marker{true});
    CHECK(marker_of(Marker{true, four}, lease) == Marker{true, four});
    CHECK_FALSE(marker_of(Marker{true, six}, lease));
    lease.vtep_mac.v6 = six;
    CHECK(marker_of(Marker{true, six}, lease));
    CHECK_FALSE(marker_of(Marker{true, four}, lease));
}

TEST_CASE("rfc3339: text and time round-trip; fractions and offsets are understood")
{
    const auto time = parse_rfc3339("2026-11-21T01:43:05Z");
    REQUIRE(time);
    CHECK(time->time_since_epoch() == std::chrono::seconds{1795225385});
    CHECK(format_rfc3339(*time) == "2026-11-21T01:43:05Z");
    CHECK(format_rfc3339(*parse_rfc3339("2026-11-21T03:43:05.999999999+02:00")) == "2026-11-21T01:43:05Z");
    CHECK(format_rfc3339(*parse_rfc3339("2024-02-29t00:00:00z")) == "2024-02-29T00:00:00Z");
    CHECK(*parse_rfc3339("9999-12-31T23:59:59Z") > *parse_rfc3339("2261-12-31T23:59:59Z"));
    for (const char* bad : {"", "2026-11-21", "2026-11-21T01:43:05", "2026-13-21T01:43:05Z", "2026-02-30T01:43:05Z",
                            "2026-11-21T24:00:00Z", "2026-11-21T01:43:05.Z", "2026-11-21T01:43:05+2:00",
                            "0001-01-01T00:00:00Z", "2026-11-21T01:43:05Zx", "-026-11-21T01:43:05Z"}) {
        CAPTURE(bad);
        CHECK_FALSE(parse_rfc3339(bad).has_value());
    }
}
