// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/iface.hpp"

#include <doctest/doctest.h>

#include <cerrno>

using namespace twill;

namespace {

Ip ip(const char* text) { return *Ip::parse(text); }

nl::Link link(int index, const char* name, unsigned type = 1)
{
    nl::Link out;
    out.index = {index};
    out.name = name;
    out.type = type;
    out.mtu = 1500;
    out.flags = 1;
    return out;
}

nl::Address address(int ifindex, const char* text, std::uint8_t scope = 0)
{
    nl::Address out;
    out.ifindex = {ifindex};
    out.ip = ip(text);
    out.bits = out.ip.is_v4() ? 24 : 64;
    out.scope = scope;
    return out;
}

nl::Route default_route(Family family, int ifindex, std::uint32_t metric = 0)
{
    nl::Route out;
    out.dst = *Cidr::make(family == Family::v4 ? Ip::v4(0, 0, 0, 0) : Ip{}, 0);
    out.ifindex = {ifindex};
    out.metric = metric;
    return out;
}

/// lo, eth0 (default routes), eth1, wg0.
IfaceView node()
{
    IfaceView view;
    view.links = {link(1, "lo", 772), link(2, "eth0"), link(3, "eth1"), link(4, "wg0", 65534)};
    view.addresses = {address(1, "127.0.0.1", 254), address(2, "192.0.2.10"),   address(3, "198.51.100.10"),
                      address(4, "203.0.113.1"),    address(2, "fe80::2", 253), address(2, "2001:db8::10"),
                      address(3, "2001:db8:1::10")};
    view.routes = {default_route(Family::v4, 2), default_route(Family::v6, 2)};
    view.lookup = [](const Ip& to) -> Result<nl::RouteLookup> {
        if (to != ip("198.51.100.99")) return Error{ENETUNREACH, "Network is unreachable"};
        nl::RouteLookup route;
        route.ifindex = {3};
        route.source = ip("198.51.100.10");
        return route;
    };
    return view;
}

constexpr PerFamily<bool> kV4{true, false};
constexpr PerFamily<bool> kV6{false, true};
constexpr PerFamily<bool> kDual{true, true};

struct Case {
    const char* what;
    IfaceOptions options;
    PerFamily<bool> enabled;
    const char* wire;
    const char* v4;
    const char* v6;
};

std::string text(const std::optional<Ip>& address) { return address ? address->to_string() : ""; }

} // namespace

