// SPDX-License-Identifier: Apache-2.0
// EtcdStore against a real etcd: what it writes, and how it lives through what etcd does.
#include <signal.h>

#include "agent/store/etcd_store.hpp"
#include "tests/interop/etcd/store_on_etcd.hpp"

using namespace twill;
using namespace twill::test;

TEST_CASE_FIXTURE(WithConfig,
                  "etcd: a node writes flannel's bytes under a lease of a day, and its marker under the same")
{
    auto store = make_store();
    Recorder seen;
    start(*store, seen, request_of("192.0.2.1"));
    const auto key = seen.own.at(0).key;
    CHECK(get("subnets/" + key) == R"({"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan",)"
                                   R"("BackendData":{"VNI":1,"VtepMAC":"0a:00:00:00:00:01"}})");
    CHECK(get("twill/" + key) == R"({"v":1,"zeroCsum6":true})");
    CHECK(lease_of("subnets/" + key) == lease_of("twill/" + key));
    CHECK(server.ctl("lease timetolive " + lease_of("subnets/" + key)).find("TTL(86400s)") != std::string::npos);
    CHECK(server.ctl("get --keys-only --prefix ''").find("/twill/") != std::string::npos);
    CHECK(lines(server.ctl("get --keys-only --prefix ''")) == 3);

    SUBCASE("restarted, it has the same one")
    {
        store = make_store();
        Recorder again;
        start(*store, again, request_of("192.0.2.1"));
        CHECK(again.own.at(0).key == key);
        CHECK(leases() == 1);
        std::optional<Result<std::optional<Lease>>> found;
        store->find_own(request_of("192.0.2.1"), [&](auto result) { found = std::move(result); });
        REQUIRE(until([&] { return found.has_value(); }));
        REQUIRE(*found);
        REQUIRE(**found);
        CHECK((**found)->key == key);
        CHECK((**found)->marker == Marker{true});
    }
    SUBCASE("the lease revoked by hand is acquired again")
    {
        server.ctl("lease revoke " + lease_of("subnets/" + key));
        REQUIRE(until([&] { return seen.own.size() == 2; }));
        CHECK(seen.own[1].key == key);
        CHECK(leases() == 1);
        CHECK(get("twill/" + key) == R"({"v":1,"zeroCsum6":true})");
    }
    SUBCASE("the value damaged by hand is written again")
    {
        put("subnets/" + key, "junk");
        REQUIRE(until([&] { return get("subnets/" + key) != "junk"; }));
    }
    SUBCASE("somebody took the key: another subnet")
    {
        put("subnets/" + key, lease_text("192.0.2.77"));
        REQUIRE(until([&] { return seen.own.size() == 2; }));
        CHECK(seen.own[1].key != key);
        CHECK(leases() == 2);
    }
    SUBCASE("the other content is published under the same key")
    {
        auto request = request_of("192.0.2.1");
        request.vtep_mac.v4 = *Mac::parse("0a:00:00:00:00:02");
        store->publish(request);
        REQUIRE(until([&] { return seen.own.size() == 2; }));
        CHECK(seen.own[1].key == key);
        CHECK(get("subnets/" + key).find("0a:00:00:00:00:02") != std::string::npos);
    }
}

TEST_CASE_FIXTURE(WithConfig, "etcd: a lease is renewed before its time, with another etcd lease")
{
    options.lease_ttl = std::chrono::seconds{6};
    options.renew_margin = std::chrono::seconds{4};
    const auto store = make_store();
    Recorder seen;
    start(*store, seen, request_of("192.0.2.1"));
    const auto key = seen.own.at(0).key;
    const auto first = lease_of("subnets/" + key);
    REQUIRE(until([&] { return seen.own.size() == 4; }));
    CHECK(seen.own[3].key == key);
    CHECK(lease_of("subnets/" + key) != first);
    CHECK(lease_of("twill/" + key) == lease_of("subnets/" + key));
    CHECK(seen.gone(key) == 0);
    CHECK_FALSE(seen.is_in_trouble());
}

namespace {

struct JumpingClock final : Clock {
    WallTime wall() const override { return std::chrono::system_clock::now() + jump; }
    SteadyTime steady() const override { return std::chrono::steady_clock::now(); }
    std::chrono::hours jump{0};
};

} // namespace

