// SPDX-License-Identifier: Apache-2.0
// What a frame says, for people and for checks: describe(), diff() and bad_checksum() of packet.hpp.
#include <fmt/core.h>

#include <algorithm>

#include "tests/support/packet.hpp"

namespace twill::test {
namespace {

/// Walks the layers of a frame; what it finds goes into `lines`, the first wrong checksum into `wrong`.
class Walker {
public:
    Walker(const Bytes& frame, std::uint16_t overlay_port) : frame_(frame), overlay_port_(overlay_port) {}

    void frame(std::size_t at)
    {
        if (!has(at, 14)) return cut("Ethernet", at);
        unsigned type = get16(at + 12);
        line("Ethernet {} -> {} type 0x{:04x}", mac_at(at + 6), mac_at(at), type);
        at += 14;
        if (type == 0x8100 && has(at, 4)) {
            line("VLAN {}", get16(at));
            type = get16(at + 2);
            at += 4;
        }
        if (type == 0x0800) return ip4(at);
        if (type == 0x86dd) return ip6(at);
        data(at, frame_.size());
    }

    std::string text;
    std::optional<std::string> wrong;

private:
    const Bytes& frame_;
    std::uint16_t overlay_port_;

    bool has(std::size_t at, std::size_t size) const { return at + size <= frame_.size(); }
    unsigned get8(std::size_t at) const { return frame_[at]; }
    unsigned get16(std::size_t at) const { return get8(at) << 8U | get8(at + 1); }
    std::uint32_t get32(std::size_t at) const { return get16(at) << 16U | get16(at + 2); }
    std::string mac_at(std::size_t at) const
    {
        Mac m;
        std::copy_n(frame_.begin() + static_cast<std::ptrdiff_t>(at), 6, m.bytes.begin());
        return m.to_string();
    }
    Ip ip_at(std::size_t at, std::size_t size) const { return *Ip::from_network(&frame_[at], size); }

    template <typename... Args>
    void line(fmt::format_string<Args...> format, Args&&... args)
    {
        text += "  " + fmt::format(format, std::forward<Args>(args)...) + "\n";
    }
    void cut(const char* what, std::size_t at)
    {
        line("{} cut: {} bytes", what, frame_.size() - std::min(at, frame_.size()));
    }
    void data(std::size_t at, std::size_t end)
    {
        if (at < end) line("data {} bytes", end - at);
    }
    void check(const char* what, bool good)
    {
        if (!good) line("  {} checksum wrong", what);
        if (!good && !wrong) wrong = fmt::format("{} checksum wrong", what);
    }

    void ip4(std::size_t at)
    {
        if (!has(at, 20)) return cut("IPv4", at);
        const std::size_t header = (get8(at) & 0xfU) * 4;
        const Ip src = ip_at(at + 12, 4);
        const Ip dst = ip_at(at + 16, 4);
        const unsigned frag = get16(at + 6);
        const unsigned proto = get8(at + 9);
        line("IPv4 {} -> {} version {} header {} len {} ttl {} tos 0x{:02x} id 0x{:04x} frag 0x{:04x} proto {}",
             src.to_string(), dst.to_string(), get8(at) >> 4U, header, get16(at + 2), get8(at + 8), get8(at + 1),
             get16(at + 4), frag, proto);
        if (header < 20 || !has(at, header)) return cut("IPv4 header", at);
        check("IPv4", ones_sum(&frame_[at], header) == 0xffff);
        const std::size_t end = std::min(frame_.size(), at + get16(at + 2));
        if ((frag & 0x1fffU) != 0) return data(at + header, end);
        transport(proto, at + header, end, src, dst, (frag & 0x2000U) == 0);
    }

