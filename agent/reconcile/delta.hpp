// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <utility>
#include <vector>

namespace twill {

/// What turns one table into another.
template <typename K, typename V>
struct Delta {
    std::vector<std::pair<K, V>> put; ///< absent or different, in key order
    std::vector<K> del;               ///< present and not wanted, in key order
    bool empty() const { return put.empty() && del.empty(); }
    bool operator==(const Delta&) const = default;
};

/// One walk over both tables.
template <typename K, typename V>
Delta<K, V> diff(const std::map<K, V>& desired, const std::map<K, V>& actual)
{
    Delta<K, V> delta;
    auto want = desired.begin();
    auto have = actual.begin();
    while (want != desired.end() || have != actual.end()) {
        if (have == actual.end() || (want != desired.end() && want->first < have->first)) {
            delta.put.emplace_back(*want++);
        } else if (want == desired.end() || have->first < want->first) {
            delta.del.push_back((have++)->first);
        } else {
            if (!(want->second == have->second)) delta.put.emplace_back(*want);
            ++want;
            ++have;
        }
    }
    return delta;
}

} // namespace twill
