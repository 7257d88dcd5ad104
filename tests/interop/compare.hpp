// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>

#include "tests/interop/world.hpp"

namespace twill::interop {

/// One packet in two worlds.
struct Outcome {
    const World& world;
    std::vector<Frame> frames;
    /// What twill's programs counted for it, marked packets left out: "from_pod to_vxlan".
    std::set<std::string> reasons;
    /// How often conntrack of that world found it invalid: a tunnel frame may be so, and the packet in it.
    std::uint64_t invalid = 0;
};

/// A difference that is meant. Everything else is a failure.
struct Accepted {
    const char* name;
    const char* why;
    /// Does it explain what came out of twill and of the kernel?
    bool (*explains)(const Packet& packet, const Outcome& twill, const Outcome& kernel);
};
/// accepted.cpp
const Accepted* accepted(const Packet& packet, const Outcome& twill, const Outcome& kernel);
const std::vector<Accepted>& all_accepted();

/// The worlds of worlds.sh and the judgement over them.
class Comparison {
public:
    struct Settings {
        std::string lab, bpf_roots; ///< name of the lab; where its pins are
        bool is_offloaded = false;  ///< the wires take super-packets and unfinished checksums
        bool is_verbose = false;    ///< a line for each packet
        unsigned max_failures = 20;
    };
    static Result<Comparison> open(Settings settings);

    /// Sends the packet through both, and what came out into both receivers. An error: the bench itself failed.
    Result<> run(const Packet& packet);
    bool has_failed_enough() const { return failures_ >= settings_.max_failures; }
    unsigned failures() const { return failures_; }
    /// The counts, and how the packets went.
    void print(const char* title);

private:
    explicit Comparison(Settings settings) : settings_(std::move(settings)) {}
    World& kernel_for(const Packet& packet);
    Result<Outcome> measure(World& world, const Packet& packet);
    /// Compares one packet in two worlds; nullopt when they agree or may differ, else the text of the difference.
    Result<std::optional<std::string>> judge(const Packet& packet, Outcome& twill, Outcome& kernel);
    Result<> deliver(const Packet& packet, const std::vector<Frame>& frames, const World& sender);
    std::string check_valid(const Packet& packet, const Outcome& outcome) const;
    void fail(const Packet& packet, const std::string& text);

    Settings settings_;
    std::vector<World> worlds_; ///< ta ka k0 tb kb
    unsigned failures_ = 0;
    std::uint64_t packets_ = 0, frames_ = 0, delivered_ = 0, silent_ = 0;
    std::map<std::string, std::uint64_t> ways_, accepted_;
};

} // namespace twill::interop
