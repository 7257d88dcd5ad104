// SPDX-License-Identifier: Apache-2.0
// A node whose public IP changes keeps its pods: it finds its lease by what it wrote, or by name and subnet.env.
#include "store_fixture.hpp"

using namespace twill;
using namespace twill::test;
namespace fs = std::filesystem;

namespace {

const std::string kDualConfig = R"({"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48",
                                    "Backend":{"Type":"vxlan"}})";

/// As after a restart: subnet.env remembers the pod CIDR.
LeaseRequest restarted(const std::string& ip, const std::string& pods, const std::string& node = "node-a")
{
    auto request = request_of(ip, node);
    request.preferred.v4 = *Cidr::parse(pods);
    return request;
}

std::string node_field(const std::string& node) { return R"(,"Node":")" + node + "\""; }

struct MoveFixture : StoreFixture {
    using StoreFixture::StoreFixture;

    /// A lease of `key` that somebody wrote, good for an hour unless `expires` says otherwise; "" is a reservation.
    void lease_there(const std::string& key, const std::string& ip, const std::string& node,
                     const std::string& expires = "2026-11-21T13:00:00Z", const std::string& mac = "0a:00:00:00:00:99")
    {
        fs::create_directories(dir.path() + "/leases");
        const std::string end = expires.empty() ? "" : R"(,"Expiration":")" + expires + "\"";
        write_text(lease_path(key), lease_text(ip, mac, node_field(node) + end));
    }
    Lease lease_now(const std::string& key) const
    {
        const auto lease = parse_lease(key, read_text(lease_path(key)));
        REQUIRE_MESSAGE(lease.has_value(), key);
        return *lease;
    }
    std::string ip_now(const std::string& key) const { return lease_now(key).public_ip.v4->to_string(); }

    std::optional<Lease> find_own(FileStore& store, const LeaseRequest& request)
    {
        std::optional<Result<std::optional<Lease>>> answer;
        store.find_own(request, [&](Result<std::optional<Lease>> result) { answer = std::move(result); });
        REQUIRE(until([&] { return answer.has_value(); }));
        REQUIRE(answer->has_value());
        return **answer;
    }
    /// The key that a fresh agent gets; find_own() must have said the same before.
    std::string key_for(const LeaseRequest& request)
    {
        const auto store = make_store();
        const auto found = find_own(*store, request);
        Recorder listener;
        start(*store, listener, request);
        const std::string key = listener.own.at(0).key;
        CHECK((found ? found->key == key : listener.own[0].vtep_mac.v4 == request.vtep_mac.v4));
        return key;
    }
};

} // namespace

TEST_CASE_FIXTURE(MoveFixture, "file_store.move: a running node with a new public IP rewrites its lease under its key")
{
    const auto store = make_store(), peer = make_store();
    Recorder listener, watcher;
    start(*store, listener, request_of("192.0.2.10"));
    start(*peer, watcher, std::nullopt);
    const std::string key = listener.own.at(0).key;

    for (const char* ip : {"192.0.2.20", "192.0.2.30", "192.0.2.10"}) {
        watcher.events.clear();
        store->publish(request_of(ip));
        REQUIRE(until([&] { return watcher.put(key) != nullptr; }));
        CHECK(watcher.put(key)->public_ip.v4->to_string() == ip);
        CHECK(watcher.put(key)->vtep_mac == listener.own[0].vtep_mac);
        CHECK(watcher.gone(key) == 0);
        CHECK(listener.own.back().key == key);
    }
    idle();
    CHECK(listener.own.size() == 4);
    CHECK(listener.health.empty());
    CHECK(std::distance(fs::directory_iterator(dir.path() + "/leases"), {}) == 1);
}

TEST_CASE_FIXTURE(MoveFixture, "file_store.move: a lease that somebody else wrote since is not rewritten")
{
    // The node that got the old address took it; a copy of this machine, same name, took it with its own address.
    for (const auto& [ip, node] : {std::pair("192.0.2.10", "node-b"), std::pair("192.0.2.66", "node-a")}) {
        CAPTURE(node);
        const auto store = make_store();
        Recorder listener;
        start(*store, listener, request_of("192.0.2.10"));
        const std::string key = listener.own.at(0).key;
        lease_there(key, ip, node);
        const std::string theirs = read_text(lease_path(key));

        store->publish(restarted("192.0.2.20", listener.own[0].pods.v4->to_string()));
        REQUIRE(until([&] { return listener.own.size() == 2; }));
        CHECK(listener.own[1].key != key);
        CHECK(ip_now(listener.own[1].key) == "192.0.2.20");
        idle();
        CHECK(read_text(lease_path(key)) == theirs);
        CHECK(listener.own.size() == 2);
        fs::remove_all(dir.path() + "/leases");
        fs::create_directories(dir.path() + "/leases");
    }
}

