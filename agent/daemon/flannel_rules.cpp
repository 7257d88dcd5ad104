// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/flannel_rules.hpp"

#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <string_view>

#include "agent/daemon/netfilter_legacy_edit.hpp"
#include "agent/daemon/netfilter_nft.hpp"
#include "agent/nl/conntrack.hpp"
#include "agent/nl/nft_batch.hpp"
#include "agent/nl/socket.hpp"

namespace twill {

namespace {

using netfilter::Outcome;
using nl::Attributes;
using nl::NftChain;

constexpr std::string_view kMasquerade = "FLANNEL-POSTRTG";
constexpr std::string_view kForward = "FLANNEL-FWD";

std::uint8_t protocol_of(Family family) { return family == Family::v4 ? NFPROTO_IPV4 : NFPROTO_IPV6; }
const char* table_of(Family family) { return family == Family::v4 ? "flannel-ipv4" : "flannel-ipv6"; }

template <std::size_t N>
bool is_one_of(std::string_view text, const std::array<std::string_view, N>& words)
{
    return std::find(words.begin(), words.end(), text) != words.end();
}

/// Matches and targets of iptables as long as which are used conntrack looks at packets.
const std::set<std::string> kAskConntrack{"conntrack", "state", "connmark",   "connbytes", "connlimit", "CT",
                                          "CONNMARK",  "SNAT",  "MASQUERADE", "DNAT",      "REDIRECT",  "NETMAP"};

/// The same of nftables.
bool needs_conntrack(const Attributes& expression)
{
    static constexpr std::array<std::string_view, 5> kOwn{"ct", "nat", "masq", "redir", "flow_offload"};
    const std::string name = expression.text(NFTA_EXPR_NAME);
    if (name != "match" && name != "target") return is_one_of(name, kOwn);
    static_assert(static_cast<int>(NFTA_MATCH_NAME) == static_cast<int>(NFTA_TARGET_NAME));
    return kAskConntrack.contains(Attributes(expression[NFTA_EXPR_DATA]).text(NFTA_MATCH_NAME));
}

bool is_absent(const Error& error)
{
    return error.code == EPROTONOSUPPORT || error.code == EOPNOTSUPP || error.code == EINVAL;
}

/// What nftables has of flannel's, in one family.
class Nft {
public:
    explicit Nft(Family family) : family_(family) {}

    /// `all`: who else translates is wanted in any case.
    Result<> read(bool all = false)
    {
        TWILL_TRY_AS(socket, nl::Socket::open(NETLINK_NETFILTER));
        if (auto done = read_chains(socket); !done) return is_absent(done.error()) ? Result<>(Ok{}) : done;
        return chains.empty() && !has_table && !all ? Result<>(Ok{}) : read_rules(socket);
    }

    std::vector<NftChain> chains; ///< FLANNEL-*, and postrtg of flannel's own table
    bool has_table = false;       ///< flannel's own
    bool has_nat = false;         ///< chains of somebody else's translate
    bool asks = false;            ///< somebody else's rules need conntrack
    struct Jump {
        NftChain chain;
        std::uint64_t handle = 0;
        std::string target;
    };
    std::vector<Jump> jumps;   ///< rules that lead to FLANNEL-*
    std::set<NftChain> silent; ///< chains that are left at once

    bool is_own_table(const NftChain& chain) const { return chain.table == table_of(family_); }

private:
    bool concerns(std::uint8_t family) const { return family == protocol_of(family_) || family == NFPROTO_INET; }

    Result<> read_chains(nl::Socket& socket)
    {
        nl::Message message{NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, 0};
        message.header(nfgenmsg{NFPROTO_UNSPEC, NFNETLINK_V0, 0});
        return socket.dump(
            message, "read nftables chains",
            [&] {
                chains.clear();
                has_table = has_nat = false;
            },
            [&](const nlmsghdr* reply) -> Result<> {
                const auto* header = nl::header_of<nfgenmsg>(reply);
                if (header == nullptr || !concerns(header->nfgen_family)) return Ok{};
                const Attributes attributes{reply, sizeof(nfgenmsg)};
                NftChain chain{header->nfgen_family, attributes.text(NFTA_CHAIN_TABLE),
                               attributes.text(NFTA_CHAIN_NAME)};
                if (is_own_table(chain)) {
                    has_table = true;
                    if (chain.name == "postrtg") chains.push_back(std::move(chain));
                } else if ((chain.name == kMasquerade && chain.table == "nat") ||
                           (chain.name == kForward && chain.table == "filter")) {
                    chains.push_back(std::move(chain));
                } else if (attributes[NFTA_CHAIN_HOOK] != nullptr && attributes.text(NFTA_CHAIN_TYPE) == "nat") {
                    has_nat = true;
                }
                return Ok{};
            });
    }

