// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "twill/ip.hpp"
#include "twill/result.hpp"

// What nftables and iptables rules mean for packets between pods, whichever way they were read.
namespace twill::netfilter {

/// Which packets between pods meet a condition. Unknown conditions are `maybe`.
enum class Match : std::uint8_t { never, maybe, always };

/// What a rule does to a packet that it matches.
struct Outcome {
    enum class Kind : std::uint8_t { nothing, accept, leave, jump, go_to, block };
    Kind kind = Kind::nothing;
    std::string name; ///< the chain of jump and go_to; how it blocks: "drop", "queue", "conntrack zone", ...
    bool operator==(const Outcome&) const = default;
};

/// One rule: its conditions are summed up per family, for there is no packet but pod to pod.
struct Rule {
    PerFamily<Match> match{Match::always, Match::always};
    std::vector<Outcome> outcomes; ///< of which one happens; none: nothing

    /// Adds a condition.
    void require(Match condition)
    {
        require(Family::v4, condition);
        require(Family::v6, condition);
    }
    void require(Family family, Match condition)
    {
        if (condition < match[family]) match[family] = condition;
    }
};

/// A chain on a hook.
struct BaseChain {
    std::string where; ///< for people: "nft table ip filter chain FORWARD"
    std::string name;
    bool drops = false; ///< its policy
};

/// Nothing leads to the chain any more; an empty name is none's.
void forget_chain(Rule& rule, const std::string& chain);

/// The rules of a chain of the same table; borrowed for as long as the caller of judge() keeps them.
using Fetch = std::function<Result<const std::vector<Rule>*>(const std::string& chain)>;

/// What of a base chain and all that it jumps to can stop or divert packets of `family` between pods:
/// "<where>: 3 rules (drop, ...)" or "<where>: policy drop"; nullopt: nothing. Errors: those of `fetch`.
Result<std::optional<std::string>> judge(const BaseChain& chain, Family family, const Fetch& fetch);

/// The chain belongs to kube-proxy, Docker or libvirt, which leave pods alone.
bool is_known_chain(std::string_view name);
/// The table belongs to kube-proxy, flannel, Docker, libvirt or twill.
bool is_known_table(std::string_view name);

/// Source (or destination) lies in `prefix`, for packets whose addresses all lie in `networks`.
Match match_prefix(const Cidr& prefix, const std::vector<Cidr>& networks);
/// The same for a range of one family.
Match match_range(const Ip& from, const Ip& to, const std::vector<Cidr>& networks);
/// The contrary.
Match invert(Match match);
/// The interface has this name, or one that begins so. An interface that does not exist sees no packet.
Match match_interface(const std::string& name, bool is_prefix);

/// `data` is the kernel's struct of an xtables match: which packets between pods meet it. The state INVALID is met by
/// none: the fast path only carries packets that conntrack would not call so.
Match match_of_xt(std::string_view name, unsigned revision, const void* data, std::size_t size);
/// What an xtables target does that is no plain verdict.
Outcome outcome_of_xt(std::string_view name, const void* data, std::size_t size);

/// nftables in this network namespace: the first obstacle, as find_forward_rules() words it, which also tells of
/// `without`.
Result<std::optional<std::string>> find_in_nft(const std::vector<Cidr>& networks, const std::string& without = {});
/// The same for iptables-legacy and ip6tables-legacy.
Result<std::optional<std::string>> find_in_legacy(const std::vector<Cidr>& networks, const std::string& without = {});

} // namespace twill::netfilter
