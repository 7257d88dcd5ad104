// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/compare.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "tests/interop/cluster.hpp"
#include "tests/interop/mask.hpp"

namespace twill::interop {
namespace {

#define X(name, field) #field,
constexpr std::array kHooks = {TW_HOOKS(X)};
#undef X
#define X(name, class, text) #name,
constexpr std::array kReasons = {TW_REASONS(X)};
#undef X

constexpr std::size_t kShownBytes = 256; // what a packet of a failure is known by; seed and index make it again

std::string hex(const Bytes& bytes)
{
    std::string text;
    for (std::size_t i = 0; i < bytes.size() && i < kShownBytes; ++i)
        text += fmt::format("{}{:02x}", i == 0 ? "" : i % 32 == 0 ? "\n        " : i % 2 == 0 ? " " : "", bytes[i]);
    return text + (bytes.size() > kShownBytes ? " ..." : "");
}

std::string show(const char* title, const std::vector<Frame>& frames)
{
    std::string text = fmt::format("    {}: {} frames\n", title, frames.size());
    for (std::size_t i = 0; i < frames.size() && i < 4; ++i)
        text += fmt::format("      on {}: {}\n        {}\n", frames[i].port, test::describe(frames[i].bytes),
                            hex(frames[i].bytes));
    return text;
}

std::string joined(const std::set<std::string>& words)
{
    std::string text;
    for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
    return text.empty() ? "not seen" : text;
}

const char* name_of(Origin origin)
{
    switch (origin) {
    case Origin::pod_p:
        return "pod p";
    case Origin::pod_q:
        return "pod q";
    case Origin::wire:
        return "wire";
    case Origin::host:
        return "host";
    }
    return "?";
}

/// Does the packet go to node c, which takes UDP checksum zero on IPv6?
bool aims_at_c_over_v6(const Packet& packet)
{
    static const Ip kPrefix = pod_ip('c', Family::v6, 0);
    std::size_t at = packet.origin == Origin::host ? 24 : 14 + 24;
    if (packet.origin != Origin::host && packet.bytes.size() > 14 && packet.bytes[12] == 0x81) at += 4; // VLAN tag
    return packet.bytes.size() >= at + 16 && std::equal(kPrefix.bytes().begin(), kPrefix.bytes().begin() + 8,
                                                        packet.bytes.begin() + static_cast<long>(at));
}

/// To whom a frame on the wire is sent, by its outer header.
bool is_to(const Bytes& frame, char node)
{
    const std::size_t inner = inner_offset(frame);
    if (inner == 0) return false;
    const Ip to = public_ip(node, inner == kOuter4 ? Family::v4 : Family::v6);
    return std::equal(to.network(), to.network() + to.network_size(),
                      frame.begin() + (inner == kOuter4 ? 14 + 16 : 14 + 24));
}

} // namespace

Result<Comparison> Comparison::open(Settings settings)
{
    Comparison comparison{std::move(settings)};
    for (const auto& [name, node] : {std::pair{"ta", 'a'}, {"ka", 'a'}, {"k0", 'a'}, {"tb", 'b'}, {"kb", 'b'}}) {
        const std::string root = *name == 't' ? comparison.settings_.bpf_roots + "/" + name : std::string{};
        TWILL_TRY_AS(world, World::open(comparison.settings_.lab, name, node, root));
        comparison.worlds_.push_back(std::move(world));
    }
    return comparison;
}

World& Comparison::kernel_for(const Packet& packet)
{
    if (packet.origin == Origin::wire) return worlds_[4];
    return aims_at_c_over_v6(packet) ? worlds_[2] : worlds_[1];
}

Result<Outcome> Comparison::measure(World& world, const Packet& packet)
{
    Outcome outcome{world, {}, {}};
    const auto invalid = world.invalid();
    if (!world.is_twill()) {
        TWILL_TRY_AS(frames, world.exchange(packet));
        outcome.frames = std::move(frames);
        outcome.invalid = world.invalid() - invalid;
        return outcome;
    }
    // What the marks behind a packet count is known from an exchange without a packet.
    static std::map<Origin, World::Reasons> of_marks;
    const auto origin = packet.origin == Origin::wire ? Origin::wire : Origin::pod_p;
    auto before = world.reasons();
    if (of_marks.find(origin) == of_marks.end()) {
        TWILL_TRY(world.exchange(Packet{.bytes = Bytes(1), .origin = origin}));
        const auto after = world.reasons();
        auto& marks = of_marks[origin];
        for (std::size_t r = 0; r < after.size(); ++r)
            for (std::size_t h = 0; h < after[r].size(); ++h) marks[r][h] = after[r][h] - before[r][h];
        before = after;
    }
    TWILL_TRY_AS(frames, world.exchange(packet));
    outcome.frames = std::move(frames);
    outcome.invalid = world.invalid() - invalid;
    const auto after = world.reasons();
    for (std::size_t r = 0; r < after.size(); ++r)
        for (std::size_t h = 0; h < after[r].size(); ++h)
            if (after[r][h] - before[r][h] > of_marks[origin][r][h])
                outcome.reasons.insert(fmt::format("{} {}", kHooks[h], kReasons[r]));
    return outcome;
}

Result<std::optional<std::string>> Comparison::judge(const Packet& packet, Outcome& twill, Outcome& kernel)
{
    std::string wrong;
    bool is_same = twill.frames.size() == kernel.frames.size();
    std::vector<Masked> left, right;
    for (const auto& frame : twill.frames) left.push_back(mask(frame, twill.world, settings_.is_offloaded));
    for (const auto& frame : kernel.frames) right.push_back(mask(frame, kernel.world, settings_.is_offloaded));
    for (const auto* side : {&left, &right})
        for (const auto& masked : *side)
            if (!masked.wrong.empty()) wrong += masked.wrong;
    for (std::size_t i = 0; is_same && i < left.size(); ++i)
        is_same = twill.frames[i].port == kernel.frames[i].port && left[i].bytes == right[i].bytes;
    if (is_same && wrong.empty()) {
        frames_ += twill.frames.size();
        return std::optional<std::string>{};
    }
    if (wrong.empty()) {
        if (const auto* row = accepted(packet, twill, kernel); row != nullptr) {
            ++accepted_[row->name];
            if (settings_.is_verbose) fmt::print("accepted, {}: {}\n", row->name, packet.what);
            return std::optional<std::string>{};
        }
    }
    std::string text = wrong.empty() ? "" : "    wrong:" + wrong + "\n";
    text += show(("twill, " + twill.world.name() + (twill.invalid != 0 ? ", invalid to conntrack" : "")).c_str(),
                 twill.frames);
    text += show(("kernel, " + kernel.world.name() + (kernel.invalid != 0 ? ", invalid to conntrack" : "")).c_str(),
                 kernel.frames);
    for (std::size_t i = 0; i < left.size() && i < right.size(); ++i)
        if (left[i].bytes != right[i].bytes) {
            text += "    first difference, twill's lines first:\n" + test::diff(right[i].bytes, left[i].bytes) + "\n";
            break;
        }
    text += fmt::format("    twill's counters: {}\n", joined(twill.reasons));
    return std::optional{text};
}

/// A valid packet is carried, and every checksum in what comes out holds.
std::string Comparison::check_valid(const Packet& packet, const Outcome& outcome) const
{
    if (!packet.is_valid) return {};
    if (outcome.frames.empty()) return "    valid, but nothing came out of " + outcome.world.name() + "\n";
    if (settings_.is_offloaded) return {};
    for (const auto& frame : outcome.frames)
        if (const auto bad = test::bad_checksum(frame.bytes))
            return "    out of " + outcome.world.name() + ": " + *bad + "\n";
    return {};
}

/// What one node sent, to both receivers.
Result<> Comparison::deliver(const Packet& packet, const std::vector<Frame>& frames, const World& sender)
{
    for (const auto& frame : frames) {
        if (frame.port != 'w' || !is_to(frame.bytes, 'b')) continue;
        Packet received{.bytes = frame.bytes, .origin = Origin::wire, .what = packet.what, .is_valid = packet.is_valid};
        // The bench is the switch between the two.
        const Mac to = wire_mac('b');
        std::copy(to.bytes.begin(), to.bytes.end(), received.bytes.begin());
        TWILL_TRY_AS(twill, measure(worlds_[3], received));
        TWILL_TRY_AS(kernel, measure(worlds_[4], received));
        TWILL_TRY_AS(difference, judge(received, twill, kernel));
        ++delivered_;
        for (const auto& reason : twill.reasons) ++ways_[reason];
        std::string text = difference.value_or("") + check_valid(packet, twill) + check_valid(packet, kernel);
        if (!text.empty()) fail(received, "    received from " + sender.name() + "\n" + text);
    }
    return Ok{};
}

Result<> Comparison::run(const Packet& packet)
{
    const bool is_received = packet.origin == Origin::wire;
    TWILL_TRY_AS(twill, measure(worlds_[is_received ? 3 : 0], packet));
    TWILL_TRY_AS(kernel, measure(kernel_for(packet), packet));
    TWILL_TRY_AS(difference, judge(packet, twill, kernel));
    ++packets_;
    if (settings_.is_verbose)
        fmt::print("{}: {} frames of twill, {} of the kernel; {}\n", packet.what, twill.frames.size(),
                   kernel.frames.size(), joined(twill.reasons));
    if (twill.frames.empty() && kernel.frames.empty()) ++silent_;
    for (const auto& reason : twill.reasons) ++ways_[reason];
    const std::string text = difference.value_or("") + check_valid(packet, twill) + check_valid(packet, kernel);
    if (!text.empty()) fail(packet, text);
    // What the wire is to cut or to finish is no frame that anybody could receive.
    if (is_received || settings_.is_offloaded) return Ok{};
    TWILL_TRY(deliver(packet, twill.frames, twill.world));
    return deliver(packet, kernel.frames, kernel.world);
}

void Comparison::fail(const Packet& packet, const std::string& text)
{
    ++failures_;
    const std::string input = packet.origin == Origin::host ? std::string{} : test::describe(packet.bytes);
    fmt::print("FAILED: {}\n    from {}: {}\n        {}\n{}", packet.what, name_of(packet.origin), input,
               hex(packet.bytes), text);
    std::fflush(stdout);
}

void Comparison::print(const char* title)
{
    unsigned lost = 0;
    for (auto& world : worlds_) lost += world.lost();
    fmt::print(
        "{}: {} packets compared, {} differ; {} frames of them equal, {} came out nowhere; {} frames received by "
        "twill and by the kernel\n",
        title, packets_, failures_, frames_, silent_, delivered_);
    if (lost != 0) {
        fmt::print("FAILED: {} frames did not fit into the bench's sockets\n", lost);
        ++failures_;
    }
    for (const auto& [name, count] : accepted_) fmt::print("  accepted, {}: {}\n", name, count);
    for (const auto& [name, count] : ways_) fmt::print("  way, {}: {}\n", name, count);
}

} // namespace twill::interop