TEST_CASE_FIXTURE(WithConfig, "etcd: a lease outlives a jump of the wall clock by an hour")
{
    JumpingClock jumping;
    options.lease_ttl = std::chrono::seconds{3};
    options.renew_margin = std::chrono::seconds{2};
    const auto store = *make_etcd_store(options, loop, jumping);
    Recorder seen;
    start(*store, seen, request_of("192.0.2.1"));
    const auto key = seen.own.at(0).key;
    const auto first = lease_of("subnets/" + key);
    SUBCASE("ahead") { jumping.jump = std::chrono::hours{1}; }
    SUBCASE("back") { jumping.jump = std::chrono::hours{-1}; }
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds{4500}; // etcd has ended the first one
    REQUIRE(until([&] { return std::chrono::steady_clock::now() > end && seen.own.size() >= 3; }));
    CHECK(lease_of("subnets/" + key) != first);
    CHECK(seen.gone(key) == 0);
    CHECK(seen.own.back().key == key);
    CHECK(seen.own.size() <= 8); // renewed, not over and over
    CHECK(leases() == 1);
    CHECK_FALSE(seen.is_in_trouble());
}

namespace {

/// Keeps back the answer of one call.
struct SlowTransport final : EtcdTransport {
    SlowTransport(Loop& loop, const EtcdOptions& options) : client(loop, options) {}
    EtcdCall unary(std::string_view method, std::string message, std::function<void(Result<std::string>)> done) override
    {
        if (!std::exchange(is_next_kept, false)) return client.unary(method, std::move(message), std::move(done));
        return client.unary(method, std::move(message), [this, done = std::move(done)](Result<std::string> answer) {
            release = [done, answer = std::move(answer)] { done(answer); };
        });
    }
    EtcdCall stream(std::string_view method, const std::vector<std::string>& messages, StreamHandler handler) override
    {
        return client.stream(method, messages, std::move(handler));
    }
    std::size_t endpoint() const override { return client.endpoint(); }

    EtcdClient client;
    bool is_next_kept = false;
    std::function<void()> release; ///< once the kept answer is there
};

} // namespace

TEST_CASE_FIXTURE(WithConfig, "etcd: a listing that our own write passed on the way is no reason to write again")
{
    options.settle = std::chrono::milliseconds{0};
    auto owned = std::make_unique<SlowTransport>(loop, options);
    auto& transport = *owned;
    EtcdStore store(loop, clock, options, std::move(owned));
    Recorder seen;
    read_config(store);
    transport.is_next_kept = true;
    store.watch(seen);
    REQUIRE(until([&] { return transport.release != nullptr; }));
    store.publish(request_of("192.0.2.1"));
    REQUIRE(until([&] { return seen.own.size() == 1; }));
    transport.release();
    REQUIRE(until([&] { return !seen.snapshots.empty(); }));
    put("subnets/10.42.9.0-24", lease_text("192.0.2.9"));
    REQUIRE(until([&] { return seen.put("10.42.9.0-24") != nullptr; }));
    CHECK(seen.own.size() == 1);
    CHECK(lines(server.ctl("lease list")) == 2); // with its heading
}

TEST_CASE_FIXTURE(WithConfig, "etcd: peers come, change, go, and junk costs its own key only")
{
    put("subnets/10.42.7.0-24", lease_text("192.0.2.7"));
    put("subnets/10.42.8.0-24", "{");
    put("subnets/nonsense", "x");
    const auto store = make_store();
    Recorder seen;
    start(*store, seen, std::nullopt);
    CHECK(seen.snapshots[0].leases.size() == 1);
    CHECK(seen.snapshots[0].bad.size() == 2);

    put("subnets/10.42.9.0-24", lease_text("192.0.2.9"));
    put("twill/10.42.9.0-24", R"({"v":1,"zeroCsum6":true})");
    REQUIRE(until([&] { return seen.put("10.42.9.0-24") && seen.put("10.42.9.0-24")->marker; }));
    put("subnets/10.42.9.0-24", lease_text("192.0.2.10"));
    REQUIRE(until([&] { return seen.put("10.42.9.0-24")->public_ip.v4 == *Ip::parse("192.0.2.10"); }));
    put("subnets/10.42.9.0-24", "[1,2");
    REQUIRE(until([&] { return seen.bad("10.42.9.0-24") != nullptr; }));
    put("twill/10.42.7.0-24", "\xff junk");
    put("subnets/10.42.8.0-24", lease_text("192.0.2.8"));
    REQUIRE(until([&] { return seen.put("10.42.8.0-24") != nullptr; }));
    CHECK(seen.gone("10.42.7.0-24") == 0);
    server.ctl("del " + kLeases + "10.42.7.0-24");
    REQUIRE(until([&] { return seen.gone("10.42.7.0-24") == 1; }));
    put("config", R"({"Network":"10.43.0.0/16"})");
    REQUIRE(until([&] { return seen.config_changes == 1; }));
    CHECK(seen.snapshots.size() == 1);
}

