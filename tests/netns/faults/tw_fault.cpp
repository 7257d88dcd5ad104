// SPDX-License-Identifier: Apache-2.0
// tw-fault: what the fault scripts need and no tool of Debian 12 does: forged VXLAN frames, many flows at once, and TCX
// hooks, which its bpftool does not know. Run it inside the namespace in question.
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/support/packet.hpp"
#include "twill/fd.hpp"

using namespace twill;
using namespace twill::test;

namespace {

constexpr const char* kUsage = R"(usage:
  tw-fault vxlan INTERFACE name=value...   sends VXLAN frames; eth_dst eth_src outer_src outer_dst inner_eth_dst
                                           inner_eth_src inner_src inner_dst, and: vni flags reserved port size ttl
                                           count fragments=1 (outer ones) tag=ID (802.1Q) ext=TYPE (IPv6 outer)
  tw-fault flows INTERFACE name=value...   one UDP packet for each of `count` flows; eth_dst eth_src src dst
  tw-fault tcx INTERFACE ingress|egress    names of the programs there, in their order
  tw-fault tcx-attach INTERFACE ingress|egress first|last PROGRAM-PIN LINK-PIN
)";

[[noreturn]] void die(const std::string& what)
{
    std::fprintf(stderr, "tw-fault: %s\n", what.c_str());
    std::exit(1);
}

[[noreturn]] void die_errno(const std::string& what) { die(what + ": " + std::strerror(errno)); }

unsigned index_of(const std::string& interface)
{
    const unsigned index = if_nametoindex(interface.c_str());
    if (index == 0) die_errno(interface);
    return index;
}

/// name=value arguments; every one must be asked for.
class Arguments {
public:
    explicit Arguments(const std::vector<std::string>& words)
    {
        for (const auto& word : words) {
            const auto split = word.find('=');
            if (split == word.npos) die(word + ": want name=value");
            values_[word.substr(0, split)] = word.substr(split + 1);
        }
    }
    std::string text(const std::string& name)
    {
        const auto found = values_.extract(name);
        if (!found) die(name + " is missing");
        return found.mapped();
    }
    unsigned number(const std::string& name, unsigned fallback)
    {
        const auto found = values_.extract(name);
        return found ? static_cast<unsigned>(std::strtoul(found.mapped().c_str(), nullptr, 0)) : fallback;
    }
    void end() const
    {
        if (!values_.empty()) die(values_.begin()->first + ": no such argument");
    }

private:
    std::map<std::string, std::string> values_;
};

/// Sends whole frames out of an interface.
class Wire {
public:
    explicit Wire(const std::string& interface) : fd_(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0))
    {
        if (!fd_) die_errno("packet socket");
        to_.sll_family = AF_PACKET;
        to_.sll_ifindex = static_cast<int>(index_of(interface));
        to_.sll_halen = ETH_ALEN;
    }
    void send(const Bytes& frame) const
    {
        const auto* to = reinterpret_cast<const sockaddr*>(&to_);
        while (sendto(fd_.get(), frame.data(), frame.size(), 0, to, sizeof(to_)) < 0)
            if (errno != ENOBUFS && errno != EINTR) die_errno("send");
    }

private:
    Fd fd_;
    sockaddr_ll to_{};
};

