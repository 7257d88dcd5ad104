// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/nft_batch.hpp"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/msg.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "twill/fd.hpp"

namespace twill::nl {

namespace {

/// The kernel's user data of a table: type-length-value, NFTNL_UDATA_TABLE_COMMENT is type 0.
std::string comment_data(std::string_view comment)
{
    std::string data{'\0', static_cast<char>(comment.size() + 1)};
    data += comment;
    data += '\0';
    return data;
}

Error failure(int code, std::string_view what) { return {code, std::string(what) + ": " + std::strerror(code)}; }

/// Begin and end of a batch.
std::string frame(int type, std::uint32_t sequence)
{
    struct {
        nlmsghdr head;
        nfgenmsg body;
    } message{};
    message.head = {sizeof message, static_cast<std::uint16_t>(type), NLM_F_REQUEST, sequence, 0};
    message.body = {AF_UNSPEC, NFNETLINK_V0, htons(NFNL_SUBSYS_NFTABLES)};
    return {reinterpret_cast<const char*>(&message), sizeof message};
}

} // namespace

Message& NftBatch::add(int command, std::uint8_t family, int flags)
{
    messages_.emplace_back(NFNL_SUBSYS_NFTABLES << 8 | command, flags);
    messages_.back().header(nfgenmsg{family, NFNETLINK_V0, 0});
    return messages_.back();
}

void NftBatch::text(Message& message, int attribute, std::string_view value)
{
    const std::string with_end(value);
    message.put(attribute, with_end.c_str(), with_end.size() + 1);
}

void NftBatch::be32(Message& message, int attribute, std::uint32_t value) { message.u32(attribute, htonl(value)); }

void NftBatch::be64(Message& message, int attribute, std::uint64_t value)
{
    const std::uint64_t network = htobe64(value);
    message.put(attribute, &network, sizeof network);
}

void NftBatch::add_table(const NftChain& chain, std::string_view comment)
{
    Message& message = add(NFT_MSG_NEWTABLE, chain.family, NLM_F_CREATE);
    text(message, NFTA_TABLE_NAME, chain.table);
    const auto data = comment_data(comment);
    message.put(NFTA_TABLE_USERDATA, data.data(), data.size());
}

void NftBatch::add_forward_chain(const NftChain& chain)
{
    Message& message = add(NFT_MSG_NEWCHAIN, chain.family, NLM_F_CREATE);
    text(message, NFTA_CHAIN_TABLE, chain.table);
    text(message, NFTA_CHAIN_NAME, chain.name);
    nlattr* hook = message.begin(NFTA_CHAIN_HOOK | NLA_F_NESTED);
    be32(message, NFTA_HOOK_HOOKNUM, NF_INET_FORWARD);
    be32(message, NFTA_HOOK_PRIORITY, 0);
    message.end(hook);
    be32(message, NFTA_CHAIN_POLICY, NF_ACCEPT);
    text(message, NFTA_CHAIN_TYPE, "filter");
}

void NftBatch::del_table(const NftChain& chain)
{
    text(add(NFT_MSG_DELTABLE, chain.family), NFTA_TABLE_NAME, chain.table);
}

void NftBatch::del_rule(const NftChain& chain, std::uint64_t handle)
{
    Message& message = add(NFT_MSG_DELRULE, chain.family);
    text(message, NFTA_RULE_TABLE, chain.table);
    text(message, NFTA_RULE_CHAIN, chain.name);
    be64(message, NFTA_RULE_HANDLE, handle);
}

void NftBatch::del_chain(const NftChain& chain)
{
    Message& rules = add(NFT_MSG_DELRULE, chain.family);
    text(rules, NFTA_RULE_TABLE, chain.table);
    text(rules, NFTA_RULE_CHAIN, chain.name);
    Message& message = add(NFT_MSG_DELCHAIN, chain.family);
    text(message, NFTA_CHAIN_TABLE, chain.table);
    text(message, NFTA_CHAIN_NAME, chain.name);
}

Message& NftBatch::rule(const NftChain& chain, int flags)
{
    Message& message = add(NFT_MSG_NEWRULE, chain.family, NLM_F_CREATE | flags);
    text(message, NFTA_RULE_TABLE, chain.table);
    text(message, NFTA_RULE_CHAIN, chain.name);
    return message;
}

void NftBatch::expression(Message& message, std::string_view name, const std::function<void()>& data)
{
    nlattr* one = message.begin(NFTA_LIST_ELEM | NLA_F_NESTED);
    text(message, NFTA_EXPR_NAME, name);
    nlattr* inside = message.begin(NFTA_EXPR_DATA | NLA_F_NESTED);
    data();
    message.end(inside);
    message.end(one);
}

void NftBatch::verdict(Message& message, std::uint32_t code)
{
    expression(message, "immediate", [&] {
        be32(message, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        nlattr* data = message.begin(NFTA_IMMEDIATE_DATA | NLA_F_NESTED);
        nlattr* inside = message.begin(NFTA_DATA_VERDICT | NLA_F_NESTED);
        be32(message, NFTA_VERDICT_CODE, code);
        message.end(inside);
        message.end(data);
    });
}

void NftBatch::leave_at_once(const NftChain& chain)
{
    Message& message = rule(chain, 0);
    nlattr* list = message.begin(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED);
    verdict(message, static_cast<std::uint32_t>(NFT_RETURN));
    message.end(list);
}

void NftBatch::accept(const NftChain& chain, const Cidr& network, bool is_source)
{
    Message& message = rule(chain, NLM_F_APPEND);
    const bool is_v4 = network.family() == Family::v4;
    const auto value = [&](int attribute, const void* data, std::size_t size) {
        nlattr* nest = message.begin(attribute | NLA_F_NESTED);
        message.put(NFTA_DATA_VALUE, data, size);
        message.end(nest);
    };
    const auto equals = [&](const void* data, std::size_t size) {
        expression(message, "cmp", [&] {
            be32(message, NFTA_CMP_SREG, NFT_REG_1);
            be32(message, NFTA_CMP_OP, NFT_CMP_EQ);
            value(NFTA_CMP_DATA, data, size);
        });
    };
    const std::uint8_t protocol = is_v4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
    const std::size_t size = network.address().network_size();
    // RFC 791: source at 12, destination at 16; RFC 8200: 8 and 24.
    const std::uint32_t offset = is_v4 ? (is_source ? 12 : 16) : (is_source ? 8 : 24);
    std::array<std::uint8_t, 16> mask{};
    const std::array<std::uint8_t, 16> zero{};
    for (unsigned bit = 0; bit < network.bits(); ++bit) mask[bit / 8] |= static_cast<std::uint8_t>(0x80U >> bit % 8);

    nlattr* list = message.begin(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED);
    expression(message, "meta", [&] {
        be32(message, NFTA_META_DREG, NFT_REG_1);
        be32(message, NFTA_META_KEY, NFT_META_NFPROTO);
    });
    equals(&protocol, sizeof protocol);
    expression(message, "payload", [&] {
        be32(message, NFTA_PAYLOAD_DREG, NFT_REG_1);
        be32(message, NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER);
        be32(message, NFTA_PAYLOAD_OFFSET, offset);
        be32(message, NFTA_PAYLOAD_LEN, static_cast<std::uint32_t>(size));
    });
    expression(message, "bitwise", [&] {
        be32(message, NFTA_BITWISE_SREG, NFT_REG_1);
        be32(message, NFTA_BITWISE_DREG, NFT_REG_1);
        be32(message, NFTA_BITWISE_LEN, static_cast<std::uint32_t>(size));
        value(NFTA_BITWISE_MASK, mask.data(), size);
        value(NFTA_BITWISE_XOR, zero.data(), size);
    });
    equals(network.address().network(), size);
    verdict(message, NF_ACCEPT);
    message.end(list);
}

Result<> NftBatch::send(std::string_view what)
{
    if (messages_.empty()) return Ok{};
    const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
    const timeval patience{5, 0};
    if (!socket || ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0)
        return failure(errno, what);
    std::uint32_t sequence = 1;
    std::string bytes = frame(NFNL_MSG_BATCH_BEGIN, sequence);
    for (auto& message : messages_) {
        if (!message.is_valid()) return failure(EMSGSIZE, what);
        nlmsghdr* head = nlmsg_hdr(message.get());
        head->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
        head->nlmsg_seq = ++sequence;
        head->nlmsg_pid = 0;
        bytes.append(reinterpret_cast<const char*>(head), head->nlmsg_len);
        bytes.resize(NLMSG_ALIGN(bytes.size()));
    }
    bytes += frame(NFNL_MSG_BATCH_END, sequence + 1);
    if (::send(socket.get(), bytes.data(), bytes.size(), 0) < 0) return failure(errno, what);
    // One answer each, unless the first is about the whole.
    std::string answer(65536, '\0');
    for (std::uint32_t left = sequence - 1; left > 0;) {
        const ssize_t size = ::recv(socket.get(), answer.data(), answer.size(), 0);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return failure(errno == EAGAIN ? ETIMEDOUT : errno, what);
        int rest = static_cast<int>(size);
        for (auto* head = reinterpret_cast<nlmsghdr*>(answer.data()); nlmsg_ok(head, rest) != 0;
             head = nlmsg_next(head, &rest)) {
            if (head->nlmsg_type != NLMSG_ERROR) continue;
            const auto* error = static_cast<const nlmsgerr*>(nlmsg_data(head));
            if (error->error != 0) return failure(-error->error, what);
            if (left > 0) --left;
        }
    }
    return Ok{};
}

} // namespace twill::nl
