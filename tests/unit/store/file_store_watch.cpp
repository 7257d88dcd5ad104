// SPDX-License-Identifier: Apache-2.0
#include <sys/inotify.h>
#include <unistd.h>

#include <cstring>

#include "store_fixture.hpp"

using namespace twill;
using namespace twill::test;
namespace fs = std::filesystem;

TEST_CASE_FIXTURE(StoreFixture, "file_store.read_config: content, then its error, then its absence")
{
    const auto store = make_store();
    CHECK(read_config(*store).network.v4->network.to_string() == "10.42.0.0/16");

    const auto error_now = [&] {
        std::optional<Error> error;
        store->read_config([&](Result<NetConf> result) { error = result ? Error{} : result.error(); });
        REQUIRE(until([&] { return error.has_value(); }));
        return *error;
    };
    write_text(dir.path() + "/config", R"({"Network":"10.42.0.0/16","Backend":{"Type":"udp"}})");
    CHECK(error_now().code == EINVAL);
    CHECK(error_now().what.starts_with(dir.path() + "/config: Backend.Type udp"));
    fs::remove(dir.path() + "/config");
    CHECK(error_now().code == ENOENT);
    CHECK(store->describe() == "file://" + dir.path());
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.watch: a snapshot first, markers beside leases, junk apart")
{
    fs::create_directories(dir.path() + "/leases");
    fs::create_directories(dir.path() + "/twill");
    write_text(lease_path("10.42.1.0-24"), lease_text("192.0.2.1"));
    write_text(marker_path("10.42.1.0-24"), R"({"v":1,"zeroCsum6":true})");
    write_text(lease_path("10.42.2.0-24"), "junk");
    write_text(lease_path("hello"), "{}");
    write_text(lease_path("10.42.3.9-24"), lease_text("192.0.2.3"));
    write_text(marker_path("10.42.4.0-24"), "marker of no lease");
    write_text(dir.path() + "/leases/README", "not a lease, nobody's business");
    write_text(dir.path() + "/leases/.10.42.9.0-24.json.swp", "hidden");
    fs::create_directory(lease_path("10.42.5.0-24"));
    REQUIRE(mkfifo(lease_path("10.42.6.0-24").c_str(), 0600) == 0);

    const auto store = make_store();
    Recorder listener;
    start(*store, listener, std::nullopt);
    const auto& snapshot = listener.snapshots.at(0);
    REQUIRE(snapshot.leases.size() == 1);
    CHECK(snapshot.leases[0].key == "10.42.1.0-24");
    CHECK(snapshot.leases[0].marker == Marker{true});
    REQUIRE(snapshot.bad.size() == 5);
    CHECK(snapshot.bad[0].key == "10.42.2.0-24");
    CHECK(snapshot.bad[1].why.find("10.42.3.0-24") != std::string::npos);
    CHECK(snapshot.bad[2].why.find("not a regular file") != std::string::npos);
    CHECK(listener.events.empty());
    CHECK(listener.health.empty());
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.watch: leases come, change and go; only differences are told")
{
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, std::nullopt);

    const std::string key = "10.42.1.0-24";
    write_text(lease_path(key), lease_text("192.0.2.1"));
    REQUIRE(until([&] { return listener.put(key) != nullptr; }));
    CHECK(listener.put(key)->public_ip.v4->to_string() == "192.0.2.1");
    CHECK_FALSE(listener.put(key)->marker);

    listener.events.clear();
    write_text(lease_path(key), lease_text("192.0.2.1") + "\n\n");
    fs::permissions(lease_path(key), fs::perms::owner_read);
    idle();
    CHECK(listener.events.empty());

    write_text(marker_path(key), R"({"v":1,"zeroCsum6":true})");
    REQUIRE(until([&] { return listener.put(key) != nullptr; }));
    CHECK(listener.put(key)->marker == Marker{true});

    fs::remove(lease_path(key));
    REQUIRE(until([&] { return listener.gone(key) == 1; }));
    fs::remove(marker_path(key));
    idle();
    CHECK(listener.gone(key) == 1);
}

TEST_CASE_FIXTURE(StoreFixture,
                  "file_store.watch: a file written by halves is a bad lease that heals; others are untouched")
{
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, std::nullopt);

    const std::string key = "10.42.1.0-24", other = "10.42.2.0-24";
    const auto text = lease_text("192.0.2.1");
    write_text(lease_path(key), text.substr(0, 30));
    write_text(lease_path(other), lease_text("192.0.2.2"));
    REQUIRE(until([&] { return listener.bad(key) != nullptr && listener.put(other) != nullptr; }));
    CHECK(listener.bad(key)->why.find("line 1") != std::string::npos);

    write_text(lease_path(key), text);
    REQUIRE(until([&] { return listener.put(key) != nullptr; }));
    CHECK(listener.gone(key) == 0);

    listener.events.clear();
    write_text(lease_path(key), "{}");
    REQUIRE(until([&] { return listener.bad(key) != nullptr; }));
    fs::remove(lease_path(key));
    REQUIRE(until([&] { return listener.gone(key) == 1; }));
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.watch: a lost event means a snapshot again")
{
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, std::nullopt);
    write_text(lease_path("10.42.1.0-24"), lease_text("192.0.2.1"));
    store->handle(WatchBatch{.overflow = true, .directory_lost = false, .names = {}});
    CHECK(listener.snapshots.size() == 1); // not from inside the call
    REQUIRE(until([&] { return listener.snapshots.size() == 2; }));
    CHECK(listener.snapshots[1].leases.size() == 1);
    idle();
    CHECK(listener.events.empty());
}

