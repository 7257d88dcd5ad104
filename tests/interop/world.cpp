// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/world.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "maps/pins.hpp"
#include "tests/interop/cluster.hpp"

namespace twill::interop {
namespace {

using namespace test;

constexpr char kMark[] = "twill marks what is behind";
constexpr std::size_t kMarkBytes = sizeof(kMark) - 1 + sizeof(std::uint64_t);

Error failed(const std::string& what)
{
    const int code = errno;
    return {code, what + ": " + std::strerror(code)};
}

Payload mark(std::uint64_t serial)
{
    Payload payload;
    payload.bytes.assign(kMark, kMark + sizeof(kMark) - 1);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&serial);
    payload.bytes.insert(payload.bytes.end(), bytes, bytes + sizeof(serial));
    return payload;
}

/// The serial of a marked packet.
std::optional<std::uint64_t> mark_of(const Bytes& frame)
{
    if (frame.size() < kMarkBytes) return std::nullopt;
    const std::uint8_t* at = frame.data() + frame.size() - kMarkBytes;
    if (std::memcmp(at, kMark, sizeof(kMark) - 1) != 0) return std::nullopt;
    std::uint64_t serial = 0;
    std::memcpy(&serial, at + sizeof(kMark) - 1, sizeof(serial));
    return serial;
}

/// What a node says of its own accord: ARP, neighbour discovery, multicast membership.
bool is_noise(const Bytes& frame)
{
    if (frame.size() < 14) return false;
    const unsigned type = static_cast<unsigned>(frame[12]) << 8U | frame[13];
    if (type == 0x0806) return true;
    if (type != 0x86dd || frame.size() < 54) return false;
    static const Bytes kNobody(16, 0);
    const bool is_link_local = frame[22] == 0xfe && (frame[23] & 0xc0U) == 0x80;
    return is_link_local || std::equal(kNobody.begin(), kNobody.end(), frame.begin() + 22);
}

double time_scale()
{
    const char* text = std::getenv("TWILL_TIME_SCALE");
    return text != nullptr ? std::max(1.0, std::atof(text)) : 1.0;
}

/// With an option no program but the kernel's stack carries it.
Layer marked_ip(char from, char to, bool odd)
{
    Ip4 v4{.src = pod_ip(from, Family::v4, 2), .dst = pod_ip(to, Family::v4, 2)};
    if (odd) v4.options = {1, 1, 1, 1};
    return v4;
}

} // namespace

Result<World> World::open(const std::string& lab, const std::string& name, char node, const std::string& bpf_root)
{
    World world;
    world.name_ = name;
    world.node_ = node;
    world.is_twill_ = !bpf_root.empty();
    for (const auto& [port, suffix] : {std::pair(&world.wire_, ""), {&world.p_, "p"}, {&world.q_, "q"}}) {
        TWILL_TRY_AS(opened, Port::open(name + suffix));
        *port = std::move(opened);
    }
    if (world.is_twill_) {
        const std::string path = PinDir(bpf_root).map("tw_reasons");
        world.reasons_.reset(bpf_obj_get(path.c_str()));
        if (!world.reasons_) return failed("map " + path);
    }
    TWILL_TRY(world.enter(lab));
    return world;
}

