// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <mutex>
#include <set>
#include <thread>

#include "store_fixture.hpp"
#include "twill/fd.hpp"

using namespace twill;
using namespace twill::test;
namespace fs = std::filesystem;

namespace {

const std::string kDualConfig = R"({"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48",
                                    "Backend":{"Type":"vxlan"}})";
/// Room for three nodes.
const std::string kSmallConfig = R"({"Network":"10.42.0.0/22","Backend":{"Type":"vxlan"}})";

} // namespace

TEST_CASE_FIXTURE(StoreFixture,
                  "file_store.publish: the lease is flannel's value for 24 h, the marker beside it, told once")
{
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, request_of("192.0.2.10"));
    const Lease& own = listener.own.at(0);
    CHECK(own.expires == clock.wall() + std::chrono::hours{24});
    CHECK(own.marker == Marker{true});
    CHECK(own.node == "node-a");
    CHECK(read_text(lease_path(own.key)) == R"({"PublicIP":"192.0.2.10","PublicIPv6":null,"BackendType":"vxlan",)"
                                            R"("BackendData":{"VNI":1,"VtepMAC":"0a:00:00:00:00:01"},"Subnet":")" +
                                                own.pods.v4->to_string() +
                                                R"(","Expiration":"2026-11-22T12:00:00Z","Node":"node-a"})" + "\n");
    CHECK(read_text(marker_path(own.key)) == "{\"v\":1,\"zeroCsum6\":true}\n");
    struct stat status {};
    REQUIRE(stat(lease_path(own.key).c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0644);
    idle();
    CHECK(listener.events.empty());
    CHECK(listener.own.size() == 1);
    CHECK(listener.health.empty());
    for (const auto& entry : fs::recursive_directory_iterator(dir.path()))
        CHECK(entry.path().filename().string()[0] != '.');
}

TEST_CASE("file_store.publish: both families under one key")
{
    StoreFixture fixture(kDualConfig);
    auto request = request_of("192.0.2.10");
    request.public_ip.v6 = *Ip::parse("2001:db8::10");
    request.vtep_mac.v6 = *Mac::parse("0a:00:00:00:00:02");
    request.preferred = {*Cidr::parse("10.42.7.0/24"), *Cidr::parse("fd00:42:0:7::/64")};
    const auto store = fixture.make_store();
    Recorder listener;
    fixture.start(*store, listener, request);
    CHECK(listener.own.at(0).key == "10.42.7.0-24&fd00:42:0:7::-64");
    CHECK(fs::exists(fixture.lease_path("10.42.7.0-24&fd00:42:0:7::-64")));

    // Without an address of a family that is on, nothing is written.
    auto half = request_of("192.0.2.11");
    const auto other = fixture.make_store();
    Recorder told;
    fixture.read_config(*other);
    other->watch(told);
    other->publish(half);
    REQUIRE(fixture.until([&] { return told.is_in_trouble(); }));
    CHECK(told.health.back()->what.find("PublicIPv6 absent") != std::string::npos);
    CHECK(told.own.empty());
}