TEST_CASE("dir_watch.decode: names by directory, overflow, lost directories, truncated events")
{
    const auto event = [](int wd, std::uint32_t mask, const std::string& name) {
        inotify_event head{wd, mask, 0, static_cast<std::uint32_t>(name.empty() ? 0 : 16)};
        std::string bytes(reinterpret_cast<const char*>(&head), sizeof(head));
        if (!name.empty()) bytes += name + std::string(16 - name.size(), '\0');
        return bytes;
    };
    const std::map<int, std::string> directories = {{1, "/a"}, {2, "/b"}};
    const std::string bytes = event(1, IN_CLOSE_WRITE, "x.json") + event(2, IN_DELETE, "y.json") +
                              event(7, IN_DELETE, "z") + event(-1, IN_Q_OVERFLOW, "");
    WatchBatch batch;
    DirWatch::decode(bytes.data(), bytes.size(), directories, batch);
    CHECK(batch.overflow);
    CHECK_FALSE(batch.directory_lost);
    CHECK(batch.names == std::map<std::string, std::set<std::string>>{{"/a", {"x.json"}}, {"/b", {"y.json"}}});
    const std::string lost = event(1, IN_DELETE_SELF, "");
    DirWatch::decode(lost.data(), lost.size(), directories, batch);
    CHECK(batch.directory_lost);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        WatchBatch cut;
        const std::vector<char> exact(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
        DirWatch::decode(exact.data(), exact.size(), directories, cut);
        CHECK_FALSE(cut.overflow);
    }
}

