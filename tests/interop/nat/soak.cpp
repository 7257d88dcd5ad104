// SPDX-License-Identifier: Apache-2.0
// Tens of thousands of flows that open, talk and close, through one node; every packet is looked for at the other end.
#include "tests/interop/nat/soak.hpp"

#include <bpf/bpf.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <poll.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <unordered_map>

#include "tests/interop/nat/frame.hpp"

namespace twill::interop::nat {
namespace {

using namespace test;

constexpr std::size_t kLive = 50000, kBatch = 64;
constexpr std::uint32_t kEvery = 5, kStep = 121; ///< each so many seconds all flows get so much older
constexpr std::uint32_t kMargin = 14;            ///< a flow that has less left is let go

const Mac kPodMac = mac("02:bb:00:00:02:10"), kFar = mac("02:ee:00:00:00:01");
const Mac kNodePod[] = {mac("02:bb:00:00:12:10"), mac("02:bb:00:00:13:10")}, kNodeWire = mac("02:aa:00:00:01:10");

std::uint32_t seconds()
{
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint32_t>(now.tv_sec);
}

enum class Phase : std::uint8_t { asked, answered, open, closing, closed };

struct Live {
    std::uint32_t index = 0; ///< says everything else of it
    std::uint16_t port = 0;  ///< outside
    Phase phase = Phase::asked;
    std::uint32_t until = 0;
};

/// What follows from a flow's number.
struct Tuple {
    explicit Tuple(std::uint32_t index)
        : v4(index % 2 == 0), pod(index / 2 % 2), proto(index / 4 % 4 == 0   ? 0
                                                        : index / 4 % 4 == 1 ? 17
                                                                             : 6),
          sport(static_cast<std::uint16_t>(1024 + index / 1024 % 60000))
    {
        const Ends& e = ends(v4 ? Family::v4 : Family::v6);
        near = pod == 0 ? e.pod1 : e.pod2;
        far = e.outside.plus(index / 16 % 64);
        if (proto == 0) proto = v4 ? 1 : 58;
        dport = proto != 6 && proto != 17 ? 0 : index / 4 % 4 == 3 ? 80 : 443;
    }
    bool v4;
    unsigned pod;
    std::uint8_t proto;
    std::uint16_t sport, dport;
    Ip near, far;
};

class Soak {
public:
    explicit Soak(World& world) : world_(world), random_(std::random_device{}()) {}

    bool run(std::uint32_t duration)
    {
        const std::uint32_t start = seconds();
        std::uint32_t aged = start;
        while (seconds() - start < duration && broken_ == 0) {
            out_batch();
            in_batch();
            if (seconds() - aged >= kEvery) {
                aged = seconds();
                age(kStep);
            }
        }
        const std::uint32_t took = std::max(1U, seconds() - start);
        fmt::print("{} flows made, {} ended, {} alive; {} packets out, {} in; {} new flows a second; {} broken\n",
                   made_, ended_, flows_.size(), out_, in_, made_ / took, broken_);
        return finish();
    }

private:
    std::uint32_t now() const { return seconds() + passed_; }

    static std::uint32_t lives(const Tuple& is, Phase phase)
    {
        if (is.proto == 6)
            return phase == Phase::asked ? 120 : phase == Phase::answered ? 60 : phase == Phase::open ? 432000 : 30;
        if (is.proto == 17) return phase == Phase::asked ? 30 : 120;
        return 30;
    }

    Bytes frame(const Live& flow, const Tuple& is, bool out, std::uint8_t flags) const
    {
        const Ends& e = ends(is.v4 ? Family::v4 : Family::v6);
        const Eth eth = out ? Eth{kNodePod[is.pod], kPodMac, {}} : Eth{kNodeWire, kFar, {}};
        const Layer ip = out ? ip_layer(is.near, is.far) : ip_layer(is.far, e.wire);
        const std::uint16_t sport = out ? is.sport : is.dport, dport = out ? is.dport : flow.port;
        Bytes number(4);
        std::memcpy(number.data(), &flow.index, 4);
        const Payload payload{.bytes = number};
        if (is.proto == 6)
            return build({eth, ip, Tcp{.sport = sport, .dport = dport, .flags = flags, .csum = {}}, payload});
        if (is.proto == 17)
            return build({eth, ip, Udp{.sport = sport, .dport = dport, .len = {}, .csum = {}}, payload});
        const std::uint16_t id = out ? is.sport : flow.port;
        if (is.v4) return build({eth, ip, Icmp{.type = static_cast<std::uint8_t>(out ? 8 : 0), .id = id}, payload});
        return build({eth, ip, Icmp6{.type = static_cast<std::uint8_t>(out ? 128 : 129), .id = id}, payload});
    }

