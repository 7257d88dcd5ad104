// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/netfilter_nft.hpp"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "agent/nl/message.hpp"
#include "agent/nl/socket.hpp"

namespace twill::netfilter {
namespace {

using nl::Attributes;

// Enough for verdict maps and lists that people write; a longer set counts as one that matches anything.
constexpr std::size_t kMaxElements = 4096;

struct Table {
    std::uint8_t family = 0; ///< NFPROTO_*
    std::string name;
    auto operator<=>(const Table&) const = default;
};

struct HookedChain {
    Table table;
    BaseChain chain;
};

const char* family_name(std::uint8_t family)
{
    switch (family) {
    case NFPROTO_IPV4:
        return "ip";
    case NFPROTO_IPV6:
        return "ip6";
    case NFPROTO_BRIDGE:
        return "bridge";
    default:
        return "inet";
    }
}

bool sees(std::uint8_t family, Family pods) { return family != (pods == Family::v4 ? NFPROTO_IPV6 : NFPROTO_IPV4); }

nl::Message request(int command, const Table& table)
{
    nl::Message message{(NFNL_SUBSYS_NFTABLES << 8) | command, 0};
    message.header(nfgenmsg{table.family, NFNETLINK_V0, 0});
    return message;
}

void put_name(nl::Message& message, int attribute, const std::string& name)
{
    message.put(attribute, name.c_str(), name.size() + 1);
}

/// One reading of nftables.
class Nft {
public:
    Nft(nl::Socket socket, const std::vector<Cidr>& networks, std::string without)
        : socket_(std::move(socket)), networks_(networks), without_(std::move(without))
    {}

    Result<std::optional<std::string>> find()
    {
        TWILL_TRY(read_dormant());
        TWILL_TRY_AS(chains, read_base_chains());
        for (const auto& one : chains) {
            const Fetch fetch = [&](const std::string& name) { return rules(one.table, name); };
            for (const Family family : kFamilies) {
                if (!sees(one.table.family, family) || !has(family)) continue;
                TWILL_TRY_AS(found, judge(one.chain, family, fetch));
                if (found) return found;
            }
        }
        return std::optional<std::string>{};
    }

private:
    bool has(Family family) const
    {
        for (const auto& network : networks_)
            if (network.family() == family) return true;
        return false;
    }

    Result<> read_dormant()
    {
        auto message = request(NFT_MSG_GETTABLE, {});
        return socket_.dump(
            message, "read nftables tables", [&] { dormant_.clear(); },
            [&](const nlmsghdr* reply) -> Result<> {
                const auto* header = nl::header_of<nfgenmsg>(reply);
                if (header == nullptr) return Ok{};
                const Attributes table{reply, sizeof(nfgenmsg)};
                if ((be32(table, NFTA_TABLE_FLAGS).value_or(0) & NFT_TABLE_F_DORMANT) != 0)
                    dormant_.insert({header->nfgen_family, table.text(NFTA_TABLE_NAME)});
                return Ok{};
            });
    }

    Result<std::vector<HookedChain>> read_base_chains()
    {
        std::vector<HookedChain> chains;
        auto message = request(NFT_MSG_GETCHAIN, {});
        TWILL_TRY(socket_.dump(
            message, "read nftables chains", [&] { chains.clear(); },
            [&](const nlmsghdr* reply) -> Result<> {
                add_base_chain(reply, chains);
                return Ok{};
            }));
        return chains;
    }

    void add_base_chain(const nlmsghdr* reply, std::vector<HookedChain>& chains) const
    {
        const auto* header = nl::header_of<nfgenmsg>(reply);
        if (header == nullptr) return;
        const std::uint8_t family = header->nfgen_family;
        if (family != NFPROTO_IPV4 && family != NFPROTO_IPV6 && family != NFPROTO_INET && family != NFPROTO_BRIDGE)
            return;
        const Attributes chain{reply, sizeof(nfgenmsg)};
        if (chain[NFTA_CHAIN_HOOK] == nullptr || chain.text(NFTA_CHAIN_TYPE) == "nat") return;
        const auto hook = be32(Attributes{chain[NFTA_CHAIN_HOOK]}, NFTA_HOOK_HOOKNUM);
        if (hook != NF_INET_PRE_ROUTING && hook != NF_INET_FORWARD && hook != NF_INET_POST_ROUTING) return;
        HookedChain found;
        found.table = {family, chain.text(NFTA_CHAIN_TABLE)};
        if (is_known_table(found.table.name) || dormant_.count(found.table) != 0) return;
        found.chain.name = chain.text(NFTA_CHAIN_NAME);
        found.chain.drops = be32(chain, NFTA_CHAIN_POLICY) == NF_DROP;
        found.chain.where =
            std::string{"nft table "} + family_name(family) + " " + found.table.name + " chain " + found.chain.name;
        chains.push_back(std::move(found));
    }

