// SPDX-License-Identifier: Apache-2.0
// The Kubernetes store at the size of a large cluster: a fake API server in a process of its own, realistic Node
// objects. usage: tw-kube-scale [NODES [BYTES_OF_A_NODE]]. Prints time, CPU and resident memory; checks only that all
// arrive.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "agent/store/kube_store.hpp"
#include "tests/support/fake_kube.hpp"

using namespace twill;
using Seconds = std::chrono::duration<double>;

namespace {

double cpu_seconds()
{
    rusage usage{};
    (void)::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

long status_kb(const std::string& field)
{
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with(field + ":")) return std::atol(line.c_str() + field.size() + 1);
    return 0;
}

test::FakeNode made_node(int i)
{
    const std::string prefix = "flannel.alpha.coreos.com/";
    char mac[18];
    (void)std::snprintf(mac, sizeof(mac), "0a:00:00:00:%02x:%02x", static_cast<unsigned>(i >> 8 & 255),
                        static_cast<unsigned>(i & 255));
    const std::string tail = std::to_string(i / 250 + 1) + "." + std::to_string(i % 250 + 1);
    return {{"10." + std::to_string(64 + i / 256) + "." + std::to_string(i % 256) + ".0/24"},
            {{prefix + "kube-subnet-manager", "true"},
             {prefix + "backend-type", "vxlan"},
             {prefix + "backend-data", std::string(R"({"VNI":1,"VtepMAC":")") + mac + "\"}"},
             {prefix + "public-ip", "172.16." + tail}},
            false,
            0};
}

/// The server: writes its URL, then a heartbeat of every node for each byte that it is sent, and a change at last.
[[noreturn]] void serve(int nodes, std::size_t bytes, int in, int out)
{
    (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
    test::FakeKube server(bytes);
    for (int i = 0; i < nodes; ++i) server.put_node("node-" + std::to_string(100000 + i), made_node(i));
    const std::string url = server.url() + "\n";
    if (::write(out, url.data(), url.size()) < 0) std::_Exit(1);
    char byte = 0;
    while (::read(in, &byte, 1) == 1) {
        server.heartbeats(static_cast<std::size_t>(nodes));
        auto changed = made_node(0);
        changed.annotations["flannel.alpha.coreos.com/public-ip"] = "172.16.255.1";
        server.put_node("node-100000", changed);
    }
    std::_Exit(0);
}

struct Counter final : StoreListener {
    explicit Counter(Loop& used) : loop(used) {}
    void on_snapshot(LeaseSnapshot snapshot) override
    {
        leases = snapshot.leases.size();
        loop.stop();
    }
    void on_event(LeaseEvent) override
    {
        ++events;
        loop.stop();
    }
    void on_own_lease(Lease) override {}
    void on_health(std::optional<Error> trouble) override
    {
        if (trouble) std::fprintf(stderr, "trouble: %s\n", trouble->what.c_str());
    }
    Loop& loop;
    std::size_t leases = 0;
    std::size_t events = 0;
};

} // namespace

int main(int argc, char** argv)
{
    const int nodes = argc > 1 ? std::atoi(argv[1]) : 5000;
    const std::size_t bytes = argc > 2 ? static_cast<std::size_t>(std::atol(argv[2])) : 15000;
    int to_server[2];
    int from_server[2];
    if (::pipe(to_server) != 0 || ::pipe(from_server) != 0) return 1;
    const pid_t child = ::fork();
    if (child == 0) {
        ::close(to_server[1]);
        serve(nodes, bytes, to_server[0], from_server[1]);
    }
    char text[64] = {};
    if (::read(from_server[0], text, sizeof(text) - 1) <= 0) return 1;
    std::string url(text);
    url.pop_back();

    char config[] = "/tmp/twill-kube-scale-XXXXXX";
    ::close(::mkstemp(config));
    std::ofstream(config) << R"({"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}})";
    Loop loop;
    const SystemClock clock;
    KubeOptions options;
    options.api_url = url;
    options.node_name = "none";
    options.net_config_path = config;
    auto store = make_kube_store(options, loop, clock);
    if (!store) return 1;
    Counter counter(loop);
    (*store)->read_config([](const Result<NetConf>&) {});
    const long before_kb = status_kb("VmRSS");
    const auto began = std::chrono::steady_clock::now();
    const double cpu_began = cpu_seconds();
    (*store)->watch(counter);
    Timer limit(loop);
    limit.once(std::chrono::minutes{2}, [&] { loop.stop(); });
    loop.run();
    std::printf("kube.scale: nodes=%d node_bytes=%zu leases=%zu list_s=%.2f own_cpu_s=%.2f rss_kb=%ld peak_kb=%ld "
                "empty_kb=%ld\n",
                nodes, bytes, counter.leases, Seconds(std::chrono::steady_clock::now() - began).count(),
                cpu_seconds() - cpu_began, status_kb("VmRSS"), status_kb("VmHWM"), before_kb);

    const double cpu_beats = cpu_seconds();
    const auto beats_began = std::chrono::steady_clock::now();
    if (::write(to_server[1], "x", 1) != 1) return 1;
    loop.run(); // until the one change after them
    const double cpu = cpu_seconds() - cpu_beats;
    std::printf(
        "kube.scale: heartbeats=%d wall_s=%.2f own_cpu_s=%.3f events=%zu core_percent_at_one_in_5min=%.2f rss_kb=%ld\n",
        nodes, Seconds(std::chrono::steady_clock::now() - beats_began).count(), cpu, counter.events, cpu / 300 * 100,
        status_kb("VmRSS"));
    ::close(to_server[1]);
    (void)::unlink(config);
    (void)::kill(child, SIGKILL);
    (void)::waitpid(child, nullptr, 0);
    return counter.leases == static_cast<std::size_t>(nodes) && counter.events == 1 ? 0 : 1;
}