    void out_batch()
    {
        std::unordered_map<std::uint32_t, std::size_t> sent; // flow's number to its place in flows_
        for (std::size_t i = 0; i < kBatch; ++i) {
            const bool fresh = flows_.size() < kLive && random_() % 4 != 0;
            if (fresh) flows_.push_back({.index = next_++});
            if (flows_.empty()) return;
            const std::size_t at = fresh ? flows_.size() - 1 : random_() % flows_.size();
            Live& flow = flows_[at];
            const Tuple is(flow.index);
            if (sent.contains(flow.index) || flow.phase == Phase::closing) continue;
            std::uint8_t flags = 0x02;
            if (flow.phase == Phase::answered)
                flags = 0x10, flow.phase = is.proto == 6 ? Phase::open : Phase::answered;
            else if (flow.phase == Phase::open)
                flags = random_() % 3 == 0 ? 0x11 : 0x10;
            if (flags == 0x11) flow.phase = Phase::closing;
            flow.until = now() + lives(is, flow.phase);
            send(is.pod == 0 ? Where::pod1 : Where::pod2, frame(flow, is, true, flags));
            sent[flow.index] = at;
            ++out_;
        }
        collect(sent, true);
    }

    void in_batch()
    {
        std::unordered_map<std::uint32_t, std::size_t> sent;
        std::vector<std::size_t> done;
        for (std::size_t i = 0; i < kBatch && !flows_.empty(); ++i) {
            // The youngest have most to hear.
            const std::size_t at = random_() % 2 == 0
                                       ? random_() % flows_.size()
                                       : flows_.size() - 1 - random_() % std::min<std::size_t>(256, flows_.size());
            Live& flow = flows_[at];
            const Tuple is(flow.index);
            if (sent.contains(flow.index)) continue;
            std::uint8_t flags = 0x10;
            if (flow.phase == Phase::asked)
                flags = 0x12, flow.phase = Phase::answered;
            else if (flow.phase == Phase::closing)
                flags = 0x11, flow.phase = Phase::closed;
            flow.until = now() + lives(is, flow.phase);
            send(Where::wire, frame(flow, is, false, flags));
            sent[flow.index] = at;
            ++in_;
            if (flow.phase == Phase::closed || (is.proto != 6 && random_() % 8 == 0)) done.push_back(at);
        }
        collect(sent, false);
        std::sort(done.rbegin(), done.rend());
        for (const std::size_t at : done) forget(at);
    }

    void forget(std::size_t at)
    {
        flows_[at] = flows_.back();
        flows_.pop_back();
        ++ended_;
    }

    void send(Where where, const Bytes& bytes)
    {
        if (world_.port(where).send(bytes) != 0) broken("a frame could not be sent");
    }

    void broken(const std::string& what)
    {
        if (broken_++ < 5) fmt::print("BROKEN: {}\n", what);
    }

    /// Every packet has to arrive, at the right end, and is then checked.
    void collect(std::unordered_map<std::uint32_t, std::size_t>& sent, bool out)
    {
        const std::uint32_t until = seconds() + 20;
        while (!sent.empty() && seconds() < until) {
            std::array<pollfd, 3> all{};
            for (std::size_t i = 0; i < all.size(); ++i)
                all[i] = {.fd = world_.port(static_cast<Where>(i)).fd(), .events = POLLIN, .revents = 0};
            ::poll(all.data(), all.size(), 200);
            for (std::size_t i = 0; i < all.size(); ++i)
                while (const auto frame = world_.port(static_cast<Where>(i)).receive())
                    arrived(*frame, static_cast<Where>(i), sent, out);
        }
        for (const auto& [index, at] : sent)
            broken(fmt::format("flow {} ({} {}): a packet {} is lost", index, Tuple(index).proto,
                               Tuple(index).v4 ? "IPv4" : "IPv6", out ? "out" : "in"));
    }

