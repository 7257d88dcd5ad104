// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

/// flannel's netfilter rules of this network namespace, known by the names that it gives them: chains FLANNEL-POSTRTG
/// (nat) and FLANNEL-FWD (filter) of iptables and ip6tables, and the tables ip flannel-ipv4 and ip6 flannel-ipv6 of
/// nftables. Nobody else's are touched. Without netfilter in the kernel there are none.
///
/// They go in two steps. silence(): what is new is not translated by them any more; they stay for the connections that
/// they translated, because the kernel translates only as long as some rule wants it to. remove(): all of them.
class FlannelRules {
public:
    /// Reads what is there. Errors: those of netlink.
    static Result<FlannelRules> read(Family family);

    bool is_empty() const { return where_.empty(); }
    /// For people: "nft table ip nat chain FLANNEL-POSTRTG".
    const std::vector<std::string>& where() const { return where_; }
    /// Would the kernel go on to translate without them? Somebody else's rules make it do so.
    bool is_backed() const { return is_backed_; }

    /// May be repeated.
    Result<> silence() const;
    /// What flannel's chain FLANNEL-FWD accepts somebody else may drop without it.
    enum class Part : std::uint8_t { masquerade, all };
    Result<> remove(Part part) const;

private:
    explicit FlannelRules(Family family) : family_(family) {}

    Family family_;
    std::vector<std::string> where_;
    bool is_backed_ = false;
};

/// How many connections the kernel translates for `networks`: the source of their opener is a pod's, and the other end
/// sees another.
Result<std::size_t> count_masqueraded(const PerFamily<std::optional<Cidr>>& networks);

} // namespace twill