    Result<const std::vector<Rule>*> rules(const Table& table, const std::string& chain)
    {
        const auto key = std::make_pair(table, chain);
        if (const auto known = rules_.find(key); known != rules_.end()) return &known->second;
        std::vector<NftRule> parsed;
        auto message = request(NFT_MSG_GETRULE, table);
        put_name(message, NFTA_RULE_TABLE, table.name);
        put_name(message, NFTA_RULE_CHAIN, chain);
        TWILL_TRY(socket_.dump(
            message, "read nftables chain " + chain, [&] { parsed.clear(); },
            [&](const nlmsghdr* reply) -> Result<> {
                const Attributes rule{reply, sizeof(nfgenmsg)};
                // Old kernels do not filter.
                if (rule.text(NFTA_RULE_CHAIN) == chain && rule.text(NFTA_RULE_TABLE) == table.name)
                    parsed.push_back(parse_nft_rule(rule[NFTA_RULE_EXPRESSIONS], networks_));
                return Ok{};
            }));
        std::vector<Rule> complete;
        for (auto& one : parsed) {
            const bool is_verdict_elsewhere = one.rule.outcomes.empty();
            for (const auto& use : one.sets) {
                if (is_verdict_elsewhere && !use.is_verdict_map) continue; // it does nothing; its set may be long
                TWILL_TRY_AS(elements, read_set(table, use.set));
                apply_set(use, std::move(elements), networks_, one.rule);
            }
            forget_chain(one.rule, without_);
            complete.push_back(std::move(one.rule));
        }
        return &rules_.insert_or_assign(key, std::move(complete)).first->second;
    }

    Result<std::vector<SetElement>> read_set(const Table& table, const std::string& set)
    {
        std::vector<SetElement> elements;
        auto message = request(NFT_MSG_GETSETELEM, table);
        put_name(message, NFTA_SET_ELEM_LIST_TABLE, table.name);
        put_name(message, NFTA_SET_ELEM_LIST_SET, set);
        TWILL_TRY(socket_.dump(
            message, "read nftables set " + set, [&] { elements.clear(); },
            [&](const nlmsghdr* reply) -> Result<> {
                const Attributes list{reply, sizeof(nfgenmsg)};
                each_of(list[NFTA_SET_ELEM_LIST_ELEMENTS], [&](const nlattr* one) {
                    if (elements.size() <= kMaxElements) elements.push_back(parse_element(one));
                });
                return Ok{};
            }));
        if (elements.size() > kMaxElements) {
            elements.back().is_catchall = true;
            elements.back().outcome = {Outcome::Kind::block, "long map"};
        }
        return elements;
    }

    static SetElement parse_element(const nlattr* one)
    {
        const Attributes attributes{one};
        const auto flags = be32(attributes, NFTA_SET_ELEM_FLAGS).value_or(0);
        SetElement element;
        element.key = parse_value(attributes[NFTA_SET_ELEM_KEY]);
        element.key_end = parse_value(attributes[NFTA_SET_ELEM_KEY_END]);
        element.is_interval_end = (flags & NFT_SET_ELEM_INTERVAL_END) != 0;
        element.is_catchall = attributes[NFTA_SET_ELEM_KEY] == nullptr;
        element.outcome = parse_verdict(attributes[NFTA_SET_ELEM_DATA]);
        return element;
    }

    nl::Socket socket_;
    const std::vector<Cidr>& networks_;
    std::string without_;
    std::set<Table> dormant_;
    std::map<std::pair<Table, std::string>, std::vector<Rule>> rules_;
};

// EINVAL: nfnetlink without nf_tables.
bool is_without_nft(int code) { return code == EPROTONOSUPPORT || code == EOPNOTSUPP || code == EINVAL; }

} // namespace

Result<std::optional<std::string>> find_in_nft(const std::vector<Cidr>& networks, const std::string& without)
{
    const std::optional<std::string> nothing;
    auto socket = nl::Socket::open(NETLINK_NETFILTER);
    if (!socket) return socket.error();
    auto found = Nft{*std::move(socket), networks, without}.find();
    if (!found && is_without_nft(found.error().code)) return nothing;
    return found;
}

} // namespace twill::netfilter