TEST_CASE_FIXTURE(WithConfig,
                  "etcd: restarted or killed, it is back without a new snapshot, and nothing is lost meanwhile")
{
    const auto store = make_store();
    Recorder seen;
    start(*store, seen, request_of("192.0.2.1"));
    int signal = SIGTERM;
    SUBCASE("restarted") {}
    SUBCASE("killed") { signal = SIGKILL; }
    server.stop(signal);
    REQUIRE(until([&] { return seen.is_in_trouble(); }));
    server.start();
    put("subnets/10.42.9.0-24", lease_text("192.0.2.9"));
    REQUIRE(until([&] { return seen.put("10.42.9.0-24") && !seen.is_in_trouble(); }));
    CHECK(seen.snapshots.size() == 1);
    CHECK(seen.own.size() == 1);
    CHECK(seen.gone(seen.own[0].key) == 0);
}

TEST_CASE_FIXTURE(WithConfig, "etcd: what was compacted while the watch was away is read in a snapshot")
{
    put("subnets/10.42.8.0-24", lease_text("192.0.2.8"));
    put("subnets/10.42.9.0-24", lease_text("192.0.2.9"));
    const auto store = make_store();
    Recorder seen;
    start(*store, seen, std::nullopt);
    server.pause(); // the store's connection ends before it hears of what comes
    server.stop(SIGKILL);
    REQUIRE(until([&] { return seen.is_in_trouble(); }));
    server.start();
    server.ctl("del " + kLeases + "10.42.8.0-24");
    put("config", kNetConf);
    put("config", kNetConf);
    const auto text = server.ctl("get -w fields " + kPrefix + "/config");
    const auto at = text.find("\"Revision\" : ");
    REQUIRE(at != text.npos);
    server.ctl("compact " + std::to_string(std::stoll(text.substr(at + 13))));
    REQUIRE(until([&] { return seen.snapshots.size() == 2 || seen.gone("10.42.8.0-24") == 1; }));
    if (seen.snapshots.size() == 2) CHECK(seen.snapshots[1].leases.size() == 1);
    REQUIRE(until([&] { return !seen.is_in_trouble(); }));
}

TEST_CASE_FIXTURE(WithConfig, "etcd: an old backup is not taken for the state that was left")
{
    put("subnets/10.42.8.0-24", lease_text("192.0.2.8"));
    const auto backup = server.directory() + "/backup";
    server.stop(SIGTERM);
    sh("cp -a " + server.directory() + "/data " + backup);
    server.start();
    put("subnets/10.42.9.0-24", lease_text("192.0.2.9"));
    const auto store = make_store();
    Recorder seen;
    start(*store, seen, request_of("192.0.2.1"));
    const auto key = seen.own.at(0).key;
    CHECK(seen.snapshots[0].leases.size() >= 2);
    server.stop(SIGKILL);
    sh("rm -rf " + server.directory() + "/data && mv " + backup + " " + server.directory() + "/data");
    server.start();
    // Revisions go up again to where they were, with another content.
    for (int i = 0; i < 6; ++i) put("config", kNetConf);
    REQUIRE(until([&] { return seen.snapshots.size() >= 2 && seen.own.size() >= 2; }));
    CHECK(seen.own.back().key == key);
    REQUIRE(until([&] { return !get("subnets/" + key).empty() && !seen.is_in_trouble(); }));
    CHECK(leases() == 2);
}

TEST_CASE_FIXTURE(WithConfig, "etcd: agents that race get a subnet each, and those without room say so and wait")
{
    put("config",
        R"({"Network":"10.42.0.0/16","SubnetMin":"10.42.1.0","SubnetMax":"10.42.4.0","Backend":{"Type":"vxlan"}})");
    std::vector<std::unique_ptr<Store>> stores;
    std::vector<std::unique_ptr<Recorder>> seen;
    for (int i = 0; i < 5; ++i) {
        stores.push_back(make_store());
        seen.push_back(std::make_unique<Recorder>());
        read_config(*stores.back());
    }
    for (std::size_t i = 0; i < 5; ++i) {
        stores[i]->watch(*seen[i]);
        stores[i]->publish(request_of("192.0.2." + std::to_string(i + 1)));
    }
    const auto is_full = [](const Recorder& r) { return r.is_in_trouble() && r.health.back()->code == ENOSPC; };
    REQUIRE(until([&] {
        int own = 0, full = 0;
        for (const auto& r : seen) {
            own += !r->own.empty();
            full += is_full(*r);
        }
        return own == 4 && full == 1;
    }));
    CHECK(leases() == 4);
    std::set<std::string> keys;
    for (const auto& r : seen)
        if (!r->own.empty()) keys.insert(r->own.back().key);
    CHECK(keys.size() == 4);
    // One node leaves: its store first, so that it takes nothing back.
    std::size_t gone = 0;
    while (seen[gone]->own.empty()) ++gone;
    const auto freed = seen[gone]->own.back().key;
    stores[gone].reset();
    server.ctl("del " + kLeases + freed);
    REQUIRE(until([&] {
        for (const auto& r : seen)
            if (r != seen[gone] && (r->own.empty() || r->is_in_trouble())) return false;
        return true;
    }));
    CHECK(leases() == 4);
}