/// Sockets and files of the node's own namespace.
Result<> World::enter(const std::string& lab)
{
    const Fd home{::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)};
    const std::string path = "/run/netns/twl-" + lab + "-" + name_;
    const Fd away{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!home || !away || ::setns(away.get(), CLONE_NEWNET) != 0) return failed("namespace " + path);
    raw4_.reset(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    raw6_.reset(::socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    conntrack_.reset(::open("/proc/thread-self/net/stat/nf_conntrack", O_RDONLY | O_CLOEXEC));
    const bool is_complete = raw4_ && raw6_ && conntrack_;
    const auto why = failed("sockets and conntrack statistics of " + name_);
    if (::setns(home.get(), CLONE_NEWNET) != 0) return failed("way back from " + path);
    if (!is_complete) return why;
    return Ok{};
}

int World::send(const Packet& packet)
{
    switch (packet.origin) {
    case Origin::pod_p:
        return p_.send(packet.bytes, packet.offload);
    case Origin::pod_q:
        return q_.send(packet.bytes, packet.offload);
    case Origin::wire:
        return wire_.send(packet.bytes, packet.offload);
    case Origin::host:
        break;
    }
    // The kernel takes the destination from the address, the rest from the header.
    if (packet.bytes[0] >> 4U == 4) {
        sockaddr_in to{};
        to.sin_family = AF_INET;
        std::memcpy(&to.sin_addr, packet.bytes.data() + 16, 4);
        return ::sendto(raw4_.get(), packet.bytes.data(), packet.bytes.size(), 0,
                        reinterpret_cast<const sockaddr*>(&to), sizeof(to)) < 0
                   ? errno
                   : 0;
    }
    sockaddr_in6 to{};
    to.sin6_family = AF_INET6;
    std::memcpy(&to.sin6_addr, packet.bytes.data() + 24, 16);
    return ::sendto(raw6_.get(), packet.bytes.data(), packet.bytes.size(), 0, reinterpret_cast<const sockaddr*>(&to),
                    sizeof(to)) < 0
               ? errno
               : 0;
}

/// One marked packet for each queue that a packet may wait in: carried by the programs, given to the stack, and for
/// what the wire brings, decapsulated by the kernel.
void World::send_marks(Origin origin)
{
    ++serial_;
    const Udp udp{.sport = 9, .dport = 9};
    if (origin != Origin::wire) {
        for (const bool odd : {false, true})
            (void)p_.send(build({Eth{gateway_mac(node_, 'p'), pod_mac(node_, 'p')},
                                 marked_ip(node_, node_ == 'a' ? 'b' : 'a', odd), udp, mark(serial_)}));
        marks_missing_ = 2;
        return;
    }
    const char peer = node_ == 'a' ? 'b' : 'a';
    for (int kind = 0; kind < 3; ++kind) {
        Ip4 outer{.src = public_ip(peer, Family::v4), .dst = public_ip(node_, Family::v4)};
        if (kind == 2) outer.options = {1, 1, 1, 1};
        (void)wire_.send(
            build({Eth{wire_mac(node_), far_mac()}, outer, Udp{50000, kOverlayPort}, Vxlan{},
                   Eth{vtep_mac(node_), vtep_mac(peer)}, marked_ip(peer, node_, kind == 1), udp, mark(serial_)}));
    }
    marks_missing_ = 3;
}

void World::take(char name, Port& port, std::vector<Frame>& out)
{
    while (auto frame = port.receive()) {
        if (const auto serial = mark_of(*frame)) {
            if (*serial == serial_ && marks_missing_ > 0) --marks_missing_;
        } else if (!is_noise(*frame)) {
            out.push_back({name, std::move(*frame)});
        }
    }
}

bool World::collect(std::vector<Frame>& out)
{
    take('w', wire_, out);
    take('p', p_, out);
    take('q', q_, out);
    return marks_missing_ == 0;
}

Result<std::vector<Frame>> World::exchange(const Packet& packet)
{
    using Clock = std::chrono::steady_clock;
    std::vector<Frame> out;
    // A frame that no interface takes is not sent: nothing comes out, in any world.
    (void)send(packet);
    send_marks(packet.origin);
    const auto deadline = Clock::now() + std::chrono::duration<double>(10 * time_scale());
    while (!collect(out)) {
        if (Clock::now() > deadline)
            return Error{ETIMEDOUT, name_ + ": " + std::to_string(marks_missing_) + " marked packets did not come out"};
        std::array<pollfd, 3> ready = {pollfd{wire_.fd(), POLLIN, 0}, pollfd{p_.fd(), POLLIN, 0},
                                       pollfd{q_.fd(), POLLIN, 0}};
        (void)::poll(ready.data(), ready.size(), 100);
    }
    return out;
}

World::Reasons World::reasons() const
{
    static const auto cpus = static_cast<std::size_t>(std::max(1, libbpf_num_possible_cpus()));
    Reasons reasons{};
    if (!reasons_) return reasons;
    std::vector<tw_reason_count> slots(cpus * TW_R__MAX);
    std::array<std::uint32_t, TW_R__MAX> keys{};
    std::uint32_t count = TW_R__MAX, next = 0;
    DECLARE_LIBBPF_OPTS(bpf_map_batch_opts, options);
    if (bpf_map_lookup_batch(reasons_.get(), nullptr, &next, keys.data(), slots.data(), &count, &options) != 0 &&
        errno != ENOENT)
        return reasons;
    for (std::size_t reason = 0; reason < count; ++reason)
        for (std::size_t cpu = 0; cpu < cpus; ++cpu) {
            std::array<std::uint64_t, TW_HOOK__MAX> slot{};
            std::memcpy(slot.data(), &slots[reason * cpus + cpu], sizeof(slot));
            for (std::size_t hook = 0; hook < slot.size(); ++hook) reasons[keys[reason]][hook] += slot[hook];
        }
    return reasons;
}

/// A table with a line for each CPU, numbers in hex. Broken ICMP counts as "icmp_error" there, the rest as "invalid".
std::uint64_t World::invalid() const
{
    std::array<char, 1 << 14> text{};
    const ssize_t got = ::pread(conntrack_.get(), text.data(), text.size() - 1, 0);
    if (got <= 0) return 0;
    std::istringstream lines{text.data()};
    std::string line, word;
    std::getline(lines, line);
    std::vector<bool> wanted;
    for (std::istringstream header{line}; header >> word;) wanted.push_back(word == "invalid" || word == "icmp_error");
    std::uint64_t sum = 0;
    while (std::getline(lines, line)) {
        std::istringstream row{line};
        for (std::size_t i = 0; i < wanted.size() && row >> word; ++i)
            if (wanted[i]) sum += std::stoull(word, nullptr, 16);
    }
    return sum;
}

} // namespace twill::interop
