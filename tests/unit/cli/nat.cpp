// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <chrono>

#include "agent/cli/nat.hpp"
#include "agent/cli/nat_rule.hpp"
#include "maps/abi/reasons.h"
#include "maps/codec.hpp"
#include "maps/nat_view.hpp"
#include "tests/unit/cli/fake_machine.hpp"

using namespace twill;
using namespace twill::cli;

namespace {

constexpr std::uint8_t kTcp = 6, kUdp = 17, kIcmp = 1;

Ip ip(const char* text) { return *Ip::parse(text); }

NatFlow flow(const char* pod, std::uint16_t pod_port, const char* remote, std::uint16_t remote_port, std::uint16_t port,
             std::uint8_t proto = kTcp)
{
    NatFlow out;
    out.pod = ip(pod);
    out.pod_port = pod_port;
    out.remote = ip(remote);
    out.remote_port = remote_port;
    out.addr = out.pod.is_v4() ? ip("192.0.2.10") : ip("2001:db8::10");
    out.port = port;
    out.proto = proto;
    out.state = proto == kTcp ? TW_NAT_ESTABLISHED : proto == kUdp ? TW_NAT_UDP : TW_NAT_ECHO;
    return out;
}

/// Puts halves of a flow into the maps; it lives until `until`.
void put(Ctl& ctl, const NatFlow& flow, std::uint32_t until, bool forward = true, bool reply = true)
{
    tw_nat_flow half{};
    half.state = flow.state;
    half.until = until;
    half.plain = flow.plain;
    if (!flow.plain) {
        half.addr = to_abi(flow.addr);
        half.port = flow.port;
    }
    if (forward) ctl.maps.put("tw_nat_fwd", forward_key(flow), half);
    half.addr = to_abi(flow.pod);
    half.port = flow.pod_port;
    if (reply && !flow.plain) ctl.maps.put("tw_nat_rev", reply_key(flow), half);
}

tw_cfg config(tw_nat_rules rules)
{
    tw_cfg cfg{};
    cfg.cluster_v4 = to_net(*Cidr::parse("10.42.0.0/16"));
    cfg.cluster_v6 = to_net(*Cidr::parse("fd00:42::/48"));
    cfg.own_v4 = to_net(*Cidr::parse("10.42.1.0/24"));
    cfg.own_v6 = to_net(*Cidr::parse("fd00:42:0:1::/64"));
    cfg.overlay = 7;
    cfg.nat = static_cast<__u8>(rules);
    cfg.nat_max = 1000;
    return cfg;
}

/// A node whose maps are there, with one port block in the range, and eth0's addresses.
void set_up(Ctl& ctl, tw_nat_rules rules = TW_NAT_IPTABLES)
{
    ctl.maps.cfg = config(rules);
    for (const char* map : {"tw_nat_fwd", "tw_nat_rev", "tw_nat_except", "tw_reasons"}) ctl.maps.maps[map];
    for (std::uint32_t i = 0; i < 32; ++i) {
        tw_nat_range range{};
        if (i == 16) range.ports = ~__u64{0};
        if (i == 17) range.ports = 0xf;
        ctl.maps.put("tw_nat_range", i, range);
    }
    tw_nat_if eth0{};
    eth0.v4 = to_abi(ip("192.0.2.10"));
    eth0.v6 = to_abi(ip("2001:db8::10"));
    for (auto& net : eth0.on_link) net = {{{1}, {}}, {}}; // matches nothing
    eth0.on_link[0] = to_net(*Cidr::parse("203.0.113.0/24"));
    eth0.from[0] = to_abi(ip("203.0.113.10"));
    ctl.maps.put("tw_nat_ifs", std::uint32_t{2}, eth0);
}

} // namespace

