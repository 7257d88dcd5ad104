// SPDX-License-Identifier: Apache-2.0
// The checks of world.hpp; apart, so that a program without a test framework can use the world.
#include <doctest/doctest.h>

#include "tests/packet/world.hpp"

namespace twill::test {

void expect(const Outcome& outcome, int verdict, tw_reason reason)
{
    Outcome wanted;
    wanted.verdict = verdict;
    wanted.counted = {reason};
    CHECK(outcome.to_string() == wanted.to_string());
}

void expect_untouched(const Outcome& outcome, const Layers& sent, tw_reason reason)
{
    expect(outcome, kUnspec, reason);
    expect_bytes(build(sent), outcome.out);
}

void expect_bytes(const Bytes& expected, const Bytes& actual, std::size_t from)
{
    const std::string difference = diff(expected, actual, from);
    CHECK_MESSAGE(difference.empty(), difference);
}

} // namespace twill::test
