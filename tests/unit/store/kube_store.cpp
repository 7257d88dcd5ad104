// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_store.hpp"

#include <doctest/doctest.h>

#include "store_fixture.hpp"
#include "tests/support/fake_kube.hpp"

using namespace twill;
using namespace twill::test;
using namespace std::chrono_literals;
using Kind = FakeFault::Kind;

namespace {

const std::string kPrefix = "flannel.alpha.coreos.com/";

FakeNode peer(int index, const std::string& ip = "")
{
    const auto number = std::to_string(index);
    return {{"10.42." + number + ".0/24"},
            {{kPrefix + "kube-subnet-manager", "true"},
             {kPrefix + "backend-type", "vxlan"},
             {kPrefix + "backend-data",
              R"({"VNI":1,"VtepMAC":"0a:00:00:00:01:)" + std::string(index < 10 ? "0" : "") + number + "\"}"},
             {kPrefix + "public-ip", ip.empty() ? "192.0.2." + number : ip}},
            false,
            0};
}

/// What the daemon asks for: with the MAC in the marker.
LeaseRequest marked_request(const std::string& ip)
{
    auto request = request_of(ip);
    request.marker.vtep_mac = request.vtep_mac.v4;
    return request;
}

std::string key_of(int index) { return "10.42." + std::to_string(index) + ".0-24"; }

/// A fake server with the nodes node-a, which has only its podCIDR 10.42.1.0/24, and peers n11 to n13.
struct KubeFixture : StoreFixture {
    KubeFixture()
    {
        server.put_node("node-a", {{"10.42.1.0/24"}, {}, false, 0});
        for (const int i : {11, 12, 13}) server.put_node("n" + std::to_string(i), peer(i));
        options.api_url = server.url();
        options.node_name = "node-a";
        options.net_config_path = dir.path() + "/config";
        options.page_size = 2;
        options.answer_timeout = 1000ms;
        options.refused_backoff_max = 50ms;
        options.error_backoff_max = 50ms;
        options.config_poll = 10ms;
    }
    void make()
    {
        auto made = make_kube_store(options, loop, clock);
        REQUIRE_MESSAGE(made, made.error().what);
        store = *std::move(made);
        std::optional<Result<NetConf>> conf;
        store->read_config([&](Result<NetConf> result) { conf = std::move(result); });
        REQUIRE(until([&] { return conf.has_value(); }));
        REQUIRE_MESSAGE(*conf, conf->error().what);
    }
    void watch()
    {
        make();
        store->watch(told);
        REQUIRE(until([&] { return !told.snapshots.empty() && server.watches() >= 1; }));
    }
    /// An address that the listener knows for the lease `index`, snapshots and events together.
    bool knows(int index, const std::string& ip)
    {
        const Lease* found = told.put(key_of(index));
        if (found == nullptr && !told.snapshots.empty())
            for (const auto& lease : told.snapshots.back().leases)
                if (lease.key == key_of(index)) found = &lease;
        return found != nullptr && found->public_ip.v4 == *Ip::parse(ip);
    }
    /// The store hears of what happens from now on.
    void check_alive(int index, const std::string& ip)
    {
        server.put_node("n" + std::to_string(index), peer(index, ip));
        CHECK(until([&] { return knows(index, ip); }));
        CHECK(until([&] { return !told.is_in_trouble(); }));
    }

    FakeKube server;
    KubeOptions options;
    Recorder told;
    std::unique_ptr<Store> store;
};

} // namespace