TEST_CASE("nat list: living flows, IPv4 first; halves without another and flows from outside are shown as such")
{
    Ctl ctl;
    set_up(ctl);
    put(ctl, flow("fd00:42:0:1::5", 40000, "2001:db8:9::1", 443, 1031), 1010);
    put(ctl, flow("10.42.1.5", 40000, "198.51.100.7", 443, 1030), 433000);
    put(ctl, flow("10.42.1.5", 77, "198.51.100.7", 0, 1077, kIcmp), 1030);
    put(ctl, flow("10.42.1.6", 53, "198.51.100.8", 53, 1040, kUdp), 1020, true, false);
    put(ctl, flow("10.42.1.7", 53, "198.51.100.8", 53, 1041, kUdp), 1020, false, true);
    auto plain = flow("10.42.1.8", 53, "198.51.100.9", 53, 0, kUdp);
    plain.plain = true;
    put(ctl, plain, 1120);
    put(ctl, flow("10.42.1.9", 1, "198.51.100.7", 443, 1042), 1000); // its time is over now
    CHECK(ctl.run({"nat", "list"}) == 0);
    CHECK(ctl.out ==
          "PROTO  POD                     REMOTE               AS                   STATE        EXPIRES  NOTE\n"
          "icmp   10.42.1.5:77            198.51.100.7         192.0.2.10:1077      echo              30\n"
          "tcp    10.42.1.5:40000         198.51.100.7:443     192.0.2.10:1030      established   432000\n"
          "udp    10.42.1.6:53            198.51.100.8:53      192.0.2.10:1040      unanswered        20  "
          "half: no entry for its replies\n"
          "udp    10.42.1.7:53            198.51.100.8:53      192.0.2.10:1041      unanswered        20  "
          "half: no entry for its packets\n"
          "udp    10.42.1.8:53            198.51.100.9:53      -                    plain            120  "
          "came from outside, not masqueraded\n"
          "tcp    [fd00:42:0:1::5]:40000  [2001:db8:9::1]:443  [2001:db8::10]:1031  established       10\n");
    CHECK(ctl.run({"nat", "list", "-o", "json"}) == 0);
    const Json items = ctl.json()["items"];
    REQUIRE(items.size() == 6);
    CHECK(items[1] == Json::parse(R"({"protocol":"tcp","pod":"10.42.1.5","pod_port":40000,"remote":"198.51.100.7",
        "remote_port":443,"address":"192.0.2.10","port":1030,"state":"established","plain":false,"halves":"both",
        "expires_seconds":432000})"));
    CHECK(items[2]["halves"] == "forward");
    CHECK(items[3]["halves"] == "reply");
    CHECK(items[4]["address"].is_null());
}

