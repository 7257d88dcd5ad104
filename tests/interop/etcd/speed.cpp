// SPDX-License-Identifier: Apache-2.0
// Numbers, no verdict: leases to snapshot, and event to callback. tw-interop-etcd -ns -tc='etcd speed*'
#include <algorithm>
#include <iostream>

#include "agent/store/etcd_client.hpp"
#include "agent/store/etcd_codec.hpp"
#include "tests/interop/etcd/server.hpp"

using namespace twill;
using namespace twill::test;

namespace {

std::string key_of(int i) { return "10." + std::to_string(40 + i / 250) + "." + std::to_string(i % 250) + ".0-24"; }

struct Speed {
    Speed() { options.endpoints = {server.url()}; }
    template <typename F>
    void until(F done)
    {
        Timer poll(loop);
        poll.every(std::chrono::milliseconds{1}, [&] {
            if (done()) loop.stop();
        });
        loop.run();
    }
    void txn(const EtcdTxn& txn, bool is_waited = true)
    {
        if (!client) client = std::make_unique<EtcdClient>(loop, options);
        bool done = false;
        const auto call = client->unary("KV/Txn", encode_txn(txn), [&](Result<std::string> answer) {
            if (!answer) std::cerr << answer.error().what << '\n';
            done = true;
        });
        if (is_waited) until([&] { return done; });
    }
    void fill(int count)
    {
        for (int i = 0; i < count; i += 100) { // etcd takes 128 operations a Txn
            EtcdTxn batch;
            for (int k = i; k < std::min(count, i + 100); ++k)
                batch.puts.push_back(
                    {"/coreos.com/network/subnets/" + key_of(k),
                     lease_text("192.168." + std::to_string(k / 250) + "." + std::to_string(k % 250 + 1))});
            txn(batch);
        }
    }
    EtcdServer server;
    Loop loop;
    SystemClock clock;
    EtcdOptions options;
    std::unique_ptr<EtcdClient> client;
};

double ms_since(SteadyTime then)
{
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - then).count();
}

} // namespace

TEST_CASE_FIXTURE(Speed, "etcd speed: 5,000 leases to the snapshot" * doctest::skip())
{
    fill(5000);
    for (int run = 0; run < 3; ++run) {
        Recorder seen;
        const auto store = *make_etcd_store(options, loop, clock);
        const auto begin = std::chrono::steady_clock::now();
        store->watch(seen);
        until([&] { return !seen.snapshots.empty(); });
        CHECK(seen.snapshots[0].leases.size() == 5000);
        std::cout << "5000 leases to snapshot: " << ms_since(begin) << " ms\n";
    }
}

TEST_CASE_FIXTURE(Speed, "etcd speed: an event to its callback at 1,000 leases" * doctest::skip())
{
    fill(1000);
    struct Stamp final : StoreListener {
        void on_snapshot(LeaseSnapshot) override { is_up = true; }
        void on_event(LeaseEvent) override { at = std::chrono::steady_clock::now(); }
        void on_own_lease(Lease) override {}
        void on_health(std::optional<Error>) override {}
        bool is_up = false;
        SteadyTime at{};
    } seen;
    const auto store = *make_etcd_store(options, loop, clock);
    store->watch(seen);
    until([&] { return seen.is_up; });
    std::vector<double> took;
    for (int i = 0; i < 300; ++i) {
        seen.at = {};
        const auto begin = std::chrono::steady_clock::now();
        txn({{},
             {{"/coreos.com/network/subnets/" + key_of(i), lease_text("192.0.2." + std::to_string(i % 250 + 1))}},
             {}});
        until([&] { return seen.at != SteadyTime{}; });
        took.push_back(std::chrono::duration<double, std::milli>(seen.at - begin).count());
    }
    std::sort(took.begin(), took.end());
    std::cout << "put sent to callback: p50 " << took[150] << " ms, p99 " << took[297] << " ms\n";
}