/// Cuts the IP packet of a frame in two (IPv4: RFC 791, IPv6: RFC 8200 section 4.5, whose fragment header is made
/// here).
std::array<Bytes, 2> fragments_of(const Bytes& frame)
{
    constexpr std::size_t kEth = 14;
    const bool is_v6 = frame[12] == 0x86;
    const std::size_t header = kEth + (is_v6 ? 40 : 20);
    const std::size_t cut = (frame.size() - header) / 2 / 8 * 8;
    std::array<Bytes, 2> parts;
    for (std::size_t i = 0; i < 2; ++i) {
        const auto body = frame.begin() + static_cast<std::ptrdiff_t>(header + (i == 0 ? 0 : cut));
        const auto body_end = i == 0 ? body + static_cast<std::ptrdiff_t>(cut) : frame.end();
        const unsigned offset = i == 0 ? 0 : static_cast<unsigned>(cut / 8);
        Bytes& part = parts[i];
        part.assign(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(header));
        if (is_v6) {
            const unsigned field = offset << 3 | (i == 0 ? 1U : 0U);
            const std::uint8_t fragment[8] = {part[kEth + 6],
                                              0,
                                              static_cast<std::uint8_t>(field >> 8),
                                              static_cast<std::uint8_t>(field),
                                              0x74,
                                              1,
                                              2,
                                              3};
            part[kEth + 6] = 44;
            part.insert(part.end(), std::begin(fragment), std::end(fragment));
        } else {
            const unsigned field = offset | (i == 0 ? 0x2000U : 0U);
            part[kEth + 6] = static_cast<std::uint8_t>(field >> 8);
            part[kEth + 7] = static_cast<std::uint8_t>(field);
        }
        part.insert(part.end(), body, body_end);
        const std::size_t length = part.size() - kEth - (is_v6 ? 40 : 0);
        const std::size_t at = kEth + (is_v6 ? 4 : 2);
        part[at] = static_cast<std::uint8_t>(length >> 8);
        part[at + 1] = static_cast<std::uint8_t>(length);
        if (is_v6) continue;
        part[kEth + 10] = part[kEth + 11] = 0;
        const auto sum = static_cast<std::uint16_t>(~ones_sum(part.data() + kEth, 20));
        part[kEth + 10] = static_cast<std::uint8_t>(sum >> 8);
        part[kEth + 11] = static_cast<std::uint8_t>(sum);
    }
    return parts;
}

int send_vxlan(const std::string& interface, Arguments args)
{
    const Ip outer_src = ip(args.text("outer_src")), inner_src = ip(args.text("inner_src"));
    Layers layers = {Eth{mac(args.text("eth_dst")), mac(args.text("eth_src"))}};
    if (const unsigned tag = args.number("tag", 0xffff); tag != 0xffff)
        layers.push_back(Vlan{static_cast<std::uint16_t>(tag)});
    layers.push_back(ip_layer(outer_src, ip(args.text("outer_dst"))));
    const unsigned extension = args.number("ext", 0xffff);
    if (auto* v6 = std::get_if<Ip6>(&layers.back()); v6 != nullptr && extension != 0xffff)
        v6->ext.push_back(Ext6{static_cast<std::uint8_t>(extension)});
    layers.push_back(Udp{.sport = 45000, .dport = static_cast<std::uint16_t>(args.number("port", 8472))});
    Vxlan vxlan;
    vxlan.vni = args.number("vni", 1);
    vxlan.flags = static_cast<std::uint8_t>(args.number("flags", 8));
    vxlan.reserved = args.number("reserved", 0);
    layers.push_back(vxlan);
    layers.push_back(Eth{mac(args.text("inner_eth_dst")), mac(args.text("inner_eth_src"))});
    layers.push_back(
        ip_layer(inner_src, ip(args.text("inner_dst")), static_cast<std::uint8_t>(args.number("ttl", 64))));
    layers.push_back(Udp{.sport = 40000, .dport = 7777});
    layers.push_back(Payload::of(args.number("size", 64)));
    const Bytes frame = build(layers);
    const unsigned count = args.number("count", 1);
    const bool in_fragments = args.number("fragments", 0) != 0;
    args.end();
    const Wire wire(interface);
    for (unsigned i = 0; i < count; ++i) {
        if (!in_fragments) {
            wire.send(frame);
            continue;
        }
        for (Bytes part : fragments_of(frame)) {
            part[outer_src.is_v4() ? 14 + 5 : 14 + 40 + 7] += static_cast<std::uint8_t>(outer_src.is_v4() ? 0 : i);
            wire.send(part);
        }
    }
    return 0;
}

int send_flows(const std::string& interface, Arguments args)
{
    const Layers head = {Eth{mac(args.text("eth_dst")), mac(args.text("eth_src"))},
                         ip_layer(ip(args.text("src")), ip(args.text("dst")))};
    const unsigned count = args.number("count", 1);
    args.end();
    const Wire wire(interface);
    for (unsigned i = 0; i < count; ++i)
        wire.send(build(head + Layers{Udp{.sport = static_cast<std::uint16_t>(1024 + i % 60000),
                                          .dport = static_cast<std::uint16_t>(7000 + i / 60000)},
                                      Payload::of(8)}));
    return 0;
}

// --- TCX (6.6) in terms of bpf(2): headers and libbpf of Debian 12 are older ---------------------------------------

