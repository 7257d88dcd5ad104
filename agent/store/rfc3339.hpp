// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "twill/clock.hpp"
#include "twill/result.hpp"

namespace twill {

/// RFC 3339 text, with fraction and offset. Years after 2261 (the end of WallTime) become its last second, so that
/// "9999-12-31T23:59:59Z" means never. EINVAL names the text.
Result<WallTime> parse_rfc3339(std::string_view text);

/// "2026-11-21T01:43:05Z": UTC, whole seconds, rounded down.
std::string format_rfc3339(WallTime time);

} // namespace twill