TEST_CASE("nat list: filters; what cannot be one is named with its value")
{
    Ctl ctl;
    set_up(ctl);
    put(ctl, flow("10.42.1.5", 40000, "198.51.100.7", 443, 1030), 1100);
    put(ctl, flow("10.42.1.6", 40000, "198.51.100.7", 80, 1031), 1100);
    put(ctl, flow("10.42.1.6", 53, "198.51.100.8", 53, 1032, kUdp), 1100);
    put(ctl, flow("fd00:42:0:1::5", 40000, "2001:db8:9::1", 443, 1033), 1100);
    put(ctl, flow("10.42.1.7", 40000, "198.51.100.7", 443, 1034), 900);
    const auto count = [&](std::vector<std::string> args) {
        args.insert(args.begin(), {"nat", "list", "-o", "json"});
        CHECK(ctl.run(args) == 0);
        return ctl.json()["items"].size();
    };
    CHECK(count({}) == 4);
    CHECK(count({"--all"}) == 5);
    CHECK(count({"--pod", "10.42.1.6"}) == 2);
    CHECK(count({"--pod", "10.42.1.6:53"}) == 1);
    CHECK(count({"--pod", "10.42.1.0/24"}) == 3);
    CHECK(count({"--remote", "198.51.100.7:443"}) == 1);
    CHECK(count({"--remote", "[2001:db8:9::1]:443"}) == 1);
    CHECK(count({"--remote", "[2001:db8:9::1]"}) == 1);
    CHECK(count({"--remote", "2001:db8:9::/48"}) == 1);
    CHECK(count({"--proto", "udp"}) == 1);
    CHECK(count({"--proto", "6"}) == 3);
    CHECK(count({"--state", "established", "--pod", "10.42.1.5"}) == 1);
    CHECK(count({"--state", "plain"}) == 0);

    const auto complaint = [&](std::vector<std::string> args) {
        args.insert(args.begin(), "nat");
        CHECK(ctl.run(args) == 2);
        CHECK(ctl.out.empty());
        return ctl.err;
    };
    CHECK(complaint({"list", "--pod", "web-0"}).find("--pod \"web-0\"") != std::string::npos);
    CHECK(complaint({"list", "--pod", "]:80"}).find("--pod \"]:80\"") != std::string::npos);
    CHECK(complaint({"list", "--pod", "["}).find("--pod \"[\"") != std::string::npos);
    CHECK(complaint({"list", "--pod", "[fd00::1"}).find("--pod \"[fd00::1\"") != std::string::npos);
    CHECK(complaint({"list", "--remote", "192.0.2.1:70000"}).find("port \"70000\"") != std::string::npos);
    CHECK(complaint({"list", "--proto", "tpc"}).find("--proto \"tpc\"") != std::string::npos);
    CHECK(complaint({"list", "--state", "open"}).find("--state \"open\"") != std::string::npos);
    CHECK(complaint({"stats", "--pod", "10.42.1.5"}).find("--pod means nothing to nat stats") != std::string::npos);
    CHECK(complaint({"list", "10.42.1.5"}).find("\"10.42.1.5\" means nothing") != std::string::npos);
    CHECK(complaint({"stats", "--top", "many"}).find("--top \"many\"") != std::string::npos);
    complaint({});
    complaint({"drop"});
    CHECK(Ctl{}.run({"nat", "list"}) == 4);
}

TEST_CASE("nat stats: fill, refusals by reason, ports, remote ends with the most flows")
{
    Ctl ctl;
    set_up(ctl);
    for (std::uint16_t i = 0; i < 17; ++i)
        put(ctl,
            flow("10.42.1.5", static_cast<std::uint16_t>(40000 + i), "198.51.100.7", 443,
                 static_cast<std::uint16_t>(1024 + i)),
            1100);
    put(ctl, flow("10.42.1.6", 53, "198.51.100.8", 53, 1032, kUdp), 1100);
    put(ctl, flow("10.42.1.6", 54, "198.51.100.8", 53, 1033, kUdp), 1100, true, false);
    put(ctl, flow("10.42.1.7", 40000, "198.51.100.7", 443, 1050), 900);
    tw_reason_count refused{};
    refused.to_wire = 3;
    refused.from_host = 1;
    ctl.maps.put("tw_reasons", std::uint32_t{TW_R_NAT_PORTS}, refused);
    CHECK(ctl.run({"nat", "stats", "-o", "json"}) == 0);
    const Json stats = ctl.json();
    CHECK(stats["rules"] == "iptables");
    CHECK(stats["flows"] ==
          Json::parse(R"({"live":19,"plain":0,"lone_halves":1,"expired":1,"capacity":1000,"fill":0.019})"));
    CHECK(stats["protocols"] == Json::parse(R"({"tcp":17,"udp":2})"));
    CHECK(stats["refused"] == Json::parse(R"({"nat_ports":4,"nat_table":0,"nat_address":0,"nat_fragment":0})"));
    CHECK(stats["ports"] == Json::parse(R"({"ranges":[{"first":1024,"last":1091}],"count":68,"keep":false})"));
    REQUIRE(stats["destinations"].size() == 2);
    CHECK(stats["destinations"][0] ==
          Json::parse(R"({"remote":"198.51.100.7","remote_port":443,"protocol":"tcp","address":"192.0.2.10",
              "flows":17,"ports_in_use":0.25})"));
    CHECK(ctl.run({"nat", "stats", "--top", "1"}) == 0);
    CHECK(ctl.out.find("19 of 1000 (1.9 %), and 1 that are over") != std::string::npos);
    CHECK(ctl.out.find("1024-1091 (68 for each remote end") != std::string::npos);
    CHECK(ctl.out.find("198.51.100.7:443  tcp    192.0.2.10     17        25.0 %\n") != std::string::npos);
    CHECK(ctl.out.find("198.51.100.8") == std::string::npos);
    ctl.maps.cfg->nat = TW_NAT_OFF;
    CHECK(ctl.run({"nat", "stats"}) == 0);
    CHECK(ctl.out.find("off: nothing is masqueraded") != std::string::npos);
}

