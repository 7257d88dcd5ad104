// SPDX-License-Identifier: Apache-2.0
// tw-interop-tap: what stands between a pod and a virtual machine in it. Makes tap0 here and tap0 in the machine's
// namespace, and carries frames between the two. Without --offload it is a reader that knows nothing of segments and
// unfinished checksums: every frame must be of a length that the interface sends, and every checksum in it must hold.
// With
// --offload it passes the kernel's offload header on, as a virtual machine with a modern driver.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "tests/support/packet.hpp"
#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill::interop {
namespace {

#ifndef TUN_F_USO4
constexpr unsigned TUN_F_USO4 = 0x20, TUN_F_USO6 = 0x40;
#endif

constexpr std::size_t kOffloadHeader = 10;  // struct virtio_net_hdr
constexpr std::size_t kLongest = 1500 + 14; // a frame that needs no segmentation
volatile std::sig_atomic_t g_stop = 0;

Error failed(const std::string& what)
{
    const int code = errno;
    return {code, what + ": " + std::strerror(code)};
}

Result<Fd> make_tap(const std::string& name, bool is_offloaded)
{
    Fd fd{::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)};
    if (!fd) return failed("/dev/net/tun");
    ifreq request{};
    std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof(request.ifr_name) - 1));
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | (is_offloaded ? IFF_VNET_HDR : 0));
    if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return failed("tap " + name);
    const unsigned all = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    // Kernels before 6.2 cannot leave UDP segments to a tap.
    if (is_offloaded && ::ioctl(fd.get(), TUNSETOFFLOAD, all | TUN_F_USO4 | TUN_F_USO6) != 0 &&
        ::ioctl(fd.get(), TUNSETOFFLOAD, all) != 0)
        return failed("offloads of tap " + name);
    return fd;
}

Result<Fd> make_tap_in(const std::string& netns, const std::string& name, bool is_offloaded)
{
    const Fd home{::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)};
    const Fd away{::open(netns.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!home || !away || ::setns(away.get(), CLONE_NEWNET) != 0) return failed("namespace " + netns);
    auto tap = make_tap(name, is_offloaded);
    if (::setns(home.get(), CLONE_NEWNET) != 0) return failed("way back from " + netns);
    return tap;
}

struct Counts {
    unsigned long frames = 0, supers = 0, wrong = 0;
};

/// Carries all frames that wait in `from`. Only what comes to the machine is judged: the machine's own checksums may
/// rest on what it was promised.
void relay(const Fd& from, const Fd& to, bool is_offloaded, bool is_judged, Counts& counts)
{
    static std::array<std::uint8_t, 1 << 17> buffer;
    for (;;) {
        const ssize_t got = ::read(from.get(), buffer.data(), buffer.size());
        if (got <= 0) return;
        const auto size = static_cast<std::size_t>(got);
        if (is_judged) {
            ++counts.frames;
            if (is_offloaded && buffer[1] != 0) ++counts.supers;
            const auto wrong = is_offloaded ? std::nullopt : test::bad_checksum({buffer.data(), buffer.data() + size});
            if (wrong || size > kLongest + (is_offloaded ? kOffloadHeader + 65536 : 0)) {
                if (++counts.wrong <= 5)
                    std::fprintf(stderr, "frame of %zu bytes: %s\n%s", size, wrong.value_or("too long").c_str(),
                                 test::describe({buffer.data(), buffer.data() + size}).c_str());
            }
        }
        // A full queue of the other side loses the frame, as a wire would.
        if (::write(to.get(), buffer.data(), size) < 0 && errno != EAGAIN && errno != EIO && errno != ENOBUFS) return;
    }
}

Result<Counts> run(const std::string& netns, const std::string& name, bool is_offloaded)
{
    TWILL_TRY_AS(here, make_tap(name, is_offloaded));
    TWILL_TRY_AS(there, make_tap_in(netns, name, is_offloaded));
    std::puts("ready");
    std::fflush(stdout);
    Counts counts;
    while (g_stop == 0) {
        std::array<pollfd, 2> ready = {pollfd{here.get(), POLLIN, 0}, pollfd{there.get(), POLLIN, 0}};
        if (::poll(ready.data(), ready.size(), 200) <= 0) continue;
        relay(here, there, is_offloaded, true, counts);
        relay(there, here, is_offloaded, false, counts);
    }
    return counts;
}

} // namespace
} // namespace twill::interop

int main(int argc, char** argv)
{
    using namespace twill::interop;
    const std::vector<std::string> args{argv + 1, argv + argc};
    if (args.size() < 2 || args.size() > 3 || (args.size() == 3 && args[2] != "--offload")) {
        std::fputs("usage: tw-interop-tap NETNS-FILE INTERFACE [--offload]\n", stderr);
        return 2;
    }
    struct sigaction action {};
    action.sa_handler = [](int) { g_stop = 1; };
    ::sigaction(SIGTERM, &action, nullptr);
    ::sigaction(SIGINT, &action, nullptr);
    const auto counts = run(args[0], args[1], args.size() == 3);
    if (!counts) {
        std::fprintf(stderr, "tw-interop-tap: %s\n", counts.error().what.c_str());
        return 1;
    }
    std::printf("frames=%lu supers=%lu wrong=%lu\n", counts->frames, counts->supers, counts->wrong);
    return counts->wrong == 0 ? 0 : 1;
}
