// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "twill/clock.hpp"
#include "twill/result.hpp"

/// One line per change of state on stderr: a fixed sentence, then key=value. Any thread.
namespace twill::log {

enum class Level : std::uint8_t { debug, info, warn, error };

/// auto: JSON inside Kubernetes when stderr is no terminal, text otherwise.
enum class Format : std::uint8_t { automatic, text, json };

/// A field's value: text, a number or a boolean.
class Value {
public:
    Value(std::string_view text) : value_(std::string(text)) {}
    Value(const std::string& text) : value_(text) {}
    Value(const char* text) : value_(std::string(text)) {}
    Value(bool value) : value_(value) {}
    Value(double value) : value_(value) {}
    template <std::integral T>
    requires(!std::same_as<T, bool>) Value(T value)
    {
        if constexpr (std::is_signed_v<T>)
            value_ = std::int64_t{value};
        else
            value_ = std::uint64_t{value};
    }
    using Held = std::variant<std::string, std::int64_t, std::uint64_t, bool, double>;
    const Held& held() const { return value_; }

private:
    Held value_;
};

struct Field {
    std::string_view key;
    Value value;
};
using Fields = std::initializer_list<Field>;

/// Call once, before the first line; without it lines are text at level info.
void init(Format format, Level lowest);

void debug(std::string_view sentence, Fields fields = {});
void info(std::string_view sentence, Fields fields = {});
void warn(std::string_view sentence, Fields fields = {});
void error(std::string_view sentence, Fields fields = {});
/// The same with fields `code` (errno) and `error` for what went wrong.
void warn(std::string_view sentence, const Error& error, Fields fields = {});
void error(std::string_view sentence, const Error& error, Fields fields = {});

/// `lease acquired key=10.42.1.0-24 why="two words"`: values with blanks, quotes or control characters are quoted.
std::string to_text(std::string_view sentence, Fields fields);
/// One JSON object, keys ts, level, msg, then the fields. Bytes that are no UTF-8 become U+FFFD.
std::string to_json(WallTime when, Level level, std::string_view sentence, Fields fields);

/// Lets one line through in each period and counts what it held back: for errors that repeat.
class RateLimit {
public:
    explicit RateLimit(std::chrono::milliseconds period) : period_(period) {}
    /// nullopt: hold this line back. Otherwise write it; the value is how many were held back since the last one.
    std::optional<unsigned> allow(SteadyTime now);

private:
    std::chrono::milliseconds period_;
    std::optional<SteadyTime> last_;
    unsigned held_back_ = 0;
};

} // namespace twill::log