TEST_CASE("nat trace: each row of both tables, as docs/design/masquerade.md has them")
{
    struct Case {
        const char *src, *dst;
        std::uint32_t mark;
        unsigned row;
        bool masquerades;
    };
    const auto check = [](tw_nat_rules rules, std::initializer_list<Case> cases) {
        for (const Case& one : cases) {
            CAPTURE(one.src);
            CAPTURE(one.dst);
            const NatRule rule = nat_rule(config(rules), ip(one.src), ip(one.dst), one.mark);
            CHECK(rule.row == one.row);
            CHECK(rule.masquerades == one.masquerades);
        }
    };
    check(TW_NAT_IPTABLES, {{"10.42.1.5", "198.51.100.7", 0x4000, 1, false},
                            {"10.42.1.5", "198.51.100.7", 0x4001, 1, false},
                            {"10.42.1.5", "10.42.2.5", 0, 2, false},
                            {"10.42.1.5", "10.42.1.6", 0, 2, false},
                            {"10.42.2.5", "10.42.1.5", 0, 3, false},
                            {"198.51.100.7", "10.42.1.5", 0, 4, false},
                            {"10.42.1.5", "198.51.100.7", 0, 5, true},
                            {"10.42.2.5", "10.42.3.5", 0, 5, true},
                            {"10.42.1.5", "224.0.0.1", 0, 0, false},
                            {"198.51.100.7", "10.42.2.5", 0, 6, true},
                            {"192.0.2.10", "198.51.100.7", 0, 0, false},
                            {"fd00:42:0:1::5", "2001:db8::1", 0, 5, true},
                            {"fd00:42:0:1::5", "ff02::1", 0, 0, false},
                            {"2001:db8::1", "fd00:42:0:2::5", 0, 6, true}});
    check(TW_NAT_NFT, {{"10.42.1.5", "198.51.100.7", 0x4000, 1, false},
                       {"10.42.1.5", "198.51.100.7", 0x4001, 5, true},
                       {"10.42.2.5", "10.42.3.5", 0, 4, false},
                       {"198.51.100.7", "10.42.2.5", 0, 4, false},
                       {"2001:db8::1", "fd00:42:0:2::5", 0, 4, false},
                       {"10.42.1.5", "198.51.100.7", 0, 5, true}});
}

