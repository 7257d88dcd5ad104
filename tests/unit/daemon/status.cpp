// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/status.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

using namespace twill;

TEST_CASE("status: an empty status has every key, in the documented order")
{
    const std::string expected =
        R"({"version":"","kernel":"","node":"","pid":0,"started":"1970-01-01T00:00:00Z","ready":false,)"
        R"("store":{"url":"","healthy":false,"error":""},)"
        R"("lease":{"key":"","pods":[],"public_ip":[],"backend":"","vtep_mac":[],"expires":""},)"
        R"("network":[],"wires":[],"overlay":{"name":"","ifindex":0,"kind":"","mac":""},)"
        R"("data_plane":{"kind":"","why":""},)"
        R"("fast_path":{"mode":"","on":false,"why":""},"masquerade":{"on":false,"rules":"off","capacity":0,"interfaces":[]},"features":[],"attachments":[],)"
        R"("peers":{"programmed":0,"pending":0},"pending":[],"bad_leases":[],"endpoints":0,)"
        R"("addr_conflict":0,"conflicts":[],"warnings":[]})";
    CHECK(to_json(Status{}) == expected);
}

TEST_CASE("status: lists hold objects and times are RFC 3339")
{
    Status s;
    s.lease.pods = {"10.42.1.0/24", "fd00:42:1::/64"};
    s.lease.expires = WallTime{std::chrono::seconds{1'700'000'000}};
    s.wires = {{"eth0", 2, 1500}};
    s.features = {{"tcx", true, "auto", "clsact is used"}};
    s.attachments = {{"tw_from_wire", 2, "eth0", "tcx"}};
    s.pending = {{"10.42.2.0/24", "b", "no route"}};
    s.bad_leases = {{"10.42.9.0-24", "PublicIP \"\xff\""}};
    s.conflicts = {{"10.42.1.2", 7, 8, 3}};
    s.warnings = {"ip_forward is 0"};
    const auto json = nlohmann::json::parse(to_json(s));
    CHECK(json["lease"]["pods"][1] == "fd00:42:1::/64");
    CHECK(json["lease"]["expires"] == "2023-11-14T22:13:20Z");
    CHECK(json["wires"][0]["mtu"] == 1500);
    CHECK(json["features"][0]["effect"] == "clsact is used");
    CHECK(json["attachments"][0]["program"] == "tw_from_wire");
    CHECK(json["pending"][0]["why"] == "no route");
    CHECK(json["bad_leases"][0]["why"] == "PublicIP \"\xEF\xBF\xBD\"");
    CHECK(json["conflicts"][0]["count"] == 3);
    CHECK(json["warnings"][0] == "ip_forward is 0");
}
