// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/nat/world.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <set>

namespace twill::interop::nat {
namespace {

using test::abi;
using test::ip;
using test::Program;

Cidr cidr(const char* text) { return *Cidr::parse(text); }

constexpr std::uint8_t kVtep[6] = {0x0a, 0xaa, 0, 0, 0, 0x10}, kVtepB[6] = {0x0a, 0xaa, 0, 0, 0, 0x11};

tw_peer peer(const Ip& node, tw_mode mode, std::uint32_t wire)
{
    tw_peer value{};
    value.node = abi(node);
    value.nexthop = abi(node);
    value.mode = mode;
    value.wire = wire;
    value.mtu = mode == TW_MODE_ENCAP ? 1430 : 1500;
    value.zero_csum6 = 1;
    std::memcpy(value.vtep_mac, kVtepB, 6);
    return value;
}

tw_cfg config(const Twill& twill, std::uint32_t overlay)
{
    const Ends &four = ends(Family::v4), &six = ends(Family::v6);
    tw_cfg cfg{};
    cfg.cluster_v4 = abi(four.cluster);
    cfg.cluster_v6 = abi(six.cluster);
    cfg.own_v4 = abi(four.own);
    cfg.own_v6 = abi(six.own);
    cfg.node_v4 = abi(four.wire);
    cfg.node_v6 = abi(six.wire);
    cfg.vni = 1;
    cfg.port = 8472;
    cfg.sport_min = 32768;
    cfg.sport_max = 60999;
    cfg.anti_spoof = TW_SPOOF_LOOSE;
    cfg.fast = 1;
    cfg.encap_l2_eth = test::kernel_encapsulates();
    cfg.vxlan_device = 1;
    cfg.check_mtu = test::kernel_has_helper(BPF_FUNC_check_mtu);
    cfg.overlay = cfg.overlay6 = overlay;
    cfg.nat = static_cast<std::uint8_t>(twill.rules);
    cfg.nat_keep = twill.keep;
    cfg.nat_max = twill.max;
    cfg.ct_lookup = twill.conntrack && test::kernel_has("bpf_skb_ct_lookup", "nf_conntrack");
    cfg.nat_notes = !twill.conntrack;
    std::memcpy(cfg.vtep_mac, kVtep, 6);
    std::memcpy(cfg.vtep_mac6, kVtep, 6);
    return cfg;
}

/// Deletes all entries of this namespace. Where there is no ctnetlink they stay: nobody meets them, but for what has no
/// ports.
bool flush_conntrack()
{
    struct {
        nlmsghdr head;
        nfgenmsg message;
    } request{};
    request.head.nlmsg_len = sizeof request;
    request.head.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;
    request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    const Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
    std::array<std::uint8_t, 256> answer{};
    return fd && ::send(fd.get(), &request, sizeof request, 0) > 0 &&
           ::recv(fd.get(), answer.data(), answer.size(), 0) > 0;
}

} // namespace

const Ends& ends(Family family)
{
    static const Ends four{Family::v4,       cidr("10.42.0.0/16"), cidr("10.42.10.0/24"), ip("10.42.10.1"),
                           ip("10.42.10.0"), ip("192.0.2.10"),     ip("198.51.100.10"),   ip("198.18.0.10"),
                           ip("10.42.10.2"), ip("10.42.10.3"),     ip("10.42.11.2"),      ip("10.42.13.2"),
                           ip("10.42.14.2"), ip("203.0.113.9"),    ip("198.51.100.9"),    ip("198.18.0.9"),
                           ip("192.0.2.11"), ip("203.0.113.200"),  ip("224.0.0.251")};
    static const Ends six{Family::v6,
                          cidr("fd00:42::/48"),
                          cidr("fd00:42:0:10::/64"),
                          ip("fd00:42:0:10::1"),
                          ip("fd00:42:0:10::"),
                          ip("2001:db8:1::10"),
                          ip("2001:db8:2::10"),
                          ip("2001:db8:5::10"),
                          ip("fd00:42:0:10::2"),
                          ip("fd00:42:0:10::3"),
                          ip("fd00:42:0:11::2"),
                          ip("fd00:42:0:13::2"),
                          ip("fd00:42:0:14::2"),
                          ip("2001:db8:9::9"),
                          ip("2001:db8:2::9"),
                          ip("2001:db8:5::9"),
                          ip("2001:db8:1::11"),
                          ip("2001:db8:9::200"),
                          ip("ff05::fb")};
    return family == Family::v4 ? four : six;
}

const char* to_string(Where where)
{
    static constexpr const char* kNames[] = {"pod 1", "pod 2", "wire", "second wire"};
    return kNames[static_cast<std::size_t>(where)];
}

World::Inside::Inside(const World& world) : back(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC))
{
    ::setns(world.ns_.get(), CLONE_NEWNET);
}

World::Inside::~Inside() { ::setns(back.get(), CLONE_NEWNET); }

Result<std::unique_ptr<World>> World::open(const std::string& lab, const std::string& name)
{
    std::unique_ptr<World> world(new World);
    world->name_ = name;
    const std::string path = "/run/netns/twl-" + lab + "-" + name;
    world->ns_.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!world->ns_) return Error{errno, path};
    for (const char* suffix : {"p", "q", "", "w"}) {
        TWILL_TRY_AS(port, Port::open(name + suffix, true));
        world->ports_.push_back(std::move(port));
    }
    return world;
}

World::~World() = default;

