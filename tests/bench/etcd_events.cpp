// SPDX-License-Identifier: Apache-2.0
// bench_etcd: writes leases into an etcd, at once, one by one or at a rate, and looks how long each takes to a node's
// map.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "agent/loop/loop.hpp"
#include "agent/store/etcd_client.hpp"
#include "agent/store/etcd_codec.hpp"
#include "agent/store/etcd_view.hpp"
#include "maps/abi/peer.h"
#include "maps/codec.hpp"
#include "maps/map.hpp"

using namespace twill;
using Steady = std::chrono::steady_clock;

namespace {

constexpr auto kLimit = std::chrono::seconds(30);
constexpr auto kPause = std::chrono::microseconds(50); // leaves the CPU to the agent
constexpr int kBatch = 100;                            // etcd takes 128 operations a Txn

std::string pods_of(int i) { return "10." + std::to_string(i / 256) + "." + std::to_string(i % 256) + ".0"; }

EtcdKv lease_of(const EtcdKeys& keys, int i)
{
    const std::string node =
        std::to_string(i / 62500) + "." + std::to_string(i / 250 % 250) + "." + std::to_string(i % 250 + 1);
    EtcdKv kv;
    kv.key = keys.lease(pods_of(i) + "-24");
    kv.value = R"({"PublicIP":"203.)" + node +
               R"(","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:00:00:00:00:01"}})";
    return kv;
}

class Writer {
public:
    explicit Writer(const std::string& url) : client_(loop_, options(url)) {}

    /// Waits for etcd's answer.
    Result<> txn(const EtcdTxn& txn)
    {
        Result<> outcome = Ok{};
        const auto call = client_.unary("KV/Txn", encode_txn(txn), [&](const Result<std::string>& answer) {
            if (!answer) outcome = answer.error();
            loop_.stop();
        });
        loop_.run();
        return outcome;
    }
    const EtcdKeys keys{EtcdOptions{}.prefix};

private:
    static EtcdOptions options(const std::string& url)
    {
        EtcdOptions options;
        options.endpoints = {url};
        return options;
    }
    Loop loop_;
    EtcdClient client_;
};

Result<> fill(Writer& writer, int first, int last)
{
    for (int i = first; i <= last; i += kBatch) {
        EtcdTxn batch;
        for (int k = i; k <= std::min(last, i + kBatch - 1); ++k) batch.puts.push_back(lease_of(writer.keys, k));
        TWILL_TRY(writer.txn(batch));
    }
    return Ok{};
}

double ms(Steady::duration passed) { return std::chrono::duration<double, std::milli>(passed).count(); }

/// For each new lease: milliseconds from etcd's answer, and from the sending, until the peer is in the map.
Result<> events(Writer& writer, int first, int last, const std::string& pin)
{
    using Peers = Map<tw_cidr_v4, tw_peer>;
    TWILL_TRY_AS(peers, Peers::open(pin));
    for (int i = first; i <= last; ++i) {
        const auto pods = Cidr::parse(pods_of(i) + "/24");
        if (!pods) return pods.error();
        EtcdTxn txn;
        txn.puts.push_back(lease_of(writer.keys, i));
        const auto sent = Steady::now();
        TWILL_TRY(writer.txn(txn));
        const auto answered = Steady::now();
        for (;;) {
            TWILL_TRY_AS(found, peers.get(to_key_v4(*pods)));
            const auto now = Steady::now();
            if (found) {
                std::printf("%.3f %.3f\n", ms(now - answered), ms(now - sent));
                break;
            }
            if (now - answered > kLimit) return Error{ETIMEDOUT, pods->to_string() + ": not in the map after 30 s"};
            std::this_thread::sleep_for(kPause);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return Ok{};
}

/// The same leases written again, each as its node would renew it, evenly over `seconds`.
Result<> renew(Writer& writer, int first, int last, int seconds)
{
    const auto start = Steady::now();
    const auto step = std::chrono::nanoseconds(std::chrono::seconds(seconds)) / (last - first + 1);
    for (int i = first; i <= last; ++i) {
        std::this_thread::sleep_until(start + step * (i - first));
        EtcdTxn txn;
        txn.puts.push_back(lease_of(writer.keys, i));
        TWILL_TRY(writer.txn(txn));
    }
    return Ok{};
}

int usage()
{
    std::fputs(
        "usage: bench_etcd URL fill FIRST LAST             leases of these numbers, at once\n"
        "       bench_etcd URL events FIRST LAST PIN       one by one; ms from etcd's answer, and from the sending,\n"
        "                                                  until each is in the map tw_peers_v4 at PIN\n"
        "       bench_etcd URL renew FIRST LAST SECONDS    written again, evenly over that time\n",
        stderr);
    return 2;
}

bool number(const std::string& text, int& to)
{
    const auto end = text.data() + text.size();
    return std::from_chars(text.data(), end, to).ptr == end && to > 0 && to < 65536;
}

} // namespace

int main(int argc, char** argv)
{
    const std::vector<std::string> args(argv + 1, argv + argc);
    int first = 0, last = 0, seconds = 0;
    if (args.size() < 4 || !number(args[2], first) || !number(args[3], last) || last < first) return usage();
    Writer writer(args[0]);
    Result<> done = Ok{};
    if (args[1] == "fill" && args.size() == 4)
        done = fill(writer, first, last);
    else if (args[1] == "events" && args.size() == 5)
        done = events(writer, first, last, args[4]);
    else if (args[1] == "renew" && args.size() == 5 && number(args[4], seconds))
        done = renew(writer, first, last, seconds);
    else
        return usage();
    if (!done) std::fprintf(stderr, "bench_etcd: %s\n", done.error().what.c_str());
    return done ? 0 : 1;
}
