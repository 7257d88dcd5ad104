// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>

#include "agent/dataplane/overlay_device.hpp"
#include "agent/nl/addr.hpp"
#include "agent/nl/link.hpp"
#include "agent/nl/monitor.hpp"
#include "agent/nl/neigh.hpp"
#include "agent/nl/route.hpp"
#include "tests/netns/nl_sandbox.hpp"
#include "twill/fd.hpp"

namespace twill {
namespace {

using test::difference_from;
using test::everything;
using test::Namespace;
using test::output;
using test::shell;

const Mac kMac = *Mac::parse("02:11:22:33:44:55");

OverlayFamily family(const char* network, const char* pods, unsigned mtu)
{
    return {.network = *Cidr::parse(network), .pods = *Cidr::parse(pods), .mtu = mtu};
}

OverlaySpec dual_stack(OverlayKind kind)
{
    OverlaySpec spec;
    spec.name = "twill0";
    spec.kind = kind;
    spec.mac = kMac;
    spec.family.v4 = family("10.42.0.0/16", "10.42.1.0/24", 1450);
    spec.family.v6 = family("fd00:42::/48", "fd00:42:0:1::/64", 1430);
    return spec;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct Counter final : nl::MonitorListener {
    int events = 0;
    void on_link(const nl::Link&, bool) override { ++events; }
    void on_address(const nl::Address&, bool) override { ++events; }
    void on_route(const nl::Route&, bool) override { ++events; }
    void on_neighbour(const nl::Neighbour&, bool) override { ++events; }
    void on_fdb(const nl::FdbEntry&, bool) override { ++events; }
    void on_vtep(const nl::VtepEntry&, bool) override { ++events; }
    void on_qdisc(IfIndex) override { ++events; }
    void on_resync() override { ++events; }
};

constexpr OverlayKind kKinds[] = {OverlayKind::vxlan, OverlayKind::veth};

} // namespace

TEST_CASE("overlay: the device, its addresses, routes and neighbours are there, and nothing else")
{
    for (const OverlayKind kind : kKinds) {
        CAPTURE(std::string{to_string(kind)});
        Namespace ns;
        const auto device = ensure_overlay(ns.socket(), dual_stack(kind));
        REQUIRE_MESSAGE(device, device.error().what);
        const auto link = find_overlay(ns.socket(), "twill0");
        REQUIRE(link);
        REQUIRE(*link);
        CHECK((*link)->index == *device);
        CHECK((*link)->mac == kMac);
        CHECK((*link)->mtu == 1450);
        CHECK((*link)->kind == to_string(kind));
        CHECK((*link)->is_up());
        CHECK((*link)->alias == "twill overlay");
        CHECK((*link)->group == 0);

        CHECK(output("ip -4 -o addr show dev twill0 | awk '{print $4}'") == "10.42.1.0/32\n");
        CHECK(output("ip -6 -o addr show dev twill0 | awk '{print $4}'") == "fd00:42:0:1::/128\n");
        CHECK(output("ip -6 -o addr show scope link").empty());
        const std::string routes4 = output("ip -4 route show");
        CHECK(contains(routes4, "10.42.0.0/16 via 169.254.116.1 dev twill0 proto 116 src 10.42.1.0 onlink mtu 1450"));
        CHECK(contains(routes4, "unreachable 10.42.1.0/24 proto 116 metric 4294967295"));
        const std::string routes6 = output("ip -6 route show");
        CHECK(contains(routes6, "fd00:42::/48 via fe80::74:1 dev twill0 proto 116 src fd00:42:0:1:: metric 1024 onlink "
                                "mtu 1430"));
        CHECK(contains(routes6, "unreachable fd00:42:0:1::/64 dev lo proto 116 metric 4294967295"));
        const std::string neighbours = output("ip neigh show dev twill0 nud permanent");
        CHECK(contains(neighbours, "169.254.116.1 lladdr 02:74:77:6c:00:01 PERMANENT"));
        CHECK(contains(neighbours, "fe80::74:1 lladdr 02:74:77:6c:00:01 PERMANENT"));
        CHECK(output("cat /proc/sys/net/ipv6/conf/twill0/accept_ra") == "0\n");
        if (kind == OverlayKind::vxlan) CHECK(output("cat /proc/sys/net/ipv6/conf/twill0/mtu") == "1430\n");
    }
}

TEST_CASE("overlay: the vxlan device decapsulates both families and accepts zero IPv6 checksums")
{
    Namespace ns;
    REQUIRE(ensure_overlay(ns.socket(), dual_stack(OverlayKind::vxlan)));
    const std::string detail = output("ip -d link show twill0");
    CHECK(contains(detail, "external"));
    CHECK(contains(detail, "nolearning"));
    CHECK(contains(detail, "dstport 8472"));
    CHECK(contains(detail, "udp6zerocsumrx"));
    CHECK(contains(detail, "noudp6zerocsumtx"));
    CHECK(contains(output("cat /proc/net/udp"), ":2118")); // 8472
    CHECK(contains(output("cat /proc/net/udp6"), ":2118"));
}

TEST_CASE("overlay: a second ensure tells the kernel nothing")
{
    for (const OverlayKind kind : kKinds) {
        CAPTURE(std::string{to_string(kind)});
        Namespace ns;
        const auto first = ensure_overlay(ns.socket(), dual_stack(kind));
        REQUIRE(first);
        const std::string before = everything();
        Loop loop;
        Counter counter;
        auto monitor = nl::Monitor::start(loop, counter);
        REQUIRE(monitor);
        CHECK(*ensure_overlay(ns.socket(), dual_stack(kind)) == *first);
        test::run_idle(loop);
        CHECK(counter.events == 0);
        CHECK(difference_from(before) == "");
    }
}

TEST_CASE("overlay: remove leaves the namespace as it was, and succeeds when nothing is there")
{
    for (const OverlayKind kind : kKinds) {
        CAPTURE(std::string{to_string(kind)});
        Namespace ns;
        shell("ip link add wire type veth peer wirep; ip link set wire addrgenmode none; "
              "ip link set wirep addrgenmode none; ip addr add 192.0.2.1/24 dev wire; ip link set wirep up;"
              "ip link set wire up; ip route add 198.51.100.0/24 via 192.0.2.9; ip -6 route add unreachable "
              "2001:db8::/32");
        const std::string before = everything();
        REQUIRE(ensure_overlay(ns.socket(), dual_stack(kind)));
        CHECK(ensure_overlay(ns.socket(), dual_stack(kind)));
        CHECK(remove_overlay(ns.socket(), "twill0"));
        CHECK(difference_from(before) == "");
        CHECK(remove_overlay(ns.socket(), "twill0"));
        CHECK(difference_from(before) == "");
    }
}

TEST_CASE("overlay: what somebody broke is corrected on the same device")
{
    for (const OverlayKind kind : kKinds) {
        CAPTURE(std::string{to_string(kind)});
        Namespace ns;
        const auto first = ensure_overlay(ns.socket(), dual_stack(kind));
        REQUIRE(first);
        const std::string before = everything();
        for (const char* damage :
             {"ip link set twill0 down", "ip link set twill0 mtu 1300", "ip link set twill0 address 02:00:00:00:00:99",
              "ip addr del 10.42.1.0/32 dev twill0", "ip -6 addr del fd00:42:0:1::/128 dev twill0",
              "ip route del 10.42.0.0/16", "ip -6 route del fd00:42::/48", "ip neigh del 169.254.116.1 dev twill0",
              "ip neigh replace fe80::74:1 lladdr 02:00:00:00:00:98 dev twill0",
              "ip route change 10.42.0.0/16 via 169.254.116.1 dev twill0 onlink proto 116 mtu 1300",
              "ip route del unreachable 10.42.1.0/24 metric 4294967295", "ip addr add 10.42.9.0/32 dev twill0",
              "ip link set twill0 addrgenmode eui64"}) {
            CAPTURE(std::string{damage});
            shell(damage);
            const auto again = ensure_overlay(ns.socket(), dual_stack(kind));
            REQUIRE_MESSAGE(again, again.error().what);
            CHECK(*again == *first);
            CHECK(difference_from(before) == "");
        }
    }
}

TEST_CASE("overlay: another lease, and a family less, take the old addresses and routes away")
{
    for (const OverlayKind kind : kKinds) {
        CAPTURE(std::string{to_string(kind)});
        Namespace ns;
        REQUIRE(ensure_overlay(ns.socket(), dual_stack(kind)));
        OverlaySpec moved = dual_stack(kind);
        moved.family.v4 = family("10.42.0.0/16", "10.42.7.0/24", 1400);
        moved.family.v6.reset();
        const auto device = ensure_overlay(ns.socket(), moved);
        REQUIRE_MESSAGE(device, device.error().what);
        CHECK(output("ip -o addr show dev twill0 | awk '{print $4}'") == "10.42.7.0/32\n");
        CHECK(contains(output("ip -4 route"), "dev twill0 proto 116 src 10.42.7.0 onlink mtu 1400"));
        CHECK(output("ip -4 route show proto 116 | wc -l") == "2\n");
        CHECK(output("ip -6 route show proto 116").empty());
        CHECK(output("ip -6 neigh show nud permanent").empty());
    }
}

TEST_CASE("overlay: another kind or port makes a new device")
{
    Namespace ns;
    const auto first = ensure_overlay(ns.socket(), dual_stack(OverlayKind::vxlan));
    REQUIRE(first);
    OverlaySpec spec = dual_stack(OverlayKind::vxlan);
    spec.port = 4789;
    const auto second = ensure_overlay(ns.socket(), spec);
    REQUIRE_MESSAGE(second, second.error().what);
    CHECK(*second != *first);
    CHECK((*find_overlay(ns.socket(), "twill0"))->vxlan->port == 4789);
    spec.gbp = true;
    REQUIRE(ensure_overlay(ns.socket(), spec));
    CHECK((*find_overlay(ns.socket(), "twill0"))->vxlan->gbp);
    REQUIRE(ensure_overlay(ns.socket(), dual_stack(OverlayKind::veth)));
    CHECK((*find_overlay(ns.socket(), "twill0"))->kind == "veth");
    REQUIRE(ensure_overlay(ns.socket(), dual_stack(OverlayKind::vxlan)));
    CHECK((*find_overlay(ns.socket(), "twill0"))->kind == "vxlan");
    CHECK(output("ip -o link | grep -c twill0") == "1\n");
}

TEST_CASE("overlay: a device that is somebody else's is refused by name and not touched")
{
    Namespace ns;
    shell("ip link add twill0 type bridge; ip link set twill0 alias 'not yours'");
    const std::string before = everything();
    for (const OverlayKind kind : kKinds) {
        const auto refused = ensure_overlay(ns.socket(), dual_stack(kind));
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == EEXIST);
        CHECK(contains(refused.error().what, "twill0"));
        CHECK(contains(refused.error().what, "not yours"));
    }
    CHECK_FALSE(*find_overlay(ns.socket(), "twill0"));
    CHECK(remove_overlay(ns.socket(), "twill0"));
    CHECK(difference_from(before) == "");
}

TEST_CASE("overlay: a device whose creation was interrupted is recognised and made anew")
{
    Namespace ns;
    shell("ip link add twill0 group 29815 type vxlan external dstport 8472"); // 0x7477
    CHECK(*find_overlay(ns.socket(), "twill0"));
    REQUIRE(ensure_overlay(ns.socket(), dual_stack(OverlayKind::vxlan)));
    CHECK((*find_overlay(ns.socket(), "twill0"))->alias == "twill overlay");
    CHECK((*find_overlay(ns.socket(), "twill0"))->group == 0);
}

TEST_CASE("overlay: a route to the cluster network that is somebody else's is refused by name")
{
    Namespace ns;
    shell("ip link add wire type veth peer wirep; ip link set wire up; ip route add 10.42.0.0/16 dev wire");
    const auto refused = ensure_overlay(ns.socket(), dual_stack(OverlayKind::vxlan));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == EEXIST);
    CHECK(contains(refused.error().what, "10.42.0.0/16"));
    CHECK(contains(output("ip route"), "10.42.0.0/16 dev wire"));
}

