// SPDX-License-Identifier: Apache-2.0
#include "agent/store/go_json.hpp"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>

namespace twill {

namespace {

using Kind = JsonValue::Kind;
constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kBriefBytes = 64;

/// Text that fits one line of a log: control characters and what is too long are left out.
std::string one_line(std::string_view text)
{
    std::string line;
    for (const char c : text.substr(0, kBriefBytes)) line += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    if (text.size() > kBriefBytes) line += "...";
    return line;
}

bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' ||
           c == '.' || c == '+';
}

/// Where the token begins of which the parser read the byte at `at` last.
std::size_t token_start(std::string_view source, std::size_t at)
{
    if (source[at] == '"' && at > 0) {
        const auto open = source.rfind('"', at - 1);
        const auto line = source.rfind('\n', at);
        if (open != source.npos && (line == source.npos || line < open)) return open;
    }
    while (at > 0 && is_word(source[at]) && is_word(source[at - 1])) --at;
    return at;
}

/// What the parser would have taken, from where it says that it was.
std::string_view wanted(std::string_view parser_says)
{
    constexpr std::pair<std::string_view, std::string_view> kPlaces[] = {
        {"; expected end of input", "want nothing after the first value"},
        {"object separator", "want ':' after the key"},
        {"object key", "want a key in double quotes"},
        {"parsing object", "want ',' or '}' before it"},
        {"parsing array", "want ',' or ']' before it"},
    };
    for (const auto& [place, want] : kPlaces)
        if (parser_says.find(place) != parser_says.npos) return want;
    return "want a value: text in double quotes, a number, true, false, null, {...} or [...]";
}

/// Why `source` is no JSON at byte `at`, for who wrote it by hand.
std::string malformed(std::string_view source, std::size_t at, std::string_view parser_says)
{
    const auto says = [&](std::string_view part) { return parser_says.find(part) != parser_says.npos; };
    if (source.find_first_not_of(" \t\r\n") == source.npos) return "there is nothing in it, want a JSON object";
    if (says("UTF-8")) return "a byte that is not UTF-8";
    if (says("missing closing quote")) return "the text ends within a string, want '\"'";
    if (says("must be escaped") && at < source.size() && source[at] == '\n')
        return "the line ends within a string, want '\"'";
    if (says("must be escaped")) return "a control character within a string";
    if (says("backslash") || says("\\u")) return "a backslash within a string that begins no JSON escape";
    if (at >= source.size()) return "the text ends too early, a closing '}' or ']' is missing";
    const char found = source[at];
    if (found == '/' || found == '#') return "JSON has no comments";
    if (found == '\'') return "single quotes, want double quotes";
    if (found == '0' && at + 1 < source.size() && source[at + 1] >= '0' && source[at + 1] <= '9')
        return "a number that begins with 0";
    const auto before = at == 0 ? source.npos : source.find_last_not_of(" \t\r\n", at - 1);
    if ((found == '}' || found == ']') && before != source.npos && source[before] == ',')
        return "a comma before '" + std::string(1, found) + "', want none after the last item";
    auto end = at + 1;
    if (found == '"') {
        end = std::min(source.find('"', at + 1), source.size() - 1) + 1;
    } else if (is_word(found)) {
        while (end < source.size() && is_word(source[end])) ++end;
    }
    return "unexpected " + one_line(source.substr(at, end - at)) + ", " + std::string(wanted(parser_says));
}

/// Builds the tree from nlohmann's events: its own documents keep one member per name and lose the order.
class TreeBuilder : public nlohmann::json_sax<nlohmann::json> {
public:
    explicit TreeBuilder(std::string_view source) : source_(source) {}