TEST_CASE("nat trace: says in words what would become of a packet, and why")
{
    Ctl ctl;
    set_up(ctl);
    const auto verdict = [&](std::vector<std::string> args) {
        args.insert(args.begin(), {"nat", "trace", "-o", "json"});
        CHECK(ctl.run(args) == 0);
        return ctl.json()["verdict"].get<std::string>();
    };
    CHECK(verdict({"10.42.1.5", "198.51.100.7:443"}).starts_with("masqueraded as 192.0.2.10, if it begins"));
    CHECK(ctl.json()["row"] == 5);
    CHECK(ctl.json()["interface"] == "eth0");
    CHECK(verdict({"10.42.1.5", "203.0.113.7", "--proto", "icmp"}) == "masqueraded as 203.0.113.10");
    CHECK(verdict({"fd00:42:0:1::5", "2001:db8::1", "--proto", "58"}) == "masqueraded as 2001:db8::10");
    CHECK(verdict({"10.42.1.5", "198.51.100.7", "--mark", "0x4000"}) == "stays as it is");
    CHECK(ctl.json()["row"] == 1);
    ctl.maps.put("tw_nat_except", tw_cidr_v6{96 + 24, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 0}}, 1U);
    CHECK(verdict({"10.42.1.5", "198.51.100.7:443"}) == "stays as it is: 198.51.100.0/24 is excluded");
    // A flow is there: it goes on, although new ones are excluded by now.
    put(ctl, flow("10.42.1.5", 40000, "198.51.100.7", 443, 1030), 1100);
    CHECK(verdict({"10.42.1.5:40000", "198.51.100.7:443"}) == "masqueraded as 192.0.2.10:1030, as its flow is");
    CHECK(verdict({"10.42.1.5:40001", "198.51.100.7:443"}).find("excluded") != std::string::npos);
    CHECK(verdict({"10.42.1.5", "198.51.100.7"}).starts_with("as its flow, if it has one; else: stays as it is"));
    CHECK(ctl.json()["flow_count"] == 1);
    ctl.way_out->ifindex = 7;
    CHECK(verdict({"10.42.1.5", "8.8.8.8"}).find("into the overlay is never") != std::string::npos);
    CHECK(verdict({"10.42.1.5", "8.8.8.8", "--interface", "eth0"}).starts_with("masqueraded as 192.0.2.10"));
    ctl.way_out->ifindex = 9;
    CHECK(verdict({"10.42.1.5", "8.8.8.8"}).find("not in tw_nat_ifs") != std::string::npos);
    ctl.way_out = WayOut{1, true};
    CHECK(verdict({"10.42.1.5", "192.0.2.10"}).find("does not leave this node") != std::string::npos);
    ctl.way_out.reset();
    CHECK(verdict({"10.42.1.5", "8.8.8.8"}) == "not sent");
    ctl.maps.cfg->nat = TW_NAT_OFF;
    CHECK(verdict({"10.42.1.5", "8.8.8.8"}).find("masquerade is off") != std::string::npos);
}

TEST_CASE("nat trace: the table has a line for each step")
{
    Ctl ctl;
    set_up(ctl);
    put(ctl, flow("10.42.1.5", 40000, "198.51.100.7", 443, 1030), 1100);
    CHECK(ctl.run({"nat", "trace", "10.42.1.5:40000", "198.51.100.7:443"}) == 0);
    CHECK(ctl.out ==
          "packet     tcp 10.42.1.5:40000 -> 198.51.100.7:443\n"
          "leaves by  eth0 (2)\n"
          "flow       10.42.1.5:40000 -> 198.51.100.7:443 as 192.0.2.10:1030, established, 100 s left\n"
          "rule       row 5 of iptables: from the cluster network (10.42.0.0/16) to elsewhere, not multicast: "
          "to be masqueraded\n"
          "excluded   no\n"
          "address    192.0.2.10\n"
          "verdict    masqueraded as 192.0.2.10:1030, as its flow is\n");
}

TEST_CASE("nat trace: bad input is named with its value")
{
    Ctl ctl;
    set_up(ctl);
    const auto complaint = [&](std::vector<std::string> args) {
        args.insert(args.begin(), {"nat", "trace"});
        CHECK(ctl.run(args) == 2);
        CHECK(ctl.out.empty());
        return ctl.err;
    };
    CHECK(complaint({}).find("SRC is missing") != std::string::npos);
    CHECK(complaint({"10.42.1.5"}).find("DST is missing") != std::string::npos);
    CHECK(complaint({"10.42.1.300", "8.8.8.8"}).find("SRC \"10.42.1.300\"") != std::string::npos);
    CHECK(complaint({"10.42.1.5", "10.0.0.0/8"}).find("DST \"10.0.0.0/8\"") != std::string::npos);
    CHECK(complaint({"10.42.1.5", "fd00::1"}).find("not of one family") != std::string::npos);
    CHECK(complaint({"10.42.1.5", "8.8.8.8", "--mark", "0x"}).find("--mark \"0x\"") != std::string::npos);
    CHECK(complaint({"10.42.1.5", "8.8.8.8", "--interface", "eth7"}).find("\"eth7\"") != std::string::npos);
    CHECK(complaint({"10.42.1.5", "8.8.8.8", "--proto", "x"}).find("--proto \"x\"") != std::string::npos);
}
