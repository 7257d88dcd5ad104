// SPDX-License-Identifier: Apache-2.0
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "store_fixture.hpp"

using namespace twill;
using namespace twill::test;
namespace fs = std::filesystem;

namespace {

/// A tmpfs of 64 KiB over `path`, in a mount namespace of this process; needs root.
bool mount_tiny(const std::string& path)
{
    if (geteuid() != 0) return false;
    static const bool is_private =
        unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    return is_private && mount("tmpfs", path.c_str(), "tmpfs", 0, "size=64k,nr_inodes=64") == 0;
}

struct Unmount {
    std::string path;
    ~Unmount() { umount2(path.c_str(), MNT_DETACH); }
};

} // namespace

TEST_CASE_FIXTURE(
    StoreFixture,
    "file_store: a full or read-only disk is told and retried, the watch goes on, the old lease stays whole")
{
    if (!mount_tiny(dir.path())) {
        MESSAGE("skipped: a full disk needs root and a mount namespace");
        return;
    }
    const Unmount unmount{dir.path()};
    write_text(dir.path() + "/config", kConfig);
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, request_of("192.0.2.10"));
    const std::string key = listener.own.at(0).key;
    const std::string before = read_text(lease_path(key));

    write_text(lease_path("10.42.250.0-24"), lease_text("192.0.2.50"));
    REQUIRE(until([&] { return listener.put("10.42.250.0-24") != nullptr; }));
    {
        std::ofstream fill(dir.path() + "/fill");
        const std::string block(1024, 'x');
        while (fill.write(block.data(), 1024).flush()) {
        }
    }
    auto changed = request_of("192.0.2.10");
    changed.vtep_mac.v4 = *Mac::parse("0a:00:00:00:00:07");
    store->publish(changed);
    REQUIRE(until([&] { return listener.is_in_trouble(); }));
    CHECK(listener.health.back()->code == ENOSPC);
    CHECK(read_text(lease_path(key)) == before);
    fs::remove(lease_path("10.42.250.0-24"));
    REQUIRE(until([&] { return listener.gone("10.42.250.0-24") == 1; }));

    fs::remove(dir.path() + "/fill");
    REQUIRE(until([&] { return !listener.is_in_trouble() && listener.own.size() == 2; }));
    CHECK(read_text(lease_path(key)).find("0a:00:00:00:00:07") != std::string::npos);

    REQUIRE(mount(nullptr, dir.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0);
    store->publish(request_of("192.0.2.10"));
    REQUIRE(until([&] { return listener.is_in_trouble(); }));
    CHECK(listener.health.back()->code == EROFS);
    REQUIRE(mount(nullptr, dir.path().c_str(), nullptr, MS_REMOUNT, "size=64k") == 0);
    REQUIRE(until([&] { return !listener.is_in_trouble(); }));
}

TEST_CASE_FIXTURE(StoreFixture,
                  "file_store: a restarted node uses its own lease while the disk is full, as long as it holds")
{
    if (!mount_tiny(dir.path())) {
        MESSAGE("skipped: a full disk needs root and a mount namespace");
        return;
    }
    const Unmount unmount{dir.path()};
    write_text(dir.path() + "/config", kConfig);
    std::string key;
    {
        const auto store = make_store();
        Recorder listener;
        start(*store, listener, request_of("192.0.2.10"));
        key = listener.own.at(0).key;
    }
    const std::string before = read_text(lease_path(key));
    {
        std::ofstream fill(dir.path() + "/fill");
        const std::string block(1024, 'x');
        while (fill.write(block.data(), 1024).flush()) {
        }
    }
    clock.advance(std::chrono::minutes{23 * 60 + 30});
    SUBCASE("the same lease")
    {
        const auto store = make_store();
        Recorder listener;
        start(*store, listener, request_of("192.0.2.10"));
        CHECK(listener.own.at(0).key == key);
        REQUIRE(until([&] { return listener.is_in_trouble(); }));
        CHECK(listener.health.back()->code == ENOSPC);
        const auto told = listener.health.size();
        idle(); // one trouble is told once, however often it is met
        CHECK(listener.health.size() == told);
        CHECK(read_text(lease_path(key)) == before);

        fs::remove(dir.path() + "/fill");
        REQUIRE(until([&] { return !listener.is_in_trouble() && listener.own.size() == 2; }));
        CHECK(*listener.own[1].expires > *listener.own[0].expires);
    }
    const auto refuses = [&](const LeaseRequest& request) {
        const auto store = make_store();
        Recorder listener;
        read_config(*store);
        store->watch(listener);
        store->publish(request);
        REQUIRE(until([&] { return listener.is_in_trouble(); }));
        CHECK(listener.own.empty());
    };
    SUBCASE("not when the address changed") { refuses(request_of("192.0.2.11")); }
    SUBCASE("not when it is past its end")
    {
        clock.advance(std::chrono::hours{1});
        refuses(request_of("192.0.2.10"));
    }
}

TEST_CASE_FIXTURE(StoreFixture, "file_store: a directory that may not be written is told; one that may again, heals")
{
    if (geteuid() == 0) return; // root may write everywhere; the read-only mount above stands for this
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, std::nullopt);
    fs::permissions(dir.path() + "/leases", fs::perms::owner_read | fs::perms::owner_exec);
    store->publish(request_of("192.0.2.10"));
    REQUIRE(until([&] { return listener.is_in_trouble(); }));
    CHECK(listener.health.back()->code == EACCES);
    fs::permissions(dir.path() + "/leases", fs::perms::owner_all);
    REQUIRE(until([&] { return listener.own.size() == 1 && !listener.is_in_trouble(); }));
}

TEST_CASE_FIXTURE(StoreFixture, "file_store: more changes than inotify can queue lose none")
{
    unsigned queue = 0;
    std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> queue;
    if (queue == 0 || queue > 20000) {
        MESSAGE("skipped: fs.inotify.max_queued_events is not between 1 and 20000");
        return;
    }
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, std::nullopt);
    const std::string churn[] = {dir.path() + "/leases/a", dir.path() + "/leases/b"};
    for (const auto& path : churn) write_text(path, "");
    // The loop stands still meanwhile. Two names in turn: inotify merges equal events that follow each other.
    for (unsigned i = 0; i <= queue; ++i) chmod(churn[i % 2].c_str(), i % 4 < 2 ? 0600 : 0644);
    write_text(lease_path("10.42.1.0-24"), lease_text("192.0.2.1"));
    REQUIRE(until([&] { return listener.snapshots.size() == 2; }));
    CHECK(listener.snapshots[1].leases.size() == 1);
    CHECK(listener.snapshots[1].bad.empty());
}
