// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/netfilter_rules.hpp"

#include <linux/netfilter/xt_CT.h>
#include <linux/netfilter/xt_conntrack.h>
#include <linux/netfilter/xt_state.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

namespace twill::netfilter {
namespace {

using Kind = Outcome::Kind;

// The kernel allows 16 (NFT_JUMP_STACK_SIZE); iptables-legacy more, but nobody nests so deep.
constexpr int kMaxDepth = 32;

template <std::size_t N>
bool is_one_of(std::string_view text, const std::array<std::string_view, N>& words)
{
    return std::find(words.begin(), words.end(), text) != words.end();
}

bool starts_with(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }

/// What a chain does to some packet between pods.
struct Effect {
    std::string blocks;   ///< how the first rule blocks that does; empty: none
    int count = 0;        ///< such rules; of chains below the base chain at most 1 is counted
    bool accepts = false; ///< every packet that comes through is accepted, whatever comes after
};

class Walk {
public:
    Walk(Family family, const Fetch& fetch) : family_(family), fetch_(fetch) {}

    Result<Effect> chain(const std::string& name, int depth)
    {
        if (depth > kMaxDepth) return Effect{"chains nested too deep", 1, false};
        if (const auto known = known_.find(name); known != known_.end()) return known->second;
        TWILL_TRY_AS(rules, fetch_(name));
        Effect effect;
        for (const auto& rule : *rules) {
            const Match match = rule.match[family_];
            if (match == Match::never) continue;
            bool ends = false;
            std::string blocks;
            for (const auto& outcome : rule.outcomes)
                TWILL_TRY(apply(outcome, match == Match::always && rule.outcomes.size() == 1, depth, blocks, ends,
                                effect.accepts));
            if (!blocks.empty()) {
                if (effect.count++ == 0) effect.blocks = blocks;
                if (depth > 0) break;
            }
            if (ends) break;
        }
        known_.insert_or_assign(name, effect);
        return effect;
    }

private:
    Result<> apply(const Outcome& outcome, bool is_certain, int depth, std::string& blocks, bool& ends, bool& accepts)
    {
        switch (outcome.kind) {
        case Kind::nothing:
            break;
        case Kind::leave:
            ends |= is_certain;
            break;
        case Kind::accept:
            ends |= is_certain;
            accepts |= is_certain;
            break;
        case Kind::block:
            if (blocks.empty()) blocks = outcome.name;
            break; // not the end: what follows is counted too
        case Kind::jump:
        case Kind::go_to: {
            if (is_known_chain(outcome.name)) break;
            TWILL_TRY_AS(below, chain(outcome.name, depth + 1));
            if (!below.blocks.empty() && blocks.empty()) blocks = "jump " + outcome.name;
            accepts |= is_certain && below.accepts;
            ends |= is_certain && (below.accepts || outcome.kind == Kind::go_to);
            break;
        }
        }
        return Ok{};
    }

