// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tests/interop/nat/world.hpp"

namespace twill::interop::nat {

/// 50,000 flows that open and close for so many seconds. True: nothing was wrong.
bool soak(World& world, std::uint32_t duration);

} // namespace twill::interop::nat
