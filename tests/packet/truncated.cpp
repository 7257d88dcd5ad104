// SPDX-License-Identifier: Apache-2.0
// Every length that a packet can be cut to, and packets changed at random: no program may take one for what it is not.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

std::uint16_t at16(const Bytes& frame, std::size_t at)
{
    return static_cast<std::uint16_t>(frame[at] << 8 | frame[at + 1]);
}

void set16(Bytes& frame, std::size_t at, std::size_t value)
{
    frame[at] = static_cast<std::uint8_t>(value >> 8U);
    frame[at + 1] = static_cast<std::uint8_t>(value);
}

/// Length field of the IP header at `at` set to what is left of the frame.
void mend_length(const Net& net, Bytes& frame, std::size_t at)
{
    if (frame.size() < at + net.ip_header) return;
    if (net.family == Family::v4)
        set16(frame, at + 2, frame.size() - at);
    else
        set16(frame, at + 4, frame.size() - at - 40);
}

/// Header and transport of a plain packet lie inside its length, and its TTL is alive: what FAST asks for. `end`: of
/// frame.
bool is_plain_ip(const Bytes& frame, std::size_t at, bool v6)
{
    const std::size_t header = v6 ? 40 : 20;
    if (frame.size() < at + header || frame[at] >> 4U != (v6 ? 6 : 4)) return false;
    if (!v6 && ((frame[at] & 0xfU) != 5 || (at16(frame, at + 6) & 0x3fffU) != 0)) return false;
    const std::size_t length = v6 ? 40U + at16(frame, at + 4) : at16(frame, at + 2);
    const unsigned proto = frame[at + (v6 ? 6 : 9)];
    return length >= header && at + length <= frame.size() && (proto == 6 || proto == 17 || proto == (v6 ? 58 : 1));
}

bool may_be_fast_from_wire(const Bytes& frame)
{
    const bool v6 = at16(frame, 12) == 0x86dd;
    if (!is_plain_ip(frame, 14, v6)) return false;
    const std::size_t udp = 14U + (v6 ? 40 : 20);
    const Net& net = nets()[v6 ? 1 : 0];
    const Bytes own(net.node_a.network(), net.node_a.network() + net.node_a.network_size());
    const bool tunnel = frame[14 + (v6 ? 6 : 9)] == 17 &&
                        std::equal(own.begin(), own.end(), &frame[udp - own.size()]) && at16(frame, udp + 2) == kPort;
    if (!tunnel) return frame[14 + (v6 ? 7 : 8)] > 1;
    const Bytes vxlan = {0x08, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(kVni), 0};
    const std::size_t inner = udp + 16 + 14;
    return frame.size() >= inner && std::equal(vxlan.begin(), vxlan.end(), &frame[udp + 8]) &&
           std::equal(kVtepA.bytes.begin(), kVtepA.bytes.end(), &frame[udp + 16]) &&
           at16(frame, inner - 2) == at16(frame, 12) && is_plain_ip(frame, inner, v6);
}

bool may_be_fast(Program program, const Bytes& frame)
{
    if (program == Program::from_wire) return may_be_fast_from_wire(frame);
    const bool v6 = at16(frame, 12) == 0x86dd;
    return program == Program::from_host || (is_plain_ip(frame, 14, v6) && (frame[0] & 1U) == 0);
}

std::uint32_t interface_of(const Node& node, Program program)
{
    if (program == Program::from_wire) return node.wire;
    return program == Program::from_pod || program == Program::to_pod ? node.pod1 : node.overlay;
}

/// What must hold for any packet whatever.
void check_invariants(Program program, const Bytes& frame, const Outcome& got)
{
    CHECK(got.counted.size() == 1);
    CHECK(got.foreign == 0);
    if (got.reason() == TW_R__MAX) return;
    const char cls = class_of(got.reason());
    const bool allowed = got.verdict == kUnspec || got.verdict == kShot || got.verdict == kRedirect;
    CHECK(allowed);
    CHECK((got.verdict == kShot) == (cls == 'D'));
    if (cls == 'F') CHECK(got.verdict == kRedirect);
    if (cls == 'F') CHECK(may_be_fast(program, frame));
    if (cls == 'S' && got.verdict == kRedirect)
        CHECK((got.reason() == TW_R_TO_STACK || got.reason() == TW_R_KERNEL_ENCAP ||
               got.reason() == TW_R_ENCAPSULATED || got.reason() == TW_R_NO_NEIGHBOUR));
    if (got.verdict == kUnspec && program != Program::from_host) CHECK(diff(frame, got.out).empty());
    if (got.verdict == kRedirect && !bad_checksum(frame)) CHECK_FALSE(bad_checksum(got.out).has_value());
}