TEST_CASE_FIXTURE(WithConfig, "etcd: a reservation is taken by its address and stays one")
{
    put("subnets/10.42.199.0-24", lease_text("192.0.2.1"));
    const auto store = make_store();
    Recorder seen;
    start(*store, seen, request_of("192.0.2.1"));
    CHECK(seen.own.at(0).key == "10.42.199.0-24");
    CHECK_FALSE(seen.own.at(0).expires);
    CHECK(lease_of("subnets/10.42.199.0-24") == "0");
    CHECK(get("subnets/10.42.199.0-24").find("0a:00:00:00:00:01") != std::string::npos);
}

TEST_CASE_FIXTURE(WithConfig, "etcd: dual stack is one key with both subnets")
{
    put("config",
        R"({"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48","Backend":{"Type":"vxlan"}})");
    const auto store = make_store();
    Recorder seen;
    auto request = request_of("192.0.2.1");
    request.public_ip.v6 = *Ip::parse("2001:db8::1");
    request.vtep_mac.v6 = *Mac::parse("0a:00:00:00:00:06");
    start(*store, seen, request);
    const auto& own = seen.own.at(0);
    CHECK(own.key == own.pods.v4->to_key() + "&" + own.pods.v6->to_key());
    CHECK(get("subnets/" + own.key) == R"({"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan",)"
                                       R"("BackendData":{"VNI":1,"VtepMAC":"0a:00:00:00:00:01"},)"
                                       R"("BackendV6Data":{"VNI":1,"VtepMAC":"0a:00:00:00:00:06"}})");
}

TEST_CASE_FIXTURE(EtcdFixture, "etcd: no config yet is an error that names the key and may be tried again")
{
    const auto store = make_store();
    std::optional<Result<NetConf>> conf;
    store->read_config([&](Result<NetConf> result) { conf = std::move(result); });
    REQUIRE(until([&] { return conf.has_value(); }));
    REQUIRE_FALSE(*conf);
    CHECK(conf->error().code == ENOENT);
    CHECK(conf->error().what.find("/coreos.com/network/config") != std::string::npos);
    put("config", kNetConf);
    CHECK(read_config(*store).network.v4);
}

TEST_CASE_FIXTURE(WithConfig, "etcd: a dead or hanging endpoint costs a try, not the store")
{
    EtcdServer hung;
    hung.pause();
    options.endpoints = {"http://127.0.0.1:1", hung.url(), server.url()};
    options.call_timeout = std::chrono::milliseconds{700};
    const auto store = make_store();
    Recorder seen;
    start(*store, seen, request_of("192.0.2.1"));
    CHECK(leases() == 1);
    CHECK_FALSE(seen.is_in_trouble());
}

TEST_CASE_FIXTURE(WithConfig, "etcd: a server that stops answering under the watch is noticed")
{
    options.call_timeout = std::chrono::milliseconds{500};
    options.probe = std::chrono::milliseconds{300};
    put("subnets/10.42.8.0-24", lease_text("192.0.2.8"));
    const auto store = make_store();
    Recorder seen;
    start(*store, seen, std::nullopt);
    server.pause();
    REQUIRE(until([&] { return seen.is_in_trouble(); }));
    server.go_on();
    put("subnets/10.42.9.0-24", lease_text("192.0.2.9"));
    REQUIRE(until([&] { return seen.put("10.42.9.0-24") && !seen.is_in_trouble(); }));
}

