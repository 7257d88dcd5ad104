// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/netfilter.hpp"

#include <doctest/doctest.h>

#include <cctype>
#include <chrono>
#include <string>
#include <vector>

#include "tests/netns/nl_sandbox.hpp"

using namespace twill;
using test::Namespace;

namespace {

PerFamily<std::optional<Cidr>> networks() { return {*Cidr::parse("10.42.0.0/16"), *Cidr::parse("fd00:42::/48")}; }

/// A rule set, made by shell commands, and what find_forward_rules() says of it; empty: nothing.
struct Case {
    const char* name;
    const char* commands;
    const char* expected;
};

std::string verdict()
{
    const auto found = find_forward_rules(networks());
    REQUIRE_MESSAGE(found, (found ? "" : found.error().what));
    return found->value_or("");
}

/// Makes a rule set. False: it queues packets, and this kernel has no nft_queue.
bool make(const std::string& commands)
{
    const bool queues = commands.find("queue") != std::string::npos;
    if (queues && test::output("nft 'table ip q { chain c { queue; }; }' 2>&1; nft delete table ip q 2>&1") != "") {
        MESSAGE("not tested, no nft_queue: " << commands);
        return false;
    }
    test::shell(commands);
    return true;
}

void check(const std::vector<Case>& cases)
{
    for (const auto& one : cases) {
        Namespace space;
        INFO(std::string{one.name});
        if (make(std::string{"set -e; "} + one.commands)) CHECK(verdict() == one.expected);
    }
}

std::string nft(const std::string& chain, const std::string& rules)
{
    return "nft -f - <<'END'\ntable inet t {\n" + chain + rules + "}\n}\nEND\n";
}

bool has(const char* program) { return test::output(std::string{"command -v "} + program) != ""; }

const std::string kForward = "chain forward { type filter hook forward priority 0; policy accept;\n";

struct NftCase {
    const char* rules;
    const char* expected; ///< after "nft table inet t chain forward: "
};

} // namespace

TEST_CASE("netfilter: an empty namespace has nothing in the way")
{
    Namespace space;
    CHECK(verdict().empty());
}

