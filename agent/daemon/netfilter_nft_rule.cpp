// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <net/if.h>
#include <netlink/attr.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>

#include "agent/daemon/netfilter_nft.hpp"

namespace twill::netfilter {
namespace {

using nl::Attributes;
using Kind = Outcome::Kind;

/// What a register holds.
struct Load {
    enum class Of : std::uint8_t { other, address, ifname, ifindex, nfproto, protocol, ct_state };
    Of of = Of::other;
    Family family = Family::v4; ///< of an address
    std::size_t size = 0;       ///< bytes that were loaded
    std::string mask;           ///< empty: none
};

// The 16-byte registers 1 to 4 are four 4-byte ones each (include/uapi/linux/netfilter/nf_tables.h).
std::uint32_t register_of(const Attributes& attributes, unsigned type)
{
    const std::uint32_t number = be32(attributes, type).value_or(0);
    return number >= NFT_REG_1 && number <= NFT_REG_4 ? NFT_REG32_00 + (number - NFT_REG_1) * 4 : number;
}

/// Leading ones of a mask; nullopt when others follow.
std::optional<unsigned> prefix_bits(const std::string& mask)
{
    unsigned bits = 0;
    bool is_over = false;
    for (const char c : mask)
        for (int bit = 7; bit >= 0; --bit) {
            const bool is_set = ((static_cast<unsigned char>(c) >> bit) & 1) != 0;
            if (is_set && is_over) return std::nullopt;
            if (is_set) ++bits;
            is_over |= !is_set;
        }
    return bits;
}

Match match_address(const Load& load, std::uint32_t op, const std::string& value, const std::vector<Cidr>& networks)
{
    const auto bits = prefix_bits(load.mask.empty() ? std::string(value.size(), '\xff') : load.mask);
    const auto low = address_of(value, load.family, '\0');
    if (!bits || !low) return Match::maybe;
    if (op == NFT_CMP_EQ || op == NFT_CMP_NEQ) {
        const auto prefix = Cidr::make(*low, *bits);
        if (!prefix) return Match::maybe;
        const Match match = match_prefix(*prefix, networks);
        return op == NFT_CMP_EQ ? match : invert(match);
    }
    if (!load.mask.empty()) return Match::maybe;
    const auto first = address_of({}, load.family, '\0');
    const auto last = address_of({}, load.family, '\xff');
    if (op == NFT_CMP_LT || op == NFT_CMP_LTE) return first ? match_range(*first, *low, networks) : Match::maybe;
    return last ? match_range(*low, *last, networks) : Match::maybe;
}

/// Packets of pods are not INVALID for conntrack.
Match match_ct_state(const Load& load, std::uint32_t op, const std::string& value)
{
    const std::uint32_t state = host_u32(value);
    const bool is_equal = op == NFT_CMP_EQ;
    if (!is_equal && op != NFT_CMP_NEQ) return Match::maybe;
    if (load.mask.empty()) return is_equal && state == kInvalid ? Match::never : Match::maybe;
    if (host_u32(load.mask) != kInvalid) return Match::maybe;
    return is_equal == (state == 0) ? Match::always : Match::never;
}

Match match_name(std::uint32_t op, const std::string& value)
{
    const std::size_t end = value.find('\0');
    const Match match = match_interface(value.substr(0, end), end == std::string::npos);
    if (op == NFT_CMP_EQ) return match;
    return op == NFT_CMP_NEQ ? invert(match) : Match::maybe;
}

Match match_index(std::uint32_t op, const std::string& value)
{
    std::array<char, IF_NAMESIZE> name{};
    const bool is_there = ::if_indextoname(host_u32(value), name.data()) != nullptr;
    const Match match = is_there ? match_interface(name.data(), false) : Match::never;
    if (op == NFT_CMP_EQ) return match;
    return op == NFT_CMP_NEQ ? invert(match) : Match::maybe;
}

class Parser {
public:
    explicit Parser(const std::vector<Cidr>& networks) : networks_(networks) {}

    void expression(const std::string& name, const Attributes& data)
    {
        if (name == "immediate")
            immediate(data);
        else if (name == "payload")
            payload(data);
        else if (name == "meta")
            meta(data);
        else if (name == "ct")
            ct(data);
        else if (name == "bitwise")
            bitwise(data);
        else if (name == "cmp")
            compare(data);
        else if (name == "range")
            range(data);
        else if (name == "lookup")
            lookup(data);
        else if (name == "match" || name == "target")
            compat(name == "match", data);
        else
            other(name, data);
    }
    NftRule take() { return std::move(parsed_); }

private:
    void block(const std::string& how) { parsed_.rule.outcomes.push_back({Kind::block, how}); }

