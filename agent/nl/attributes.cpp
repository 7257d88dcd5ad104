// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/attributes.hpp"

#include <arpa/inet.h>
#include <netlink/attr.h>

#include <algorithm>
#include <climits>

namespace twill::nl {

const char* Attributes::payload(const nlattr* attribute)
{
    return reinterpret_cast<const char*>(attribute) + NLA_HDRLEN;
}

std::size_t Attributes::payload_size(const nlattr* attribute)
{
    return attribute->nla_len < NLA_HDRLEN ? 0 : attribute->nla_len - static_cast<std::size_t>(NLA_HDRLEN);
}

Attributes::Attributes(const nlmsghdr* message, std::size_t header_size)
{
    const std::size_t offset = NLMSG_HDRLEN + NLMSG_ALIGN(header_size);
    if (message->nlmsg_len > offset)
        index(reinterpret_cast<const char*>(message) + offset, message->nlmsg_len - offset);
}

Attributes::Attributes(const nlattr* nest)
{
    if (nest != nullptr) index(payload(nest), payload_size(nest));
}

void Attributes::index(const void* data, std::size_t size)
{
    if (size > INT_MAX) return;
    int left = static_cast<int>(size);
    for (const auto* at = static_cast<const nlattr*>(data); nla_ok(at, left); at = nla_next(at, &left)) {
        const auto type = static_cast<unsigned>(nla_type(at));
        if (type < table_.size()) table_[type] = at;
    }
}

std::optional<std::uint16_t> Attributes::be16(unsigned type) const
{
    const auto network = read<std::uint16_t>(type);
    if (!network) return std::nullopt;
    return ntohs(*network);
}

std::string Attributes::text(unsigned type) const
{
    const nlattr* attribute = (*this)[type];
    if (attribute == nullptr) return {};
    return {payload(attribute), strnlen(payload(attribute), payload_size(attribute))};
}

Mac Attributes::mac(unsigned type) const
{
    Mac mac;
    const nlattr* attribute = (*this)[type];
    if (attribute != nullptr && payload_size(attribute) == mac.bytes.size())
        std::memcpy(mac.bytes.data(), payload(attribute), mac.bytes.size());
    return mac;
}

std::optional<Ip> Attributes::ip(unsigned type) const
{
    const nlattr* attribute = (*this)[type];
    if (attribute == nullptr) return std::nullopt;
    auto ip = Ip::from_network(payload(attribute), payload_size(attribute));
    if (!ip) return std::nullopt;
    return *ip;
}

Attributes Attributes::nested_after(unsigned type, std::size_t skip, std::size_t end) const
{
    const nlattr* attribute = (*this)[type];
    if (attribute == nullptr) return Attributes{nullptr};
    const std::size_t stop = std::min(end, payload_size(attribute));
    return stop > skip ? Attributes{payload(attribute) + skip, stop - skip} : Attributes{nullptr};
}

} // namespace twill::nl
