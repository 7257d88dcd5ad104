// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_sieve.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace twill {

namespace {

constexpr std::size_t kMaxKeyBytes = 512; // a name, and the prefix of an annotation: 317 at most

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '+' ||
           c == '.';
}

const SieveRule* rule_for(const std::vector<SieveRule>& members, std::string_view name)
{
    for (const auto& rule : members) {
        const std::string_view wanted = rule.name;
        if (wanted.ends_with('*') ? name.starts_with(wanted.substr(0, wanted.size() - 1)) : name == wanted)
            return &rule;
    }
    return nullptr;
}

} // namespace

JsonSieve::JsonSieve(std::vector<SieveRule> top, Emit emit) : top_(std::move(top)), emit_(std::move(emit)) {}

Error JsonSieve::bad(char found) const
{
    char text[8];
    (void)std::snprintf(text, sizeof(text), found > 0x20 && found < 0x7f ? "'%c'" : "0x%02x",
                        static_cast<unsigned>(static_cast<unsigned char>(found)));
    return Error{EINVAL, "not JSON: unexpected " + std::string(text)};
}

void JsonSieve::write(std::string_view text)
{
    (is_in_element_ ? element_ : top_text_) += text;
    bytes_ += text.size();
}

Result<> JsonSieve::feed(std::string_view piece)
{
    std::size_t at = 0;
    while (at < piece.size()) {
        switch (mode_) {
        case Mode::structure: {
            TWILL_TRY_AS(next, structure(piece, at));
            at = next;
            break;
        }
        case Mode::key:
            at = key(piece, at);
            break;
        case Mode::keep:
        case Mode::drop:
            at = value(piece, at);
            break;
        }
        if (depth_ > kMaxDepth) return Error{EINVAL, "nested deeper than " + std::to_string(kMaxDepth)};
        if (bytes_ > kMaxEmitBytes)
            return Error{EFBIG, "an object of more than " + std::to_string(kMaxEmitBytes) + " bytes"};
    }
    return Ok{};
}

/// One character between keys and values.
Result<std::size_t> JsonSieve::structure(std::string_view piece, std::size_t at)
{
    const char c = piece[at];
    if (is_space(c)) return at + 1;
    if (frames_.empty()) {
        if (c != '{') return bad(c);
        top_text_.clear();
        bytes_ = 0;
        frames_.push_back({&top_, false, false, false, Want::key_or_end});
        write("{");
        return at + 1;
    }
    auto& frame = frames_.back();
    const bool may_end =
        frame.want == Want::key_or_end || frame.want == Want::value_or_end || frame.want == Want::comma_or_end;
    if (may_end && c == (frame.is_array ? ']' : '}')) {
        end_container();
        return at + 1;
    }
    switch (frame.want) {
    case Want::key_or_end:
    case Want::key:
        if (c != '"') return bad(c);
        key_.clear();
        is_escaped_ = false;
        mode_ = Mode::key;
        return at + 1;
    case Want::colon:
        if (c != ':') return bad(c);
        frame.want = Want::value;
        return at + 1;
    case Want::comma_or_end:
        if (c != ',') return bad(c);
        frame.want = frame.is_array ? Want::value : Want::key;
        return at + 1;
    case Want::value:
    case Want::value_or_end:
        break;
    }
    TWILL_TRY(begin_value(c));
    // The first character of a value that is copied or dropped belongs to it.
    return mode_ == Mode::structure ? at + 1 : at;
}

Result<> JsonSieve::begin_value(char first)
{
    if (first != '{' && first != '[' && first != '"' && !is_word(first)) return bad(first);
    if (frames_.size() >= kMaxDepth) return Error{EINVAL, "nested deeper than " + std::to_string(kMaxDepth)};
    auto& frame = frames_.back();
    frame.want = Want::comma_or_end;
    if (frame.is_array) {
        if (first != '{') { // an element that is no object is none of ours
            mode_ = Mode::drop;
        } else {
            is_in_element_ = true;
            element_.clear();
            frames_.push_back({frame.members, false, true, false, Want::key_or_end});
            write("{");
            return Ok{};
        }
    } else if (rule_ == nullptr) {
        mode_ = Mode::drop;
    } else {
        if (frame.has_members) write(",");
        frame.has_members = true;
        write("\"");
        write(key_);
        write("\":");
        if (rule_->take == SieveRule::Take::part && first == '{') {
            frames_.push_back({&rule_->members, false, false, false, Want::key_or_end});
            write("{");
            return Ok{};
        }
        // An array within an element is kept as it is: one level is all that lists need.
        if (rule_->take == SieveRule::Take::each && first == '[' && !is_in_element_) {
            frames_.push_back({&rule_->members, true, false, false, Want::value_or_end});
            write("[");
            return Ok{};
        }
        mode_ = Mode::keep;
    }
    depth_ = 0;
    is_string_ = false;
    is_escaped_ = false;
    is_scalar_ = is_word(first);
    return Ok{};
}

void JsonSieve::end_container()
{
    const Frame frame = frames_.back();
    frames_.pop_back();
    write(frame.is_array ? "]" : "}");
    if (frame.is_element) {
        is_in_element_ = false;
        bytes_ -= std::min(bytes_, element_.size());
        emit_(element_, true);
        element_.clear();
    } else if (frames_.empty()) {
        emit_(top_text_, false);
        top_text_.clear();
        bytes_ = 0;
    }
}

std::size_t JsonSieve::key(std::string_view piece, std::size_t at)
{
    for (; at < piece.size(); ++at) {
        const char c = piece[at];
        if (!is_escaped_ && c == '"') {
            rule_ = key_.size() <= kMaxKeyBytes ? rule_for(*frames_.back().members, key_) : nullptr;
            frames_.back().want = Want::colon;
            mode_ = Mode::structure;
            return at + 1;
        }
        is_escaped_ = !is_escaped_ && c == '\\';
        if (key_.size() <= kMaxKeyBytes) key_ += c;
    }
    return at;
}

/// Goes through what is kept or dropped as it is, up to its end or that of the piece.
std::size_t JsonSieve::value(std::string_view piece, std::size_t at)
{
    const std::size_t start = at;
    bool is_done = false;
    while (at < piece.size() && !is_done) {
        if (is_scalar_) {
            while (at < piece.size() && is_word(piece[at])) ++at;
            is_done = at < piece.size();
            break;
        }
        if (is_string_) {
            if (is_escaped_) {
                is_escaped_ = false;
                ++at;
                continue;
            }
            while (at < piece.size() && piece[at] != '"' && piece[at] != '\\') ++at;
            if (at == piece.size()) break;
            is_escaped_ = piece[at] == '\\';
            is_string_ = is_escaped_;
            ++at;
            is_done = !is_string_ && depth_ == 0;
            continue;
        }
        const char c = piece[at++];
        if (c == '"') {
            is_string_ = true;
        } else if (c == '{' || c == '[') {
            if (++depth_ > kMaxDepth) break;
        } else if (c == '}' || c == ']') {
            is_done = --depth_ == 0;
        }
    }
    if (mode_ == Mode::keep) write(piece.substr(start, at - start));
    if (is_done) {
        mode_ = Mode::structure;
        depth_ = 0;
    }
    return at;
}

} // namespace twill
