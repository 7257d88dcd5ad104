// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <linux/bpf.h>

#include <cstdio>

#include "tests/support/bpf_fixture.hpp"

int main(int argc, char** argv)
{
    if (const auto missing = twill::test::missing_for_bpf(); !missing.empty()) {
        std::printf("SKIP: needs %s\n", missing.c_str());
        return 77;
    }
    if (!twill::test::kernel_encapsulates())
        std::printf("not tested: encapsulation by the programs, this kernel has no ENCAP_L2_ETH\n");
    if (!twill::test::kernel_has_helper(BPF_FUNC_check_mtu))
        std::printf("not tested: whether interfaces exist and what they take, this kernel has no bpf_check_mtu\n");
    doctest::Context context(argc, argv);
    return context.run();
}
