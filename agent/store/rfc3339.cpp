// SPDX-License-Identifier: Apache-2.0
#include "agent/store/rfc3339.hpp"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <optional>

namespace twill {

namespace {

using std::chrono::seconds;

/// Takes `digits` decimal digits, then `after` (0: nothing), off the front.
std::optional<int> take_number(std::string_view& text, std::size_t digits, char after)
{
    if (text.size() < digits + (after != 0 ? 1 : 0)) return std::nullopt;
    int number = 0;
    for (std::size_t i = 0; i < digits; ++i) {
        if (text[i] < '0' || text[i] > '9') return std::nullopt;
        number = number * 10 + (text[i] - '0');
    }
    if (after != 0 && (text[digits] | 0x20) != (after | 0x20)) return std::nullopt;
    text.remove_prefix(digits + (after != 0 ? 1 : 0));
    return number;
}

/// The offset behind the seconds: "Z", "+02:00", with a fraction before it that is dropped.
std::optional<seconds> take_offset(std::string_view text)
{
    if (text.starts_with('.')) {
        const auto end = text.find_first_not_of("0123456789", 1);
        if (end == std::string_view::npos || end == 1) return std::nullopt;
        text.remove_prefix(end);
    }
    if (text == "Z" || text == "z") return seconds{0};
    if (!text.starts_with('+') && !text.starts_with('-')) return std::nullopt;
    const int sign = text[0] == '+' ? 1 : -1;
    text.remove_prefix(1);
    const auto hour = take_number(text, 2, ':');
    const auto minute = hour ? take_number(text, 2, 0) : std::nullopt;
    if (!minute || !text.empty() || *hour > 23 || *minute > 59) return std::nullopt;
    return seconds{sign * (*hour * 3600 + *minute * 60)};
}

} // namespace

Result<WallTime> parse_rfc3339(std::string_view text)
{
    const Error bad{EINVAL, "\"" + std::string(text.substr(0, 64)) + "\" is not a time such as 2030-01-31T12:00:00Z"};
    std::string_view rest = text;
    constexpr struct {
        std::size_t digits;
        char after;
    } kParts[] = {{4, '-'}, {2, '-'}, {2, 'T'}, {2, ':'}, {2, ':'}, {2, 0}};
    int part[6] = {};
    for (std::size_t i = 0; i < 6; ++i) {
        const auto number = take_number(rest, kParts[i].digits, kParts[i].after);
        if (!number) return bad;
        part[i] = *number;
    }
    const auto offset = take_offset(rest);
    const std::chrono::year_month_day date{std::chrono::year(part[0]),
                                           std::chrono::month(static_cast<unsigned>(part[1])),
                                           std::chrono::day(static_cast<unsigned>(part[2]))};
    if (!offset || !date.ok() || part[0] < 1970 || part[3] > 23 || part[4] > 59 || part[5] > 60) return bad;
    if (part[0] > 2261) return WallTime{std::chrono::floor<seconds>(WallTime::max().time_since_epoch())};
    const auto day = std::chrono::sys_days(date).time_since_epoch();
    return WallTime{seconds(day) + seconds(part[3] * 3600 + part[4] * 60 + part[5]) - *offset};
}

std::string format_rfc3339(WallTime time)
{
    const auto whole = std::chrono::floor<seconds>(time);
    const auto day = std::chrono::floor<std::chrono::days>(whole);
    const std::chrono::year_month_day date{day};
    const std::chrono::hh_mm_ss clock{whole - day};
    char text[64];
    std::snprintf(text, sizeof(text), "%04d-%02u-%02uT%02d:%02d:%02dZ", static_cast<int>(date.year()),
                  static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                  static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                  static_cast<int>(clock.seconds().count()));
    return text;
}

} // namespace twill