std::vector<std::pair<Program, Layers>> samples()
{
    std::vector<std::pair<Program, Layers>> all;
    for (const Net& net : nets())
        for (const Layers& transport : transports(net)) {
            for (const Ip& dst : {net.pod_b, net.pod_c, net.pod2, net.outside})
                all.emplace_back(Program::from_pod, pod_frame(net, dst) + transport);
            all.emplace_back(Program::from_wire, from_b(net, net.pod1) + transport);
            all.emplace_back(Program::from_wire, from_b(net, net.free_a) + transport);
            all.emplace_back(Program::from_wire,
                             Layers{Eth{kWireA, kRouter}, ip_layer(net.pod_c, net.pod1)} + transport);
            all.emplace_back(Program::from_host,
                             Layers{Eth{kVtepB, kVtepA}, ip_layer(net.pod1, net.pod_b)} + transport);
            all.emplace_back(Program::to_pod, Layers{Eth{kPod1, kGateway}, ip_layer(net.pod_b, net.pod1)} + transport);
            all.emplace_back(Program::from_overlay,
                             Layers{Eth{kVtepA, kVtepB}, ip_layer(net.pod_b, net.pod1)} + transport);
        }
    return all;
}

} // namespace

TEST_CASE("truncated: a frame shorter than its IP length is dropped by from_pod and from_host, at every length")
{
    const Node a = node_a();
    for (const auto& [program, layers] : samples()) {
        if (program != Program::from_pod && program != Program::from_host) continue;
        const Bytes whole = build(layers);
        for (std::size_t size = 14; size < whole.size(); ++size) {
            const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            const Outcome got = a.dp->run(program, cut, interface_of(a, program));
            if (got.error != 0) continue; // newer kernels do not even run such a packet
            if (got.reason() == TW_R_SHORT && got.verdict == kShot) continue;
            CAPTURE(size);
            CAPTURE(describe(cut));
            expect(got, kShot, TW_R_SHORT);
        }
    }
}

TEST_CASE("truncated: from_pod: a transport header that is not whole is dropped, though the IP length admits it")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const auto& [transport, need] : {std::pair{udp(), std::size_t{8}}, std::pair{tcp(), std::size_t{14}},
                                              std::pair{echo(net), std::size_t{8}}})
            for (const Ip& dst : {net.pod_b, net.pod_c, net.pod2})
                for (std::size_t left = 0; left < need; ++left) {
                    Bytes cut = build(pod_frame(net, dst) + transport);
                    cut.resize(14 + net.ip_header + left);
                    mend_length(net, cut, 14);
                    const Outcome got = a.dp->run(Program::from_pod, cut, a.pod1);
                    CAPTURE(left);
                    expect(got, kShot, TW_R_SHORT);
                }
}

TEST_CASE("truncated: from_pod: what lies behind the IP length is no transport header")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (std::size_t left = 0; left < 8; ++left) {
            Bytes frame = build(pod_frame(net, net.pod_b) + udp());
            const std::size_t whole = frame.size();
            frame.resize(14 + net.ip_header + left);
            mend_length(net, frame, 14);
            frame.resize(whole, 0x55);
            const Outcome got = a.dp->run(Program::from_pod, frame, a.pod1);
            CAPTURE(left);
            CHECK(class_of(got.reason()) != 'F');
        }
}

TEST_CASE("truncated: VXLAN cut at every length is dropped or left alone, never delivered nor handed over")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Layers& transport : transports(net)) {
            const Bytes whole = build(from_b(net, net.pod1) + transport);
            for (std::size_t size = 14; size < whole.size(); ++size)
                for (const bool mended : {false, true}) {
                    Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
                    if (mended) {
                        mend_length(net, cut, 14);
                        if (cut.size() >= 14 + net.ip_header + 8)
                            set16(cut, 14 + net.ip_header + 4, cut.size() - 14 - net.ip_header);
                    }
                    const Outcome got = a.dp->run(Program::from_wire, cut, a.wire);
                    if (got.error != 0) continue;
                    // With a length that fits, everything up to the end of the inner packet is ours to judge.
                    const bool judged = mended && cut.size() >= 14 + net.ip_header;
                    const tw_reason reason = judged ? TW_R_SHORT : TW_R_NOT_OURS;
                    if (got.reason() == reason && got.verdict == (judged ? kShot : kUnspec)) continue;
                    CAPTURE(size);
                    CAPTURE(mended);
                    CAPTURE(describe(cut));
                    expect(got, judged ? kShot : kUnspec, reason);
                }
        }
}

TEST_CASE("truncated: an inner packet cut at every length inside whole outer headers is dropped")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const Layers& transport : transports(net)) {
            const Bytes inner = build(pod_frame(net, net.pod_b) + transport);
            for (std::size_t size = 0; size + 14 < inner.size(); ++size) {
                Layers frame = outer(net.node_b, net.node_a);
                Bytes bytes = build(Layers{Eth{kVtepA, kVtepB}, ip_layer(net.pod_b, net.pod1)} + transport);
                bytes.resize(14 + size);
                frame.push_back(Payload{bytes});
                const Outcome got = a.from_wire(frame);
                CAPTURE(size);
                expect(got, kShot, TW_R_SHORT);
            }
        }
}

