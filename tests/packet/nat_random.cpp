// SPDX-License-Identifier: Apache-2.0
// The engine against the reference model: packets, replies, errors, lost halves and time at random. A million steps,
// ten times as many with TWILL_FULL=1. TWILL_SEED=N repeats a run; TWILL_NAT_STEPS=N makes it shorter.
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <time.h>

#include <cstdlib>
#include <random>

#include "tests/packet/nat.hpp"
#include "tests/packet/nat_model.hpp"

using namespace twill;
using namespace twill::test;

namespace {

constexpr Ports kRange{1024, 1055};

std::uint32_t clock_seconds()
{
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint32_t>(now.tv_sec);
}

unsigned long number(const char* name, unsigned long otherwise)
{
    const char* text = std::getenv(name);
    return text != nullptr ? std::strtoul(text, nullptr, 10) : otherwise;
}

class Run {
public:
    Run(const NatNode& node, std::uint64_t seed) : node_(node), random_(seed) { node_.reset(kRange); }

    /// One step. Empty, or what was wrong.
    std::string step()
    {
        const unsigned kind = below(1000);
        if (kind < 2) return age();
        if (kind < 6) return lose_half();
        if (kind < 8) return compare();
        return kind < 560 ? one(false) : one(true);
    }
    std::size_t made() const { return made_; }
    std::size_t refused() const { return refused_; }
    std::size_t passed() const { return passed_; }

private:
    unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }
    template <typename List>
    auto any(const List& list)
    {
        return *(std::begin(list) + below(static_cast<unsigned>(std::size(list))));
    }

    std::string age()
    {
        static constexpr std::uint32_t kTimes[] = {1, 1, 3, 10, 29, 31, 61, 119, 121, 432001};
        const std::uint32_t seconds = any(kTimes);
        node_.pass(seconds);
        for (auto* halves : {&model_.fwd, &model_.rev})
            for (auto& [key, half] : *halves) half.until -= seconds;
        return {};
    }

    /// As if somebody had deleted it. The other one looks for it in its next second only.
    std::string lose_half()
    {
        auto& halves = below(2) != 0 ? model_.fwd : model_.rev;
        if (halves.empty()) return {};
        auto victim = halves.begin();
        std::advance(victim, below(static_cast<unsigned>(halves.size())));
        bpf_map_delete_elem(node_.dp->map(&halves == &model_.fwd ? "tw_nat_fwd" : "tw_nat_rev"), &victim->first);
        halves.erase(victim);
        node_.pass(1);
        for (auto* each : {&model_.fwd, &model_.rev})
            for (auto& [key, half] : *each) half.until -= 1;
        return {};
    }

    /// What is alive in the maps is what is alive in the model; what is over may be there or not.
    std::string compare()
    {
        if (clock_seconds() != model_.now) return {}; // the last packet was in another second
        for (const bool reply : {false, true}) {
            auto& halves = reply ? model_.rev : model_.fwd;
            std::size_t living = 0;
            for (const auto& [key, half] : node_.halves(reply ? "tw_nat_rev" : "tw_nat_fwd")) {
                if (!model_.alive(half)) continue;
                ++living;
                const auto found = halves.find(key);
                if (found == halves.end()) return "a half that the model does not have";
                if (std::memcmp(&found->second, &half, offsetof(tw_nat_flow, place)) != 0)
                    return fmt::format("halves differ: state {} until {} port {}, model {} {} {}", half.state,
                                       half.until, half.port, found->second.state, found->second.until,
                                       found->second.port);
            }
            for (auto it = halves.begin(); it != halves.end();)
                it = model_.alive(it->second) ? std::next(it) : halves.erase(it);
            if (living != halves.size()) return fmt::format("{} halves, model {}", living, halves.size());
        }
        return {};
    }

    Layers transport(const Net& net, std::uint8_t proto, std::uint16_t sport, std::uint16_t dport, std::uint8_t flags,
                     bool reply) const
    {
        if (proto == IPPROTO_TCP) return {Tcp{.sport = sport, .dport = dport, .flags = flags}, Payload::of(3)};
        if (proto == IPPROTO_UDP) return {Udp{.sport = sport, .dport = dport, .len = {}, .csum = {}}, Payload::of(2)};
        const std::uint16_t id = reply ? dport : sport;
        if (net.family == Family::v4)
            return {Icmp{.type = static_cast<std::uint8_t>(reply ? 0 : 8), .id = id}, Payload::of(4)};
        return {Icmp6{.type = static_cast<std::uint8_t>(reply ? 129 : 128), .id = id}, Payload::of(4)};
    }

