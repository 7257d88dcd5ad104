// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/daemon/netfilter_rules.hpp"
#include "agent/nl/attributes.hpp"
#include "twill/ip.hpp"

namespace twill::netfilter {

/// A condition or verdict of an nftables rule that a set (or verdict map) holds.
struct SetUse {
    enum class Key : std::uint8_t { other, address, ct_state };
    std::string set;
    Key key = Key::other;
    Family family = Family::v4; ///< of an address
    bool is_inverted = false;
    bool is_verdict_map = false;
};

/// An nftables rule: conditions that its sets decide are still to be added.
struct NftRule {
    Rule rule;
    std::vector<SetUse> sets;
};

/// One element of an nftables set, as the kernel keeps it.
struct SetElement {
    std::string key;
    std::string key_end;          ///< empty unless it is a range by itself
    bool is_interval_end = false; ///< first key that no longer belongs to the interval of the element before
    bool is_catchall = false;
    Outcome outcome; ///< of a verdict map
};

/// NF_CT_STATE_INVALID_BIT of linux/netfilter/nf_conntrack_common.h, which is also its value in `ct state`.
inline constexpr std::uint32_t kInvalid = 1;

/// nftables sends its numbers in network order; host order out.
std::optional<std::uint32_t> be32(const nl::Attributes& attributes, unsigned type);
/// 0 unless `bytes` are four.
std::uint32_t host_u32(const std::string& bytes);
/// The address that begins with `bytes` and goes on with `fill`.
std::optional<Ip> address_of(const std::string& bytes, Family family, char fill);
/// Calls `visit` for each entry of a list attribute. Nothing when `list` is nullptr.
void each_of(const nlattr* list, const std::function<void(const nlattr*)>& visit);
/// NFTA_DATA_VERDICT of an attribute that holds NFTA_DATA_*; nothing where there is none.
Outcome parse_verdict(const nlattr* data);
/// NFTA_DATA_VALUE, as bytes.
std::string parse_value(const nlattr* data);

/// NFTA_RULE_EXPRESSIONS. Expressions that it does not know block.
NftRule parse_nft_rule(const nlattr* expressions, const std::vector<Cidr>& networks);

/// Adds what the elements of `use.set` say. `elements` are all that the set holds, in any order.
void apply_set(const SetUse& use, std::vector<SetElement> elements, const std::vector<Cidr>& networks, Rule& rule);

} // namespace twill::netfilter
