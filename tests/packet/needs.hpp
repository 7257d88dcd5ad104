// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <doctest/doctest.h>
#include <linux/bpf.h>

#include "tests/support/bpf_fixture.hpp"

namespace twill::test {

// Decorators of test cases: skipped, and counted so, where the kernel lacks what the case is about.

/// The programs encapsulate. Before 5.13 the overlay device does.
inline doctest::skip needs_encap() { return doctest::skip(!kernel_encapsulates()); }

/// The programs ask whether an interface exists and what it takes (5.12).
inline doctest::skip needs_check_mtu() { return doctest::skip(!kernel_has_helper(BPF_FUNC_check_mtu)); }

} // namespace twill::test