namespace {

/// Certificates of one authority: the server's, and a client's with the CN `twill`.
struct Certificates {
    Certificates()
    {
        const std::string d = dir.path() + "/";
        sh("cd " + d +
           " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca"
           " -keyout ca.key -out ca.pem"
           " && printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' >ext"
           " && for n in server twill root; do openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
           " -subj /CN=$n -keyout $n.key -out $n.csr && openssl x509 -req -in $n.csr -CA ca.pem -CAkey ca.key"
           " -CAcreateserial -days 2 -extfile ext -out $n.pem || exit 1; done");
    }
    std::string file(const std::string& name) const { return dir.path() + "/" + name; }
    std::vector<std::string> server_flags() const
    {
        return {"--cert-file=" + file("server.pem"), "--key-file=" + file("server.key"),
                "--trusted-ca-file=" + file("ca.pem"), "--client-cert-auth"};
    }
    TempDir dir;
};

struct TlsFixture : Certificates, EtcdFixture {
    TlsFixture() : EtcdFixture(server_flags(), "https")
    {
        server.ctl_flags = "--cacert=" + file("ca.pem") + " --cert=" + file("root.pem") + " --key=" + file("root.key");
        options.ca_file = file("ca.pem");
        options.cert_file = file("twill.pem");
        options.key_file = file("twill.key");
        put("config", kNetConf);
    }
};

/// Users on: root may do everything, twill what `grants` (pairs of etcdctl's arguments) say.
void enable_users(const EtcdServer& server, const std::vector<std::string>& grants)
{
    server.ctl("user add root:rootpw");
    server.ctl("user grant-role root root");
    server.ctl("user add twill:secret");
    server.ctl("role add node");
    for (const auto& grant : grants) server.ctl("role grant-permission node " + grant);
    server.ctl("user grant-role twill node");
    server.ctl("auth enable");
}

} // namespace

TEST_CASE_FIXTURE(TlsFixture, "etcd: TLS with a client certificate, whose CN is the user of the server's roles")
{
    SUBCASE("no users") {}
    SUBCASE("users") { enable_users(server, {"--prefix readwrite " + kPrefix}); }
    const auto store = make_store();
    Recorder seen;
    start(*store, seen, request_of("192.0.2.1"));
    CHECK(leases() == 1);
    put("subnets/10.42.9.0-24", lease_text("192.0.2.9"));
    REQUIRE(until([&] { return seen.put("10.42.9.0-24") != nullptr; }));
}

TEST_CASE_FIXTURE(TlsFixture, "etcd: a server of another authority is not spoken to")
{
    const Certificates others;
    options.ca_file = others.file("ca.pem");
    const auto store = make_store();
    std::optional<Result<NetConf>> conf;
    store->read_config([&](Result<NetConf> result) { conf = std::move(result); });
    REQUIRE(until([&] { return conf.has_value(); }));
    CHECK_FALSE(*conf);
}

TEST_CASE_FIXTURE(WithConfig, "etcd: user and password, with rights on everything or on flannel's keys only")
{
    bool has_markers = true;
    SUBCASE("everything") { enable_users(server, {"--prefix readwrite " + kPrefix}); }
    SUBCASE("flannel's keys")
    {
        has_markers = false;
        enable_users(server, {"read " + kPrefix + "/config", "--prefix readwrite " + kPrefix + "/subnets"});
    }
    server.ctl_flags = "--user=root:rootpw";
    options.username = "twill";
    options.password = "secret";
    const auto store = make_store();
    Recorder seen;
    start(*store, seen, request_of("192.0.2.1"));
    CHECK(leases() == 1);
    CHECK(get("twill/" + seen.own.at(0).key).empty() != has_markers);
    put("subnets/10.42.9.0-24", lease_text("192.0.2.9"));
    REQUIRE(until([&] { return seen.put("10.42.9.0-24") != nullptr; }));

    // Simple tokens are in the server's memory: a restart voids ours.
    server.stop(SIGKILL);
    server.start();
    put("subnets/10.42.10.0-24", lease_text("192.0.2.10"));
    REQUIRE(until([&] { return seen.put("10.42.10.0-24") && !seen.is_in_trouble(); }));
    CHECK(seen.own.size() == 1);
}

TEST_CASE_FIXTURE(WithConfig, "etcd: a wrong password is said, without the password")
{
    enable_users(server, {"--prefix readwrite " + kPrefix});
    options.username = "twill";
    options.password = "hunter2";
    const auto store = make_store();
    std::optional<Result<NetConf>> conf;
    store->read_config([&](Result<NetConf> result) { conf = std::move(result); });
    REQUIRE(until([&] { return conf.has_value(); }));
    REQUIRE_FALSE(*conf);
    CHECK(conf->error().code == EACCES);
    CHECK(conf->error().what.find("hunter2") == std::string::npos);
}