TEST_CASE_FIXTURE(StoreFixture,
                  "file_store.publish: a restart finds its lease by public IP, keeps it and its MAC can be asked for")
{
    Recorder first, second;
    {
        const auto store = make_store();
        start(*store, first, request_of("192.0.2.10"));
    }
    clock.advance(std::chrono::hours{3});
    const auto store = make_store();
    std::optional<Lease> found;
    bool is_asked = false;
    store->find_own(request_of("192.0.2.10"), [&](Result<std::optional<Lease>> result) {
        is_asked = true;
        if (result) found = *result;
    });
    CHECK_FALSE(is_asked);
    REQUIRE(until([&] { return is_asked; }));
    REQUIRE(found);
    CHECK(found->vtep_mac.v4->to_string() == "0a:00:00:00:00:01");

    start(*store, second, request_of("192.0.2.10"));
    CHECK(second.own.at(0).key == first.own.at(0).key);
    CHECK(second.own.at(0).expires == clock.wall() + std::chrono::hours{24});
    found.reset();
    is_asked = false;
    const auto stranger = make_store();
    stranger->find_own(request_of("192.0.2.11"), [&](Result<std::optional<Lease>> result) {
        is_asked = true;
        if (result) found = *result;
    });
    REQUIRE(until([&] { return is_asked; }));
    CHECK_FALSE(found);
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.publish: again with other content rewrites lease and marker, CIDR kept")
{
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, request_of("192.0.2.10"));
    const std::string key = listener.own.at(0).key;

    auto changed = request_of("192.0.2.20");
    changed.vtep_mac.v4 = *Mac::parse("0a:00:00:00:00:07");
    changed.marker = Marker{false};
    store->publish(changed);
    REQUIRE(until([&] { return listener.own.size() == 2; }));
    CHECK(listener.own[1].key == key);
    CHECK(listener.own[1].public_ip.v4->to_string() == "192.0.2.20");
    CHECK(read_text(lease_path(key)).find("0a:00:00:00:00:07") != std::string::npos);
    CHECK(read_text(marker_path(key)).find("false") != std::string::npos);

    store->publish(changed);
    idle();
    CHECK(listener.own.size() == 2);
    CHECK(listener.events.empty());
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.renew: at expiry minus margin, and a watcher sees the lease live on")
{
    const auto store = make_store();
    const auto peer = make_store();
    Recorder listener, watcher;
    start(*store, listener, request_of("192.0.2.10"));
    start(*peer, watcher, std::nullopt);
    const std::string key = listener.own.at(0).key;

    clock.advance(std::chrono::hours{23} - std::chrono::seconds{1});
    idle();
    CHECK(listener.own.size() == 1);
    clock.advance(std::chrono::seconds{2});
    REQUIRE(until([&] { return listener.own.size() == 2; }));
    CHECK(listener.own[1].expires == clock.wall() + std::chrono::hours{24});
    REQUIRE(until([&] { return watcher.put(key) != nullptr; }));
    CHECK(watcher.put(key)->expires == listener.own[1].expires);
    CHECK(watcher.gone(key) == 0);
    CHECK(listener.events.empty());
}

TEST_CASE_FIXTURE(StoreFixture,
                  "file_store.renew: a jump of the clock either way makes the owner write its lease again")
{
    const auto store = make_store();
    const auto peer = make_store();
    Recorder listener, watcher;
    start(*store, listener, request_of("192.0.2.10"));
    start(*peer, watcher, std::nullopt);
    for (const std::chrono::hours jump : {std::chrono::hours{48}, std::chrono::hours{-72}}) {
        clock.jump(jump);
        REQUIRE(until([&] { return listener.own.back().expires == clock.wall() + std::chrono::hours{24}; }));
        idle();
        CHECK(watcher.gone(listener.own[0].key) == 0);
        CHECK(listener.own.back().key == listener.own[0].key);
    }
}

TEST_CASE_FIXTURE(StoreFixture,
                  "file_store.renew: a lease that was deleted is acquired again, with the same CIDR while it is free")
{
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, request_of("192.0.2.10"));
    const std::string key = listener.own.at(0).key;
    fs::remove(lease_path(key));
    REQUIRE(until([&] { return fs::exists(lease_path(key)); }));

    fs::remove(marker_path(key));
    REQUIRE(until([&] { return fs::exists(marker_path(key)); }));

    write_text(lease_path(key), "{\"PublicIP\":");
    REQUIRE(until([&] { return parse_lease(key, read_text(lease_path(key))).has_value(); }));
    idle();
    CHECK(listener.own.back().key == key);
}