Result<> World::attach(const Twill& twill)
{
    twill_ = twill;
    const Inside here(*this);
    const std::uint32_t overlay = ::if_nametoindex("twill0");
    TWILL_TRY_AS(dp, test::Dataplane::make(config(twill, overlay), false));
    dp_ = std::move(dp);
    dp_->clear();
    set_peers(::if_nametoindex("eth0"), ::if_nametoindex("eth1"));
    set_addresses();
    set_ports({});
    for (const char* wire : {"eth0", "eth1"}) {
        TWILL_TRY(attach_at(Program::to_wire, wire, false));
        TWILL_TRY(attach_at(Program::from_wire, wire, true));
    }
    TWILL_TRY(attach_at(Program::from_host, "twill0", false));
    return attach_at(Program::from_overlay, "twill0", true);
}

Result<> World::attach_at(Program program, const std::string& interface, bool ingress)
{
    DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = static_cast<int>(::if_nametoindex(interface.c_str())),
                        .attach_point = ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS);
    DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = dp_->fd(program), .handle = 1, .priority = 1);
    opts.flags = BPF_TC_F_REPLACE; // the last run's
    const int rc = bpf_tc_attach(&hook, &opts);
    if (rc != 0) return Error{-rc, std::string("attach ") + test::to_string(program) + " to " + interface};
    return Ok{};
}

void World::set_peers(std::uint32_t eth0, std::uint32_t eth1)
{
    for (const Family family : kFamilies) {
        const Ends& e = ends(family);
        const bool v4 = family == Family::v4;
        const auto pods = [&](unsigned number) {
            const std::string n = std::to_string(number);
            return cidr((v4 ? "10.42." + n + ".0/24" : "fd00:42:0:" + n + "::/64").c_str());
        };
        const auto node = [&](unsigned number, bool second) {
            const std::string n = std::to_string(number);
            if (v4) return ip((second ? "198.51.100." : "192.0.2.") + n);
            return ip((second ? "2001:db8:2::" : "2001:db8:1::") + n);
        };
        dp_->add_peer(pods(11), peer(e.node_b, TW_MODE_ENCAP, eth0));
        dp_->add_peer(pods(13), peer(node(13, false), TW_MODE_DIRECT, eth0));
        dp_->add_peer(pods(14), peer(node(14, true), TW_MODE_DIRECT, eth1));
        dp_->add_node(e.node_b, pods(11), 1);
        dp_->add_node(node(13, false), pods(13), 2);
        dp_->add_node(node(14, true), pods(14), 3);
    }
}

void World::set_addresses()
{
    const Ends &four = ends(Family::v4), &six = ends(Family::v6);
    const auto put = [&](const char* interface, const Ip& v4, const Ip& v6, bool extra) {
        tw_nat_if value{};
        value.v4 = abi(v4);
        value.v6 = abi(v6);
        for (auto& net : value.on_link) net = test::no_net();
        if (extra) {
            value.on_link[0] = abi(cidr("198.18.0.0/24"));
            value.from[0] = abi(four.extra);
            value.on_link[1] = abi(cidr("2001:db8:5::/64"));
            value.from[1] = abi(six.extra);
        }
        const std::uint32_t key = ::if_nametoindex(interface);
        bpf_map_update_elem(dp_->map("tw_nat_ifs"), &key, &value, BPF_ANY);
    };
    put("eth0", four.wire, six.wire, true);
    put("eth1", four.wire2, six.wire2, false);
    put("twill0", four.overlay, six.overlay, false);
    for (const Ends* e : {&four, &six}) {
        tw_cidr_v6 key{.bits = 128, .addr = {}};
        const tw_addr addr = abi(e->excluded);
        std::memcpy(key.addr, &addr, sizeof addr);
        const std::uint32_t one = 1;
        bpf_map_update_elem(dp_->map("tw_nat_except"), &key, &one, BPF_ANY);
    }
}

void World::set_ports(const PortRange& range)
{
    std::array<tw_nat_range, TW_NAT_RANGES> all{};
    for (unsigned port = range.first; port <= range.last; ++port) all[port / 64].ports |= 1ULL << port % 64;
    std::uint32_t blocks = 0;
    for (std::uint32_t i = 0; i < TW_NAT_RANGES; ++i)
        if (all[i].ports != 0) all[blocks++].nth = i;
    for (std::uint32_t i = 0; i < TW_NAT_RANGES; ++i) {
        all[i].blocks = blocks;
        bpf_map_update_elem(dp_->map("tw_nat_range"), &i, &all[i], BPF_ANY);
    }
}

void World::forget()
{
    if (dp_) {
        for (const char* map : {"tw_nat_fwd", "tw_nat_rev", "tw_nat_frags"}) {
            const int fd = dp_->map(map);
            std::array<std::uint8_t, 64> key{};
            while (bpf_map_get_next_key(fd, nullptr, key.data()) == 0)
                if (bpf_map_delete_elem(fd, key.data()) != 0) break;
        }
    }
    inside([] { return flush_conntrack(); });
}

std::vector<std::pair<tw_nat_key, tw_nat_flow>> World::halves(const char* map) const
{
    std::vector<std::pair<tw_nat_key, tw_nat_flow>> all;
    const int fd = dp_->map(map);
    tw_nat_key key{};
    for (const tw_nat_key* last = nullptr; bpf_map_get_next_key(fd, last, &key) == 0; last = &all.back().first) {
        tw_nat_flow flow{};
        bpf_map_lookup_elem(fd, &key, &flow);
        all.emplace_back(key, flow);
    }
    return all;
}

void World::pass(std::uint32_t seconds)
{
    for (const char* map : {"tw_nat_fwd", "tw_nat_rev"})
        for (auto& [half, flow] : halves(map)) {
            flow.until -= seconds;
            bpf_map_update_elem(dp_->map(map), &half, &flow, BPF_EXIST);
        }
}

} // namespace twill::interop::nat
