// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "tests/support/bpf_fixture.hpp"

int main(int argc, char** argv)
{
    if (const auto missing = twill::test::missing_for_bpf(); !missing.empty()) {
        std::printf("SKIP: needs %s\n", missing.c_str());
        return 77;
    }
    doctest::Context context(argc, argv);
    return context.run();
}