TEST_CASE("iface: each selector finds its interface and address")
{
    const std::vector<Case> table = {
        {"default route", {}, kV4, "eth0", "192.0.2.10", ""},
        {"IPv6 default route", {}, kV6, "eth0", "", "2001:db8::10"},
        {"both default routes", {}, kDual, "eth0", "192.0.2.10", "2001:db8::10"},
        {"name", {.names = {"eth1"}}, kDual, "eth1", "198.51.100.10", "2001:db8:1::10"},
        {"address", {.names = {"198.51.100.10"}}, kV4, "eth1", "198.51.100.10", ""},
        {"second name", {.names = {"eth9", "eth1"}}, kV4, "eth1", "198.51.100.10", ""},
        {"regex on an address", {.regexes = {R"(198\.51)"}}, kV4, "eth1", "198.51.100.10", ""},
        {"regex on a name", {.regexes = {"^eth1$"}}, kV4, "eth1", "198.51.100.10", ""},
        {"regex that matches lo first", {.regexes = {"1"}}, kV4, "eth0", "192.0.2.10", ""},
        {"names before regexes", {.names = {"eth1"}, .regexes = {"eth0"}}, kV4, "eth1", "198.51.100.10", ""},
        {"regex after a missing name", {.names = {"x"}, .regexes = {"eth1"}}, kV4, "eth1", "198.51.100.10", ""},
        {"can-reach", {.can_reach = "198.51.100.99"}, kDual, "eth1", "198.51.100.10", "2001:db8:1::10"},
        {"public IP as selector", {.public_ip = {ip("198.51.100.10"), {}}}, kV4, "eth1", "198.51.100.10", ""},
        {"public IPv6 as selector", {.public_ip = {{}, ip("2001:db8:1::10")}}, kV6, "eth1", "", "2001:db8:1::10"},
        {"public IPv6 as selector of both",
         {.public_ip = {{}, ip("2001:db8:1::10")}},
         kDual,
         "eth1",
         "198.51.100.10",
         "2001:db8:1::10"},
        {"empty name: the default route", {.names = {"", "eth1"}}, kV4, "eth0", "192.0.2.10", ""},
        {"empty regex: the default route", {.regexes = {""}}, kDual, "eth0", "192.0.2.10", "2001:db8::10"},
        {"regex that does not parse", {.regexes = {"[", "^eth1$"}}, kV4, "eth1", "198.51.100.10", ""},
        {"can-reach that is no address", {.names = {"eth1"}, .can_reach = "host"}, kV4, "eth1", "198.51.100.10", ""},
        {"regex on one family of two, then a name",
         {.regexes = {R"(198\.51|^eth0$)"}},
         kDual,
         "eth0",
         "192.0.2.10",
         "2001:db8::10"},
        {"regex on both families",
         {.regexes = {"198.51.100.10|2001:db8:1::10|eth0"}},
         kDual,
         "eth1",
         "198.51.100.10",
         "2001:db8:1::10"},
        {"regex on one family only", {.regexes = {R"(198\.51)"}}, kDual, "eth1", "198.51.100.10", "2001:db8:1::10"},
        {"regex without regard to case", {.regexes = {"(?i)^ETH1$"}}, kV4, "eth1", "198.51.100.10", ""},
        {"regex with Go's anchors", {.regexes = {R"(\Aeth1\z)"}}, kV4, "eth1", "198.51.100.10", ""},
        {"address of each family",
         {.names = {"192.0.2.10"}, .public_ip = {{}, ip("2001:db8::10")}},
         kDual,
         "eth0",
         "192.0.2.10",
         "2001:db8::10"},
    };
    for (const Case& c : table) {
        CAPTURE(c.what);
        const auto choice = choose_wire(c.options, c.enabled, node());
        REQUIRE(choice);
        CHECK(choice->wire.name == c.wire);
        CHECK(text(choice->address.v4) == c.v4);
        CHECK(text(choice->address.v6) == c.v6);
    }
}

TEST_CASE("iface: a public IP with -iface is published and need not be on the interface")
{
    const auto choice = choose_wire({.names = {"eth0"}, .public_ip = {ip("203.0.113.77"), {}}}, kDual, node());
    REQUIRE(choice);
    CHECK(text(choice->address.v4) == "192.0.2.10");
    CHECK(text(choice->public_ip.v4) == "203.0.113.77");
    CHECK(text(choice->public_ip.v6) == "2001:db8::10");
}

TEST_CASE("iface: what was passed over is told")
{
    const auto choice = choose_wire({.names = {"eth9"}, .regexes = {"[", "eth1"}}, kV4, node());
    REQUIRE(choice);
    CHECK(choice->wire.name == "eth1");
    CHECK(choice->passed_over ==
          std::vector<std::string>{"-iface eth9: no such interface", "-iface-regex [: not a regular expression"});
    CHECK(choose_wire({.names = {"eth1"}}, kV4, node())->passed_over.empty());
}

