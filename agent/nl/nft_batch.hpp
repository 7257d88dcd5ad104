// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/nl/message.hpp"
#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill::nl {

/// What names a chain of nftables.
struct NftChain {
    std::uint8_t family = 0; ///< NFPROTO_*
    std::string table;
    std::string name;
    auto operator<=>(const NftChain&) const = default;
};

/// Changes of nftables that happen together or not at all.
class NftBatch {
public:
    /// NFT_MSG_*; `flags` as NLM_F_CREATE. The caller adds attributes.
    Message& add(int command, std::uint8_t family, int flags = 0);
    static void text(Message& message, int attribute, std::string_view value);
    static void be32(Message& message, int attribute, std::uint32_t value);
    static void be64(Message& message, int attribute, std::uint64_t value);

    void add_table(const NftChain& chain, std::string_view comment);
    /// On the hook `forward`, at the priority of filters, that lets pass.
    void add_forward_chain(const NftChain& chain);
    void del_table(const NftChain& chain);
    void del_rule(const NftChain& chain, std::uint64_t handle);
    /// With all its rules.
    void del_chain(const NftChain& chain);
    /// A rule behind all others, of a table for both families: packets whose source (or destination) lies in `network`
    /// pass.
    void accept(const NftChain& chain, const Cidr& network, bool is_source);
    /// A rule before all others of the chain that leaves it.
    void leave_at_once(const NftChain& chain);

    bool is_empty() const { return messages_.empty(); }
    Result<> send(std::string_view what);

private:
    Message& rule(const NftChain& chain, int flags);
    static void expression(Message& message, std::string_view name, const std::function<void()>& data);
    static void verdict(Message& message, std::uint32_t code);

    std::vector<Message> messages_;
};

} // namespace twill::nl
