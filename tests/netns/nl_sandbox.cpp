// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/netns/nl_sandbox.hpp"

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>

namespace twill::test {
namespace {

Result<nl::Socket> enter()
{
    if (::unshare(CLONE_NEWNET) != 0) return Error{errno, "unshare"};
    return nl::Socket::open();
}

std::string snapshot()
{
    // NOARP entries are the kernel's own notes on multicast groups and come and go by themselves.
    return output("ip -o -d link; ip -o -d addr; ip -d -4 route show table all; ip -d -6 route show table all; "
                  "ip neigh show nud all | grep -v NOARP; ip rule; ip -6 rule; bridge fdb; tc qdisc; "
                  "cd /proc/sys/net && grep -r . ipv4/conf ipv6/conf 2>/dev/null | grep -v stable_secret | sort");
}

std::string difference(const std::string& before, const std::string& after)
{
    std::map<std::string, int> count;
    std::istringstream old{before};
    std::istringstream now{after};
    for (std::string line; std::getline(old, line);) --count[line];
    for (std::string line; std::getline(now, line);) ++count[line];
    std::string found;
    for (const auto& [line, sum] : count)
        if (sum != 0) found += (sum < 0 ? "-" : "+") + line + "\n";
    return found;
}

} // namespace

Namespace::Namespace() : socket_(enter())
{
    REQUIRE(socket_);
    shell("ip link set lo up");
}

void shell(const std::string& command)
{
    INFO(command);
    REQUIRE(std::system(command.c_str()) == 0);
}

std::string output(const std::string& command)
{
    struct Close {
        void operator()(FILE* pipe) const noexcept { ::pclose(pipe); }
    };
    const std::unique_ptr<FILE, Close> pipe{::popen(command.c_str(), "r")};
    REQUIRE(pipe);
    std::string text;
    std::array<char, 4096> part{};
    while (const std::size_t size = std::fread(part.data(), 1, part.size(), pipe.get())) text.append(part.data(), size);
    return text;
}

std::string everything()
{
    std::string last = snapshot();
    for (int i = 0; i < 100; ++i) {
        ::usleep(50'000);
        std::string now = snapshot();
        if (now == last && now.find("LOWERLAYERDOWN") == std::string::npos) return now;
        last = std::move(now);
    }
    return last;
}

std::string difference_from(const std::string& before)
{
    std::string found = difference(before, snapshot());
    for (int i = 0; i < 60 && !found.empty(); ++i) {
        ::usleep(50'000);
        found = difference(before, snapshot());
    }
    return found;
}

bool run_until(Loop& loop, const std::function<bool()>& is_reached)
{
    bool is_done = false;
    int ticks = 0;
    Timer tick{loop};
    tick.every(std::chrono::milliseconds{5}, [&] {
        is_done = is_reached();
        if (is_done || ++ticks > 1000) loop.stop();
    });
    loop.run();
    return is_done;
}

void run_idle(Loop& loop)
{
    int ticks = 0;
    (void)run_until(loop, [&] { return ++ticks > 20; });
}

} // namespace twill::test

int main(int argc, char** argv)
{
    if (::geteuid() != 0 || ::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        std::fprintf(stderr, "skipped: needs root, to make network namespaces\n");
        return 77;
    }
    if (std::system("ip link add tw-probe type vxlan external dstport 8472 2>/dev/null && ip link del tw-probe && "
                    "ip link add tw-probe type bridge && ip link del tw-probe && "
                    "ip link add tw-probe type veth peer tw-probe2 && ip link del tw-probe") != 0) {
        std::fprintf(stderr, "skipped: needs iproute2 and a kernel with vxlan, bridge and veth\n");
        return 77;
    }
    return doctest::Context(argc, argv).run();
}