TEST_CASE("iface: a refusal says what was tried")
{
    const auto refusal = [](const IfaceOptions& options, PerFamily<bool> enabled, const IfaceView& view = node()) {
        const auto choice = choose_wire(options, enabled, view);
        REQUIRE_FALSE(choice);
        return choice.error().what;
    };
    CHECK(refusal({.names = {"eth9"}}, kV4) == "-iface eth9: no such interface");
    CHECK(refusal({.names = {"10.0.0.1"}}, kV4) == "-iface 10.0.0.1: no interface has this address");
    CHECK(refusal({.public_ip = {ip("10.0.0.1"), {}}}, kV4) == "-public-ip 10.0.0.1: no interface has this address");
    CHECK(refusal({.regexes = {"^zz"}}, kV4) == "-iface-regex ^zz: matches no address and no interface name");
    CHECK(refusal({.regexes = {"127"}}, kV4) == "-iface-regex 127: matches no address and no interface name");
    CHECK(refusal({.regexes = {"["}}, kV4) == "-iface-regex [: not a regular expression");
    CHECK(refusal({.can_reach = "10.9.9.9"}, kV4) == "-iface-can-reach 10.9.9.9: Network is unreachable");
    CHECK(refusal({.names = {"eth9"}, .regexes = {"^zz"}}, kV4) ==
          "no usable interface: -iface eth9: no such interface; -iface-regex ^zz: matches no address and no interface "
          "name");
    CHECK(refusal({.names = {"192.0.2.10"}, .public_ip = {{}, ip("2001:db8:1::10")}}, kDual) ==
          "-iface 192.0.2.10: 2001:db8:1::10 is not on the same interface, eth0");
    CHECK(refusal({}, {false, false}) == "interface: both address families are off");

    IfaceView view = node();
    view.routes = {default_route(Family::v4, 2)};
    CHECK(refusal({}, kDual, view) == "no IPv6 default route leads to an interface: choose one with -iface");
    view.routes.push_back(default_route(Family::v6, 3));
    CHECK(refusal({}, kDual, view) ==
          "the default routes differ: IPv4 by eth0, IPv6 by eth1: choose an interface with -iface");
    view = node();
    std::erase_if(view.addresses, [](const nl::Address& a) { return a.ifindex.value == 3 && !a.ip.is_v4(); });
    CHECK(refusal({.names = {"eth1"}}, kDual, view) == "interface eth1 has no IPv6 address");
}

TEST_CASE("iface: a wire without Ethernet header is refused by name")
{
    const auto choice = choose_wire({.names = {"wg0"}}, kV4, node());
    REQUIRE_FALSE(choice);
    CHECK(choice.error().code == EOPNOTSUPP);
    CHECK(choice.error().what == "interface wg0 has no Ethernet header (type 65534): twill needs an Ethernet-like "
                                 "interface, choose one with -iface");
    IfaceView view = node();
    view.routes = {default_route(Family::v4, 4)};
    CHECK(choose_wire({}, kV4, view).error().code == EOPNOTSUPP);
}

TEST_CASE("iface: of two default routes the one with the lower metric counts, and other tables do not")
{
    IfaceView view = node();
    view.routes = {default_route(Family::v4, 2, 200), default_route(Family::v4, 3, 100)};
    CHECK(choose_wire({}, kV4, view)->wire.name == "eth1");
    view.routes[1].table = 100;
    CHECK(choose_wire({}, kV4, view)->wire.name == "eth0");
}

TEST_CASE("iface: global before link-local, permanent before dynamic, temporary last, deprecated never")
{
    auto link_local = address(2, "fe80::1", 253);
    auto dynamic = address(2, "2001:db8::d");
    dynamic.is_permanent = false;
    auto temporary = address(2, "2001:db8::e");
    temporary.is_permanent = false;
    temporary.is_temporary = true;
    auto deprecated = address(2, "2001:db8::f");
    deprecated.is_deprecated = true;
    const auto permanent = address(2, "2001:db8::1");
    const auto second = address(2, "2001:db8::2");
    const auto best = [](const std::vector<nl::Address>& all) { return text(preferred_address(all, {2}, Family::v6)); };
    CHECK(best({deprecated, link_local, temporary, dynamic, permanent, second}) == "2001:db8::1");
    CHECK(best({deprecated, link_local, temporary, dynamic}) == "2001:db8::d");
    CHECK(best({deprecated, link_local, temporary}) == "2001:db8::e");
    CHECK(best({deprecated, link_local}) == "fe80::1");
    CHECK(best({deprecated}).empty());
    CHECK(text(preferred_address({address(2, "169.254.1.1"), address(2, "192.0.2.1")}, {2}, Family::v4)) ==
          "192.0.2.1");
}