    void ip6(std::size_t at)
    {
        if (!has(at, 40)) return cut("IPv6", at);
        const Ip src = ip_at(at + 8, 16);
        const Ip dst = ip_at(at + 24, 16);
        unsigned next = get8(at + 6);
        line("IPv6 {} -> {} version {} class 0x{:02x} label 0x{:05x} len {} hop limit {} next {}", src.to_string(),
             dst.to_string(), get8(at) >> 4U, get16(at) >> 4U & 0xffU, get32(at) & 0xfffffU, get16(at + 4),
             get8(at + 7), next);
        const std::size_t end = std::min(frame_.size(), at + 40 + get16(at + 4));
        at += 40;
        bool whole = true;
        while ((next == 0 || next == 43 || next == 44 || next == 60) && has(at, 8)) {
            line("extension header {}", next);
            if (next == 44) whole = (get16(at + 2) & 0xfff9U) == 0;
            if (next == 44 && (get16(at + 2) & 0xfff8U) != 0) return data(at + 8, end);
            const std::size_t size = next == 44 ? 8 : 8 + 8 * get8(at + 1);
            next = get8(at);
            at += size;
        }
        transport(next, at, end, src, dst, whole);
    }

    void transport(unsigned proto, std::size_t at, std::size_t end, const Ip& src, const Ip& dst, bool whole)
    {
        const std::size_t size = at < end ? end - at : 0;
        const auto sums = [&](bool with_pseudo) {
            std::uint32_t start = 0;
            if (with_pseudo) {
                start = ones_sum(src.network(), src.network_size());
                start = ones_sum(dst.network(), dst.network_size(), start) + proto + static_cast<std::uint32_t>(size);
            }
            return ones_sum(&frame_[at], size, start) == 0xffff;
        };
        if (proto == 17 && size >= 8) {
            line("UDP {} -> {} len {} checksum 0x{:04x}", get16(at), get16(at + 2), get16(at + 4), get16(at + 6));
            if (whole && get16(at + 6) != 0) check("UDP", sums(true));
            if (get16(at + 2) == overlay_port_ && size >= 16) return vxlan(at + 8);
            return data(at + 8, end);
        }
        if (proto == 6 && size >= 20) {
            line("TCP {} -> {} flags 0x{:02x}", get16(at), get16(at + 2), get8(at + 13));
            if (whole) check("TCP", sums(true));
            return data(at + 20, end);
        }
        if ((proto == 1 || proto == 58) && size >= 8) {
            line("ICMP type {} code {}", get8(at), get8(at + 1));
            if (whole) check("ICMP", sums(proto == 58));
            return data(at + 8, end);
        }
        data(at, end);
    }

    void vxlan(std::size_t at)
    {
        line("VXLAN flags 0x{:02x} reserved 0x{:06x} vni {} reserved 0x{:02x}", get8(at), get32(at) & 0xffffffU,
             get32(at + 4) >> 8U, get8(at + 7));
        frame(at + 8);
    }
};

std::string row(const char* sign, const Bytes& bytes, std::size_t at)
{
    std::string out = fmt::format("{} {:04x} ", sign, at);
    for (std::size_t i = at; i < std::min(at + 16, bytes.size()); ++i) out += fmt::format(" {:02x}", bytes[i]);
    return out + "\n";
}

} // namespace

std::string describe(const Bytes& frame, std::uint16_t overlay_port)
{
    Walker walker(frame, overlay_port);
    walker.frame(0);
    return walker.text;
}

std::optional<std::string> bad_checksum(const Bytes& frame, std::uint16_t overlay_port)
{
    Walker walker(frame, overlay_port);
    walker.frame(0);
    return walker.wrong;
}

std::string diff(const Bytes& expected, const Bytes& actual, std::size_t from)
{
    std::string rows;
    for (std::size_t at = 0; at < std::max(expected.size(), actual.size()); at += 16) {
        bool same = true;
        for (std::size_t i = std::max(at, from); i < at + 16; ++i) {
            const int a = i < expected.size() ? expected[i] : -1;
            const int b = i < actual.size() ? actual[i] : -1;
            same = same && a == b;
        }
        if (!same) rows += row("-", expected, at) + row("+", actual, at);
    }
    if (rows.empty()) return "";
    return "expected:\n" + describe(expected) + "actual:\n" + describe(actual) + rows;
}

} // namespace twill::test
