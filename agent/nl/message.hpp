// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "twill/ip.hpp"
#include "twill/mac.hpp"

struct nl_msg;
struct nlattr;

namespace twill::nl {

/// A netlink request under construction. A part that does not fit makes the message invalid; the send reports it.
class Message {
public:
    /// `flags` beside NLM_F_REQUEST, which the socket adds.
    Message(int type, int flags);

    /// The family's fixed header, once, before any attribute.
    template <typename T>
    void header(const T& value)
    {
        append(&value, sizeof value);
    }
    void put(int attribute, const void* data, std::size_t size);
    void u8(int attribute, std::uint8_t value) { put(attribute, &value, sizeof value); }
    /// Host order.
    void u32(int attribute, std::uint32_t value) { put(attribute, &value, sizeof value); }
    /// Host order in, network order in the message.
    void be16(int attribute, std::uint16_t value);
    void flag(int attribute) { put(attribute, nullptr, 0); }
    void text(int attribute, std::string_view value) { put(attribute, value.data(), value.size()); }
    void mac(int attribute, const Mac& value) { put(attribute, value.bytes.data(), value.bytes.size()); }
    void ip(int attribute, const Ip& value) { put(attribute, value.network(), value.network_size()); }

    /// Attributes put until end() belong to this one.
    nlattr* begin(int attribute);
    void end(nlattr* nest);

    bool is_valid() const { return is_valid_; }
    nl_msg* get() { return message_.get(); }

private:
    struct Free {
        void operator()(nl_msg* message) const noexcept;
    };
    void append(const void* data, std::size_t size);

    std::unique_ptr<nl_msg, Free> message_;
    bool is_valid_;
};

} // namespace twill::nl
