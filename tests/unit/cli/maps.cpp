// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>

#include "agent/cli/map_names.hpp"
#include "maps/abi/endpoint.h"
#include "maps/abi/peer.h"
#include "maps/abi/reasons.h"
#include "tests/unit/cli/fake_machine.hpp"

using namespace twill;
using namespace twill::cli;

namespace {

tw_addr v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d)
{
    return {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, {a, b, c, d}};
}

/// Counters as two CPUs hold them.
template <typename T>
Bytes slots(const T& first, const T& second)
{
    Bytes bytes = bytes_of(first);
    const Bytes more = bytes_of(second);
    bytes.insert(bytes.end(), more.begin(), more.end());
    return bytes;
}

void add_peers(Ctl& ctl)
{
    tw_peer peer{};
    peer.node = v4(192, 0, 2, 11);
    peer.nexthop = v4(192, 0, 2, 1);
    peer.mode = TW_MODE_ENCAP;
    peer.wire = 2;
    peer.mtu = 1450;
    peer.stats = 3;
    peer.vtep_mac[0] = 0x12;
    peer.vtep_mac[5] = 0xab;
    tw_peer direct{};
    direct.node = direct.nexthop = {{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0x12}};
    direct.mode = TW_MODE_DIRECT;
    direct.wire = 9;
    direct.mtu = 1500;
    direct.stats = 4;
    ctl.maps.put("tw_peers_v4", tw_cidr_v4{24, {10, 42, 2, 0}}, peer);
    ctl.maps.put("tw_peers_lpm4", tw_cidr_v4{20, {10, 42, 16, 0}}, peer);
    ctl.maps.put("tw_peers_v6", tw_cidr_v6{64, {0xfd, 0, 0, 0x42, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}, direct);
    ctl.maps.maps["tw_peers_lpm6"];
    ctl.maps.maps["tw_peer_stats"].entries = {
        {bytes_of(std::uint32_t{3}), slots(tw_peer_stats{1, 100, 2, 200}, tw_peer_stats{10, 1000, 20, 2000})}};
}

} // namespace

TEST_CASE("peers: one line a pod CIDR, IPv4 first, counters summed over CPUs")
{
    Ctl ctl;
    add_peers(ctl);
    CHECK(ctl.run({"peers"}) == 0);
    const std::string expected =
        "PODS             NODE        PATH    NEXTHOP    INTERFACE   MTU  VTEP-MAC           TX-PACKETS  TX-BYTES  "
        "RX-PACKETS  RX-BYTES\n"
        "10.42.2.0/24     192.0.2.11  vxlan   192.0.2.1  eth0 (2)   1450  12:00:00:00:00:ab          11      1100  "
        "        22      2200\n"
        "10.42.16.0/20    192.0.2.11  vxlan   192.0.2.1  eth0 (2)   1450  12:00:00:00:00:ab          11      1100  "
        "        22      2200\n"
        "fd00:42:2::/64   fd00::12    direct  fd00::12   (9)        1500  -                           0         0  "
        "         0         0\n";
    const auto squeezed = [](const std::string& text) { return std::regex_replace(text, std::regex(" +"), " "); };
    CHECK(squeezed(ctl.out) == squeezed(expected));
    CHECK(ctl.err.empty());
}

TEST_CASE("peers: JSON has every field under items")
{
    Ctl ctl;
    add_peers(ctl);
    CHECK(ctl.run({"peers", "-o", "json"}) == 0);
    REQUIRE(ctl.json()["items"].size() == 3);
    const Json expected = {
        {"pods", "10.42.2.0/24"}, {"node", "192.0.2.11"}, {"mode", "vxlan"},  {"nexthop", "192.0.2.1"},
        {"ifindex", 2},           {"interface", "eth0"},  {"mtu", 1450},      {"vtep_mac", "12:00:00:00:00:ab"},
        {"zero_csum6", false},    {"tx_packets", 11},     {"tx_bytes", 1100}, {"rx_packets", 22},
        {"rx_bytes", 2200}};
    CHECK(ctl.json()["items"][0] == expected);
    CHECK(ctl.json()["items"][2]["mode"] == "direct");
}

