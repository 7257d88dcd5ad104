// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/message.hpp"

#include <arpa/inet.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

namespace twill::nl {

void Message::Free::operator()(nl_msg* message) const noexcept { nlmsg_free(message); }

Message::Message(int type, int flags) : message_(nlmsg_alloc_simple(type, flags)), is_valid_(message_ != nullptr) {}

void Message::append(const void* data, std::size_t size)
{
    // The kernel's headers copy as they are: their size is their layout.
    if (is_valid_) is_valid_ = nlmsg_append(message_.get(), const_cast<void*>(data), size, NLMSG_ALIGNTO) == 0;
}

void Message::put(int attribute, const void* data, std::size_t size)
{
    if (is_valid_) is_valid_ = nla_put(message_.get(), attribute, static_cast<int>(size), data) == 0;
}

void Message::be16(int attribute, std::uint16_t value)
{
    const std::uint16_t network = htons(value);
    put(attribute, &network, sizeof network);
}

nlattr* Message::begin(int attribute)
{
    nlattr* nest = is_valid_ ? nla_nest_start(message_.get(), attribute) : nullptr;
    is_valid_ = nest != nullptr;
    return nest;
}

void Message::end(nlattr* nest)
{
    if (is_valid_) nla_nest_end(message_.get(), nest);
}

} // namespace twill::nl