TEST_CASE_FIXTURE(MoveFixture, "file_store.move: after a restart node and remembered CIDR find the lease, with its MAC")
{
    lease_there("10.42.7.0-24", "192.0.2.10", "node-a", "2026-11-21T13:00:00Z", "0a:00:00:00:00:07");
    const auto request = restarted("192.0.2.20", "10.42.7.0/24");
    const auto store = make_store();
    const auto found = find_own(*store, request);
    REQUIRE(found);
    CHECK(found->vtep_mac.v4->to_string() == "0a:00:00:00:00:07");

    Recorder listener;
    start(*store, listener, request);
    CHECK(listener.own.at(0).key == "10.42.7.0-24");
    CHECK(ip_now("10.42.7.0-24") == "192.0.2.20");
    CHECK(listener.own[0].expires == clock.wall() + std::chrono::hours{24});
    CHECK(find_own(*make_store(), request_of("192.0.2.20"))->key == "10.42.7.0-24"); // by address from now on
}

TEST_CASE_FIXTURE(MoveFixture, "file_store.move: node alone, CIDR alone or no name at all is not enough")
{
    lease_there("10.42.7.0-24", "192.0.2.10", "node-a");
    lease_there("10.42.8.0-24", "192.0.2.11", "");
    const std::string before = read_text(lease_path("10.42.7.0-24")) + read_text(lease_path("10.42.8.0-24"));
    const LeaseRequest strangers[] = {
        request_of("192.0.2.20", "node-a"),
        restarted("192.0.2.21", "10.42.9.0/24", "node-a"),
        restarted("192.0.2.22", "10.42.7.0/24", "node-b"),
        restarted("192.0.2.23", "10.42.7.0/24", ""),
        restarted("192.0.2.24", "10.42.8.0/24", ""),
    };
    for (const auto& request : strangers) {
        CAPTURE(request.public_ip.v4->to_string());
        CHECK_FALSE(find_own(*make_store(), request));
        const std::string key = key_for(request);
        CHECK(key != "10.42.7.0-24");
        CHECK(key != "10.42.8.0-24");
    }
    CHECK(read_text(lease_path("10.42.7.0-24")) + read_text(lease_path("10.42.8.0-24")) == before);
}

TEST_CASE("file_store.move: every CIDR must be as remembered, not one family alone")
{
    MoveFixture fixture(kDualConfig);
    const std::string key = "10.42.7.0-24&fd00:42:0:7::-64";
    fs::create_directories(fixture.dir.path() + "/leases");
    Lease lease;
    lease.key = key;
    lease.node = "node-a";
    lease.pods = LeaseKey::parse(key)->pods;
    lease.public_ip = {*Ip::parse("192.0.2.10"), *Ip::parse("2001:db8::10")};
    write_text(fixture.lease_path(key), format_lease(lease, Vni{1}));

    auto request = restarted("192.0.2.20", "10.42.7.0/24");
    request.public_ip.v6 = *Ip::parse("2001:db8::20");
    request.vtep_mac.v6 = request.vtep_mac.v4;
    CHECK_FALSE(fixture.find_own(*fixture.make_store(), request));
    request.preferred.v6 = *Cidr::parse("fd00:42:0:8::/64");
    CHECK_FALSE(fixture.find_own(*fixture.make_store(), request));
    request.preferred.v6 = *Cidr::parse("fd00:42:0:7::/64");
    CHECK(fixture.key_for(request) == key);
    CHECK(fixture.lease_now(key).public_ip == request.public_ip);
}