TEST_CASE("overlay: an address that was a bridge's broadcast address before is the device's, and goes with it")
{
    for (const OverlayKind kind : kKinds) {
        CAPTURE(std::string{to_string(kind)});
        Namespace ns;
        shell("ip link add cni0 type bridge && ip link set dev cni0 up && ip addr add 10.42.1.1/24 dev cni0");
        // What kernels before 5.14 do by themselves.
        shell("ip route replace broadcast 10.42.1.0 dev cni0 table local proto kernel scope link src 10.42.1.1");
        const auto device = ensure_overlay(ns.socket(), dual_stack(kind));
        REQUIRE_MESSAGE(device, device.error().what);
        CHECK(contains(output("ip route show"), "10.42.0.0/16 via 169.254.116.1 dev twill0 proto 116 src 10.42.1.0"));
        CHECK(contains(output("ip route get 10.42.1.0"), "local 10.42.1.0"));

        OverlaySpec moved = dual_stack(kind);
        moved.family.v4 = family("10.42.0.0/16", "10.42.2.0/24", 1450);
        REQUIRE(ensure_overlay(ns.socket(), moved));
        CHECK_FALSE(contains(output("ip route show table local"), "10.42.1.0 dev twill0"));
        CHECK(contains(output("ip route show table local"), "broadcast 10.42.1.0 dev cni0"));
    }
}