    void immediate(const Attributes& data)
    {
        if (register_of(data, NFTA_IMMEDIATE_DREG) == NFT_REG_VERDICT) {
            const Outcome verdict = parse_verdict(data[NFTA_IMMEDIATE_DATA]);
            if (verdict.kind != Kind::nothing) parsed_.rule.outcomes.push_back(verdict);
        } else {
            loads_.clear();
        }
    }

    void payload(const Attributes& data)
    {
        if (data[NFTA_PAYLOAD_SREG] != nullptr) return block("payload set");
        Load load;
        const auto offset = be32(data, NFTA_PAYLOAD_OFFSET).value_or(0);
        load.size = be32(data, NFTA_PAYLOAD_LEN).value_or(0);
        // RFC 791: source at 12, destination at 16; RFC 8200: 8 and 24. A prefix of whole bytes is loaded shorter.
        if (be32(data, NFTA_PAYLOAD_BASE) == NFT_PAYLOAD_NETWORK_HEADER && load.size > 0) {
            const bool is_v4 = (offset == 12 || offset == 16) && load.size <= 4;
            const bool is_v6 = (offset == 8 || offset == 24) && load.size <= 16 && !(offset == 8 && load.size == 1);
            if (is_v4 || is_v6) load.of = Load::Of::address;
            load.family = is_v4 ? Family::v4 : Family::v6;
        }
        loads_[register_of(data, NFTA_PAYLOAD_DREG)] = load;
    }

    void meta(const Attributes& data)
    {
        if (data[NFTA_META_SREG] != nullptr) return; // marks and priorities
        Load load;
        switch (be32(data, NFTA_META_KEY).value_or(~0U)) {
        case NFT_META_IIFNAME:
        case NFT_META_OIFNAME:
            load.of = Load::Of::ifname;
            break;
        case NFT_META_IIF:
        case NFT_META_OIF:
            load.of = Load::Of::ifindex;
            break;
        case NFT_META_NFPROTO:
            load.of = Load::Of::nfproto;
            break;
        case NFT_META_PROTOCOL:
            load.of = Load::Of::protocol;
            break;
        default:
            break;
        }
        loads_[register_of(data, NFTA_META_DREG)] = load;
    }

    void ct(const Attributes& data)
    {
        const auto key = be32(data, NFTA_CT_KEY);
        if (data[NFTA_CT_SREG] != nullptr) {
            if (key == NFT_CT_ZONE) block("conntrack zone");
            return;
        }
        Load load;
        if (key == NFT_CT_STATE) load.of = Load::Of::ct_state;
        loads_[register_of(data, NFTA_CT_DREG)] = load;
    }

    void bitwise(const Attributes& data)
    {
        Load load = loads_[register_of(data, NFTA_BITWISE_SREG)];
        const std::string flip = parse_value(data[NFTA_BITWISE_XOR]);
        const bool is_mask = be32(data, NFTA_BITWISE_OP).value_or(NFT_BITWISE_BOOL) == NFT_BITWISE_BOOL &&
                             flip.find_first_not_of('\0') == std::string::npos && load.mask.empty();
        load.mask = parse_value(data[NFTA_BITWISE_MASK]);
        if (!is_mask || load.mask.empty()) load = Load{};
        loads_[register_of(data, NFTA_BITWISE_DREG)] = load;
    }

    void compare(const Attributes& data)
    {
        const Load load = loads_[register_of(data, NFTA_CMP_SREG)];
        const auto op = be32(data, NFTA_CMP_OP).value_or(~0U);
        const std::string value = parse_value(data[NFTA_CMP_DATA]);
        switch (load.of) {
        case Load::Of::address:
            parsed_.rule.require(load.family, match_address(load, op, value, networks_));
            break;
        case Load::Of::ct_state:
            parsed_.rule.require(match_ct_state(load, op, value));
            break;
        case Load::Of::ifname:
            parsed_.rule.require(load.mask.empty() ? match_name(op, value) : Match::maybe);
            break;
        case Load::Of::ifindex:
            parsed_.rule.require(load.mask.empty() ? match_index(op, value) : Match::maybe);
            break;
        case Load::Of::nfproto:
        case Load::Of::protocol:
            compare_family(load, op, value);
            break;
        case Load::Of::other:
            parsed_.rule.require(Match::maybe);
            break;
        }
    }