    Result<> read_rules(nl::Socket& socket)
    {
        nl::Message message{NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE, 0};
        message.header(nfgenmsg{NFPROTO_UNSPEC, NFNETLINK_V0, 0});
        std::set<NftChain> seen;
        return socket.dump(
            message, "read nftables rules",
            [&] {
                jumps.clear();
                silent.clear();
                seen.clear();
                asks = false;
            },
            [&](const nlmsghdr* reply) -> Result<> {
                const auto* header = nl::header_of<nfgenmsg>(reply);
                if (header == nullptr || !concerns(header->nfgen_family)) return Ok{};
                const Attributes rule{reply, sizeof(nfgenmsg)};
                const NftChain chain{header->nfgen_family, rule.text(NFTA_RULE_TABLE), rule.text(NFTA_RULE_CHAIN)};
                const bool is_own =
                    is_own_table(chain) || std::find(chains.begin(), chains.end(), chain) != chains.end();
                const auto parsed = netfilter::parse_nft_rule(rule[NFTA_RULE_EXPRESSIONS], {});
                if (is_own) {
                    if (seen.insert(chain).second && leaves_at_once(parsed.rule)) silent.insert(chain);
                    return Ok{};
                }
                for (const auto& outcome : parsed.rule.outcomes)
                    if (is_flannels(chain, outcome.name)) jumps.push_back({chain, handle_of(rule), outcome.name});
                netfilter::each_of(rule[NFTA_RULE_EXPRESSIONS],
                                   [&](const nlattr* one) { asks = asks || needs_conntrack(Attributes(one)); });
                return Ok{};
            });
    }

    bool is_flannels(const NftChain& from, const std::string& target) const
    {
        return std::any_of(chains.begin(), chains.end(), [&](const NftChain& chain) {
            return chain.family == from.family && chain.table == from.table && chain.name == target;
        });
    }

    bool leaves_at_once(const netfilter::Rule& rule) const
    {
        return rule.outcomes.size() == 1 && rule.outcomes[0].kind == Outcome::Kind::leave &&
               rule.match[family_] == netfilter::Match::always;
    }

    static std::uint64_t handle_of(const Attributes& rule)
    {
        std::uint64_t network = 0;
        if (const auto bytes = rule.bytes<8>(NFTA_RULE_HANDLE)) std::memcpy(&network, bytes->data(), bytes->size());
        return be64toh(network);
    }

    Family family_;
};

} // namespace

Result<FlannelRules> FlannelRules::read(Family family)
{
    static const std::set<std::string> kChains{std::string(kMasquerade), std::string(kForward)};
    FlannelRules rules(family);
    TWILL_TRY_AS(legacy, netfilter::find_legacy_chains(family, kChains));
    Nft nft(family);
    TWILL_TRY(nft.read(!legacy.empty()));
    const std::string kind = family == Family::v4 ? "ip" : "ip6";
    if (nft.has_table) rules.where_.push_back("nft table " + kind + " " + table_of(family));
    for (const auto& chain : nft.chains)
        if (!nft.is_own_table(chain)) rules.where_.push_back(kind + "tables chain " + chain.name);
    for (const auto& name : legacy) rules.where_.push_back(kind + "tables-legacy chain " + name);
    if (rules.is_empty()) return rules;
    TWILL_TRY_AS(asks, netfilter::uses_legacy(family, kAskConntrack, kChains));
    rules.is_backed_ = (nft.has_nat || netfilter::has_legacy_table(family, "nat")) && (nft.asks || asks);
    return rules;
}

Result<> FlannelRules::silence() const
{
    Nft nft(family_);
    TWILL_TRY(nft.read());
    nl::NftBatch batch;
    for (const auto& chain : nft.chains)
        if (chain.name != kForward && !nft.silent.contains(chain)) batch.leave_at_once(chain);
    TWILL_TRY(batch.send("make flannel's masquerade idle"));
    return netfilter::edit_legacy_chain(family_, "nat", std::string(kMasquerade), netfilter::LegacyEdit::leave_at_once);
}

Result<> FlannelRules::remove(Part part) const
{
    const auto goes = [&](std::string_view chain) { return part == Part::all || chain != kForward; };
    Nft nft(family_);
    TWILL_TRY(nft.read());
    nl::NftBatch batch;
    for (const auto& jump : nft.jumps)
        if (goes(jump.target)) batch.del_rule(jump.chain, jump.handle);
    for (const auto& chain : nft.chains)
        if (!nft.is_own_table(chain) && goes(chain.name)) batch.del_chain(chain);
    // Its chain on the hook forward overrules nobody's drop.
    if (nft.has_table) batch.del_table({protocol_of(family_), table_of(family_), ""});
    TWILL_TRY(batch.send("remove flannel's rules"));
    TWILL_TRY(netfilter::edit_legacy_chain(family_, "nat", std::string(kMasquerade), netfilter::LegacyEdit::remove));
    if (part != Part::all) return Ok{};
    return netfilter::edit_legacy_chain(family_, "filter", std::string(kForward), netfilter::LegacyEdit::remove);
}

Result<std::size_t> count_masqueraded(const PerFamily<std::optional<Cidr>>& networks)
{
    const auto is_pods = [&](const Ip& ip) { return networks[ip.family()] && networks[ip.family()]->contains(ip); };
    TWILL_TRY_AS(found, nl::connections([&](const nl::Connection& connection) {
                     return connection.is_translated && is_pods(connection.original.src) &&
                            connection.reply.dst != connection.original.src;
                 }));
    return found.size();
}

} // namespace twill