TEST_CASE_FIXTURE(MoveFixture, "file_store.move: two agents with one node name keep to their own leases")
{
    std::string key_a, key_b;
    {
        const auto a = make_store(), b = make_store();
        Recorder told_a, told_b;
        start(*a, told_a, request_of("192.0.2.10", "localhost"));
        start(*b, told_b, request_of("192.0.2.11", "localhost"));
        key_a = told_a.own.at(0).key;
        key_b = told_b.own.at(0).key;
        CHECK(key_a != key_b);
        a->publish(request_of("192.0.2.20", "localhost"));
        b->publish(request_of("192.0.2.21", "localhost"));
        REQUIRE(until([&] { return told_a.own.size() == 2 && told_b.own.size() == 2; }));
        idle();
        CHECK(told_a.own.back().key == key_a);
        CHECK(told_b.own.back().key == key_b);
        CHECK(told_a.own.size() + told_b.own.size() == 4);
    }
    const auto pods = [](const std::string& key) { return LeaseKey::parse(key)->pods.v4->to_string(); };
    CHECK(key_for(restarted("192.0.2.31", pods(key_b), "localhost")) == key_b);
    CHECK(ip_now(key_a) == "192.0.2.20");
    CHECK(key_for(restarted("192.0.2.30", pods(key_a), "localhost")) == key_a);
    CHECK(ip_now(key_b) == "192.0.2.31");
    const std::string third = key_for(request_of("192.0.2.40", "localhost"));
    CHECK(third != key_a);
    CHECK(third != key_b);
}

TEST_CASE_FIXTURE(MoveFixture, "file_store.move: another lease of the new address wins, running and after a restart")
{
    lease_there("10.42.50.0-24", "192.0.2.20", "node-z");
    lease_there("10.42.7.0-24", "192.0.2.10", "node-a");
    CHECK(key_for(restarted("192.0.2.20", "10.42.7.0/24")) == "10.42.50.0-24");
    CHECK(ip_now("10.42.7.0-24") == "192.0.2.10");
    CHECK(lease_now("10.42.50.0-24").node == "node-a");

    lease_there("10.42.60.0-24", "192.0.2.30", "");
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, restarted("192.0.2.10", "10.42.7.0/24"));
    REQUIRE(listener.own.at(0).key == "10.42.7.0-24");
    store->publish(restarted("192.0.2.30", "10.42.7.0/24"));
    REQUIRE(until([&] { return listener.own.size() == 2; }));
    CHECK(listener.own[1].key == "10.42.60.0-24");
    idle();
    CHECK(listener.own.size() == 2);
}

TEST_CASE_FIXTURE(MoveFixture, "file_store.move: an expired lease of the new address does not win")
{
    lease_there("10.42.50.0-24", "192.0.2.20", "node-z", "2026-11-21T11:50:00Z");
    lease_there("10.42.7.0-24", "192.0.2.10", "node-a");
    CHECK(key_for(restarted("192.0.2.20", "10.42.7.0/24")) == "10.42.7.0-24");
    CHECK(lease_now("10.42.50.0-24").node == "node-z");
}

TEST_CASE_FIXTURE(MoveFixture, "file_store.move: a reservation follows its node's address and stays one")
{
    lease_there("10.42.7.0-24", "192.0.2.10", "", "");
    const auto store = make_store();
    Recorder listener;
    start(*store, listener, request_of("192.0.2.10"));
    REQUIRE(listener.own.at(0).key == "10.42.7.0-24");
    store->publish(request_of("192.0.2.20"));
    REQUIRE(until([&] { return listener.own.size() == 2; }));
    CHECK(listener.own[1].key == "10.42.7.0-24");
    CHECK_FALSE(lease_now("10.42.7.0-24").expires);
    CHECK(ip_now("10.42.7.0-24") == "192.0.2.20");

    CHECK(key_for(restarted("192.0.2.30", "10.42.7.0/24")) == "10.42.7.0-24");
    CHECK_FALSE(lease_now("10.42.7.0-24").expires);
    CHECK(ip_now("10.42.7.0-24") == "192.0.2.30");
}

TEST_CASE_FIXTURE(MoveFixture, "file_store.move: two nodes that swap addresses end with one lease each")
{
    const auto a = make_store(), b = make_store();
    Recorder told_a, told_b;
    start(*a, told_a, request_of("192.0.2.10", "node-a"));
    start(*b, told_b, request_of("192.0.2.11", "node-b"));
    a->publish(request_of("192.0.2.11", "node-a"));
    b->publish(request_of("192.0.2.10", "node-b"));
    const auto is_swapped = [&] {
        return told_a.own.back().public_ip.v4->to_string() == "192.0.2.11" &&
               told_b.own.back().public_ip.v4->to_string() == "192.0.2.10";
    };
    REQUIRE(until(is_swapped));
    idle();
    const std::string key_a = told_a.own.back().key, key_b = told_b.own.back().key;
    CHECK(key_a != key_b);
    CHECK(lease_now(key_a).node == "node-a");
    CHECK(lease_now(key_b).node == "node-b");
    CHECK(ip_now(key_a) == "192.0.2.11");
    CHECK(ip_now(key_b) == "192.0.2.10");
}
