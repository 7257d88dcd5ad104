// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/nat/frame.hpp"

#include <netinet/in.h>

#include <cstring>

namespace twill::interop::nat {
namespace {

std::uint16_t get16(const Bytes& frame, std::size_t at)
{
    return at + 2 <= frame.size() ? static_cast<std::uint16_t>(frame[at] << 8U | frame[at + 1]) : 0;
}

void put16(Bytes& frame, std::size_t at, std::uint16_t value)
{
    frame[at] = static_cast<std::uint8_t>(value >> 8U);
    frame[at + 1] = static_cast<std::uint8_t>(value);
}

/// RFC 1624. `zero_is_none`: UDP's, where zero stays and never comes out.
void mend(Bytes& frame, std::size_t check, std::uint16_t from, std::uint16_t to, bool zero_is_none)
{
    const std::uint16_t old = get16(frame, check);
    if (zero_is_none && old == 0) return;
    std::uint32_t sum = static_cast<std::uint16_t>(~old);
    sum += static_cast<std::uint16_t>(~from);
    sum += to;
    while (sum >> 16U != 0) sum = (sum & 0xffffU) + (sum >> 16U);
    auto now = static_cast<std::uint16_t>(~sum);
    // Either form of zero says the same.
    if (now == 0xffff && !zero_is_none) now = 0;
    if (now == 0 && zero_is_none) now = 0xffff;
    put16(frame, check, now);
}

bool read_ip4(const Bytes& frame, std::size_t l3, View& out)
{
    if (l3 + 20 > frame.size()) return false;
    out.src = *Ip::from_network(frame.data() + l3 + 12, 4);
    out.dst = *Ip::from_network(frame.data() + l3 + 16, 4);
    out.proto = frame[l3 + 9];
    out.l4 = l3 + (frame[l3] & 15U) * 4;
    out.part = (get16(frame, l3 + 6) & 0x3fffU) != 0;
    out.later = (get16(frame, l3 + 6) & 0x1fffU) != 0;
    return true;
}

bool read_ip6(const Bytes& frame, std::size_t l3, View& out)
{
    if (l3 + 40 > frame.size()) return false;
    out.v6 = true;
    out.src = *Ip::from_network(frame.data() + l3 + 8, 16);
    out.dst = *Ip::from_network(frame.data() + l3 + 24, 16);
    out.proto = frame[l3 + 6];
    out.l4 = l3 + 40;
    while (out.proto == 0 || out.proto == 43 || out.proto == 44 || out.proto == 60) {
        if (out.l4 + 8 > frame.size() || out.later) break;
        const std::size_t at = out.l4;
        if (out.proto == 44) {
            out.part = true;
            out.later = (get16(frame, at + 2) & 0xfff8U) != 0;
            out.l4 += 8;
        } else {
            out.l4 += (frame[at + 1] + 1U) * 8;
        }
        out.proto = frame[at];
    }
    return true;
}

void read_icmp(const Bytes& frame, View& out)
{
    if (out.l4 + 8 > frame.size()) return;
    const std::uint8_t type = frame[out.l4];
    const std::uint16_t id = get16(frame, out.l4 + 4);
    const bool asks = out.v6 ? type == 128 : type == 8 || type == 13 || type == 15 || type == 17;
    const bool answers = out.v6 ? type == 129 : type == 0 || type == 14 || type == 16 || type == 18;
    if (asks) out.sport = id;
    if (answers) out.dport = id;
    if (out.v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12) out.quote = out.l4 + 8;
}

} // namespace

std::optional<View> view(const Bytes& frame, std::size_t l3)
{
    View out;
    out.l3 = l3;
    if (l3 >= frame.size()) return std::nullopt;
    const unsigned version = frame[l3] >> 4U;
    if (version == 4 ? !read_ip4(frame, l3, out) : version != 6 || !read_ip6(frame, l3, out)) return std::nullopt;
    if (out.later) return out;
    if (out.proto == IPPROTO_TCP || out.proto == IPPROTO_UDP || out.proto == IPPROTO_SCTP) {
        out.sport = get16(frame, out.l4);
        out.dport = get16(frame, out.l4 + 2);
    } else if (is_icmp(out)) {
        read_icmp(frame, out);
    }
    return out;
}

bool is_icmp(const View& view) { return view.proto == (view.v6 ? 58 : 1); }

std::size_t check_at(const View& view)
{
    if (view.later) return 0;
    if (view.proto == IPPROTO_TCP) return view.l4 + 16;
    if (view.proto == IPPROTO_UDP) return view.l4 + 6;
    return is_icmp(view) ? view.l4 + 2 : 0;
}

std::uint32_t crc32c(const Bytes& bytes, std::size_t at)
{
    std::uint32_t crc = 0xffffffffU;
    for (std::size_t i = at; i < bytes.size(); ++i) {
        crc ^= i >= at + 8 && i < at + 12 ? 0U : bytes[i];
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1U ^ ((crc & 1U) != 0 ? 0x82f63b78U : 0U);
    }
    return ~crc;
}

bool is_right_sctp(const Bytes& frame, std::size_t l4)
{
    std::uint32_t sum = 0;
    std::memcpy(&sum, frame.data() + l4 + 8, sizeof sum); // little endian, as we are
    return sum == crc32c(frame, l4);
}

std::optional<std::uint16_t> Names::find(std::uint8_t proto, std::uint16_t outside) const
{
    const auto found = names_.find({proto, outside});
    if (found == names_.end()) return std::nullopt;
    return found->second;
}

Bytes Names::canonical(Bytes frame, bool partial) const
{
    const auto outer = view(frame);
    if (!outer || outer->later) return frame;
    const auto rename = [&](const View& of, std::size_t at, std::size_t error_check) {
        const std::uint16_t old = get16(frame, at);
        const auto name = find(of.proto, old);
        if (!name || at + 2 > frame.size()) return;
        put16(frame, at, *name);
        if (error_check != 0) mend(frame, error_check, old, *name, false);
        const std::size_t check = check_at(of);
        if (check == 0 || check + 2 > frame.size() || partial) return;
        const std::uint16_t was = get16(frame, check);
        mend(frame, check, old, *name, of.proto == IPPROTO_UDP);
        if (error_check != 0) mend(frame, error_check, was, get16(frame, check), false);
    };
    if (outer->quote != 0) {
        if (const auto quoted = view(frame, outer->quote); quoted && is_ours(quoted->dst) && !quoted->later)
            rename(*quoted, is_icmp(*quoted) ? quoted->l4 + 4 : quoted->l4 + 2, outer->l4 + 2);
        return frame;
    }
    // SCTP's sum is over the ports: right or wrong is all that there is to say.
    const bool sctp = outer->proto == IPPROTO_SCTP && outer->l4 + 12 <= frame.size() && !outer->part;
    const bool right = sctp && is_right_sctp(frame, outer->l4);
    if (is_ours(outer->src)) rename(*outer, is_icmp(*outer) ? outer->l4 + 4 : outer->l4, 0);
    if (sctp) std::memset(frame.data() + outer->l4 + 8, right ? 0 : 0xff, 4);
    return frame;
}

} // namespace twill::interop::nat