TEST_CASE("netfilter: rules of an nft forward chain")
{
    const std::vector<NftCase> cases = {
        {"counter\n", ""},
        {"accept\n", ""},
        {"ct state established,related accept\n", ""},
        {"ct state invalid drop\n", ""},
        {"ct state vmap { established : accept, related : accept, invalid : drop }\n", ""},
        {"ct state vmap { established : accept, new : drop }\n", "1 rule (drop)"},
        {"log prefix \"x\" counter accept\n", ""},
        {"meta mark set 1\n", ""},
        {"tcp flags syn tcp option maxseg size set rt mtu\n", ""},
        {"drop\n", "1 rule (drop)"},
        {"drop\nreject\ntcp dport 80 drop\n", "3 rules (drop, ...)"},
        {"tcp dport 80 reject\n", "1 rule (reject)"},
        {"queue num 1\n", "1 rule (queue)"},
        {"ct state new drop\n", "1 rule (drop)"},
        {"ip dscp set cs1\n", "1 rule (payload set)"},
        // Addresses.
        {"ip saddr 203.0.113.0/24 drop\n", ""},
        {"ip daddr 203.0.113.7 drop\n", ""},
        {"ip saddr 10.42.0.0/16 drop\n", "1 rule (drop)"},
        {"ip saddr 10.42.3.7 drop\n", "1 rule (drop)"},
        {"ip saddr 10.0.0.0/8 drop\n", "1 rule (drop)"},
        {"ip saddr 10.0.0.0/9 ip daddr 10.128.0.0/9 drop\n", ""},
        {"ip saddr 10.41.0.0-10.42.0.5 drop\n", "1 rule (drop)"},
        {"ip saddr 10.40.0.0-10.41.255.255 drop\n", ""},
        {"ip saddr != 10.0.0.0/8 drop\n", ""},
        {"ip saddr != 10.42.1.0/24 drop\n", "1 rule (drop)"},
        {"ip saddr { 203.0.113.0/24, 198.51.100.7 } drop\n", ""},
        {"ip saddr { 203.0.113.0/24, 10.42.9.0/24 } drop\n", "1 rule (drop)"},
        {"ip daddr { 203.0.113.1, 203.0.113.2 } drop\n", ""},
        {"ip daddr vmap { 203.0.113.1 : accept, 10.42.0.1 : drop }\n", "1 rule (drop)"},
        {"ip6 saddr 2001:db8::/32 drop\n", ""},
        {"ip6 daddr fd00:42::/64 drop\n", "1 rule (drop)"},
        {"ip6 daddr != fd00::/8 drop\n", ""},
        {"icmpv6 type packet-too-big drop\n", "1 rule (drop)"},
        // Interfaces.
        {"iifname \"eth9\" drop\n", ""},
        {"oifname \"eth9\" drop\n", ""},
        {"iifname \"tw-a\" drop\n", "1 rule (drop)"},
        {"iifname \"cali*\" drop\n", "1 rule (drop)"},
        {"iifname != \"eth9\" drop\n", "1 rule (drop)"},
        {"iif \"lo\" drop\n", ""},
        // A register that is loaded anew is not the address any more.
        {"ip saddr 203.0.113.0/24 accept\nfib daddr type local drop\n", "1 rule (drop)"},
        // Everything is accepted before.
        {"ip saddr 10.42.0.0/16 accept\nip6 saddr fd00:42::/48 accept\ndrop\n", ""},
        {"ip saddr 10.42.0.0/16 accept\ndrop\n", "1 rule (drop)"},
        {"ip saddr 10.42.0.0/17 accept\nip6 saddr fd00:42::/48 accept\ndrop\n", "1 rule (drop)"},
        {"return\ndrop\n", ""},
    };
    for (const auto& one : cases) {
        Namespace space;
        INFO(std::string{one.rules});
        test::shell("ip link add tw-a type bridge");
        if (!make(nft(kForward, one.rules))) continue;
        const std::string expected =
            one.expected[0] == '\0' ? "" : std::string{"nft table inet t chain forward: "} + one.expected;
        CHECK(verdict() == expected);
    }
}

TEST_CASE("netfilter: hooks, policies and tables of nft")
{
    check({
        {"policy", "nft 'table inet t { chain f { type filter hook forward priority 0; policy drop; }; }'",
         "nft table inet t chain f: policy drop"},
        {"policy that nothing reaches",
         "nft 'table ip t { chain f { type filter hook forward priority 0; policy drop; ip saddr 10.42.0.0/16 accept; "
         "}; }'",
         ""},
        {"only input", "nft 'table inet t { chain i { type filter hook input priority 0; policy drop; drop; }; }'", ""},
        {"no hook", "nft 'table inet t { chain f { drop; }; }'", ""},
        {"nat",
         "nft 'table ip t { chain p { type nat hook postrouting priority 100; ip saddr 10.42.0.0/16 masquerade; }; }'",
         ""},
        {"bridge",
         "nft 'table bridge t { chain f { type filter hook forward priority 0; ip saddr 10.42.1.1 drop; }; }'",
         "nft table bridge t chain f: 1 rule (drop)"},
        {"bridge, not of pods",
         "nft 'table bridge t { chain f { type filter hook forward priority 0; ip saddr 192.0.2.1 drop; }; }'", ""},
        {"queue in prerouting", "nft 'table inet t { chain p { type filter hook prerouting priority 0; queue; }; }'",
         "nft table inet t chain p: 1 rule (queue)"},
        {"queue in postrouting",
         "nft 'table inet kube-network-policies { chain postrouting { type filter hook postrouting priority 95; ct "
         "state established,related accept; queue flags bypass to 100; }; }'",
         "nft table inet kube-network-policies chain postrouting: 1 rule (queue)"},
        {"zone", "nft 'table inet t { chain p { type filter hook prerouting priority -300; ct zone set 5; }; }'",
         "nft table inet t chain p: 1 rule (conntrack zone)"},
        {"dormant", "nft 'table inet t { flags dormant; chain f { type filter hook forward priority 0; drop; }; }'",
         ""},
        {"jump",
         "nft 'table inet t { chain b { tcp dport 80 drop; drop; }; chain a { jump b; }; chain f { type filter hook "
         "forward priority 0; jump a; }; }'",
         "nft table inet t chain f: 1 rule (jump a)"},
        {"jump that cannot match",
         "nft 'table inet t { chain a { drop; }; chain f { type filter hook forward priority 0; ip daddr 192.0.2.1 "
         "jump a; iifname eth9 goto a; }; }'",
         ""},
        {"kube-proxy, flannel, ours",
         "for t in kube-proxy flannel-ipv4 twill; do nft \"table ip $t { chain f { type filter hook forward priority "
         "0; policy drop; drop; }; }\"; done",
         ""},
    });
}

