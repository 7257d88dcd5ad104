// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace twill {

/// Why an operation failed. `code` is a positive errno value, `what` reads "operation subject: detail" and is fit for a
/// log line or for a person; it never holds secrets.
struct Error {
    int code = 0;
    std::string what;
    bool operator==(const Error&) const = default;
};

/// The value of a Result that carries nothing but success.
struct Ok {
    bool operator==(const Ok&) const = default;
};

/// A value or an Error: the subset of std::expected that clang 14 tools can read. Dereference only after a check.
template <typename T = Ok>
class [[nodiscard]] Result {
public:
    using value_type = T;

    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

    bool has_value() const noexcept { return state_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }
    T& operator*() & { return *std::get_if<0>(&state_); }
    const T& operator*() const& { return *std::get_if<0>(&state_); }
    T&& operator*() && { return std::move(*std::get_if<0>(&state_)); }
    T* operator->() { return std::get_if<0>(&state_); }
    const T* operator->() const { return std::get_if<0>(&state_); }
    const Error& error() const { return *std::get_if<1>(&state_); }

private:
    std::variant<T, Error> state_;
};

} // namespace twill

/// Returns the error of `expression` from the enclosing function; drops its value.
#define TWILL_TRY(expression)                                                                                          \
    do {                                                                                                               \
        if (auto twill_result_ = (expression); !twill_result_) return twill_result_.error();                           \
    } while (false)

#define TWILL_CONCAT_(a, b) a##b
#define TWILL_CONCAT(a, b) TWILL_CONCAT_(a, b)
#define TWILL_TRY_AS_(tmp, name, expression)                                                                           \
    auto tmp = (expression);                                                                                           \
    if (!tmp) return tmp.error();                                                                                      \
    auto name = *std::move(tmp)

/// Declares `name` with the value of `expression`, or returns its error from the enclosing function.
#define TWILL_TRY_AS(name, expression) TWILL_TRY_AS_(TWILL_CONCAT(twill_try_, __LINE__), name, expression)