TEST_CASE("peers: no peers is an empty list, no maps is not found")
{
    Ctl ctl;
    for (const char* map : {"tw_peers_v4", "tw_peers_v6", "tw_peers_lpm4", "tw_peers_lpm6"}) ctl.maps.maps[map];
    CHECK(ctl.run({"peers", "-o", "json"}) == 0);
    CHECK(ctl.json() == Json::parse("{\"items\":[]}"));
    Ctl empty;
    CHECK(empty.run({"peers"}) == 4);
    CHECK(empty.out.empty());
    CHECK(empty.err == "twillctl: no twill data plane: tw_peers_v4 does not exist\n");
}

TEST_CASE("peers, endpoints: without maps the agent tells, and nothing is counted")
{
    Ctl ctl;
    ctl.api = [](const std::string&, const std::string& path) -> Result<HttpReply> {
        if (path == "/v1/peers")
            return HttpReply{200, R"({"items":[{"pods":"10.42.2.0/24","node":"192.0.2.11","mode":"vxlan",
                "nexthop":"192.0.2.1","ifindex":2,"mtu":1450,"vtep_mac":"12:00:00:00:00:ab","zero_csum6":false}]})"};
        return HttpReply{200, R"({"items":[{"ip":"10.42.1.2","ifindex":2,"mac":"02:00:00:00:00:02",
            "host_mac":"02:00:00:00:00:01","shaped":true}]})"};
    };
    CHECK(ctl.run({"peers", "--no-headers"}) == 0);
    CHECK(ctl.out.find("10.42.2.0/24") == 0);
    for (const char* part : {"192.0.2.11", "vxlan", "eth0 (2)", "1450", "12:00:00:00:00:ab", " -\n"}) {
        CAPTURE(part);
        CHECK(ctl.out.find(part) != std::string::npos);
    }
    CHECK(ctl.run({"peers", "-o", "json"}) == 0);
    CHECK(ctl.json()["items"][0]["nexthop"] == "192.0.2.1");
    CHECK(ctl.json()["items"][0]["tx_bytes"].is_null());
    CHECK(ctl.run({"endpoints", "-o", "json"}) == 0);
    CHECK(ctl.json()["items"][0] == Json::parse(R"({"ip":"10.42.1.2","ifindex":2,"interface":"eth0",
        "mac":"02:00:00:00:00:02","host_mac":"02:00:00:00:00:01","shaped":true})"));

    ctl.api = [](const std::string&, const std::string&) -> Result<HttpReply> {
        return HttpReply{200, R"({"items":[{"pods":7,"mtu":"x"}]})"};
    };
    CHECK(ctl.run({"peers"}) == 4); // an agent of another version
}

TEST_CASE("peers: a map of another layout is an error, not garbage")
{
    Ctl ctl;
    ctl.maps.put("tw_peers_v4", tw_cidr_v4{24, {10, 42, 2, 0}}, std::uint32_t{7});
    CHECK(ctl.run({"peers"}) == 1);
    CHECK(ctl.err.find("another version") != std::string::npos);
}

TEST_CASE("endpoints: address, interface and MACs")
{
    Ctl ctl;
    ctl.maps.put("tw_endpoints", v4(10, 42, 1, 3), tw_endpoint{7, {2, 0, 0, 0, 0, 3}, {2, 0, 0, 0, 0, 1}, 1, {}});
    ctl.maps.put("tw_endpoints", v4(10, 42, 1, 2), tw_endpoint{2, {2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 1}, 0, {}});
    CHECK(ctl.run({"endpoints", "--no-headers"}) == 0);
    CHECK(ctl.out == "10.42.1.2  eth0 (2)  02:00:00:00:00:02  02:00:00:00:00:01  no\n"
                     "10.42.1.3  (7)       02:00:00:00:00:03  02:00:00:00:00:01  yes\n");
    CHECK(ctl.run({"-o", "json", "endpoints"}) == 0);
    CHECK(ctl.json()["items"][1] == Json({{"ip", "10.42.1.3"},
                                          {"ifindex", 7},
                                          {"interface", ""},
                                          {"mac", "02:00:00:00:00:03"},
                                          {"host_mac", "02:00:00:00:00:01"},
                                          {"shaped", true}}));
}

