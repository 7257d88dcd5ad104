// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

namespace twill::cli {

/// The name that a mistyped word most likely meant: the fewest insertions, deletions, replacements and swaps of
/// neighbours, at most a third of its length (and at least 2). Empty when nothing is that near.
std::string_view nearest(std::string_view word, const std::vector<std::string_view>& names);

} // namespace twill::cli
