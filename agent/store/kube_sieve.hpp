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

/// What a JsonSieve lets through of an object: members by name; all others are dropped while they arrive.
struct SieveRule {
    enum class Take : std::uint8_t {
        whole, ///< the value as it is
        part,  ///< of an object, what `members` say; anything else as it is
        each,  ///< of an array, each element by itself, reduced as by part; the array itself stays, empty
    };
    std::string name; ///< a last '*' stands for any rest
    Take take = Take::whole;
    std::vector<SieveRule> members{};
};

/// Reduces JSON that arrives in pieces, so that a list of thousands of large objects is never held: what comes out are
/// small texts, ready for parse_json(). Brackets, quotes and the places of keys are checked, the inside of what is
/// dropped is not looked at. Names are compared as written: an escaped letter makes another name.
///
/// Takes any number of objects after each other, with white space between (a watch has one a line).
class JsonSieve {
public:
    /// One reduced object: an element of a Take::each array, or (`is_element` false) what stood at the top, at its end.
    using Emit = std::function<void(std::string_view json, bool is_element)>;
    static constexpr std::size_t kMaxEmitBytes = std::size_t{1} << 20; ///< the API server takes no larger object
    static constexpr std::size_t kMaxDepth = 64;

    JsonSieve(std::vector<SieveRule> top, Emit emit);
    JsonSieve(const JsonSieve&) = delete;
    JsonSieve& operator=(const JsonSieve&) = delete;

    /// The next piece. EINVAL: no such JSON; EFBIG: more than kMaxEmitBytes would be kept. After an error: no more.
    Result<> feed(std::string_view piece);
    /// Nothing has begun that has not ended.
    bool is_between() const { return frames_.empty() && mode_ == Mode::structure; }

private:
    enum class Mode : std::uint8_t { structure, key, keep, drop };
    enum class Want : std::uint8_t { key_or_end, key, colon, value, value_or_end, comma_or_end };
    struct Frame {
        const std::vector<SieveRule>* members;
        bool is_array;
        bool is_element; ///< of a Take::each array: handed out by itself
        bool has_members = false;
        Want want;
    };

    Result<std::size_t> structure(std::string_view piece, std::size_t at);
    Result<> begin_value(char first);
    void end_container();
    std::size_t key(std::string_view piece, std::size_t at);
    std::size_t value(std::string_view piece, std::size_t at);
    void write(std::string_view text);
    Error bad(char found) const;

    std::vector<SieveRule> top_;
    Emit emit_;
    std::vector<Frame> frames_;
    Mode mode_ = Mode::structure;
    std::string key_;
    const SieveRule* rule_ = nullptr; ///< of the member whose value comes next; nullptr: dropped
    std::string top_text_;
    std::string element_;
    bool is_in_element_ = false;

    // Inside of a value that is kept or dropped as it is, or of a key.
    std::size_t depth_ = 0;
    bool is_string_ = false;
    bool is_escaped_ = false;
    bool is_scalar_ = false; ///< a number or a word: ends before what cannot be part of one
    std::size_t bytes_ = 0;  ///< kept, of what was not handed out
};

} // namespace twill