TEST_CASE_FIXTURE(StoreFixture,
                  "file_store.renew: a lease that now belongs to another node is not overwritten but replaced")
{
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, request_of("192.0.2.10"));
    const std::string key = listener.own.at(0).key;
    const auto theirs = lease_text("192.0.2.66");
    write_text(lease_path(key), theirs);
    REQUIRE(until([&] { return listener.own.size() == 2; }));
    CHECK(listener.own[1].key != key);
    CHECK(read_text(lease_path(key)) == theirs);
    REQUIRE(until([&] { return listener.put(key) != nullptr; }));
    CHECK(listener.put(key)->public_ip.v4->to_string() == "192.0.2.66");
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.publish: a reservation stays one, and a lease can be made one")
{
    fs::create_directories(dir.path() + "/leases");
    write_text(lease_path("10.42.200.0-24"), R"({"PublicIP":"192.0.2.10"})");
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, request_of("192.0.2.10"));
    CHECK(listener.own.at(0).key == "10.42.200.0-24");
    CHECK_FALSE(listener.own[0].expires);
    CHECK(read_text(lease_path("10.42.200.0-24")).find("Expiration") == std::string::npos);
    clock.advance(std::chrono::hours{100});
    idle();
    CHECK(listener.own.size() == 1);

    const auto other = make_store();
    Recorder told;
    start(*other, told, request_of("192.0.2.11"));
    Lease fixed = told.own.at(0);
    fixed.expires.reset();
    write_text(lease_path(fixed.key), format_lease(fixed, Vni{1}));
    REQUIRE(until([&] { return told.own.size() == 2; }));
    CHECK(told.own[1] == fixed);
    idle();
    CHECK(read_text(lease_path(fixed.key)) == format_lease(fixed, Vni{1}));
}

TEST_CASE("file_store.publish: a full range is told, and a lease that goes or expires makes room")
{
    StoreFixture fixture(kSmallConfig);
    fs::create_directories(fixture.dir.path() + "/leases");
    fixture.clock.advance(std::chrono::seconds{0});
    for (const char* part : {"1", "2", "3"})
        write_text(
            fixture.lease_path("10.42." + std::string(part) + ".0-24"),
            lease_text("192.0.2." + std::string(part), "0a:00:00:00:00:99", R"(,"Expiration":"2026-11-21T13:00:00Z")"));
    const auto store = fixture.make_store();
    Recorder listener;
    fixture.read_config(*store);
    store->watch(listener);
    store->publish(request_of("192.0.2.10"));
    REQUIRE(fixture.until([&] { return listener.is_in_trouble(); }));
    CHECK(listener.health.back()->code == ENOSPC);
    CHECK(listener.health.back()->what.find("10.42.1.0 to 10.42.3.0") != std::string::npos);

    fs::remove(fixture.lease_path("10.42.2.0-24"));
    REQUIRE(fixture.until([&] { return listener.own.size() == 1 && !listener.is_in_trouble(); }));
    CHECK(listener.own[0].key == "10.42.2.0-24");

    const auto other = fixture.make_store();
    Recorder told;
    fixture.read_config(*other);
    other->watch(told);
    other->publish(request_of("192.0.2.11"));
    REQUIRE(fixture.until([&] { return told.is_in_trouble(); }));
    fixture.clock.advance(std::chrono::hours{1}); // in the grace, but the room is needed
    REQUIRE(fixture.until([&] { return told.own.size() == 1; }));
    CHECK(told.own[0].key != "10.42.2.0-24");
}

