// SPDX-License-Identifier: Apache-2.0
// Which of the two objects is loaded: see agent/dataplane/skeleton.hpp.
#include "agent/dataplane/programs.hpp"

#include <doctest/doctest.h>

#include <string>

#include "agent/dataplane/skeleton.hpp"
#include "tests/netns/nl_sandbox.hpp"

namespace twill {
namespace {

/// A directory for pins, on a BPF file system that nobody else sees.
PinDir pins()
{
    test::shell("mount -t bpf bpf /sys/fs/bpf");
    PinDir pins("/sys/fs/bpf/twill-test");
    REQUIRE(pins.begin());
    REQUIRE(pins.create());
    return pins;
}

tw_cfg config(bool asks)
{
    tw_cfg cfg{};
    cfg.fast = 1;
    cfg.ct_lookup = asks;
    cfg.overlay = 1;
    cfg.port = 8472;
    return cfg;
}

std::string bytes_of(bool can_ask)
{
    const auto object = built_in_object(can_ask);
    return {static_cast<const char*>(object.bytes), object.size};
}

/// The object that asks conntrack, by a name that no kernel has.
std::string asks_in_vain()
{
    std::string object = bytes_of(true);
    const std::string name = "bpf_skb_ct_lookup";
    for (auto at = object.find(name); at != std::string::npos; at = object.find(name, at)) object[at] = 'x';
    return object;
}

} // namespace

TEST_CASE("programs: where the kernel refuses those that ask conntrack the plain ones are loaded, and say so")
{
    const auto dir = pins();
    const std::string in_vain = asks_in_vain();
    const auto programs = Programs::load(config(true), dir, {in_vain, {}});
    REQUIRE_MESSAGE(programs, (programs ? "" : programs.error().what));
    CHECK(programs->refused().has_value());
    CHECK(programs->cfg().ct_lookup == 0);
    CHECK(programs->cfg().port == 8472);
    for (int hook = 0; hook < TW_HOOK__MAX; ++hook) CHECK(programs->fd(static_cast<tw_hook>(hook)) >= 0);
}

TEST_CASE("programs: when both objects are refused the first reason is told")
{
    const auto dir = pins();
    const std::string in_vain = asks_in_vain(), broken = "no object";
    const auto programs = Programs::load(config(true), dir, {in_vain, broken});
    REQUIRE_FALSE(programs);
    CHECK(programs.error().what.rfind("load the BPF programs", 0) == 0); // not "open", which the broken one fails at
}

TEST_CASE("programs: who does not ask conntrack gets the plain ones at once")
{
    const auto dir = pins();
    const std::string broken = "no object";
    const auto programs = Programs::load(config(false), dir, {broken, {}});
    REQUIRE_MESSAGE(programs, (programs ? "" : programs.error().what));
    CHECK_FALSE(programs->refused().has_value());
}

} // namespace twill