constexpr unsigned kQueryAnchor = 0;
constexpr unsigned kBefore = 1U << 3; // BPF_F_BEFORE
constexpr unsigned kAfter = 1U << 4;  // BPF_F_AFTER

unsigned tcx_side(const std::string& side)
{
    if (side == "ingress") return 46; // BPF_TCX_INGRESS
    if (side == "egress") return 47;
    die(side + ": ingress or egress");
}

/// Room for the newer, longer unions of union bpf_attr.
using Attributes = std::array<std::uint32_t, 40>;

long bpf(int command, Attributes& attributes)
{
    return syscall(SYS_bpf, command, attributes.data(), sizeof(attributes));
}

void put_pointer(Attributes& attributes, std::size_t at, const void* pointer)
{
    const auto value = reinterpret_cast<std::uint64_t>(pointer);
    std::memcpy(&attributes[at], &value, sizeof(value));
}

Fd program_by_id(std::uint32_t id)
{
    Attributes attributes{};
    attributes[0] = id;
    return Fd(static_cast<int>(bpf(BPF_PROG_GET_FD_BY_ID, attributes)));
}

Fd open_pin(const std::string& path)
{
    Attributes attributes{};
    put_pointer(attributes, 0, path.c_str());
    Fd fd(static_cast<int>(bpf(BPF_OBJ_GET, attributes)));
    if (!fd) die_errno(path);
    return fd;
}

int list_tcx(const std::string& interface, const std::string& side)
{
    std::array<std::uint32_t, 64> ids{};
    Attributes attributes{}; // target_ifindex, attach_type, query_flags, attach_flags, prog_ids, count
    attributes[0] = index_of(interface);
    attributes[1] = tcx_side(side);
    attributes[2] = kQueryAnchor;
    put_pointer(attributes, 4, ids.data());
    attributes[6] = ids.size();
    if (bpf(BPF_PROG_QUERY, attributes) != 0) {
        if (errno == ENOENT) return 0;
        die_errno("query " + interface);
    }
    for (std::uint32_t i = 0; i < attributes[6]; ++i) {
        const Fd program = program_by_id(ids[i]);
        bpf_prog_info info{};
        Attributes ask{}; // bpf_fd, info_len, info
        ask[0] = static_cast<std::uint32_t>(program.get());
        ask[1] = sizeof(info);
        put_pointer(ask, 2, &info);
        if (!program || bpf(BPF_OBJ_GET_INFO_BY_FD, ask) != 0) continue; // gone meanwhile
        std::printf("%s\n", info.name);
    }
    return 0;
}

int attach_tcx(const std::vector<std::string>& args)
{
    const Fd program = open_pin(args[3]);
    Attributes attributes{}; // prog_fd, target_ifindex, attach_type, flags, relative_fd, padding, expected_revision
    attributes[0] = static_cast<std::uint32_t>(program.get());
    attributes[1] = index_of(args[0]);
    attributes[2] = tcx_side(args[1]);
    if (args[2] != "first" && args[2] != "last") die(args[2] + ": first or last");
    attributes[3] = args[2] == "first" ? kBefore : kAfter;
    const Fd link(static_cast<int>(bpf(BPF_LINK_CREATE, attributes)));
    if (!link) die_errno("attach to " + args[0]);
    Attributes pin{}; // pathname, bpf_fd
    put_pointer(pin, 0, args[4].c_str());
    pin[2] = static_cast<std::uint32_t>(link.get());
    if (bpf(BPF_OBJ_PIN, pin) != 0) die_errno("pin " + args[4]);
    return 0;
}

} // namespace

int main(int argc, char** argv)
{
    const std::vector<std::string> args(argv + 1, argv + argc);
    const std::string command = args.empty() ? "" : args[0];
    if (command == "vxlan" && args.size() > 2) return send_vxlan(args[1], Arguments({args.begin() + 2, args.end()}));
    if (command == "flows" && args.size() > 2) return send_flows(args[1], Arguments({args.begin() + 2, args.end()}));
    if (command == "tcx" && args.size() == 3) return list_tcx(args[1], args[2]);
    if (command == "tcx-attach" && args.size() == 6) return attach_tcx({args.begin() + 1, args.end()});
    std::fputs(kUsage, stderr);
    return 2;
}
