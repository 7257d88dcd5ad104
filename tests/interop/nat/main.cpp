// SPDX-License-Identifier: Apache-2.0
// tw-nat-diff: the same conversations through the kernel's MASQUERADE and through twill. nat.sh makes the worlds.
#include <fmt/core.h>
#include <sched.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/interop/nat/soak.hpp"
#include "tests/interop/nat/talk.hpp"

namespace twill::interop::nat {
namespace {

struct Options {
    std::string lab, only;
    bool verbose = false, list = false;
    std::uint32_t soak_seconds = 0;
};

/// One letter of Conversation::worlds.
struct Pair {
    char letter;
    const char *kernel, *twill, *what;
};
constexpr Pair kPairs[] = {{'i', "ki", "ti", "iptables' rules"},
                           {'n', "kn", "tn", "nft's rules"},
                           {'k', "kk", "tk", "iptables' rules, ports kept"},
                           {'c', "ki", "tc", "iptables' rules, without conntrack"}};

struct Tally {
    unsigned compared = 0, differ = 0, accepted = 0, failed = 0;
};

using Worlds = std::map<std::string, std::unique_ptr<World>>;

class Run {
public:
    Run(Worlds& worlds, const Options& options) : worlds_(worlds), options_(options) {}

    void all(const std::vector<Conversation>& conversations)
    {
        for (const Conversation& one : conversations) {
            if (std::string(one.name).find(options_.only) == std::string::npos) continue;
            if (options_.list) {
                fmt::print("{}\n", one.name);
                continue;
            }
            const unsigned before = tally_.differ + tally_.failed;
            differed_ = false;
            for (const Family family : kFamilies)
                if (std::strchr(one.families, family == Family::v4 ? '4' : '6') != nullptr)
                    for (const bool partial : {false, true}) conversation(one, family, Style{.partial = partial});
            if (*one.accepted != 0 && !differed_) fail(one, "no difference any more: the row is out of date", {});
            if (tally_.differ + tally_.failed == before) fmt::print("ok {}\n", one.name);
        }
    }
    const Tally& tally() const { return tally_; }

private:
    void conversation(const Conversation& one, Family family, const Style& style)
    {
        std::map<std::string, std::vector<std::string>> traces;
        where_ = fmt::format("{}{}", family == Family::v4 ? "IPv4" : "IPv6", style.partial ? ", partial sums" : "");
        const auto trace = [&](const char* world) -> const std::vector<std::string>& {
            const auto found = traces.find(world);
            return found != traces.end() ? found->second : traces[world] = talk(one, world, family, style);
        };
        if (*one.worlds == 0) trace("ti");
        for (const Pair& pair : kPairs) {
            if (std::strchr(one.worlds, pair.letter) == nullptr) continue;
            ++tally_.compared;
            const auto &kernel = trace(pair.kernel), &twill = trace(pair.twill);
            if (kernel == twill) continue;
            differed_ = true;
            if (*one.accepted != 0) {
                ++tally_.accepted;
                continue;
            }
            ++tally_.differ;
            fmt::print("DIFFERS {} ({}, {})\n", one.name, where_, pair.what);
            show("kernel", kernel, twill);
            show("twill ", twill, kernel);
        }
    }

    std::vector<std::string> talk(const Conversation& one, const char* name, Family family, const Style& style)
    {
        World& world = *worlds_.at(name);
        world.forget();
        Talk talk(world, family, style);
        one.run(talk);
        auto trace = talk.trace();
        if (options_.verbose) {
            fmt::print("{} in {}, {}\n", one.name, name, where_);
            for (const std::string& line : trace) fmt::print("   {}\n", line);
        }
        if (!talk.failures().empty() && (world.is_twill() || talk.is_lost()))
            fail(one, fmt::format("{}, {}: {}", name, where_, talk.failures()[0]), trace);
        return trace;
    }

    void fail(const Conversation& one, const std::string& what, const std::vector<std::string>& trace)
    {
        ++tally_.failed;
        fmt::print("FAILED {}: {}\n", one.name, what);
        for (const std::string& line : trace) fmt::print("   {}\n", line.substr(0, 300));
    }

    static void show(const char* who, const std::vector<std::string>& lines, const std::vector<std::string>& other)
    {
        std::size_t i = 0;
        while (i < lines.size() && i < other.size() && lines[i] == other[i]) ++i;
        const std::size_t first = i > 3 ? i - 3 : 0;
        for (std::size_t at = first; at < lines.size() && at < i + 3; ++at)
            fmt::print("   {} {}{}\n", who, at == i ? "* " : "  ", lines[at].substr(0, 900));
    }

    Worlds& worlds_;
    const Options& options_;
    Tally tally_;
    std::string where_;
    bool differed_ = false;
};

Result<Worlds> open_worlds(const std::string& lab)
{
    Worlds worlds;
    for (const char* name : {"ki", "kn", "kk", "ti", "tn", "tk", "tc"}) {
        TWILL_TRY_AS(world, World::open(lab, name));
        worlds[name] = std::move(world);
    }
    TWILL_TRY(worlds["ti"]->attach({}));
    TWILL_TRY(worlds["tn"]->attach({.rules = TW_NAT_NFT}));
    TWILL_TRY(worlds["tk"]->attach({.keep = true}));
    TWILL_TRY(worlds["tc"]->attach({.conntrack = false}));
    return worlds;
}

int run(int argc, char** argv)
{
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string flag = argv[i];
        if (flag == "--verbose")
            options.verbose = true;
        else if (flag == "--list")
            options.list = true;
        else if (i + 1 < argc && flag == "--lab")
            options.lab = argv[++i];
        else if (i + 1 < argc && flag == "--soak")
            options.soak_seconds = static_cast<std::uint32_t>(std::strtoul(argv[++i], nullptr, 10));
        else if (i + 1 < argc && flag == "--only")
            options.only = argv[++i];
        else
            return fmt::print(stderr,
                              "usage: tw-nat-diff --lab NAME [--only TEXT] [--verbose] [--list] [--soak SECONDS]\n"),
                   2;
    }
    // What a packet sets off is done when the call that sent it returns, or behind it on the same CPU.
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(sched_getcpu()), &one);
    sched_setaffinity(0, sizeof one, &one);
    if (options.soak_seconds != 0) {
        auto world = World::open(options.lab, "so");
        const auto attached =
            world ? (*world)->attach({.keep = true, .conntrack = false, .max = 200000}) : Result<>(Ok{});
        if (!world || !attached) {
            const Error& error = world ? attached.error() : world.error();
            return fmt::print(stderr, "{}: {}\n", error.what, std::strerror(error.code)), 1;
        }
        return soak(**world, options.soak_seconds) ? 0 : 1;
    }
    auto worlds = options.list ? Result<Worlds>(Worlds{}) : open_worlds(options.lab);
    if (!worlds) return fmt::print(stderr, "{}: {}\n", worlds.error().what, std::strerror(worlds.error().code)), 1;
    Run all(*worlds, options);
    for (const auto& list : {protocol_conversations(), rule_conversations(), error_conversations(), rfc_conversations(),
                             rfc_tcp_icmp_conversations(), guard_conversations()})
        all.all(list);
    const Tally& tally = all.tally();
    fmt::print("{} conversations compared, {} differ; {} differ as is meant; {} did not hold\n", tally.compared,
               tally.differ, tally.accepted, tally.failed);
    return tally.differ + tally.failed == 0 ? 0 : 1;
}

} // namespace
} // namespace twill::interop::nat

int main(int argc, char** argv) { return twill::interop::nat::run(argc, argv); }