    bool null() override { return add({}); }
    bool boolean(bool value) override { return add({.kind = Kind::boolean, .boolean = value}); }
    bool number_integer(number_integer_t value) override { return add({.kind = Kind::integer, .integer = value}); }
    bool number_unsigned(number_unsigned_t value) override
    {
        if (value > static_cast<number_unsigned_t>(INT64_MAX))
            return add({.kind = Kind::real, .text = std::to_string(value)});
        return add({.kind = Kind::integer, .integer = static_cast<std::int64_t>(value)});
    }
    bool number_float(number_float_t, const string_t& text) override { return add({.kind = Kind::real, .text = text}); }
    bool string(string_t& text) override { return add({.kind = Kind::string, .text = text}); }
    bool binary(binary_t&) override { return false; }
    bool start_object(std::size_t) override { return open(Kind::object); }
    bool start_array(std::size_t) override { return open(Kind::array); }
    bool key(string_t& name) override
    {
        path_.back()->keys.push_back(name);
        return true;
    }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& why) override
    {
        auto at = position == 0 ? 0 : std::min(position - 1, source_.size());
        const std::string_view parser_says = why.what();
        const bool is_in_string = parser_says.find("invalid string") != parser_says.npos;
        if (at < source_.size() && !is_in_string) at = token_start(source_, at);
        const auto read = source_.substr(0, at);
        const auto line = 1 + std::count(read.begin(), read.end(), '\n');
        const auto start = read.rfind('\n');
        const auto column = read.size() - (start == std::string_view::npos ? 0 : start + 1) + 1;
        error_ = Error{EINVAL, "line " + std::to_string(line) + ", column " + std::to_string(column) +
                                   ": not JSON: " + malformed(source_, at, parser_says)};
        return false;
    }

    Result<JsonValue> take()
    {
        if (error_) return *error_;
        return std::move(root_);
    }

private:
    /// The place of the next value. Pointers in path_ stay good: a parent grows only when no child is open.
    JsonValue& next()
    {
        if (path_.empty()) return root_;
        return path_.back()->items.emplace_back();
    }
    bool add(JsonValue value)
    {
        next() = std::move(value);
        return true;
    }
    bool open(Kind kind)
    {
        if (path_.size() == kMaxDepth) {
            error_ = Error{EINVAL, "nested deeper than " + std::to_string(kMaxDepth)};
            return false;
        }
        JsonValue& value = next();
        value.kind = kind;
        path_.push_back(&value);
        return true;
    }
    bool close()
    {
        path_.pop_back();
        return true;
    }

    std::string_view source_;
    JsonValue root_;
    std::vector<JsonValue*> path_;
    std::optional<Error> error_;
};

} // namespace

std::string JsonValue::brief() const
{
    switch (kind) {
    case Kind::null:
        return "null";
    case Kind::boolean:
        return boolean ? "true" : "false";
    case Kind::integer:
        return std::to_string(integer);
    case Kind::real:
        return one_line(text);
    case Kind::string:
        return "\"" + one_line(text) + "\"";
    case Kind::array:
        return "an array";
    case Kind::object:
        return "an object";
    }
    return {};
}

Result<JsonValue> parse_json(std::string_view text)
{
    try {
        TreeBuilder builder(text);
        nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
        return builder.take();
    } catch (const std::exception& error) {
        return Error{EINVAL, one_line(error.what())};
    }
}

bool go_key_is(std::string_view key, std::string_view name)
{
    // Unicode simple folding, as Go compares: besides the two cases of a letter, U+017F is an s and U+212A a k.
    for (const char raw : name) {
        const char want = static_cast<char>(raw | 0x20);
        const bool is_letter = want >= 'a' && want <= 'z';
        if (key.empty()) return false;
        if (is_letter ? static_cast<char>(key[0] | 0x20) == want : key[0] == raw)
            key.remove_prefix(1);
        else if (want == 's' && key.starts_with("\u017f"))
            key.remove_prefix(2);
        else if (want == 'k' && key.starts_with("\u212a"))
            key.remove_prefix(3);
        else
            return false;
    }
    return key.empty();
}

Result<> decode_go(const JsonValue& object, const std::vector<GoField>& fields)
{
    for (std::size_t i = 0; i < object.keys.size(); ++i) {
        if (object.items[i].is(Kind::null)) continue;
        const auto field = std::find_if(fields.begin(), fields.end(),
                                        [&](const GoField& f) { return go_key_is(object.keys[i], f.name); });
        if (field != fields.end()) TWILL_TRY(field->take(object.items[i]));
    }
    return Ok{};
}

} // namespace twill