TEST_CASE_FIXTURE(
    StoreFixture,
    "file_store.watch: a directory that is deleted is trouble, not the end of its leases; then a snapshot")
{
    const auto store = make_store();
    Recorder listener;
    fs::create_directories(dir.path() + "/leases");
    write_text(lease_path("10.42.1.0-24"), lease_text("192.0.2.1"));
    start(*store, listener, std::nullopt);

    fs::rename(dir.path(), dir.path() + ".away");
    REQUIRE(until([&] { return listener.is_in_trouble(); }));
    CHECK(listener.health.back()->what.find(dir.path()) != std::string::npos);
    idle();
    CHECK(listener.events.empty());

    fs::create_directories(dir.path() + "/leases");
    write_text(lease_path("10.42.2.0-24"), lease_text("192.0.2.2"));
    REQUIRE(until([&] { return listener.snapshots.size() == 2 && !listener.is_in_trouble(); }));
    CHECK(listener.snapshots[1].leases.at(0).key == "10.42.2.0-24");
    fs::remove_all(dir.path() + ".away");

    fs::remove_all(dir.path() + "/leases"); // made again, empty
    REQUIRE(until([&] { return listener.snapshots.back().leases.empty(); }));
    write_text(lease_path("10.42.3.0-24"), lease_text("192.0.2.3"));
    REQUIRE(until([&] { return listener.put("10.42.3.0-24") != nullptr; }));
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.watch: a store that is not there yet is waited for")
{
    const std::string away = dir.path() + ".away";
    fs::rename(dir.path(), away);
    const auto store = make_store();
    Recorder listener;
    store->watch(listener);
    REQUIRE(until([&] { return listener.is_in_trouble(); }));
    CHECK(listener.snapshots.empty());
    fs::rename(away, dir.path());
    REQUIRE(until([&] { return listener.snapshots.size() == 1 && !listener.is_in_trouble(); }));
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.watch: a changed net-conf.json is told once, the same text is not")
{
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, std::nullopt);
    const std::string path = dir.path() + "/config", other = dir.path() + "/other";
    const auto changes_after = [&](const std::function<void()>& act) {
        listener.config_changes = 0;
        act();
        idle();
        return listener.config_changes;
    };
    const auto replace = [&](const std::string& text) {
        write_text(other, text);
        fs::rename(other, path);
    };
    const std::string changed = R"({"Network":"10.43.0.0/16","Backend":{"Type":"vxlan"}})";
    CHECK(changes_after([&] { write_text(path, kConfig); }) == 0);
    CHECK(changes_after([&] { replace(kConfig); }) == 0);
    CHECK(changes_after([&] { fs::permissions(path, fs::perms::owner_read); }) == 0);
    CHECK(changes_after([&] { fs::remove(path); }) == 0);
    CHECK(changes_after([&] { write_text(path, kConfig); }) == 0);

    CHECK(changes_after([&] { write_text(path, changed); }) == 1);
    CHECK(changes_after([&] { write_text(path, changed); }) == 0);
    CHECK(changes_after([&] { replace(changed); }) == 0);
    CHECK(changes_after([&] { write_text(dir.path() + "/unrelated", "x"); }) == 0);
    CHECK(changes_after([&] { store->handle(WatchBatch{.overflow = true, .directory_lost = false, .names = {}}); }) ==
          0);
    CHECK(changes_after([&] { replace(kConfig + "\n"); }) == 1);
    CHECK(changes_after([&] { replace(kConfig); }) == 1); // back again is a change, too
    idle();
    CHECK(changes_after([] {}) == 0);

    fs::remove(path);
    fs::create_symlink(other, path); // as Kubernetes mounts a ConfigMap: `config` itself never changes
    CHECK(changes_after([&] { write_text(other, kConfig); }) == 0);
    CHECK(changes_after([&] { write_text(other, changed); }) == 1);
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.watch: a net-conf.json that is truncated, then written, changed once")
{
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, std::nullopt);
    std::ofstream file(dir.path() + "/config");
    // What is read now is empty: the test does what any event in the directory would cause.
    store->handle(WatchBatch{.overflow = true, .directory_lost = false, .names = {}});
    CHECK(listener.config_changes == 0);
    file << kConfig << "\n";
    file.close();
    idle();
    CHECK(listener.config_changes == 1);
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.watch: a net-conf.json that changed before the watch began is told")
{
    const auto store = make_store();
    Recorder listener;
    read_config(*store);
    write_text(dir.path() + "/config", kConfig + "\n");
    store->watch(listener);
    REQUIRE(until([&] { return listener.config_changes == 1; }));
    idle();
    CHECK(listener.config_changes == 1);
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.watch: expiry ends a lease, and its file goes only after the grace")
{
    const auto store = make_store();
    Recorder listener;
    fs::create_directories(dir.path() + "/leases");
    const std::string key = "10.42.1.0-24", reserved = "10.42.2.0-24";
    write_text(lease_path(key),
               lease_text("192.0.2.1", "0a:00:00:00:00:99", R"(,"Expiration":"2026-11-21T12:10:00Z")"));
    write_text(lease_path(reserved), lease_text("192.0.2.2"));
    start(*store, listener, std::nullopt);
    CHECK(listener.snapshots[0].leases.size() == 2);

    clock.advance(std::chrono::seconds{599});
    idle();
    CHECK(listener.events.empty());
    clock.advance(std::chrono::seconds{1});
    REQUIRE(until([&] { return listener.gone(key) == 1; }));

    clock.advance(std::chrono::minutes{59});
    idle();
    CHECK(fs::exists(lease_path(key)));
    clock.advance(std::chrono::minutes{2});
    REQUIRE(until([&] { return !fs::exists(lease_path(key)); }));
    clock.advance(std::chrono::hours{1000});
    idle();
    CHECK(fs::exists(lease_path(reserved)));
    CHECK(listener.gone(key) == 1);
    CHECK(listener.gone(reserved) == 0);
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.watch: an expired lease comes back when its owner renews it")
{
    const auto store = make_store();
    Recorder listener;
    fs::create_directories(dir.path() + "/leases");
    const std::string key = "10.42.1.0-24";
    const auto until_time = [](const std::string& time) {
        return lease_text("192.0.2.1", "0a:00:00:00:00:99", R"(,"Expiration":")" + time + "\"");
    };
    write_text(lease_path(key), until_time("2026-11-21T11:00:00Z"));
    start(*store, listener, std::nullopt);
    CHECK(listener.snapshots[0].leases.empty());
    CHECK(listener.snapshots[0].bad.empty());
    write_text(lease_path(key), until_time("2026-11-22T11:00:00Z"));
    REQUIRE(until([&] { return listener.put(key) != nullptr; }));
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.watch: a jump of the clock ends no lease at once and deletes none")
{
    const auto store = make_store();
    Recorder listener;
    fs::create_directories(dir.path() + "/leases");
    const std::string key = "10.42.1.0-24";
    write_text(lease_path(key),
               lease_text("192.0.2.1", "0a:00:00:00:00:99", R"(,"Expiration":"2026-11-22T12:00:00Z")"));
    start(*store, listener, std::nullopt);
    clock.jump(std::chrono::hours{48});
    idle();
    CHECK(listener.gone(key) == 0);
    clock.advance(std::chrono::minutes{3}); // nobody renewed it
    REQUIRE(until([&] { return listener.gone(key) == 1; }));
    idle();
    CHECK(fs::exists(lease_path(key)));
}

TEST_CASE_FIXTURE(StoreFixture, "file_store: may be destroyed by what it tells")
{
    struct Destroyer final : StoreListener {
        std::unique_ptr<FileStore> store;
        int calls = 0;
        void on_snapshot(LeaseSnapshot) override
        {
            ++calls;
            store.reset();
        }
        void on_event(LeaseEvent) override { ++calls; }
        void on_own_lease(Lease) override { ++calls; }
        void on_health(std::optional<Error>) override { ++calls; }
    } listener;
    listener.store = make_store();
    read_config(*listener.store);
    listener.store->watch(listener);
    listener.store->publish(request_of("192.0.2.10"));
    REQUIRE(until([&] { return listener.calls > 0; }));
    idle();
    CHECK(listener.calls == 1);
}