TEST_CASE("overlay: a taken UDP port is named, with who has it, and no device is left behind")
{
    Namespace ns;
    SUBCASE("by a vxlan device with a VNI, as flannel makes it")
    {
        shell(
            "ip link add flannel.1 type vxlan id 1 dstport 8472 local 127.0.0.1 nolearning; ip link set flannel.1 up");
    }
    SUBCASE("by a collect-metadata device")
    {
        shell("ip link add flannel.1 type vxlan external dstport 8472; ip link set flannel.1 up");
    }
    SUBCASE("by a device of our own form, still down")
    {
        shell("ip link add flannel.1 type vxlan external dstport 8472 udp6zerocsumrx nolearning");
    }
    const std::string before = everything();
    const auto refused = ensure_overlay(ns.socket(), dual_stack(OverlayKind::vxlan));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == EADDRINUSE);
    CHECK(contains(refused.error().what, "8472"));
    CHECK(contains(refused.error().what, "flannel.1"));
    CHECK(contains(refused.error().what, "twill0"));
    CHECK(difference_from(before) == "");
    CHECK(ensure_overlay(ns.socket(), dual_stack(OverlayKind::veth)));
}

TEST_CASE("overlay: a UDP port that a program has is named")
{
    Namespace ns;
    const Fd udp{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_port = htons(8472);
    REQUIRE(::bind(udp.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0);
    const auto refused = ensure_overlay(ns.socket(), dual_stack(OverlayKind::vxlan));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == EADDRINUSE);
    CHECK(contains(refused.error().what, "another program"));
    CHECK_FALSE(*find_overlay(ns.socket(), "twill0"));
}

TEST_CASE("overlay: the MAC of the device that is there can be read and kept")
{
    Namespace ns;
    CHECK_FALSE(*find_overlay(ns.socket(), "twill0"));
    REQUIRE(ensure_overlay(ns.socket(), dual_stack(OverlayKind::vxlan)));
    CHECK((*find_overlay(ns.socket(), "twill0"))->mac == kMac);
}

TEST_CASE("overlay: the host's own packet leaves by the device, from its address, to the gateway's MAC")
{
    for (const OverlayKind kind : kKinds) {
        CAPTURE(std::string{to_string(kind)});
        Namespace ns;
        const auto device = ensure_overlay(ns.socket(), dual_stack(kind));
        REQUIRE(device);
        for (const auto& [to, from] : {std::pair{"10.42.2.2", "10.42.1.0"}, {"fd00:42:0:2::2", "fd00:42:0:1::"}}) {
            const auto found = nl::lookup(ns.socket(), *Ip::parse(to));
            REQUIRE(found);
            REQUIRE(*found);
            CHECK((*found)->ifindex == *device);
            CHECK((*found)->source == *Ip::parse(from));
        }
        CHECK_FALSE(*nl::lookup(ns.socket(), *Ip::parse("10.42.1.77")));
        CHECK_FALSE(*nl::lookup(ns.socket(), *Ip::parse("fd00:42:0:1::77")));
        shell("ping -c1 -W1 10.42.2.2 >/dev/null; ping -c1 -W1 fd00:42:0:2::2 >/dev/null; true");
        CHECK(output("ip neigh show dev twill0 | wc -l") == "2\n");
    }
}

TEST_CASE("overlay: a specification that cannot work is refused")
{
    Namespace ns;
    OverlaySpec spec = dual_stack(OverlayKind::veth);
    spec.name = "fifteen-letters";
    CHECK(ensure_overlay(ns.socket(), spec).error().code == EINVAL);
    spec.name = "a/b";
    CHECK(ensure_overlay(ns.socket(), spec).error().code == EINVAL);
    spec = dual_stack(OverlayKind::vxlan);
    spec.mac = {};
    CHECK(ensure_overlay(ns.socket(), spec).error().code == EINVAL);
    spec = dual_stack(OverlayKind::vxlan);
    spec.family = {};
    CHECK(ensure_overlay(ns.socket(), spec).error().code == EINVAL);
    CHECK(output("ip -o link | grep -c -e twill -e fifteen") == "0\n");
}

} // namespace twill
