// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <linux/netfilter/nf_tables.h>

#include <map>
#include <string>
#include <vector>

#include "agent/daemon/netfilter_nft.hpp"
#include "agent/daemon/netfilter_rules.hpp"
#include "agent/nl/message.hpp"

using namespace twill;
using namespace twill::netfilter;
using Kind = Outcome::Kind;

namespace {

const std::vector<Cidr> kNetworks = {*Cidr::parse("10.42.0.0/16"), *Cidr::parse("10.44.0.0/16"),
                                     *Cidr::parse("fd00:42::/48")};

Rule rule(Outcome outcome, Match match = Match::always) { return {{match, match}, {std::move(outcome)}}; }

std::string judged(const std::map<std::string, std::vector<Rule>>& chains, bool drops = false)
{
    const auto found =
        judge({"base", "f", drops}, Family::v4, [&](const std::string& name) -> Result<const std::vector<Rule>*> {
            const auto chain = chains.find(name);
            if (chain == chains.end()) return Error{ENOENT, name};
            return &chain->second;
        });
    REQUIRE(found);
    return found->value_or("");
}

} // namespace

TEST_CASE("netfilter: a prefix matches pod packets by what it shares with the networks")
{
    CHECK(match_prefix(*Cidr::parse("203.0.113.0/24"), kNetworks) == Match::never);
    CHECK(match_prefix(*Cidr::parse("10.42.0.0/16"), kNetworks) == Match::maybe);
    CHECK(match_prefix(*Cidr::parse("10.42.9.0/24"), kNetworks) == Match::maybe);
    CHECK(match_prefix(*Cidr::parse("10.40.0.0/13"), kNetworks) == Match::always);
    CHECK(match_prefix(*Cidr::parse("fd00::/8"), kNetworks) == Match::always);
    CHECK(match_prefix(*Cidr::parse("2001:db8::/32"), kNetworks) == Match::never);
    CHECK(invert(Match::never) == Match::always);
    CHECK(invert(Match::maybe) == Match::maybe);
}

TEST_CASE("netfilter: a base chain is judged with the chains it jumps to")
{
    const Rule drop = rule({Kind::block, "drop"});
    CHECK(judged({{"f", {}}}).empty());
    CHECK(judged({{"f", {}}}, true) == "base: policy drop");
    CHECK(judged({{"f", {drop, drop}}}) == "base: 2 rules (drop, ...)");
    CHECK(judged({{"f", {rule({Kind::block, "drop"}, Match::never)}}}).empty());
    CHECK(judged({{"f", {rule({Kind::accept, ""}), drop}}}, true).empty());
    CHECK(judged({{"f", {rule({Kind::accept, ""}, Match::maybe), drop}}}) == "base: 1 rule (drop)");
    CHECK(judged({{"f", {rule({Kind::jump, "a"})}}, {"a", {drop}}}) == "base: 1 rule (jump a)");
    CHECK(judged({{"f", {rule({Kind::jump, "a"}), drop}}, {"a", {rule({Kind::accept, ""})}}}).empty());
    CHECK(judged({{"f", {rule({Kind::jump, "a"}), drop}}, {"a", {rule({Kind::leave, ""})}}}) == "base: 1 rule (drop)");
    CHECK(judged({{"f", {rule({Kind::go_to, "a"}), drop}}, {"a", {}}}).empty());
    CHECK(judged({{"f", {rule({Kind::jump, "KUBE-FORWARD"})}}}).empty());
    CHECK(judged({{"f", {rule({Kind::jump, "f"})}}}) == "base: 1 rule (jump f)"); // the kernel allows no loop
}

TEST_CASE("netfilter: xtables targets and matches that are too short are unknown")
{
    CHECK(outcome_of_xt("LOG", nullptr, 0).kind == Kind::nothing);
    CHECK(outcome_of_xt("CT", nullptr, 0) == Outcome{Kind::block, "CT"});
    CHECK(outcome_of_xt("NEWTHING", nullptr, 0) == Outcome{Kind::block, "NEWTHING"});
    CHECK(match_of_xt("conntrack", 3, nullptr, 0) == Match::maybe);
    CHECK(match_of_xt("comment", 0, nullptr, 0) == Match::always);
}

TEST_CASE("netfilter: expressions of nft that are not known, and queues, block")
{
    for (const char* name : {"queue", "reject", "tproxy", "something-new"}) {
        nl::Message message{0, 0};
        nlattr* list = message.begin(NFTA_RULE_EXPRESSIONS);
        nlattr* one = message.begin(NFTA_LIST_ELEM);
        message.put(NFTA_EXPR_NAME, name, std::string{name}.size() + 1);
        message.end(one);
        message.end(list);
        REQUIRE(message.is_valid());
        const auto parsed = parse_nft_rule(list, kNetworks);
        CHECK(parsed.rule.outcomes == std::vector<Outcome>{{Kind::block, name}});
        CHECK(parsed.rule.match.v4 == Match::always);
    }
    CHECK(parse_nft_rule(nullptr, kNetworks).rule.outcomes.empty());
}
