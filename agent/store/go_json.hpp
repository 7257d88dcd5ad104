// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "twill/result.hpp"

namespace twill {

/// One JSON value as Go's encoding/json sees it: an object keeps every member, duplicates and spellings included, in
/// the order of the text, because there the later one wins.
struct JsonValue {
    enum class Kind : std::uint8_t { null, boolean, integer, real, string, array, object };
    Kind kind = Kind::null;
    bool boolean = false;
    std::int64_t integer = 0;        ///< kind integer; what does not fit is kind real
    std::string text{};              ///< kind string: the value; kind real: as written
    std::vector<std::string> keys{}; ///< kind object: the name of each item
    std::vector<JsonValue> items{};  ///< kind array or object

    bool is(Kind wanted) const { return kind == wanted; }
    /// For an error: a scalar as JSON, cut to 64 bytes, "an array" or "an object". One line.
    std::string brief() const;
};

/// Parses one JSON text. EINVAL: "line L, column C: not JSON: ...", one line that says what to mend; nesting is limited
/// to 64. Never throws.
Result<JsonValue> parse_json(std::string_view text);

/// `key`, found in a text, means the field `name` of a Go struct: equal but for case. `name` is ASCII.
bool go_key_is(std::string_view key, std::string_view name);

/// A field of a Go struct: its name and what takes the value. `take` is not called for null, which changes nothing.
struct GoField {
    std::string_view name;
    std::function<Result<>(const JsonValue&)> take;
};

/// Hands each member of `object` that is a field to it, in the order of the text; others are ignored. First error.
Result<> decode_go(const JsonValue& object, const std::vector<GoField>& fields);

} // namespace twill