TEST_CASE("drops: what happened, by reason and hook; --all and JSON show every reason")
{
    Ctl ctl;
    const auto put = [&](tw_reason reason, const tw_reason_count& a, const tw_reason_count& b) {
        ctl.maps.maps["tw_reasons"].entries.push_back({bytes_of(std::uint32_t{reason}), slots(a, b)});
    };
    put(TW_R_TO_VXLAN, {5, 0, 0, 1, 0, 0}, {2, 0, 0, 0, 0, 0});
    put(TW_R_SPOOF_POD, {0, 0, 3, 0, 0, 0}, {0, 0, 0, 0, 1, 0});
    CHECK(ctl.run({"drops"}) == 0);
    CHECK(ctl.out ==
          "REASON     CLASS  PACKETS  FROM-POD  TO-POD  FROM-WIRE  FROM-HOST  FROM-OVERLAY  TO-WIRE  MEANING\n"
          "to_vxlan   fast         8         7       0          0          1             0        0  encapsulated to "
          "another node\n"
          "spoof_pod  drop         4         0       0          3          0             1        0  inner source is "
          "not in the sending node's pod CIDR\n");
    CHECK(ctl.run({"drops", "--all", "--no-headers"}) == 0);
    CHECK(std::count(ctl.out.begin(), ctl.out.end(), '\n') == TW_R__MAX);
    CHECK(ctl.run({"drops", "--output=json"}) == 0);
    REQUIRE(ctl.json()["items"].size() == TW_R__MAX);
    const Json spoof = ctl.json()["items"][TW_R_SPOOF_POD];
    CHECK(spoof["reason"] == "spoof_pod");
    CHECK(spoof["class"] == "drop");
    CHECK(spoof["packets"] == 4);
    CHECK(spoof["hooks"] ==
          Json::parse(R"({"from_pod":0,"to_pod":0,"from_wire":3,"from_host":0,"from_overlay":1,"to_wire":0})"));
}

TEST_CASE("maps: type, entries, capacity, memory and what it is for")
{
    Ctl ctl;
    ctl.maps.maps["tw_events"].info = {"tw_events", "ringbuf", 9, 0, 0, 262144, {}, {}};
    ctl.maps.maps["tw_nodes"].info = {"tw_nodes", "hash", 8, 16, 36, 32768, 3U << 20, 2};
    CHECK(ctl.run({"maps"}) == 0);
    CHECK(ctl.out == "NAME       TYPE     ENTRIES  CAPACITY   MEMORY  WHAT\n"
                     "tw_events  ringbuf        -    262144        -  events for the agent; capacity in bytes\n"
                     "tw_nodes   hash           2     32768  3.0 MiB  node address -> its pod CIDR (anti-spoof)\n");
    CHECK(ctl.run({"maps", "-o", "json"}) == 0);
    CHECK(ctl.json()["items"][0]["entries"].is_null());
    CHECK(ctl.json()["items"][1]["memory_bytes"] == (3U << 20));
    CHECK(Ctl{}.run({"maps"}) == 4);
}

TEST_CASE("maps: every map of maps.bpf.h is explained, and no other")
{
    const auto root = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path().parent_path();
    std::ifstream file(root / "maps/maps.bpf.h");
    REQUIRE(file);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::regex name("(?:TW_MAP\\(|\\} )(tw_[a-z0-9_]+)");
    std::set<std::string> defined;
    for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end; ++it) defined.insert((*it)[1]);
    std::set<std::string> explained;
    for (const MapText& map : kMapTexts) explained.insert(std::string(map.name));
    CHECK(defined == explained);
}
