// SPDX-License-Identifier: Apache-2.0
#include "twill/ip.hpp"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>

namespace twill {

std::string_view to_string(Family family) { return family == Family::v4 ? "IPv4" : "IPv6"; }

Result<Ip> Ip::from_network(const void* bytes, std::size_t size)
{
    std::array<std::uint8_t, 16> raw{};
    if (size == 4) {
        raw[10] = raw[11] = 0xff;
        std::memcpy(raw.data() + 12, bytes, 4);
    } else if (size == 16) {
        std::memcpy(raw.data(), bytes, 16);
    } else {
        return Error{EINVAL, "address of " + std::to_string(size) + " bytes: want 4 or 16"};
    }
    return from_bytes(raw);
}

Result<Ip> Ip::parse(std::string_view text)
{
    const std::string terminated(text);
    std::uint8_t raw[16];
    if (inet_pton(AF_INET, terminated.c_str(), raw) == 1) return from_network(raw, 4);
    if (inet_pton(AF_INET6, terminated.c_str(), raw) == 1) return from_network(raw, 16);
    return Error{EINVAL, "\"" + terminated + "\" is not an IP address"};
}

bool Ip::is_unspecified() const
{
    for (std::size_t i = is_v4() ? 12 : 0; i < bytes_.size(); ++i)
        if (bytes_[i] != 0) return false;
    return true;
}

Ip Ip::plus(std::uint64_t n) const
{
    Ip sum = *this;
    const std::size_t first = is_v4() ? 12 : 0;
    for (std::size_t i = bytes_.size(); i-- > first && n != 0;) {
        n += sum.bytes_[i];
        sum.bytes_[i] = static_cast<std::uint8_t>(n & 0xff);
        n >>= 8;
    }
    return sum;
}

std::string Ip::to_string() const
{
    char text[INET6_ADDRSTRLEN];
    inet_ntop(is_v4() ? AF_INET : AF_INET6, network(), text, sizeof(text));
    return text;
}

namespace {

/// Applies `f(byte, mask)` to each byte of `ip` that belongs to its family; mask has the prefix bits set.
template <typename F>
Ip map_masked(const Ip& ip, unsigned bits, F f)
{
    auto raw = ip.bytes();
    const unsigned skip = ip.is_v4() ? 12 : 0;
    for (unsigned i = skip; i < raw.size(); ++i) {
        const unsigned before = (i - skip) * 8;
        const unsigned set = bits <= before ? 0 : bits - before >= 8 ? 8 : bits - before;
        raw[i] = f(raw[i], static_cast<std::uint8_t>(0xff00U >> set));
    }
    return Ip::from_bytes(raw);
}

} // namespace

Result<Cidr> Cidr::make(Ip ip, unsigned bits)
{
    const unsigned most = ip.is_v4() ? 32 : 128;
    if (bits > most)
        return Error{EINVAL, "prefix length " + std::to_string(bits) + " of " + ip.to_string() + ": want 0.." +
                                 std::to_string(most)};
    Cidr cidr;
    cidr.address_ = map_masked(
        ip, bits, [](std::uint8_t byte, std::uint8_t mask) { return static_cast<std::uint8_t>(byte & mask); });
    cidr.bits_ = bits;
    return cidr;
}

Result<Cidr> Cidr::parse(std::string_view text)
{
    const auto bad = [&] { return Error{EINVAL, "\"" + std::string(text) + "\" is not a CIDR such as 10.42.0.0/16"}; };
    const auto slash = text.find('/');
    if (slash == std::string_view::npos) return bad();
    auto ip = Ip::parse(text.substr(0, slash));
    if (!ip) return bad();
    const auto digits = text.substr(slash + 1);
    unsigned bits = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    if (error != std::errc{} || end != digits.data() + digits.size()) return bad();
    auto cidr = make(*ip, bits);
    if (!cidr) return bad();
    return cidr;
}

bool Cidr::contains(const Ip& ip) const
{
    if (ip.family() != family()) return false;
    auto masked = make(ip, bits_);
    return masked && masked->address_ == address_;
}

bool Cidr::contains(const Cidr& other) const
{
    return other.family() == family() && other.bits_ >= bits_ && contains(other.address_);
}

Ip Cidr::last() const
{
    return map_masked(address_, bits_, [](std::uint8_t byte, std::uint8_t mask) {
        return static_cast<std::uint8_t>(byte | static_cast<std::uint8_t>(~mask));
    });
}

Cidr Cidr::next() const
{
    Cidr cidr = *this;
    cidr.address_ = last().plus(1);
    return cidr;
}

std::string Cidr::to_string() const { return address_.to_string() + "/" + std::to_string(bits_); }

std::string Cidr::to_key() const { return address_.to_string() + "-" + std::to_string(bits_); }

} // namespace twill
