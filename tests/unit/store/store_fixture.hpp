// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "agent/loop/loop.hpp"
#include "agent/store/file_store.hpp"
#include "agent/store/rfc3339.hpp"

namespace twill::test {

/// A directory of its own for one test.
class TempDir {
public:
    TempDir()
    {
        std::string path = (std::filesystem::temp_directory_path() / "twill-store-XXXXXX").string();
        REQUIRE(mkdtemp(path.data()) != nullptr);
        path_ = path;
    }
    ~TempDir()
    {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

class FakeClock final : public Clock {
public:
    WallTime wall() const override { return wall_; }
    SteadyTime steady() const override { return steady_; }
    /// Time passes.
    void advance(std::chrono::seconds by)
    {
        wall_ += by;
        steady_ += by;
    }
    /// Somebody sets the wall clock.
    void jump(std::chrono::seconds by) { wall_ += by; }

private:
    WallTime wall_ = *parse_rfc3339("2026-11-21T12:00:00Z");
    SteadyTime steady_{std::chrono::hours{1000}};
};

/// Remembers what a store told.
struct Recorder final : StoreListener {
    void on_snapshot(LeaseSnapshot snapshot) override { snapshots.push_back(std::move(snapshot)); }
    void on_event(LeaseEvent event) override { events.push_back(std::move(event)); }
    void on_own_lease(Lease lease) override { own.push_back(std::move(lease)); }
    void on_health(std::optional<Error> trouble) override { health.push_back(std::move(trouble)); }
    void on_config_change() override { ++config_changes; }

    const Lease* put(const std::string& key) const
    {
        const Lease* found = nullptr;
        for (const auto& event : events)
            if (const auto* put_event = std::get_if<LeasePut>(&event); put_event && put_event->lease.key == key)
                found = &put_event->lease;
        return found;
    }
    int gone(const std::string& key) const
    {
        int count = 0;
        for (const auto& event : events)
            if (const auto* gone_event = std::get_if<LeaseGone>(&event)) count += gone_event->key == key;
        return count;
    }
    const BadLease* bad(const std::string& key) const
    {
        for (const auto& event : events)
            if (const auto* bad_event = std::get_if<BadLease>(&event); bad_event && bad_event->key == key)
                return bad_event;
        return nullptr;
    }
    bool is_in_trouble() const { return !health.empty() && health.back().has_value(); }

    std::vector<LeaseSnapshot> snapshots;
    std::vector<LeaseEvent> events;
    std::vector<Lease> own;
    std::vector<std::optional<Error>> health;
    int config_changes = 0;
};

inline void write_text(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

inline std::string read_text(const std::string& path)
{
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

inline const std::string kConfig = R"({"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}})";

inline LeaseRequest request_of(const std::string& ip, const std::string& node = "node-a")
{
    LeaseRequest request;
    request.node = node;
    request.public_ip.v4 = *Ip::parse(ip);
    request.backend_type = "vxlan";
    request.vtep_mac.v4 = *Mac::parse("0a:00:00:00:00:01");
    request.marker = Marker{true};
    return request;
}

inline std::string lease_text(const std::string& ip, const std::string& mac = "0a:00:00:00:00:99",
                              const std::string& more = "")
{
    return R"({"PublicIP":")" + ip + R"(","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":")" + mac + "\"}" +
           more + "}";
}

inline FileStoreOptions fast_options()
{
    FileStoreOptions options;
    options.tick = std::chrono::milliseconds{5};
    options.settle = std::chrono::milliseconds{2};
    options.backoff_min = std::chrono::milliseconds{5};
    options.backoff_max = std::chrono::milliseconds{20};
    return options;
}

/// A store directory, and stores on it that share one loop and one clock.
struct StoreFixture {
    explicit StoreFixture(const std::string& config = kConfig) { write_text(dir.path() + "/config", config); }

    std::unique_ptr<FileStore> make_store()
    {
        return std::make_unique<FileStore>(loop, clock, dir.path(), fast_options());
    }
    std::string lease_path(const std::string& key) const { return dir.path() + "/leases/" + key + ".json"; }
    std::string marker_path(const std::string& key) const { return dir.path() + "/twill/" + key + ".json"; }

    /// Runs the loop until `done`, for at most five seconds.
    template <typename F>
    bool until(F done)
    {
        Timer poll(loop);
        Timer limit(loop);
        bool is_late = false;
        poll.every(std::chrono::milliseconds{1}, [&] {
            if (done()) loop.stop();
        });
        limit.once(std::chrono::seconds{5}, [&] {
            is_late = true;
            loop.stop();
        });
        loop.run();
        return !is_late;
    }
    /// Lets pass what may happen: several ticks.
    void idle()
    {
        Timer timer(loop);
        timer.once(std::chrono::milliseconds{60}, [&] { loop.stop(); });
        loop.run();
    }
    NetConf read_config(FileStore& store)
    {
        std::optional<Result<NetConf>> conf;
        store.read_config([&](Result<NetConf> result) { conf = std::move(result); });
        CHECK_FALSE(conf); // never from inside the call
        REQUIRE(until([&] { return conf.has_value(); }));
        REQUIRE_MESSAGE(conf->has_value(), conf->error().what);
        return **conf;
    }
    /// Watches, and publishes unless `request` is nullopt; returns when all of that was told.
    void start(FileStore& store, Recorder& listener, const std::optional<LeaseRequest>& request)
    {
        read_config(store);
        store.watch(listener);
        if (request) store.publish(*request);
        REQUIRE(until([&] { return !listener.snapshots.empty() && (!request || !listener.own.empty()); }));
    }

    TempDir dir;
    Loop loop;
    FakeClock clock;
};

} // namespace twill::test
