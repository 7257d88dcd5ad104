// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/netfilter.hpp"

#include "agent/daemon/netfilter_rules.hpp"

namespace twill {

Result<std::optional<std::string>> find_forward_rules(const PerFamily<std::optional<Cidr>>& networks,
                                                      const std::string& without)
{
    std::vector<Cidr> present;
    for (const auto family : kFamilies)
        if (networks[family]) present.push_back(*networks[family]);
    TWILL_TRY_AS(in_nft, netfilter::find_in_nft(present, without));
    if (in_nft) return in_nft;
    return netfilter::find_in_legacy(present, without);
}

} // namespace twill