    void arrived(const Bytes& bytes, Where where, std::unordered_map<std::uint32_t, std::size_t>& sent, bool out)
    {
        const auto is = view(bytes);
        if (!is || is->quote != 0 || bytes.size() < is->l4 + 12) return;
        if (is_icmp(*is) && is->v6 && bytes[is->l4] > 129) return; // the kernel's own
        std::uint32_t index = 0;
        std::memcpy(&index, bytes.data() + is->l4 + (is->proto == 6 ? 20 : 8), 4);
        const auto found = sent.find(index);
        if (found == sent.end()) return broken(fmt::format("nobody's: {}", describe(bytes)));
        Live& flow = flows_[found->second];
        const Tuple tuple(index);
        const Ends& e = ends(tuple.v4 ? Family::v4 : Family::v6);
        sent.erase(found);
        if (const auto wrong = bad_checksum(bytes)) return broken(*wrong + ": " + describe(bytes));
        if (out) {
            if (flow.port == 0) flow.port = is->sport, ++made_;
            if (where != Where::wire || is->src != e.wire || is->dst != tuple.far || is->sport != flow.port)
                broken("out: " + describe(bytes));
        } else if (where != (tuple.pod == 0 ? Where::pod1 : Where::pod2) || is->src != tuple.far ||
                   is->dst != tuple.near || is->dport != tuple.sport) {
            broken("in: " + describe(bytes));
        }
    }

    void age(std::uint32_t by)
    {
        world_.pass(by);
        passed_ += by;
        for (std::size_t at = flows_.size(); at-- > 0;)
            if (static_cast<std::int32_t>(flows_[at].until - now()) < static_cast<std::int32_t>(kMargin)) forget(at);
    }

    std::size_t alive(const char* map) const
    {
        std::size_t count = 0;
        for (const auto& [key, flow] : world_.halves(map))
            count += static_cast<std::int32_t>(flow.until - seconds()) > 0;
        return count;
    }

    bool holds(bool what, const std::string& name)
    {
        fmt::print("{}: {}\n", what ? "ok" : "FAILED", name);
        return what;
    }

    bool finish()
    {
        bool good = holds(broken_ == 0, "none broken");
        const auto counters = world_.dp().counters();
        good &= holds(counters[TW_R_NAT_OUT].to_wire == out_,
                      fmt::format("NAT_OUT counts {} packets, {} went out", counters[TW_R_NAT_OUT].to_wire, out_));
        good &= holds(counters[TW_R_NAT_IN].from_wire == in_,
                      fmt::format("NAT_IN counts {} packets, {} came in", counters[TW_R_NAT_IN].from_wire, in_));
        good &= holds(counters[TW_R_NAT_PORTS].to_wire + counters[TW_R_NAT_TABLE].to_wire == 0,
                      fmt::format("{} refused for ports, {} for places", counters[TW_R_NAT_PORTS].to_wire,
                                  counters[TW_R_NAT_TABLE].to_wire));
        fmt::print("{} and {} halves in the maps\n", world_.flows("tw_nat_fwd"), world_.flows("tw_nat_rev"));
        const std::size_t fwd = alive("tw_nat_fwd"), rev = alive("tw_nat_rev");
        good &=
            holds(fwd == rev && fwd >= flows_.size(),
                  fmt::format("{} flows are alive, {} by their replies, {} are known here", fwd, rev, flows_.size()));
        good &= holds(orphans() == 0, "each has both halves");
        world_.pass(432001);
        flows_.clear();
        good &= holds(alive("tw_nat_fwd") + alive("tw_nat_rev") == 0, "none is left when its time is over");
        const std::uint64_t before = made_;
        while (flows_.size() < kLive && broken_ == 0) out_batch();
        good &= holds(broken_ == 0 && made_ - before >= kLive, fmt::format("{} new ones have room", made_ - before));
        return good;
    }

    /// Halves that are alive and whose other half is not there, or another's.
    std::size_t orphans() const
    {
        std::size_t count = 0;
        for (const auto& [key, flow] : world_.halves("tw_nat_fwd")) {
            if (static_cast<std::int32_t>(flow.until - seconds()) <= 0 || flow.plain != 0) continue;
            tw_nat_key other{};
            other.src = key.dst;
            other.dst = flow.addr;
            other.sport = key.dport;
            other.dport = flow.port;
            other.proto = key.proto;
            tw_nat_flow half{};
            count += bpf_map_lookup_elem(world_.dp().map("tw_nat_rev"), &other, &half) != 0 ||
                     std::memcmp(&half.addr, &key.src, sizeof half.addr) != 0 || half.port != key.sport;
        }
        return count;
    }

    World& world_;
    std::mt19937_64 random_;
    std::vector<Live> flows_;
    std::uint32_t next_ = 0, passed_ = 0;
    std::uint64_t made_ = 0, ended_ = 0, out_ = 0, in_ = 0, broken_ = 0;
};

} // namespace

bool soak(World& world, std::uint32_t duration)
{
    Soak soak(world);
    return soak.run(duration);
}

} // namespace twill::interop::nat