TEST_CASE_FIXTURE(StoreFixture,
                  "file_store.publish: a lock that somebody holds delays and does not block; then the lease comes")
{
    const Fd lock(open((dir.path() + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    REQUIRE(flock(lock.get(), LOCK_EX | LOCK_NB) == 0);
    const auto store = make_store();
    Recorder listener;
    read_config(*store);
    store->watch(listener);
    store->publish(request_of("192.0.2.10"));
    REQUIRE(until([&] { return listener.snapshots.size() == 1; }));
    idle();
    CHECK(listener.own.empty());
    clock.advance(std::chrono::seconds{6});
    REQUIRE(until([&] { return listener.is_in_trouble(); }));
    CHECK(listener.health.back()->code == EBUSY);
    flock(lock.get(), LOCK_UN);
    REQUIRE(until([&] { return !listener.own.empty() && !listener.is_in_trouble(); }));
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.publish: temporary files of writers that died are cleared away")
{
    fs::create_directories(dir.path() + "/leases");
    write_text(dir.path() + "/leases/.10.42.1.0-24.json.1-0.twill-tmp", "half");
    write_text(dir.path() + "/leases/.keep", "not ours");
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, request_of("192.0.2.10"));
    CHECK_FALSE(fs::exists(dir.path() + "/leases/.10.42.1.0-24.json.1-0.twill-tmp"));
    CHECK(fs::exists(dir.path() + "/leases/.keep"));
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.publish: two agents with one address do not fight without end")
{
    const auto a = make_store(), b = make_store();
    Recorder told_a, told_b;
    start(*a, told_a, request_of("192.0.2.10", "node-a"));
    start(*b, told_b, request_of("192.0.2.10", "node-b"));
    for (int i = 0; i < 5; ++i) idle();
    // 300 ms at 5 to 20 ms between rewrites: some dozens at most, and neither lost its lease.
    CHECK(told_a.own.size() + told_b.own.size() < 100);
    CHECK(told_a.own.back().key == told_b.own.back().key);
}

TEST_CASE(
    "file_store: eight agents race for eight subnets, each gets one of its own; the ninth is told that there is none")
{
    const TempDir dir;
    write_text(dir.path() + "/config",
               R"({"Network":"10.42.0.0/20","SubnetMax":"10.42.8.0","Backend":{"Type":"vxlan"}})");
    std::mutex mutex;
    std::multiset<std::string> keys;
    std::vector<std::thread> agents;
    for (int i = 0; i < 8; ++i)
        agents.emplace_back([&, i] {
            struct Agent final : StoreListener {
                Loop* loop = nullptr;
                std::string key;
                void on_snapshot(LeaseSnapshot) override {}
                void on_event(LeaseEvent) override {}
                void on_own_lease(Lease lease) override
                {
                    key = lease.key;
                    loop->stop();
                }
                void on_health(std::optional<Error>) override {}
            } agent;
            Loop loop;
            agent.loop = &loop;
            SystemClock clock;
            Timer limit(loop);
            FileStore store(loop, clock, dir.path(), fast_options());
            store.read_config([&](Result<NetConf>) {
                store.watch(agent);
                store.publish(request_of("192.0.2." + std::to_string(10 + i)));
            });
            limit.once(std::chrono::seconds{8}, [&] { loop.stop(); });
            loop.run();
            const std::lock_guard lock(mutex);
            keys.insert(agent.key);
        });
    for (auto& agent : agents) agent.join();
    CHECK(keys.size() == 8);
    CHECK(std::set<std::string>(keys.begin(), keys.end()).size() == 8);
    CHECK(keys.count("") == 0);

    Loop loop;
    SystemClock clock;
    FileStore store(loop, clock, dir.path(), fast_options());
    struct Ninth final : StoreListener {
        Loop* loop = nullptr;
        std::optional<Error> trouble;
        void on_snapshot(LeaseSnapshot) override {}
        void on_event(LeaseEvent) override {}
        void on_own_lease(Lease) override { loop->stop(); }
        void on_health(std::optional<Error> told) override
        {
            trouble = told;
            loop->stop();
        }
    } ninth;
    ninth.loop = &loop;
    store.read_config([&](Result<NetConf>) {
        store.watch(ninth);
        store.publish(request_of("192.0.2.99"));
    });
    loop.run();
    REQUIRE(ninth.trouble);
    CHECK(ninth.trouble->code == ENOSPC);
}

TEST_CASE_FIXTURE(StoreFixture, "file_store.publish: a lease lost and acquired again within one second is told")
{
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, request_of("192.0.2.10"));
    const Lease own = listener.own.at(0);
    fs::remove(lease_path(own.key)); // the clock stands still: what comes back is the same to the letter
    REQUIRE(until([&] { return listener.own.size() == 2; }));
    CHECK(listener.own[1] == own);
    CHECK(fs::exists(lease_path(own.key)));
    idle();
    CHECK(listener.own.size() == 2);
}
