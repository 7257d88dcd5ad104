// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/nat/talk.hpp"

#include <fmt/core.h>
#include <netinet/in.h>
#include <poll.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace twill::interop::nat {
namespace {

using namespace test;

const Mac kNear = mac("02:bb:00:00:02:10"), kOutside = mac("02:ee:00:00:00:01");
const Mac kNodePod[] = {mac("02:bb:00:00:12:10"), mac("02:bb:00:00:13:10")};
const Mac kNodeWire[] = {mac("02:aa:00:00:01:10"), mac("02:aa:00:00:02:10")};
constexpr std::uint16_t kFenceId = 0xfe4c;
constexpr std::size_t kVxlanTail = 8 + 8 + 14;

bool is_near(Where where) { return where == Where::pod1 || where == Where::pod2; }

Eth eth_for(Where where)
{
    if (is_near(where)) return {kNodePod[where == Where::pod2], kNear, {}};
    return {kNodeWire[where == Where::wire2], kOutside, {}};
}

std::uint64_t now_ms()
{
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1000000;
}

/// The kernel's own talk: neighbours, group membership.
bool is_noise(const View& view, const Bytes& frame)
{
    if (!view.v6) return view.proto == IPPROTO_IGMP;
    if (view.proto != IPPROTO_ICMPV6 || view.l4 >= frame.size()) return false;
    return frame[view.l4] >= 130 && frame[view.l4] != 137;
}

bool is_noise6(const View& view, const Bytes& frame)
{
    return view.v6 && view.proto == IPPROTO_ICMPV6 && view.l4 < frame.size() && frame[view.l4] == 143;
}

std::uint16_t pseudo_sum(const View& view, std::size_t length)
{
    Bytes head(view.src.network(), view.src.network() + view.src.network_size());
    head.insert(head.end(), view.dst.network(), view.dst.network() + view.dst.network_size());
    for (const std::uint32_t word : {static_cast<std::uint32_t>(length), static_cast<std::uint32_t>(view.proto)})
        for (const unsigned shift : {24U, 16U, 8U, 0U}) head.push_back(static_cast<std::uint8_t>(word >> shift));
    return ones_sum(head.data(), head.size());
}

/// Leaves the sum of a TCP or UDP packet to the NIC.
std::optional<Offload> make_partial(Bytes& frame)
{
    const auto is = view(frame);
    if (!is || is->part || (is->proto != IPPROTO_TCP && is->proto != IPPROTO_UDP)) return std::nullopt;
    const std::size_t check = check_at(*is);
    if (check + 2 > frame.size() || (is->proto == IPPROTO_UDP && frame[check] == 0 && frame[check + 1] == 0))
        return std::nullopt;
    const std::uint16_t sum = pseudo_sum(*is, frame.size() - is->l4);
    frame[check] = static_cast<std::uint8_t>(sum >> 8U);
    frame[check + 1] = static_cast<std::uint8_t>(sum);
    Offload offload;
    offload.flags = kNeedsCsum;
    offload.csum_start = static_cast<std::uint16_t>(is->l4);
    offload.csum_offset = static_cast<std::uint16_t>(check - is->l4);
    return offload;
}

/// What the node's kernel chooses at random: identification (with the header's sum) or flow label.
void forget_own(Bytes& frame)
{
    if (frame.size() < 34) return;
    if (frame[14] >> 4U == 4)
        frame[18] = frame[19] = frame[24] = frame[25] = 0;
    else
        frame[15] = frame[16] = frame[17] = 0;
}

std::string hex(const Bytes& bytes)
{
    std::string text;
    for (const std::uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
    return text;
}

} // namespace

// --- sending and hearing -----------------------------------------------------------------------------------------

std::vector<Heard> Talk::send(Where where, const Layers& layers, const std::optional<Offload>& offload)
{
    Bytes frame = build(Layers{eth_for(where)} + layers);
    if (!style_.partial || offload) return send_bytes(where, frame, offload);
    const auto partial = make_partial(frame);
    return send_bytes(where, frame, partial);
}

std::vector<Heard> Talk::send_bytes(Where where, const Bytes& frame, const std::optional<Offload>& offload)
{
    const int error = world_.port(where).send(frame, offload);
    note(fmt::format("> {} sends{}", to_string(where), error != 0 ? std::string(": ") + std::strerror(error) : ""));
    std::vector<Heard> heard;
    fence();
    read(heard, false);
    return heard;
}

std::vector<Heard> Talk::send_all(Where where, const std::vector<Layers>& packets)
{
    for (const Layers& layers : packets) world_.port(where).send(build(Layers{eth_for(where)} + layers));
    note(fmt::format("> {} sends {}", to_string(where), packets.size()));
    std::vector<Heard> heard;
    fence();
    read(heard, false);
    return heard;
}

std::vector<Heard> Talk::send_segments(Where where, const Layers& layers, std::uint16_t size)
{
    Bytes frame = build(Layers{eth_for(where)} + layers);
    auto offload = make_partial(frame);
    const auto is = view(frame);
    if (!offload || !is) return {};
    const bool tcp = is->proto == IPPROTO_TCP;
    offload->gso_type = !tcp ? kGsoUdp : v4() ? kGsoTcp4 : kGsoTcp6;
    offload->gso_size = size;
    offload->hdr_len = static_cast<std::uint16_t>(is->l4 + (tcp ? 20 : 8));
    return send_bytes(where, frame, offload);
}

std::vector<Heard> Talk::act(const std::string& what, const std::function<void()>& act)
{
    world_.inside(act);
    note("> " + what);
    std::vector<Heard> heard;
    fence();
    read(heard, true);
    return heard;
}

/// What comes out after a packet of the fence has come out behind everything before it. The programs' work is done on
/// the sending CPU before the system call returns, or in order behind it: a fence in each direction that arrives says
/// that all is over. Echo replies of nobody's are nobody's to translate.
void Talk::fence()
{
    const auto reply = [&](Where where, const Ip& src, const Ip& dst) {
        const auto seq = static_cast<std::uint16_t>(++fences_);
        const Layer echo = v4() ? Layer{Icmp{.type = 0, .id = kFenceId, .seq = seq}}
                                : Layer{Icmp6{.type = 129, .id = kFenceId, .seq = seq}};
        world_.port(where).send(build({eth_for(where), ip_layer(src, dst), echo}));
    };
    reply(Where::wire, e.outside, e.pod1);
    reply(Where::wire2, e.outside2, e.pod2);
    reply(Where::pod1, e.pod1, e.outside);
    reply(Where::pod2, e.pod2, e.outside2);
}

void Talk::read(std::vector<Heard>& heard, bool own)
{
    unsigned fences = 0;
    const std::uint64_t until = now_ms() + 10000;
    while (fences < 4 && now_ms() < until) {
        std::array<pollfd, kWheres> all{};
        for (std::size_t i = 0; i < kWheres; ++i)
            all[i] = {.fd = world_.port(static_cast<Where>(i)).fd(), .events = POLLIN, .revents = 0};
        ::poll(all.data(), all.size(), 100);
        for (std::size_t i = 0; i < kWheres; ++i) {
            Offload left;
            while (auto frame = world_.port(static_cast<Where>(i)).receive(&left)) {
                const auto is = view(*frame);
                if (!is || is_noise6(*is, *frame)) continue;
                if (is_icmp(*is) && (is->dport == kFenceId || is->sport == kFenceId)) {
                    ++fences;
                    continue;
                }
                if (!is_noise(*is, *frame)) keep(static_cast<Where>(i), std::move(*frame), left, heard);
            }
        }
    }
    std::stable_sort(heard.begin(), heard.end(), [](const Heard& a, const Heard& b) { return a.where < b.where; });
    for (Heard& one : heard) {
        one.own = own || one.frame[one.view.l3 + (one.view.v6 ? 7 : 8)] == 64; // what is forwarded has less
        trace_.emplace_back("", one);
    }
    if (fences < 4) {
        lost_ = true;
        failures_.push_back(fmt::format("{} of 4 fences arrived in {}", fences, world_.name()));
    }
}

void Talk::keep(Where where, Bytes frame, const Offload& left, std::vector<Heard>& heard)
{
    Heard one{.where = where, .frame = std::move(frame), .left = left, .view = {}};
    one.view = *view(one.frame);
    const std::size_t at = one.view.l4;
    if (one.view.proto == IPPROTO_UDP && one.view.dport == 8472 && !is_near(where)) {
        one.overlay = true;
        one.frame.erase(one.frame.begin() + 14, one.frame.begin() + static_cast<std::ptrdiff_t>(at + kVxlanTail));
        std::memset(one.frame.data(), 0, 12);
        if (one.left.csum_start < at + kVxlanTail) // the outer sum is left, which is not compared
            one.left.flags = 0, one.left.csum_start = one.left.csum_offset = 0;
        else
            one.left.csum_start = static_cast<std::uint16_t>(one.left.csum_start - (at + kVxlanTail - 14));
        const auto inner = view(one.frame);
        if (inner) one.view = *inner;
    }
    heard.push_back(std::move(one));
}

void Talk::check(bool holds, const std::string& what)
{
    if (!holds && is_twill()) failures_.push_back(what);
}

std::vector<std::string> Talk::trace() const
{
    std::vector<std::string> lines;
    for (const auto& [line, heard] : trace_) {
        if (!heard) {
            lines.push_back(line);
            continue;
        }
        Bytes frame = names_.canonical(heard->frame, (heard->left.flags & kNeedsCsum) != 0);
        if (heard->own) forget_own(frame);
        // Whoever takes IPv6 fragments together and apart again gives them an identification of its own.
        if (frame.size() > 62 && frame[14] >> 4U == 6 && frame[20] == 44) std::memset(frame.data() + 58, 0, 4);
        // That a sum was verified on the way is for the node to know; what is left to do is for others.
        lines.push_back(fmt::format("{}{}: {} left {} {} {} {}+{} | {}", to_string(heard->where),
                                    heard->overlay ? ", overlay" : "", describe(frame), heard->left.flags & kNeedsCsum,
                                    heard->left.gso_type, heard->left.gso_size, heard->left.csum_start,
                                    heard->left.csum_offset, hex(frame)));
    }
    return lines;
}

} // namespace twill::interop::nat
