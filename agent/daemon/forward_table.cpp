// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/forward_table.hpp"

#include <linux/netfilter.h>

#include <cerrno>

#include "agent/daemon/netfilter.hpp"
#include "agent/nl/nft_batch.hpp"

namespace twill {

namespace {

constexpr std::string_view kPolicyDrop = ": policy drop";

nl::NftChain table() { return {NFPROTO_INET, "twill-forward", "forward"}; }

} // namespace

Result<std::optional<std::string>> find_forward_drop(Family family, const Cidr& network)
{
    PerFamily<std::optional<Cidr>> networks;
    networks[family] = network;
    TWILL_TRY_AS(found, find_forward_rules(networks, "FLANNEL-FWD"));
    // Single rules that drop are somebody's intention.
    if (found && !found->ends_with(kPolicyDrop)) found.reset();
    return found;
}

bool is_of_iptables(const std::string& drop)
{
    return !drop.starts_with("nft ") || drop.starts_with("nft table ip filter chain FORWARD") ||
           drop.starts_with("nft table ip6 filter chain FORWARD");
}

std::string forward_command(const std::string& drop, const Cidr& network)
{
    const bool is_v4 = network.family() == Family::v4;
    const std::string cidr = network.to_string();
    if (is_of_iptables(drop)) {
        const std::string tool =
            std::string(is_v4 ? "iptables" : "ip6tables") + (drop.starts_with("nft ") ? "" : "-legacy");
        return tool + " -I FORWARD -s " + cidr + " -j ACCEPT; " + tool + " -I FORWARD -d " + cidr + " -j ACCEPT";
    }
    // "nft table inet filter chain forward: policy drop"
    std::string where = drop.substr(0, drop.size() - kPolicyDrop.size());
    where.erase(0, std::string_view("nft table ").size());
    where.erase(where.find(" chain "), std::string_view(" chain").size());
    const std::string rule = "nft insert rule " + where + (is_v4 ? " ip " : " ip6 ");
    return rule + "saddr " + cidr + " accept; " + rule + "daddr " + cidr + " accept";
}

Result<> put_forward_table(const PerFamily<std::optional<Cidr>>& networks)
{
    nl::NftBatch batch;
    constexpr std::string_view kComment = "twilld: what pods say to others and others to them may be forwarded";
    batch.add_table(table(), kComment); // so that there is one to delete
    batch.del_table(table());
    batch.add_table(table(), kComment);
    batch.add_forward_chain(table());
    for (const auto family : kFamilies) {
        if (!networks[family]) continue;
        for (const bool is_source : {true, false}) batch.accept(table(), *networks[family], is_source);
    }
    return batch.send("nftables table twill-forward");
}

Result<> del_forward_table()
{
    nl::NftBatch batch;
    batch.del_table(table());
    auto done = batch.send("remove nftables table twill-forward");
    const bool is_absent = !done && (done.error().code == ENOENT || done.error().code == EPROTONOSUPPORT ||
                                     done.error().code == EOPNOTSUPP || done.error().code == EINVAL);
    return is_absent ? Result<>(Ok{}) : done;
}

} // namespace twill