    void compare_family(const Load& load, std::uint32_t op, const std::string& value)
    {
        const bool is_nfproto = load.of == Load::Of::nfproto;
        const std::string v4 = is_nfproto ? std::string(1, NFPROTO_IPV4) : std::string("\x08\x00", 2);
        const std::string v6 = is_nfproto ? std::string(1, NFPROTO_IPV6) : std::string("\x86\xdd", 2);
        if (!load.mask.empty() || (op != NFT_CMP_EQ && op != NFT_CMP_NEQ)) return parsed_.rule.require(Match::maybe);
        const bool is_equal = op == NFT_CMP_EQ;
        parsed_.rule.require(Family::v4, (value == v4) == is_equal ? Match::always : Match::never);
        parsed_.rule.require(Family::v6, (value == v6) == is_equal ? Match::always : Match::never);
    }

    void range(const Attributes& data)
    {
        const Load load = loads_[register_of(data, NFTA_RANGE_SREG)];
        const auto from = address_of(parse_value(data[NFTA_RANGE_FROM_DATA]), load.family, '\0');
        const auto to = address_of(parse_value(data[NFTA_RANGE_TO_DATA]), load.family, '\0');
        if (load.of != Load::Of::address || !load.mask.empty() || !from || !to)
            return parsed_.rule.require(Match::maybe);
        const Match match = match_range(*from, *to, networks_);
        const bool is_inverted = be32(data, NFTA_RANGE_OP).value_or(NFT_RANGE_EQ) == NFT_RANGE_NEQ;
        parsed_.rule.require(load.family, is_inverted ? invert(match) : match);
    }

    void lookup(const Attributes& data)
    {
        const Load load = loads_[register_of(data, NFTA_LOOKUP_SREG)];
        SetUse use;
        use.set = data.text(NFTA_LOOKUP_SET);
        use.is_inverted = (be32(data, NFTA_LOOKUP_FLAGS).value_or(0) & NFT_LOOKUP_F_INV) != 0;
        use.is_verdict_map =
            data[NFTA_LOOKUP_DREG] != nullptr && register_of(data, NFTA_LOOKUP_DREG) == NFT_REG_VERDICT;
        if (load.of == Load::Of::address && load.mask.empty()) use.key = SetUse::Key::address;
        if (load.of == Load::Of::ct_state && load.mask.empty()) use.key = SetUse::Key::ct_state;
        use.family = load.family;
        if (data[NFTA_LOOKUP_DREG] != nullptr && !use.is_verdict_map) {
            loads_.clear(); // a data map: only whether the key is in it matters
            parsed_.rule.require(Match::maybe);
            return;
        }
        parsed_.sets.push_back(use);
    }

    void compat(bool is_match, const Attributes& data)
    {
        // NFTA_TARGET_* are the same numbers.
        const std::string name = data.text(NFTA_MATCH_NAME);
        const nlattr* info = data[NFTA_MATCH_INFO];
        const void* bytes = info != nullptr ? nla_data(info) : nullptr;
        const std::size_t size = info != nullptr ? static_cast<std::size_t>(nla_len(info)) : 0;
        if (is_match) {
            parsed_.rule.require(match_of_xt(name, be32(data, NFTA_MATCH_REV).value_or(0), bytes, size));
            return;
        }
        const Outcome outcome = outcome_of_xt(name, bytes, size);
        if (outcome.kind != Kind::nothing) parsed_.rule.outcomes.push_back(outcome);
    }

    void other(const std::string& name, const Attributes& data)
    {
        static constexpr std::array<std::string_view, 10> kNeutral{
            "counter", "log", "notrack", "last", "nat", "masq", "redir", "flow_offload", "inner", "secmark"};
        static constexpr std::array<std::string_view, 14> kConditions{
            "limit", "quota",  "connlimit", "fib",  "socket", "osf",    "rt",
            "hash",  "numgen", "byteorder", "xfrm", "tunnel", "dynset", "exthdr"};
        if (std::find(kNeutral.begin(), kNeutral.end(), name) != kNeutral.end()) return;
        loads_.clear(); // it may write any register
        const bool is_object = name == "objref";
        if (is_object || std::find(kConditions.begin(), kConditions.end(), name) != kConditions.end()) {
            parsed_.rule.require(Match::maybe);
            if (is_object && be32(data, NFTA_OBJREF_IMM_TYPE) == NFT_OBJECT_SYNPROXY) block("synproxy");
            return;
        }
        block(name); // reject, queue, tproxy, dup, ...
    }

    const std::vector<Cidr>& networks_;
    std::map<std::uint32_t, Load> loads_;
    NftRule parsed_;
};

} // namespace

NftRule parse_nft_rule(const nlattr* expressions, const std::vector<Cidr>& networks)
{
    Parser parser{networks};
    each_of(expressions, [&](const nlattr* one) {
        const Attributes expression{one};
        parser.expression(expression.text(NFTA_EXPR_NAME), Attributes{expression[NFTA_EXPR_DATA]});
    });
    return parser.take();
}

} // namespace twill::netfilter
