// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/netfilter.hpp"

#include "agent/daemon/netfilter_rules.hpp"

namespace twill {

Result<std::optional<std::string>> find_forward_rules(const std::vector<Cidr>& networks)
{
    TWILL_TRY_AS(in_nft, netfilter::find_in_nft(networks));
    if (in_nft) return in_nft;
    return netfilter::find_in_legacy(networks);
}

} // namespace twill
