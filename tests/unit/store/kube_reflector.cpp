// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_reflector.hpp"

#include <doctest/doctest.h>

using namespace twill;
using namespace std::chrono_literals;

namespace {

struct World {
    KubeReflector reflector{{}, [](std::uint32_t) { return 0U; }};
    World() = default;
    /// As far as a watch that has heard something.
    World& watching(const std::string& version = "100")
    {
        CHECK(reflector.on_page(version, ""));
        reflector.on_watch_open();
        reflector.on_event(version);
        return *this;
    }
};

const std::string kWatch = "/api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=";

} // namespace

TEST_CASE("kube_reflector: lists page by page, then watches from the last page's version")
{
    World w;
    CHECK(w.reflector.target() == "/api/v1/nodes?limit=500");
    CHECK(w.reflector.is_first_page());
    CHECK_FALSE(w.reflector.on_page("7", "tok/en=="));
    CHECK(w.reflector.target() == "/api/v1/nodes?limit=500&continue=tok%2Fen%3D%3D");
    CHECK_FALSE(w.reflector.is_first_page());
    CHECK(w.reflector.on_page("8", ""));
    CHECK(w.reflector.is_watch());
    CHECK(w.reflector.target() == kWatch + "8&timeoutSeconds=300");
}

TEST_CASE("kube_reflector: a watch that ends as watches do goes on at the last event, bookmarks included, at once")
{
    World w;
    w.watching().reflector.on_event("205");
    CHECK(w.reflector.on_watch_end() < 50ms);
    CHECK(w.reflector.target() == kWatch + "205&timeoutSeconds=300");
    // A server that ends every watch at once is not asked in a hot loop.
    w.reflector.on_watch_open();
    CHECK(w.reflector.on_watch_end() >= 50ms);
}

TEST_CASE("kube_reflector: 410 lists anew, as an answer, as an event and for a page")
{
    World w;
    (void)w.watching().reflector.on_event_error(410);
    CHECK(w.reflector.is_first_page());
    (void)w.watching().reflector.on_http_error(410, std::nullopt);
    CHECK(w.reflector.is_first_page());
    CHECK_FALSE(w.reflector.on_page("7", "token"));
    (void)w.reflector.on_http_error(410, std::nullopt);
    CHECK(w.reflector.is_first_page());
}

TEST_CASE("kube_reflector: a broken page is asked for again, with the same token")
{
    World w;
    (void)w.reflector.on_page("7", "token");
    (void)w.reflector.on_broken();
    CHECK(w.reflector.target() == "/api/v1/nodes?limit=500&continue=token");
}

TEST_CASE("kube_reflector: after a broken connection the server's version is looked at before the watch goes on")
{
    World w;
    (void)w.watching("100").reflector.on_broken();
    CHECK(w.reflector.is_probe());
    CHECK_FALSE(w.reflector.is_watch());
    CHECK(w.reflector.target() == "/api/v1/nodes?limit=1");
    SUBCASE("the same or newer: the watch goes on, no list")
    {
        CHECK_FALSE(w.reflector.on_page("1000", "more"));
        CHECK(w.reflector.is_watch());
        CHECK(w.reflector.target() == kWatch + "100&timeoutSeconds=300");
    }
    SUBCASE("older: restored from a backup, everything is listed")
    {
        CHECK_FALSE(w.reflector.on_page("99", "more"));
        CHECK(w.reflector.is_first_page());
        CHECK(w.reflector.target() == "/api/v1/nodes?limit=500");
    }
    SUBCASE("what is no number and not the same is listed")
    {
        CHECK_FALSE(w.reflector.on_page("x", ""));
        CHECK(w.reflector.is_first_page());
    }
    SUBCASE("nobody answers: it is asked again")
    {
        (void)w.reflector.on_broken();
        CHECK(w.reflector.is_probe());
    }
}

TEST_CASE("kube_reflector: a server restored from a backup is noticed though its versions are beyond ours")
{
    World w;
    w.reflector.on_object("c", "70");
    w.reflector.on_object("a", "90");
    w.reflector.on_object("b", "80");
    std::string canary = "a";
    std::string same;  // what a server of the same history has of it
    std::string newer; // or, if it changed since
    SUBCASE("the newest of a list")
    {
        w.watching("100");
        same = "90";
        newer = "101";
    }
    SUBCASE("the last event")
    {
        w.watching("100").reflector.on_object("c", "105");
        w.reflector.on_event("105");
        canary = "c";
        same = "105";
        newer = "106";
    }
    SUBCASE("the last event, a deletion; versions have passed 999 since")
    {
        w.watching("100").reflector.on_object("c", "1105", false);
        w.reflector.on_event("1105");
        canary = "c";
        newer = "1106";
    }
    (void)w.reflector.on_broken();
    CHECK(w.reflector.target() == "/api/v1/nodes?fieldSelector=metadata.name%3D" + canary + "&limit=1");
    const auto goes_on_after = [&](const std::string& found) {
        auto reflector = w.reflector;
        if (!found.empty()) reflector.on_object(canary, found);
        CHECK_FALSE(reflector.on_page("2000", ""));
        return reflector.is_watch();
    };
    CHECK(goes_on_after(same));
    CHECK(goes_on_after(newer));
    CHECK_FALSE(goes_on_after("60"));
    CHECK_FALSE(goes_on_after("99"));
    if (!same.empty()) CHECK_FALSE(goes_on_after("")); // deleted since, or not known to the backup
}

TEST_CASE("kube_reflector: waits grow, but not beyond what lets it be back within two seconds")
{
    World w;
    KubeReflector::Delay last{};
    for (int i = 0; i < 40; ++i) last = w.reflector.on_broken();
    CHECK(last >= 500ms);
    CHECK(last <= 1000ms);
    for (int i = 0; i < 40; ++i) last = w.reflector.on_http_error(500, std::nullopt);
    CHECK(last <= 5000ms);
    CHECK(w.reflector.on_page("1", ""));
    CHECK(w.reflector.on_broken() <= 100ms); // a success forgets them
}

TEST_CASE("kube_reflector: Retry-After is obeyed, up to a minute")
{
    World w;
    CHECK(w.reflector.on_http_error(429, 3s) >= 3s);
    CHECK(retry_after("3") == 3s);
    CHECK(retry_after("99999999999999999999") == 60s);
    CHECK(retry_after("86400") == 60s);
    CHECK_FALSE(retry_after(""));
    CHECK_FALSE(retry_after("-1"));
    CHECK_FALSE(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"));
}

TEST_CASE("kube_reflector: an event that can never be read does not keep the watch at its place for ever")
{
    World w;
    w.watching();
    int tries = 0;
    while (w.reflector.is_watch() && tries < 100) {
        w.reflector.on_watch_open();
        (void)w.reflector.on_event_error(0);
        ++tries;
    }
    CHECK(tries < 20);
    CHECK(w.reflector.is_first_page());
}

TEST_CASE("kube_reflector: a field selector is part of each request")
{
    KubeReflector reflector({.field_selector = "metadata.name=a"}, [](std::uint32_t) { return 0U; });
    CHECK(reflector.target() == "/api/v1/nodes?fieldSelector=metadata.name%3Da&limit=500");
    (void)reflector.on_page("1", "");
    CHECK(reflector.target().starts_with("/api/v1/nodes?fieldSelector=metadata.name%3Da&watch=true"));
}