namespace {

/// What kube-proxy and flannel leave in the filter table, and what may be added to it; `%` is the program.
std::vector<std::pair<std::string, std::string>> iptables_cases()
{
    const std::string kube = "%-N KUBE-FORWARD; %-N KUBE-SERVICES; %-A FORWARD -j KUBE-FORWARD; "
                             "%-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES; "
                             "%-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP; "
                             "%-A KUBE-SERVICES -d 10.96.0.9 -p tcp --dport 80 -j REJECT; ";
    return {
        {kube, ""},
        {"%-A FORWARD -m comment --comment x -m conntrack --ctstate INVALID -j DROP; ", ""},
        {"%-A FORWARD -m state --state INVALID -j DROP; ", ""},
        {"%-A FORWARD -m conntrack --ctstate INVALID,NEW -j DROP; ", "filter chain FORWARD: 1 rule (DROP)"},
        {"%-A FORWARD -m conntrack ! --ctstate INVALID -j DROP; ", "filter chain FORWARD: 1 rule (DROP)"},
        {"%-N FLANNEL-FWD; %-A FORWARD -j FLANNEL-FWD; %-A FLANNEL-FWD -s 10.42.0.0/16 -j ACCEPT; "
         "%-A FLANNEL-FWD -d 10.42.0.0/16 -j ACCEPT; ",
         ""},
        {"%-N DOCKER; %-N DOCKER-USER; %-A FORWARD -j DOCKER-USER; %-A FORWARD -o docker0 -j DOCKER; "
         "%-A DOCKER -j DROP; %-A DOCKER-USER -j RETURN; ",
         ""},
        {"%-N DOCKER-USER; %-A FORWARD -j DOCKER-USER; %-A DOCKER-USER -p tcp --dport 25 -j DROP; ",
         "filter chain FORWARD: 1 rule (jump DOCKER-USER)"},
        {"%-A FORWARD -s 203.0.113.0/24 -j DROP; %-A FORWARD -i eth9 -j DROP; ", ""},
        {"%-A FORWARD ! -s 10.42.0.0/16 -j DROP; ", ""},
        {"%-A FORWARD ! -s 10.42.7.0/24 -j DROP; ", "filter chain FORWARD: 1 rule (DROP)"},
        {"%-A FORWARD -j LOG; %-A FORWARD -j ACCEPT; ", ""},
        {"%-A FORWARD -j MARK --set-mark 1; ", ""},
        {"%-A FORWARD -i cali+ -j DROP; ", "filter chain FORWARD: 1 rule (DROP)"},
        {"%-A FORWARD -p tcp --dport 80 -j REJECT; %-A FORWARD -j DROP; ",
         "filter chain FORWARD: 2 rules (REJECT, ...)"},
        {"%-A FORWARD -j NFQUEUE --queue-num 1; ", "filter chain FORWARD: 1 rule (NFQUEUE)"},
        {"%-P FORWARD DROP; ", "filter chain FORWARD: policy drop"},
        {"%-P FORWARD DROP; %-A FORWARD -s 10.42.0.0/16 -j ACCEPT; ", ""},
        {"%-N cali-FORWARD; %-N cali-fw; %-A FORWARD -j cali-FORWARD; %-A cali-FORWARD -g cali-fw; "
         "%-A cali-fw -m comment --comment policy -j DROP; ",
         "filter chain FORWARD: 1 rule (jump cali-FORWARD)"},
        {"%-t raw -A PREROUTING -j CT --zone 5; ", "raw chain PREROUTING: 1 rule (conntrack zone)"},
        {"%-t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp; ", ""},
        {"%-t raw -A PREROUTING -j CT --notrack; ", ""},
        {"%-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu; ", ""},
        {"%-t nat -A POSTROUTING -s 10.42.0.0/16 -j MASQUERADE; ", ""},
    };
}

void check_iptables(const std::string& program, const std::string& where)
{
    if (!has(program.c_str())) {
        MESSAGE("not tested: no " << program);
        return;
    }
    for (auto [commands, expected] : iptables_cases()) {
        Namespace space;
        CAPTURE(program);
        CAPTURE(commands);
        for (std::size_t at; (at = commands.find('%')) != std::string::npos;) commands.replace(at, 1, program + " -w ");
        test::shell("set -e; " + commands);
        const auto lower = [](std::string text) {
            for (auto& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
            return text;
        };
        // Native nft verdicts are written in lower case.
        CHECK(lower(verdict()) == (expected.empty() ? "" : lower(where + expected)));
    }
}

} // namespace

TEST_CASE("netfilter: rules of iptables-nft") { check_iptables("iptables-nft", "nft table ip "); }

TEST_CASE("netfilter: rules of iptables-legacy") { check_iptables("iptables-legacy", "iptables table "); }

TEST_CASE("netfilter: rules of ip6tables")
{
    for (const char* program : {"ip6tables-nft", "ip6tables-legacy"}) {
        if (!has(program)) continue;
        Namespace space;
        const std::string command = program;
        CAPTURE(command);
        test::shell(command + " -A FORWARD -s 2001:db8::/32 -j DROP; " + command + " -A FORWARD ! -d fd00::/8 -j DROP");
        CHECK(verdict().empty());
        test::shell(command + " -A FORWARD -s fd00:42:0:1::/64 -p icmpv6 -j DROP");
        CHECK(verdict().find("chain FORWARD: 1 rule") != std::string::npos);
    }
}

TEST_CASE("netfilter: a thousand services of kube-proxy are no obstacle")
{
    for (const char* program : {"iptables-nft", "iptables-legacy"}) {
        const std::string command = program;
        if (!has(program)) continue;
        Namespace space;
        CAPTURE(command);
        test::shell("{ echo '*filter'; for c in KUBE-FORWARD KUBE-SERVICES; do echo \":$c - [0:0]\"; "
                    "echo \"-A FORWARD -j $c\"; done; for i in $(seq 1000); do "
                    "echo \"-A KUBE-SERVICES -d 10.96.$((i / 250)).$((i % 250)) -j REJECT\"; done; echo COMMIT; "
                    "echo '*nat'; echo ':KUBE-SERVICES - [0:0]'; echo '-A PREROUTING -j KUBE-SERVICES'; "
                    "for i in $(seq 1000); do echo \":KUBE-SVC-$i - [0:0]\"; echo \":KUBE-SEP-$i - [0:0]\"; "
                    "echo \"-A KUBE-SERVICES -d 10.96.$((i / 250)).$((i % 250)) -p tcp --dport 80 -j KUBE-SVC-$i\"; "
                    "echo \"-A KUBE-SVC-$i -j KUBE-SEP-$i\"; "
                    "echo \"-A KUBE-SEP-$i -p tcp -j DNAT --to-destination 10.42.1.2:80\"; done; echo COMMIT; } | " +
                    command + "-restore");
        const auto start = std::chrono::steady_clock::now();
        CHECK(verdict().empty());
        const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
        MESSAGE(command << ": " << took.count() << " ms");
    }
}
