// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "twill/result.hpp"

namespace twill {

/// Address family of an overlay: each has its own pod CIDR, underlay address and route.
enum class Family : std::uint8_t { v4, v6 };
inline constexpr std::array kFamilies = {Family::v4, Family::v6};
/// "IPv4" or "IPv6".
std::string_view to_string(Family family);

/// One IPv4 or IPv6 address in network byte order. An IPv4 address is held in its IPv4-mapped form (RFC 4291 2.5.5.2),
/// so that code is written once for both families; `::ffff:a.b.c.d` in text is therefore IPv4. Default: `::`.
class Ip {
public:
    constexpr Ip() = default;

    static constexpr Ip from_bytes(const std::array<std::uint8_t, 16>& bytes)
    {
        Ip ip;
        ip.bytes_ = bytes;
        return ip;
    }
    static constexpr Ip v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d)
    {
        return from_bytes({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d});
    }
    /// `size` is 4 or 16 bytes in network order. EINVAL otherwise.
    static Result<Ip> from_network(const void* bytes, std::size_t size);
    /// Dotted quad or RFC 4291 text; no zone, no prefix. EINVAL names the text.
    static Result<Ip> parse(std::string_view text);

    constexpr bool is_v4() const
    {
        for (std::size_t i = 0; i < 10; ++i)
            if (bytes_[i] != 0) return false;
        return bytes_[10] == 0xff && bytes_[11] == 0xff;
    }
    constexpr Family family() const { return is_v4() ? Family::v4 : Family::v6; }
    /// `::` or 0.0.0.0.
    bool is_unspecified() const;
    /// 16 bytes, IPv4-mapped for IPv4.
    constexpr const std::array<std::uint8_t, 16>& bytes() const { return bytes_; }
    /// The wire form: 4 bytes for IPv4, 16 for IPv6.
    constexpr const std::uint8_t* network() const { return is_v4() ? bytes_.data() + 12 : bytes_.data(); }
    constexpr std::size_t network_size() const { return is_v4() ? 4 : 16; }
    /// This address plus `n`, carrying within the family's width (wraps).
    Ip plus(std::uint64_t n) const;
    /// Dotted quad, or RFC 5952 text.
    std::string to_string() const;

    constexpr auto operator<=>(const Ip&) const = default;

private:
    std::array<std::uint8_t, 16> bytes_{};
};

/// An IP prefix without host bits. `bits` counts within the family: 0..32 or 0..128.
class Cidr {
public:
    Cidr() = default;
    /// Masks the host bits off. EINVAL when `bits` is out of range.
    static Result<Cidr> make(Ip ip, unsigned bits);
    /// "10.42.1.0/24"; host bits are masked off, as flannel does. EINVAL names the text.
    static Result<Cidr> parse(std::string_view text);

    const Ip& address() const { return address_; }
    unsigned bits() const { return bits_; }
    Family family() const { return address_.family(); }
    bool contains(const Ip& ip) const;
    /// Every address of `other` lies in this one.
    bool contains(const Cidr& other) const;
    bool overlaps(const Cidr& other) const { return contains(other) || other.contains(*this); }
    /// Highest address of the prefix.
    Ip last() const;
    /// The prefix of the same length that follows this one (wraps).
    Cidr next() const;
    /// "10.42.1.0/24".
    std::string to_string() const;
    /// flannel's key form, "10.42.1.0-24".
    std::string to_key() const;

    auto operator<=>(const Cidr&) const = default;

private:
    Ip address_;
    unsigned bits_ = 0;
};

/// One value for each family, either of which may be the type's empty value.
template <typename T>
struct PerFamily {
    T v4{};
    T v6{};
    T& operator[](Family family) { return family == Family::v4 ? v4 : v6; }
    const T& operator[](Family family) const { return family == Family::v4 ? v4 : v6; }
    bool operator==(const PerFamily&) const = default;
};

} // namespace twill