    static NatModel::Event event_of(std::uint8_t flags)
    {
        if ((flags & 0x04) != 0) return NatModel::rst;
        if ((flags & 0x02) != 0) return (flags & 0x10) != 0 ? NatModel::synack : NatModel::syn;
        if ((flags & 0x01) != 0) return NatModel::fin;
        return (flags & 0x10) != 0 ? NatModel::ack : NatModel::nothing;
    }

    /// A packet out, or one in.
    std::string one(bool in)
    {
        static constexpr std::uint8_t kFlags[] = {0x02, 0x02, 0x12, 0x10, 0x10, 0x11, 0x04, 0x00};
        static constexpr std::uint16_t kSports[] = {1024,  1025,  1030,  1055,  1056,  7,
                                                    40000, 40001, 40002, 40003, 40004, 40005};
        const Net& net = any(nets());
        const std::uint8_t proto = any(std::initializer_list<std::uint8_t>{
            IPPROTO_TCP, IPPROTO_UDP, std::uint8_t(net.family == Family::v4 ? 1 : 58)});
        const bool icmp = proto != IPPROTO_TCP && proto != IPPROTO_UDP;
        const Ip remote = any(std::initializer_list<Ip>{net.outside, net.node_b});
        const Ip near = in ? net.node_a : any(std::initializer_list<Ip>{net.pod1, net.pod2, net.node_a});
        const auto rport = static_cast<std::uint16_t>(icmp ? 0 : 53 + below(2));
        const unsigned other = below(2) != 0 ? 40000 + below(40) : any(kSports);
        const auto port = static_cast<std::uint16_t>(in ? kRange.first + below(32) : other);
        const std::uint8_t flags = any(kFlags);
        // Of echo mostly what belongs here: requests go out, replies come in.
        const bool reply = icmp && (in != (below(8) == 0));
        const bool error = below(12) == 0;

        NatModel::Packet packet;
        packet.is_icmp = icmp;
        packet.is_error = error;
        packet.event = proto == IPPROTO_TCP ? event_of(flags) : reply ? NatModel::answer : NatModel::data;
        const Ip &src = in ? remote : near, &dst = in ? near : remote;
        std::uint16_t sport = in ? rport : port, dport = in ? port : rport;
        if (icmp) {
            sport = reply ? 0 : port;
            dport = reply ? port : 0;
        }
        packet.key = nat_key(src, dst, sport, dport, proto);
        Layers frame = in ? arriving(src, dst) : leaving(src, dst);
        if (error) { // about a packet of the other direction
            const Layer head = net.family == Family::v4 ? Layer{Icmp{.type = 11, .id = 0, .seq = 0}}
                                                        : Layer{Icmp6{.type = 3, .id = 0, .seq = 0}};
            frame = frame + Layers{head, ip_layer(dst, src)} + transport(net, proto, dport, sport, flags, !reply);
            packet.key = nat_key(src, dst, sport, dport, proto);
        } else {
            frame = frame + transport(net, proto, sport, dport, flags, reply);
        }
        return in ? arrives(packet, frame) : leaves(packet, frame, near == net.node_a);
    }

    /// Runs it within one second, or as often as that takes: a packet twice is as good as once, but for a flow that
    /// the first made, which the model then learns from the maps.
    Outcome run(Program program, const Bytes& bytes)
    {
        const std::uint32_t before = clock_seconds();
        Outcome outcome = node_.dp->run_only(program, bytes, node_.wire);
        if (clock_seconds() != before) learn_ = true;
        model_.now = before;
        return outcome;
    }

    /// The clock went on within a packet: what happened is what the maps say.
    void learn()
    {
        learn_ = false;
        for (const bool reply : {false, true}) {
            auto& halves = reply ? model_.rev : model_.fwd;
            halves.clear();
            for (const auto& [key, half] : node_.halves(reply ? "tw_nat_rev" : "tw_nat_fwd")) halves[key] = half;
        }
    }

    std::string arrives(const NatModel::Packet& packet, const Layers& frame)
    {
        const Bytes bytes = build(frame);
        const Outcome outcome = run(Program::from_wire, bytes);
        if (learn_) return learn(), std::string();
        const auto change = model_.pass(packet, true);
        if (outcome.verdict != kUnspec) return "an arriving packet was dropped";
        if (!change) return outcome.out == bytes ? "" : "a packet of no flow was changed: " + describe(outcome.out);
        ++passed_;
        const Seen is = seen(outcome.out);
        if (is.dst != ip_of(change->addr) || (!packet.is_error && is.dport != change->port))
            return "the reply went elsewhere: " + describe(outcome.out);
        return sums(outcome.out);
    }

