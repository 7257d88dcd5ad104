// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill::netfilter {

/// Of the names those that are chains of iptables-legacy (ip6tables-legacy for IPv6), in any table. Loads no table.
Result<std::vector<std::string>> find_legacy_chains(Family family, const std::set<std::string>& names);

/// Is the table there?
bool has_legacy_table(Family family, const std::string& table);
/// Has a rule outside of the chains a match or target of one of these names? Of all tables.
Result<bool> uses_legacy(Family family, const std::set<std::string>& names, const std::set<std::string>& without);

enum class LegacyEdit : std::uint8_t {
    leave_at_once, ///< a rule before all others that returns
    remove,        ///< the chain and every rule that leads to it
};
/// Edits one chain and nothing else; counters of the others are kept. May be repeated; a table or chain that is not
/// there is fine. EAGAIN: somebody else (iptables) is at it, try later.
Result<> edit_legacy_chain(Family family, const std::string& table, const std::string& chain, LegacyEdit edit);

} // namespace twill::netfilter
