// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/netlink.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "twill/ip.hpp"
#include "twill/mac.hpp"

namespace twill::nl {

/// The fixed header of a message, or nullptr when the message is too short to hold it.
template <typename T>
const T* header_of(const nlmsghdr* message)
{
    if (message->nlmsg_len < NLMSG_HDRLEN + sizeof(T)) return nullptr;
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(message) + NLMSG_HDRLEN);
}

/// The attributes of a message or of a nested attribute, by type. Reads nothing outside of it, whatever its bytes say;
/// an attribute that is too short for what is asked of it counts as absent. Borrows the message.
class Attributes {
public:
    Attributes(const nlmsghdr* message, std::size_t header_size);
    /// None when `nest` is nullptr.
    explicit Attributes(const nlattr* nest);
    Attributes(const void* data, std::size_t size) { index(data, size); }

    const nlattr* operator[](unsigned type) const { return type < table_.size() ? table_[type] : nullptr; }

    std::optional<std::uint8_t> u8(unsigned type) const { return read<std::uint8_t>(type); }
    std::optional<std::uint32_t> u32(unsigned type) const { return read<std::uint32_t>(type); }
    std::optional<std::int32_t> s32(unsigned type) const { return read<std::int32_t>(type); }
    /// Network order in the message, host order out.
    std::optional<std::uint16_t> be16(unsigned type) const;
    /// Up to the first NUL; empty when absent.
    std::string text(unsigned type) const;
    /// Zero when absent or of another length than an Ethernet address.
    Mac mac(unsigned type) const;
    /// nullopt when absent or neither 4 nor 16 bytes.
    std::optional<Ip> ip(unsigned type) const;
    /// The first N bytes of the payload.
    template <std::size_t N>
    std::optional<std::array<std::uint8_t, N>> bytes(unsigned type) const
    {
        return read<std::array<std::uint8_t, N>>(type);
    }
    /// The attributes that lie in bytes `skip` to `end` of the payload, as after a struct rtnexthop.
    Attributes nested_after(unsigned type, std::size_t skip, std::size_t end) const;

private:
    static const char* payload(const nlattr* attribute);
    static std::size_t payload_size(const nlattr* attribute);
    void index(const void* data, std::size_t size);

    template <typename T>
    std::optional<T> read(unsigned type) const
    {
        const nlattr* attribute = (*this)[type];
        if (attribute == nullptr || payload_size(attribute) < sizeof(T)) return std::nullopt;
        T value;
        std::memcpy(&value, payload(attribute), sizeof value);
        return value;
    }

    // Types beyond are of no interest: the highest that is read is IFLA_LINK_NETNSID, 37.
    std::array<const nlattr*, 64> table_{};
};

} // namespace twill::nl