    std::string leaves(const NatModel::Packet& packet, const Layers& frame, bool host)
    {
        const Bytes bytes = build(frame);
        const Outcome outcome = run(Program::to_wire, bytes);
        if (learn_) return learn(), std::string();
        const bool unchanged = outcome.verdict == kUnspec && outcome.out == bytes;
        const std::uint16_t own = packet.key.sport;
        const bool in_range = own >= kRange.first && own <= kRange.last;
        // What the host sends is looked at where a port of ours could be meant.
        if (host && !in_range && !packet.is_error && !packet.is_icmp)
            return unchanged ? "" : "the host's packet was changed";
        if (const auto change = model_.pass(packet, false)) {
            ++passed_;
            const Seen is = seen(outcome.out);
            if (outcome.verdict != kUnspec || is.src != ip_of(change->addr) ||
                (!packet.is_error && is.sport != change->port))
                return "a packet of a flow came out wrong: " + outcome.to_string() + describe(outcome.out);
            return sums(outcome.out);
        }
        tw_nat_key wanted = packet.key; // of the reply, on the packet's own port
        std::swap(wanted.src, wanted.dst);
        std::swap(wanted.sport, wanted.dport);
        if (host && NatModel::begins(packet) && !packet.is_icmp && !model_.taken(wanted))
            return unchanged ? "" : "the host's packet was changed";
        if (!NatModel::begins(packet)) return unchanged ? "" : "a packet that begins nothing was changed";
        return begins(packet, outcome, host);
    }

    std::string begins(const NatModel::Packet& packet, const Outcome& outcome, bool host)
    {
        const bool v4 = ip_of(packet.key.dst).is_v4();
        const tw_addr addr = abi(nets()[v4 ? 0 : 1].node_a);
        tw_nat_key reply{};
        reply.src = packet.key.dst;
        reply.dst = addr;
        reply.sport = packet.key.dport;
        reply.proto = packet.key.proto;
        std::size_t free = 0;
        for (std::uint16_t port = kRange.first; port <= kRange.last; ++port) {
            reply.dport = port;
            free += !model_.taken(reply);
        }
        reply.dport = packet.key.sport;
        const bool in_range = reply.dport >= kRange.first && reply.dport <= kRange.last;
        const bool keeps = (host ? packet.is_icmp : in_range) && !model_.taken(reply);
        if (outcome.verdict == kShot) {
            ++refused_;
            if (keeps || free != 0) return model_.living() >= 32 && table_is_full() ? "" : why(free, keeps);
            return {};
        }
        const Seen is = seen(outcome.out);
        if (outcome.verdict != kUnspec || abi(is.src).low[3] != addr.low[3])
            return "not masqueraded: " + describe(outcome.out);
        if (keeps && is.sport != reply.dport) return "a free port was not kept";
        reply.dport = is.sport;
        if (model_.taken(reply)) return fmt::format("port {} is in use", is.sport);
        if (!keeps && (is.sport < kRange.first || is.sport > kRange.last)) return "a port out of the range";
        model_.made(packet, NatModel::Change{addr, is.sport});
        ++made_;
        return sums(outcome.out);
    }

    std::string why(std::size_t free, bool keeps) const
    {
        const auto counters = node_.dp->counters();
        return fmt::format(
            "refused, though {} ports were free, its own {}; so far {} for ports, {} for places; {} halves", free,
            keeps, counters[TW_R_NAT_PORTS].to_wire, counters[TW_R_NAT_TABLE].to_wire, node_.count("tw_nat_rev"));
    }

    /// Refusals for want of a place happen by chance when nearly all are taken.
    bool table_is_full() const { return model_.living() * 10 >= node_.dp->cfg().nat_max * 9U; }

    static std::string sums(const Bytes& frame)
    {
        const auto wrong = bad_checksum(frame);
        return wrong ? *wrong + ": " + describe(frame) : "";
    }

    NatNode node_;
    std::mt19937_64 random_;
    NatModel model_;
    bool learn_ = false;
    std::size_t made_ = 0, refused_ = 0, passed_ = 0;
};

} // namespace

TEST_CASE("nat random: a million packets find the engine in the state of the reference model")
{
    const auto seed = number("TWILL_SEED", std::random_device{}());
    const auto steps = number("TWILL_NAT_STEPS", std::getenv("TWILL_FULL") != nullptr ? 10'000'000 : 1'000'000);
    const NatNode node = nat_node([](tw_cfg& cfg) { cfg.nat_max = 2048; }, kRange);
    Run run(node, seed);
    unsigned long step = 0;
    std::string wrong;
    for (; step < steps && wrong.empty(); ++step) wrong = run.step();
    CHECK_MESSAGE(wrong.empty(), "TWILL_SEED=", seed, " step ", step, ": ", wrong);
    fmt::print("nat random: TWILL_SEED={} {} steps, {} flows made, {} refused, {} packets of flows\n", seed, step,
               run.made(), run.refused(), run.passed());
    CHECK(run.made() > steps / 100);
    CHECK(run.passed() > steps / 20);
}
