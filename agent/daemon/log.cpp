// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/log.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

namespace twill::log {

namespace {

struct Writer {
    std::unique_ptr<spdlog::logger> logger;
    bool as_json = false;
    Level lowest = Level::info;
};

bool environment_has(const char* name)
{
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0';
}

bool wants_json(Format format)
{
    if (format != Format::automatic) return format == Format::json;
    return environment_has("KUBERNETES_SERVICE_HOST") && isatty(STDERR_FILENO) == 0;
}

spdlog::level::level_enum to_spdlog(Level level)
{
    switch (level) {
    case Level::debug:
        return spdlog::level::debug;
    case Level::info:
        return spdlog::level::info;
    case Level::warn:
        return spdlog::level::warn;
    case Level::error:
        return spdlog::level::err;
    }
    return spdlog::level::info;
}

std::string_view name_of(Level level)
{
    switch (level) {
    case Level::debug:
        return "debug";
    case Level::info:
        return "info";
    case Level::warn:
        return "warn";
    case Level::error:
        return "error";
    }
    return "info";
}

Writer make_writer(Format format, Level lowest)
{
    Writer writer;
    writer.as_json = wants_json(format);
    writer.lowest = lowest;
    const auto colour = environment_has("NO_COLOR") ? spdlog::color_mode::never : spdlog::color_mode::automatic;
    writer.logger =
        std::make_unique<spdlog::logger>("twilld", std::make_shared<spdlog::sinks::stderr_color_sink_mt>(colour));
    writer.logger->set_level(to_spdlog(lowest));
    writer.logger->set_pattern(writer.as_json ? "%v" : "%Y-%m-%dT%H:%M:%S.%e%z %^%-7l%$ %v");
    writer.logger->flush_on(spdlog::level::debug);
    return writer;
}

Writer& writer()
{
    static Writer the_writer = make_writer(Format::text, Level::info);
    return the_writer;
}

void write(Level level, std::string_view sentence, Fields fields)
{
    Writer& to = writer();
    if (level < to.lowest) return;
    const std::string line =
        to.as_json ? to_json(std::chrono::system_clock::now(), level, sentence, fields) : to_text(sentence, fields);
    to.logger->log(to_spdlog(level), "{}", line);
}

void write_error(Level level, std::string_view sentence, const Error& error, Fields fields)
{
    Writer& to = writer();
    if (level < to.lowest) return;
    const Fields cause = {{"error", error.what}, {"code", error.code}};
    if (to.as_json) {
        std::string line = to_json(std::chrono::system_clock::now(), level, sentence, fields);
        const std::string tail = to_json({}, level, "", cause);
        // Both are objects: the fields of the second follow those of the first.
        line.pop_back();
        line += tail.substr(tail.find(",\"error\""));
        to.logger->log(to_spdlog(level), "{}", line);
        return;
    }
    to.logger->log(to_spdlog(level), "{}{}", to_text(sentence, fields), to_text("", cause));
}

bool needs_quotes(std::string_view text)
{
    if (text.empty()) return true;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte <= 0x20 || byte == 0x7f || c == '"' || c == '=') return true;
    }
    return false;
}

std::string quoted_value(std::string_view text)
{
    std::string out = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\')
            out += fmt::format("\\{}", c);
        else if (c == '\n')
            out += "\\n";
        else if (byte < 0x20 || byte == 0x7f)
            out += fmt::format("\\x{:02x}", byte);
        else
            out += c;
    }
    return out + '"';
}

std::string text_of(const Value& value)
{
    return std::visit(
        [](const auto& held) -> std::string {
            if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::string>)
                return needs_quotes(held) ? quoted_value(held) : held;
            else
                return fmt::format("{}", held);
        },
        value.held());
}

} // namespace

void init(Format format, Level lowest) { writer() = make_writer(format, lowest); }

void debug(std::string_view sentence, Fields fields) { write(Level::debug, sentence, fields); }
void info(std::string_view sentence, Fields fields) { write(Level::info, sentence, fields); }
void warn(std::string_view sentence, Fields fields) { write(Level::warn, sentence, fields); }
void error(std::string_view sentence, Fields fields) { write(Level::error, sentence, fields); }
void warn(std::string_view sentence, const Error& error, Fields fields)
{
    write_error(Level::warn, sentence, error, fields);
}
void error(std::string_view sentence, const Error& error, Fields fields)
{
    write_error(Level::error, sentence, error, fields);
}

std::string to_text(std::string_view sentence, Fields fields)
{
    std::string out{sentence};
    for (const Field& field : fields) out += fmt::format(" {}={}", field.key, text_of(field.value));
    return out;
}

std::string to_json(WallTime when, Level level, std::string_view sentence, Fields fields)
{
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(when.time_since_epoch()).count() % 1000;
    const auto seconds = std::chrono::system_clock::to_time_t(when);
    nlohmann::ordered_json line;
    line["ts"] = fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(seconds), ms);
    line["level"] = name_of(level);
    line["msg"] = sentence;
    for (const Field& field : fields)
        std::visit([&](const auto& held) { line[std::string(field.key)] = held; }, field.value.held());
    return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<unsigned> RateLimit::allow(SteadyTime now)
{
    if (last_ && now - *last_ < period_) {
        ++held_back_;
        return std::nullopt;
    }
    last_ = now;
    return std::exchange(held_back_, 0U);
}

} // namespace twill::log