    Family family_;
    const Fetch& fetch_;
    std::map<std::string, Effect> known_;
};

} // namespace

void forget_chain(Rule& rule, const std::string& chain)
{
    const auto leads_there = [&](const Outcome& outcome) {
        return (outcome.kind == Kind::jump || outcome.kind == Kind::go_to) && outcome.name == chain;
    };
    if (!chain.empty()) std::erase_if(rule.outcomes, leads_there);
}

Result<std::optional<std::string>> judge(const BaseChain& chain, Family family, const Fetch& fetch)
{
    Walk walk{family, fetch};
    TWILL_TRY_AS(effect, walk.chain(chain.name, 0));
    std::optional<std::string> found;
    if (effect.count > 0)
        found = chain.where + ": " + std::to_string(effect.count) + (effect.count == 1 ? " rule" : " rules") + " (" +
                effect.blocks + (effect.count == 1 ? ")" : ", ...)");
    else if (chain.drops && !effect.accepts)
        found = chain.where + ": policy drop";
    return found;
}

bool is_known_chain(std::string_view name)
{
    // DOCKER-USER is Docker's by name only: what is in it is the administrator's.
    static constexpr std::array<std::string_view, 5> kKubeProxy{"KUBE-FORWARD", "KUBE-PROXY-FIREWALL", "KUBE-SERVICES",
                                                                "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS"};
    return is_one_of(name, kKubeProxy) || (starts_with(name, "DOCKER") && name != "DOCKER-USER") ||
           starts_with(name, "LIBVIRT_");
}

bool is_known_table(std::string_view name)
{
    static constexpr std::array<std::string_view, 5> kKnown{"kube-proxy", "flannel-ipv4", "flannel-ipv6",
                                                            "docker-bridges", "libvirt_network"};
    return is_one_of(name, kKnown) || name == "twill" || starts_with(name, "twill-");
}

Match match_prefix(const Cidr& prefix, const std::vector<Cidr>& networks)
{
    return match_range(prefix.address(), prefix.last(), networks);
}

Match match_range(const Ip& from, const Ip& to, const std::vector<Cidr>& networks)
{
    bool is_any = false;
    bool is_all = true;
    for (const auto& network : networks) {
        if (network.family() != from.family()) continue;
        is_any |= from <= network.last() && network.address() <= to;
        is_all &= from <= network.address() && network.last() <= to;
    }
    if (!is_any) return Match::never;
    return is_all ? Match::always : Match::maybe;
}

Match invert(Match match)
{
    if (match == Match::maybe) return match;
    return match == Match::never ? Match::always : Match::never;
}

Match match_interface(const std::string& name, bool is_prefix)
{
    if (name.empty()) return is_prefix ? Match::always : Match::never;
    if (is_prefix) return Match::maybe;
    return name == "lo" || ::if_nametoindex(name.c_str()) == 0 ? Match::never : Match::maybe;
}

Match match_of_xt(std::string_view name, unsigned revision, const void* data, std::size_t size)
{
    if (name == "comment") return Match::always;
    if (name == "state" && size >= sizeof(xt_state_info)) {
        xt_state_info info;
        std::memcpy(&info, data, sizeof info);
        return info.statemask == XT_STATE_INVALID ? Match::never : Match::maybe;
    }
    if (name != "conntrack") return Match::maybe;
    // Revisions 2 and 3 begin alike; revision 1 is older than the kernels that twill runs on use.
    if (revision < 2 || size < sizeof(xt_conntrack_mtinfo2)) return Match::maybe;
    xt_conntrack_mtinfo2 info;
    std::memcpy(&info, data, sizeof info);
    const bool is_invalid_only = (info.match_flags & XT_CONNTRACK_STATE) != 0 &&
                                 (info.invert_flags & XT_CONNTRACK_STATE) == 0 &&
                                 info.state_mask == XT_CONNTRACK_STATE_INVALID;
    return is_invalid_only ? Match::never : Match::maybe;
}

Outcome outcome_of_xt(std::string_view name, const void* data, std::size_t size)
{
    // They note, count or mark. Translation only happens in nat chains, which the fast path respects per flow; MSS
    // clamping has no effect on pods, whose routes have the right MTU.
    static constexpr std::array<std::string_view, 21> kHarmless{
        "LOG",     "NFLOG",     "ULOG",       "MARK",     "CONNMARK", "SECMARK",  "CONNSECMARK",
        "TRACE",   "AUDIT",     "CHECKSUM",   "CLASSIFY", "TCPMSS",   "NOTRACK",  "SET",
        "RATEEST", "IDLETIMER", "MASQUERADE", "SNAT",     "DNAT",     "REDIRECT", "NETMAP"};
    if (is_one_of(name, kHarmless)) return {};
    if (name == "ACCEPT") return {Kind::accept, {}};
    if (name == "RETURN") return {Kind::leave, {}};
    if (name == "CT") {
        // xt_ct_target_info begins like all its revisions: flags, zone.
        std::array<__u16, 2> info{};
        if (size < sizeof info) return {Kind::block, "CT"};
        std::memcpy(info.data(), data, sizeof info);
        if (info[1] == 0 && (info[0] & XT_CT_ZONE_MARK) == 0) return {};
        return {Kind::block, "conntrack zone"};
    }
    return {Kind::block, std::string{name}};
}

} // namespace twill::netfilter
