// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/store/etcd_options.hpp"
#include "tests/interop/etcd/server.hpp"

namespace twill::test {

inline const std::string kPrefix = "/coreos.com/network";
inline const std::string kLeases = kPrefix + "/subnets/";
/// A node's subnet is none of those below 10.42.90.0, which tests give to others.
inline const std::string kNetConf = R"({"Network":"10.42.0.0/16","SubnetMin":"10.42.90.0","Backend":{"Type":"vxlan"}})";

/// Stores on one etcd, which share one loop.
struct EtcdFixture {
    explicit EtcdFixture(std::vector<std::string> flags = {}, std::string scheme = "http")
        : server(std::move(flags), std::move(scheme))
    {
        options.endpoints = {server.url()};
        options.tick = std::chrono::milliseconds{50};
    }
    std::unique_ptr<Store> make_store() { return *make_etcd_store(options, loop, clock); }
    void put(const std::string& key, const std::string& value, const std::string& more = "")
    {
        server.ctl("put '" + kPrefix + "/" + key + "' '" + value + "' " + more);
    }
    std::string get(const std::string& key)
    {
        auto value = server.ctl("get --print-value-only '" + kPrefix + "/" + key + "'");
        while (value.ends_with('\n')) value.pop_back();
        return value;
    }
    std::size_t leases() { return lines(server.ctl("get --keys-only --prefix " + kLeases)); }
    static std::size_t lines(const std::string& text)
    {
        std::size_t count = 0;
        std::istringstream in(text);
        for (std::string line; std::getline(in, line);) count += !line.empty();
        return count;
    }
    /// The etcd lease of a key, in hex as etcdctl wants it; "0" for none.
    std::string lease_of(const std::string& key)
    {
        const auto text = server.ctl("get -w fields '" + kPrefix + "/" + key + "'");
        const auto at = text.find("\"Lease\" : ");
        REQUIRE(at != text.npos);
        std::ostringstream hex;
        hex << std::hex << std::stoll(text.substr(at + 10));
        return hex.str();
    }
    template <typename F>
    bool until(F done, int seconds = 30)
    {
        Timer poll(loop);
        Timer limit(loop);
        bool is_late = false;
        poll.every(std::chrono::milliseconds{2}, [&] {
            if (done()) loop.stop();
        });
        limit.once(std::chrono::seconds{seconds}, [&] {
            is_late = true;
            loop.stop();
        });
        loop.run();
        return !is_late;
    }
    NetConf read_config(Store& store)
    {
        std::optional<Result<NetConf>> conf;
        store.read_config([&](Result<NetConf> result) { conf = std::move(result); });
        CHECK_FALSE(conf);
        REQUIRE(until([&] { return conf.has_value(); }));
        REQUIRE_MESSAGE(conf->has_value(), conf->error().what);
        return **conf;
    }
    void start(Store& store, Recorder& listener, const std::optional<LeaseRequest>& request)
    {
        read_config(store);
        store.watch(listener);
        if (request) store.publish(*request);
        const auto is_up = [&] { return !listener.snapshots.empty() && (!request || !listener.own.empty()); };
        REQUIRE_MESSAGE(until(is_up), (listener.is_in_trouble() ? listener.health.back()->what : "silence"));
    }

    EtcdServer server;
    Loop loop;
    SystemClock clock;
    EtcdOptions options;
};

struct WithConfig : EtcdFixture {
    WithConfig() { put("config", kNetConf); }
};

} // namespace twill::test
