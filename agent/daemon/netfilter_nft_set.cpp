// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <netlink/attr.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/daemon/netfilter_nft.hpp"

namespace twill::netfilter {
namespace {

using nl::Attributes;
using Kind = Outcome::Kind;

/// Turns elements into ranges of addresses; false when they are none.
bool ranges_of(std::vector<SetElement>& elements, Family family, std::vector<std::pair<Ip, Ip>>& ranges)
{
    std::sort(elements.begin(), elements.end(), [](const SetElement& a, const SetElement& b) {
        return a.key != b.key ? a.key < b.key : a.is_interval_end > b.is_interval_end;
    });
    const bool is_interval_set =
        std::any_of(elements.begin(), elements.end(), [](const SetElement& one) { return one.is_interval_end; });
    const std::size_t size = family == Family::v4 ? 4 : 16;
    const auto highest = address_of({}, family, '\xff');
    for (std::size_t i = 0; i < elements.size(); ++i) {
        if (elements[i].is_catchall || elements[i].key.size() != size) return false;
        if (elements[i].is_interval_end) continue;
        const auto from = address_of(elements[i].key, family, '\0');
        auto to = from;
        if (!elements[i].key_end.empty())
            to = address_of(elements[i].key_end, family, '\0');
        else if (is_interval_set && i + 1 < elements.size())
            to = address_of(elements[i + 1].key, family, '\0'); // one too far is on the safe side
        else if (is_interval_set)
            to = highest;
        if (!from || !to) return false;
        ranges.emplace_back(*from, *to);
    }
    return true;
}

} // namespace

std::optional<std::uint32_t> be32(const Attributes& attributes, unsigned type)
{
    const auto value = attributes.u32(type);
    if (!value) return std::nullopt;
    return ntohl(*value);
}

std::uint32_t host_u32(const std::string& bytes)
{
    std::uint32_t value = 0;
    if (bytes.size() == sizeof value) std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

std::optional<Ip> address_of(const std::string& bytes, Family family, char fill)
{
    std::string padded = bytes;
    const std::size_t size = family == Family::v4 ? 4 : 16;
    if (padded.size() > size) return std::nullopt;
    padded.resize(size, fill);
    auto ip = Ip::from_network(padded.data(), padded.size());
    if (!ip || ip->family() != family) return std::nullopt;
    return *ip;
}

void each_of(const nlattr* list, const std::function<void(const nlattr*)>& visit)
{
    if (list == nullptr) return;
    int left = nla_len(list);
    for (const auto* at = static_cast<const nlattr*>(nla_data(list)); nla_ok(at, left); at = nla_next(at, &left))
        visit(at);
}

std::string parse_value(const nlattr* data)
{
    const nlattr* value = Attributes{data}[NFTA_DATA_VALUE];
    if (value == nullptr) return {};
    return {static_cast<const char*>(nla_data(value)), static_cast<std::size_t>(nla_len(value))};
}

Outcome parse_verdict(const nlattr* data)
{
    const nlattr* nest = Attributes{data}[NFTA_DATA_VERDICT];
    const Attributes verdict{nest};
    const auto code = be32(verdict, NFTA_VERDICT_CODE);
    if (!code) return {};
    switch (static_cast<std::int32_t>(*code)) {
    case NF_ACCEPT:
        return {Kind::accept, {}};
    case NF_DROP:
        return {Kind::block, "drop"};
    case NFT_RETURN:
        return {Kind::leave, {}};
    case NFT_CONTINUE:
    case NFT_BREAK:
        return {};
    case NFT_JUMP:
        return {Kind::jump, verdict.text(NFTA_VERDICT_CHAIN)};
    case NFT_GOTO:
        return {Kind::go_to, verdict.text(NFTA_VERDICT_CHAIN)};
    default:
        return {Kind::block, "verdict " + std::to_string(*code)};
    }
}

void apply_set(const SetUse& use, std::vector<SetElement> elements, const std::vector<Cidr>& networks, Rule& rule)
{
    if (use.is_verdict_map) {
        rule.require(Match::maybe);
        for (const auto& one : elements) {
            const bool is_invalid = use.key == SetUse::Key::ct_state && host_u32(one.key) == kInvalid;
            if (is_invalid && !one.is_catchall) continue;
            if (one.outcome.kind != Kind::nothing) rule.outcomes.push_back(one.outcome);
        }
        return;
    }
    std::vector<std::pair<Ip, Ip>> ranges;
    if (use.key != SetUse::Key::address || !ranges_of(elements, use.family, ranges)) {
        rule.require(Match::maybe);
        return;
    }
    Match match = Match::never;
    for (const auto& [from, to] : ranges) match = std::max(match, match_range(from, to, networks));
    rule.require(use.family, use.is_inverted ? invert(match) : match);
}

} // namespace twill::netfilter