TEST_CASE("truncated: direct packets and the stack's own cut at every length are never delivered")
{
    const Node a = node_a();
    for (const auto& [program, layers] : samples()) {
        const Bytes whole = build(layers);
        for (std::size_t size = 14; size < whole.size(); ++size) {
            const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            const Outcome got = a.dp->run(program, cut, interface_of(a, program));
            if (got.error != 0) continue;
            CAPTURE(to_string(program));
            CAPTURE(size);
            CHECK(class_of(got.reason()) != 'F');
            check_invariants(program, cut, got);
        }
    }
}

namespace {

/// Numbers for random packets; the seed is printed, TWILL_SEED sets it, TWILL_MUTATIONS how many packets.
class Mutator {
public:
    Mutator()
    {
        const char* given = std::getenv("TWILL_SEED");
        seed_ = given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
        MESSAGE("TWILL_SEED=", seed_);
        random_.seed(seed_);
        const char* wanted = std::getenv("TWILL_MUTATIONS");
        packets_ = wanted != nullptr ? static_cast<int>(std::strtol(wanted, nullptr, 10)) : 2000;
        REQUIRE(packets_ > 0);
    }
    int packets() const { return packets_; }
    std::size_t below(std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_); }
    /// Changes one to three things in the first 130 bytes, or the size.
    void change(Bytes& frame)
    {
        for (std::size_t n = 1 + below(3); n > 0; --n) {
            const std::size_t at = below(std::min<std::size_t>(frame.size(), 130));
            switch (below(4)) {
            case 0:
                frame[at] = static_cast<std::uint8_t>(below(256));
                break;
            case 1:
                frame[at] = static_cast<std::uint8_t>(frame[at] ^ (1U << below(8)));
                break;
            case 2:
                frame.resize(std::max<std::size_t>(14, below(frame.size() + 40)));
                break;
            default:
                if (at + 2 <= frame.size()) set16(frame, at, below(65536));
            }
        }
    }

private:
    unsigned seed_;
    int packets_;
    std::mt19937 random_;
};

/// What left, without what differs from packet to packet: the outer IPv4 identification and its checksum.
Bytes comparable(const Outcome& outcome)
{
    Bytes out = outcome.out;
    if (outcome.reason() == TW_R_TO_VXLAN && out.size() > 34 && out[12] == 0x08 && out[13] == 0x00) {
        set16(out, 18, 0);
        set16(out, 24, 0);
    }
    return out;
}

} // namespace

TEST_CASE("mutated: packets changed at random: one counter, an allowed verdict, FAST only for what is well-formed")
{
    Mutator mutator;
    const Node a = node_a();
    const auto all = samples();
    int ran = 0, fast = 0;
    for (int i = 0; i < mutator.packets(); ++i) {
        const auto& [program, layers] = all[mutator.below(all.size())];
        Bytes frame = build(layers);
        mutator.change(frame);
        const Outcome got = a.dp->run(program, frame, interface_of(a, program));
        if (got.error != 0) continue;
        ++ran;
        if (got.reason() != TW_R__MAX && class_of(got.reason()) == 'F') ++fast;
        CAPTURE(i);
        CAPTURE(to_string(program));
        CAPTURE(got.to_string());
        CAPTURE(describe(frame));
        check_invariants(program, frame, got);
    }
    MESSAGE(ran, " ran, ", fast, " of them were still good enough for the fast path");
    CHECK(ran > mutator.packets() / 2);
}

TEST_CASE("mutated: a packet of a flow that is cached fares as without the cache")
{
    stay_on_one_cpu();
    Mutator mutator;
    const Node a = node_a();
    std::vector<std::pair<Program, Layers>> all;
    for (const auto& sample : samples())
        if (sample.first == Program::from_pod || sample.first == Program::from_wire) all.push_back(sample);
    int ran = 0, fast = 0;
    for (int i = 0; i < mutator.packets(); ++i) {
        const auto& [program, layers] = all[mutator.below(all.size())];
        Bytes frame = build(layers);
        const std::uint32_t interface = interface_of(a, program);
        a.dp->run(program, frame, interface);
        mutator.change(frame);
        const Outcome cached = a.dp->run(program, frame, interface);
        a.dp->changed();
        const Outcome fresh = a.dp->run(program, frame, interface);
        if (fresh.error != 0) continue;
        ++ran;
        if (fresh.reason() != TW_R__MAX && class_of(fresh.reason()) == 'F') ++fast;
        CAPTURE(i);
        CAPTURE(to_string(program));
        CAPTURE(describe(frame));
        CHECK(cached.to_string() == fresh.to_string());
        CHECK(comparable(cached) == comparable(fresh));
    }
    MESSAGE(ran, " ran, ", fast, " of them took the fast path");
    CHECK(ran > mutator.packets() / 2);
    CHECK(fast > 0);
}