TEST_CASE_FIXTURE(KubeFixture, "kube_store: a snapshot of all pages, then what changes")
{
    watch();
    CHECK(told.snapshots.size() == 1);
    CHECK(told.snapshots[0].leases.size() == 3); // node-a has no annotations yet
    CHECK(server.count("limit=2") == 2);
    server.put_node("n14", peer(14));
    server.put_node("n11", peer(11, "192.0.2.111"));
    server.remove_node("n12");
    auto unmarked = peer(13);
    unmarked.annotations.erase(kPrefix + "kube-subnet-manager");
    server.put_node("n13", unmarked);
    CHECK(until([&] { return told.gone(key_of(13)) == 1; }));
    CHECK(knows(14, "192.0.2.14"));
    CHECK(knows(11, "192.0.2.111"));
    CHECK(told.gone(key_of(12)) == 1);
    CHECK(told.snapshots.size() == 1);
    CHECK(server.patches().empty());
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: publishing is one patch of the status, and none when nothing differs")
{
    watch();
    store->publish(marked_request("192.0.2.1"));
    REQUIRE(until([&] { return !told.own.empty(); }));
    CHECK(told.own.back().key == key_of(1));
    CHECK(told.own.back().marker == Marker{true, *Mac::parse("0a:00:00:00:00:01")});
    REQUIRE(server.patches().size() == 1);
    CHECK(
        server.patches()[0] ==
        R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:01\"}",)"
        R"("flannel.alpha.coreos.com/backend-type":"vxlan","flannel.alpha.coreos.com/kube-subnet-manager":"true",)"
        R"("flannel.alpha.coreos.com/public-ip":"192.0.2.1",)"
        R"("flannel.alpha.coreos.com/twill":"{\"v\":1,\"zeroCsum6\":true,\"vtepMAC\":\"0a:00:00:00:00:01\"}"}}})");
    for (const auto& request : server.requests())
        CHECK((request.method == "GET" || request.target == "/api/v1/nodes/node-a/status"));

    store->announce_ready();
    REQUIRE(until([&] { return server.patches().size() == 3; }));
    CHECK(server.patches()[1].starts_with(R"({"status":{"conditions":[{"type":"NetworkUnavailable","status":"False")"));
    // The marker holds until flannel writes that condition again.
    CHECK(server.patches()[2] ==
          R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/twill":"{\"v\":1,\"zeroCsum6\":true,)"
          R"(\"vtepMAC\":\"0a:00:00:00:00:01\",\"since\":\"2026-11-21T12:00:00Z\"}"}}})");
    CHECK(told.own.size() == 1);

    // A restarted agent finds everything as it wants it.
    const auto requests = server.requests().size();
    store.reset();
    told = {};
    watch();
    store->publish(marked_request("192.0.2.1"));
    store->announce_ready();
    REQUIRE(until([&] { return !told.own.empty() && server.requests().size() > requests + 3; }));
    idle();
    CHECK(server.patches().size() == 3);
    // Another address is.
    store->publish(marked_request("192.0.2.9"));
    REQUIRE(until([&] { return server.patches().size() == 4; }));
    CHECK(server.patches()[3] == R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip":"192.0.2.9"}}})");
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: the condition is left alone when the flag says so")
{
    options.set_node_network_unavailable = false;
    watch();
    store->publish(request_of("192.0.2.1"));
    store->announce_ready();
    REQUIRE(until([&] { return !told.own.empty(); }));
    idle();
    CHECK(server.patches().size() == 1);
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: annotations taken away, and a new podCIDR, are put right")
{
    watch();
    store->publish(request_of("192.0.2.1"));
    REQUIRE(until([&] { return !told.own.empty(); }));
    server.put_node("node-a", {{"10.42.2.0/24"}, {}, false, 0});
    REQUIRE(until([&] { return told.own.back().key == key_of(2); }));
    CHECK(server.node("node-a").annotations.at(kPrefix + "public-ip") == "192.0.2.1");
    auto overwritten = server.node("node-a");
    overwritten.annotations[kPrefix + "public-ip-overwrite"] = "198.51.100.1";
    server.put_node("node-a", overwritten);
    REQUIRE(until([&] { return told.own.back().public_ip.v4 == *Ip::parse("198.51.100.1"); }));
    server.remove_node("node-a");
    CHECK(until([&] { return told.is_in_trouble(); }));
    server.put_node("node-a", {{"10.42.3.0/24"}, {}, false, 0});
    CHECK(until([&] { return told.own.back().key == key_of(3) && !told.is_in_trouble(); }));
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: a node that is left has no marker any more, and keeps its lease")
{
    watch();
    store->publish(marked_request("192.0.2.1"));
    REQUIRE(until([&] { return !told.own.empty() && server.node("node-a").annotations.contains(kPrefix + "twill"); }));
    bool is_done = false;
    store->leave([&] { is_done = true; });
    REQUIRE(until([&] { return is_done; }));
    CHECK_FALSE(server.node("node-a").annotations.contains(kPrefix + "twill"));
    CHECK(server.node("node-a").annotations.at(kPrefix + "public-ip") == "192.0.2.1");
    // What the watch shows of it is not mended.
    const auto patches = server.patches().size();
    idle();
    CHECK(server.patches().size() == patches);
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: no podCIDR, or one outside of the network, is told and waited for")
{
    server.put_node("node-a", {{}, {}, false, 0});
    watch();
    std::optional<Result<std::optional<Lease>>> found;
    store->find_own(request_of("192.0.2.1"), [&](auto result) { found = std::move(result); });
    CHECK(until([&] { return found.has_value(); }));
    CHECK_FALSE(*found);
    store->publish(request_of("192.0.2.1"));
    CHECK(until([&] { return told.is_in_trouble(); }));
    CHECK(told.health.back()->what.find("spec.podCIDR absent") != std::string::npos);
    server.put_node("node-a", {{"10.9.0.0/24"}, {}, false, 0});
    CHECK(until([&] { return told.health.back() && told.health.back()->what.find("outside") != std::string::npos; }));
    CHECK(server.patches().empty());
    server.put_node("node-a", {{"10.42.9.0/24"}, {}, false, 0});
    CHECK(until([&] { return !told.own.empty() && !told.is_in_trouble(); }));
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: the node's name by its pod, its own address and MAC from its annotations")
{
    options.node_name.clear();
    CHECK_FALSE(make_kube_store(options, loop, clock));
    options.pod_name = "pod";
    options.pod_namespace = "ns";
    auto own = peer(1);
    own.annotations[kPrefix + "public-ip"] = "junk"; // costs the lease, not the MAC
    own.annotations[kPrefix + "node-public-ip"] = "198.51.100.7";
    server.put_node("node-a", own);
    make();
    std::optional<Result<PerFamily<std::optional<Ip>>>> ips;
    store->find_public_ip([&](auto result) { ips = std::move(result); });
    REQUIRE(until([&] { return ips.has_value(); }));
    CHECK((*ips)->v4 == *Ip::parse("198.51.100.7"));
    std::optional<Result<std::optional<Lease>>> found;
    store->find_own(request_of("192.0.2.1"), [&](auto result) { found = std::move(result); });
    REQUIRE(until([&] { return found.has_value(); }));
    CHECK((**found)->vtep_mac.v4 == *Mac::parse("0a:00:00:00:01:01"));
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: a watch that ends goes on without a gap, a bookmark moves it")
{
    watch();
    server.bookmark();
    server.close_watches();
    check_alive(11, "192.0.2.111");
    CHECK(told.snapshots.size() == 1);
    CHECK(server.count("limit=2") == 2); // nothing was listed again
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: a version that is gone costs one list, and a new snapshot")
{
    watch();
    server.put_node("n11", peer(11, "192.0.2.110"));
    server.remove_node("n12");
    server.compact();
    REQUIRE(until([&] { return told.snapshots.size() >= 2 && server.watches() >= 1; }));
    check_alive(11, "192.0.2.111");
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: pages that expire are listed from the start")
{
    server.fail(1, {Kind::status, 410});
    watch();
    CHECK(told.snapshots[0].leases.size() == 3);
    CHECK_FALSE(told.is_in_trouble());
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: a server that went away is told, and all is well when it is back")
{
    watch();
    server.stop();
    CHECK(until([&] { return told.is_in_trouble(); }));
    server.put_node("n11", peer(11, "192.0.2.110"));
    server.start();
    CHECK(until([&] { return knows(11, "192.0.2.110") && !told.is_in_trouble(); }));
    CHECK(told.snapshots.size() == 1); // the watch went on where it was
    // From a backup: versions go back, and what a watch would wait for is long past.
    server.stop();
    server.restore(500);
    server.put_node("n11", peer(11, "192.0.2.112"));
    server.start();
    CHECK(until([&] { return told.snapshots.size() == 2; }));
    check_alive(12, "192.0.2.122");
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: errors, half a body, no answer and silence are retried, and told")
{
    const FakeFault faults[] = {{Kind::status, 429, "0"}, {Kind::status, 500}, {Kind::status, 503, "0"},
                                {Kind::half_body},        {Kind::no_answer},   {Kind::hang}};
    for (const auto& fault : faults) {
        CAPTURE(static_cast<int>(fault.kind));
        CAPTURE(fault.status);
        told = {};
        store.reset();
        server.fail(3, fault);
        make();
        store->watch(told);
        store->publish(request_of("192.0.2.1"));
        REQUIRE(until([&] { return !told.snapshots.empty() && !told.own.empty() && server.watches() >= 1; }));
        CHECK(told.health.size() >= 2);
        CHECK(until([&] { return !told.is_in_trouble(); }));
        // The same to a watch that is begun again.
        server.fail(1, fault);
        server.close_watches();
        check_alive(11, fault.kind == Kind::hang ? "192.0.2.5" : "192.0.2.6");
    }
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: a watch that says nothing for too long is begun again")
{
    options.watch_silence = 1000ms;
    watch();
    const auto before = server.count("watch=true");
    CHECK(until([&] { return server.count("watch=true") > before; }));
    check_alive(11, "192.0.2.111");
    CHECK(told.snapshots.size() == 1);
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: a token that rotates is read again")
{
    write_text(dir.path() + "/token", "one");
    write_text(
        dir.path() + "/kubeconfig",
        "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://unused'}}]\nusers: [{name: u, user: {tokenFile: token}}]\n");
    options.kubeconfig_file = dir.path() + "/kubeconfig";
    server.require_token("one");
    watch();
    server.require_token("two");
    server.close_watches();
    CHECK(until([&] { return told.is_in_trouble(); }));
    CHECK(told.health.back()->code == EACCES);
    CHECK(told.health.back()->what.find("one") == std::string::npos);
    write_text(dir.path() + "/token", "two");
    check_alive(11, "192.0.2.111");
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: junk in a node costs that node")
{
    watch();
    auto junk = peer(11);
    junk.annotations[kPrefix + "backend-data"] = "{\"VtepMAC\":\"no\"}";
    server.put_node("n11", junk);
    REQUIRE(until([&] { return told.bad("node/n11") != nullptr; }));
    CHECK(told.bad("node/n11")->why.find("annotation backend-data") == 0);
    CHECK(told.gone(key_of(11)) == 1);
    check_alive(12, "192.0.2.112");
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: heartbeats are no events")
{
    watch();
    server.heartbeats(400);
    check_alive(11, "192.0.2.111");
    CHECK(told.events.size() == 1);
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: with alloc only the own node is looked at")
{
    write_text(options.net_config_path, R"({"Network":"10.42.0.0/16","Backend":{"Type":"alloc"}})");
    watch();
    CHECK(server.count("fieldSelector=metadata.name%3Dnode-a") >= 2);
}

TEST_CASE_FIXTURE(KubeFixture, "kube_store: another net-conf.json is told once")
{
    watch();
    write_text(options.net_config_path, R"({"Network":"10.42.0.0/16","Backend":{"Type":"vxlan","VNI":2}})");
    CHECK(until([&] { return told.config_changes == 1; }));
    idle();
    CHECK(told.config_changes == 1);
}
