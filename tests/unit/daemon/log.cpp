// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/log.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>

#include "twill/fd.hpp"

using namespace twill;

namespace {

/// What `body` writes to stderr.
std::string captured(const std::function<void()>& body)
{
    int ends[2] = {-1, -1};
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    const Fd read_end{ends[0]};
    Fd saved{dup(STDERR_FILENO)};
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    body();
    std::fflush(stderr);
    dup2(saved.get(), STDERR_FILENO); // the pipe's last writer is gone
    std::string out;
    char buffer[4096];
    for (ssize_t n = 0; (n = read(read_end.get(), buffer, sizeof(buffer))) > 0;)
        out.append(buffer, static_cast<std::size_t>(n));
    return out;
}

} // namespace

TEST_CASE("log: a text line is a sentence and key=value, quoted where it must be")
{
    CHECK(log::to_text("route programmed", {{"cidr", "10.42.3.0/24"}, {"took_us", 84}, {"ok", true}}) ==
          "route programmed cidr=10.42.3.0/24 took_us=84 ok=true");
    CHECK(log::to_text("x", {{"a", ""}, {"b", "two words"}, {"c", "q\"\\\n\x01"}, {"d", "k=v"}}) ==
          R"(x a="" b="two words" c="q\"\\\n\x01" d="k=v")");
}

TEST_CASE("log: a JSON line is one valid object whatever the values hold")
{
    const std::string line =
        log::to_json(WallTime{std::chrono::milliseconds{1'700'000'000'123}}, log::Level::warn, "bad \"lease\"",
                     {{"key", "a\nb"}, {"raw", "\xff\xfe"}, {"n", 3U}, {"f", -1}});
    CHECK(line.find('\n') == std::string::npos);
    const auto json = nlohmann::json::parse(line);
    CHECK(json["ts"] == "2023-11-14T22:13:20.123Z");
    CHECK(json["level"] == "warn");
    CHECK(json["msg"] == "bad \"lease\"");
    CHECK(json["key"] == "a\nb");
    CHECK(json["raw"] == "\xEF\xBF\xBD\xEF\xBF\xBD");
    CHECK(json["n"] == 3);
    CHECK(json["f"] == -1);
    CHECK(line.starts_with(R"({"ts":)"));
}

TEST_CASE("log: lines below the level are not written, and errors carry code and text")
{
    const std::string json = captured([] {
        log::init(log::Format::json, log::Level::info);
        log::debug("hidden");
        log::error("put failed", Error{28, "map put: no space {} \"left\""}, {{"peer", "x"}});
    });
    const auto line = nlohmann::json::parse(json);
    CHECK(line["level"] == "error");
    CHECK(line["msg"] == "put failed");
    CHECK(line["peer"] == "x");
    CHECK(line["error"] == "map put: no space {} \"left\"");
    CHECK(line["code"] == 28);

    const std::string text = captured([] {
        log::init(log::Format::text, log::Level::debug);
        log::debug("shown {}", {{"a", 1}});
        log::warn("put failed", Error{28, "no space"}, {{"peer", "x"}});
    });
    CHECK(text.find("shown {} a=1\n") != std::string::npos);
    CHECK(text.find("put failed peer=x error=\"no space\" code=28\n") != std::string::npos);
    CHECK(text.find('\x1b') == std::string::npos);
}

TEST_CASE("log: auto is JSON only inside Kubernetes")
{
    unsetenv("KUBERNETES_SERVICE_HOST");
    CHECK(captured([] {
              log::init(log::Format::automatic, log::Level::info);
              log::info("x");
          }).front() != '{');
    setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1", 1);
    CHECK(captured([] {
              log::init(log::Format::automatic, log::Level::info);
              log::info("x");
          }).front() == '{');
    unsetenv("KUBERNETES_SERVICE_HOST");
    log::init(log::Format::text, log::Level::info);
}

TEST_CASE("log: a repeated error is written once a period, with how many were held back")
{
    log::RateLimit limit{std::chrono::seconds{10}};
    const SteadyTime start{std::chrono::hours{1}};
    CHECK(limit.allow(start) == 0U);
    CHECK_FALSE(limit.allow(start + std::chrono::seconds{1}));
    CHECK_FALSE(limit.allow(start + std::chrono::seconds{9}));
    CHECK(limit.allow(start + std::chrono::seconds{10}) == 2U);
    CHECK_FALSE(limit.allow(start + std::chrono::seconds{19}));
    CHECK(limit.allow(start + std::chrono::seconds{30}) == 1U);
}
