// SPDX-License-Identifier: Apache-2.0
// bench_programs: what each program costs per packet, and how that grows with the number of peers. The kernel's own
// accounting (bpf_stats) over single test runs, each with a fresh packet: a repeated run would meet its own output.
#include <bpf/bpf.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/packet/world.hpp"
#include "twill/fd.hpp"

using namespace twill;
using namespace twill::test;

namespace {

struct Options {
    std::vector<unsigned> peers = {10, 1000, 10000}; ///< in each family
    unsigned rounds = 15;
    unsigned runs = 500;  ///< of each path in a round
    unsigned active = 10; ///< peers that the traffic goes to and comes from, spread over all; the same at every size
    bool json = false;
};

/// One way through a program: the packet to or from the i-th peer.
struct Path {
    Program program;
    const char* name;
    Family family;
    Bytes (*packet)(Family family, unsigned peer);
};

Ip peer_node(Family family, unsigned i)
{
    return (family == Family::v4 ? ip("198.18.0.1") : ip("2001:db8:1::1")).plus(i);
}

Cidr peer_pods(Family family, unsigned i)
{
    const Ip base = family == Family::v4 ? ip("10.64.0.0") : ip("fd00:42:1::");
    if (family == Family::v4) return *Cidr::make(base.plus(std::uint64_t{i} << 8U), 24);
    auto bytes = base.bytes();
    bytes[6] = static_cast<std::uint8_t>(i >> 8U);
    bytes[7] = static_cast<std::uint8_t>(i);
    return *Cidr::make(Ip::from_bytes(bytes), 64);
}

const Net& net_of(Family family) { return nets()[family == Family::v4 ? 0 : 1]; }
Ip peer_pod(Family family, unsigned i) { return peer_pods(family, i).address().plus(2); }

Bytes to_peer(Family family, unsigned i) { return build(pod_frame(net_of(family), peer_pod(family, i)) + tcp()); }
Bytes to_local(Family family, unsigned) { return build(pod_frame(net_of(family), net_of(family).pod2) + tcp()); }
Bytes to_outside(Family family, unsigned) { return build(pod_frame(net_of(family), net_of(family).outside) + tcp()); }
Bytes from_peer(Family family, unsigned i)
{
    const Net& net = net_of(family);
    return build(outer(peer_node(family, i), net.node_a) +
                 Layers{Eth{kVtepA, kVtepB}, ip_layer(peer_pod(family, i), net.pod1)} + tcp());
}
Bytes not_ours(Family family, unsigned)
{
    const Net& net = net_of(family);
    return build(Layers{Eth{kWireA, kRouter}, ip_layer(net.outside, net.node_a)} + tcp());
}
Bytes host_to_peer(Family family, unsigned i)
{
    const Net& net = net_of(family);
    return build(Layers{Eth{kVtepB, kVtepA}, ip_layer(net.pods_a.address(), peer_pod(family, i))} + tcp());
}
Bytes stack_to_pod(Family family, unsigned i)
{
    return build(Layers{Eth{kPod1, kGateway}, ip_layer(peer_pod(family, i), net_of(family).pod1)} + tcp());
}
Bytes on_overlay(Family family, unsigned i)
{
    return build(Layers{Eth{kVtepA, kVtepB}, ip_layer(peer_pod(family, i), net_of(family).pod1)} + tcp());
}

std::vector<Path> paths()
{
    std::vector<Path> all;
    for (const Family family : kFamilies) {
        all.push_back({Program::from_pod, "to another node, VXLAN", family, to_peer});
        all.push_back({Program::from_pod, "to a pod of this node", family, to_local});
        all.push_back({Program::from_pod, "to the outside", family, to_outside});
        all.push_back({Program::from_wire, "VXLAN to a pod", family, from_peer});
        all.push_back({Program::from_wire, "not ours", family, not_ours});
        all.push_back({Program::from_host, "to another node, VXLAN", family, host_to_peer});
        all.push_back({Program::to_pod, "from the stack", family, stack_to_pod});
        all.push_back({Program::from_overlay, "checked before", family, on_overlay});
    }
    return all;
}

tw_cfg config()
{
    tw_cfg cfg = config_a();
    cfg.cluster_v4 = abi(*Cidr::parse("10.0.0.0/8"));
    cfg.cluster_v6 = abi(*Cidr::parse("fd00:42::/32"));
    cfg.ct_lookup = kernel_has("bpf_skb_ct_lookup", "nf_conntrack") ? 1 : 0;
    cfg.check_mtu = kernel_has("bpf_skb_check_mtu", "vmlinux") ? 1 : 0;
    return cfg;
}

/// Programs with `peers` peers in each family besides the two of every test.
struct Bed {
    std::unique_ptr<Dataplane> dp;
    Node node;
    std::vector<std::vector<Bytes>> packets; ///< by path
};

Result<Bed> make_bed(unsigned peers, const Options& options)
{
    Bed bed;
    TWILL_TRY_AS(dp, Dataplane::make(config(), true));
    bed.dp = std::move(dp);
    bed.node = node_a_on(*bed.dp);
    for (const Family family : kFamilies)
        for (unsigned i = 0; i < peers; ++i) {
            tw_peer peer = peer_b(net_of(family));
            peer.node = peer.nexthop = abi(peer_node(family, i));
            peer.stats = 8 + 2 * i + (family == Family::v6 ? 1 : 0);
            bed.dp->add_peer(peer_pods(family, i), peer);
            bed.dp->add_node(peer_node(family, i), peer_pods(family, i), peer.stats);
        }
    const unsigned active = std::min(options.active, peers);
    for (const Path& path : paths()) {
        auto& list = bed.packets.emplace_back();
        for (unsigned i = 0; i < active; ++i) list.push_back(path.packet(path.family, i * (peers / active)));
    }
    return bed;
}

std::uint32_t interface_of(const Node& node, Program program)
{
    if (program == Program::from_wire) return node.wire;
    return program == Program::from_pod || program == Program::to_pod ? node.pod1 : node.overlay;
}

/// Mean of `runs` single runs, ns.
double measure(const Bed& bed, const Path& path, std::size_t index, unsigned runs)
{
    bpf_prog_info before{}, after{};
    std::uint32_t size = sizeof before;
    bpf_obj_get_info_by_fd(bed.dp->fd(path.program), &before, &size);
    const auto& packets = bed.packets[index];
    const std::uint32_t ifindex = interface_of(bed.node, path.program);
    for (unsigned i = 0; i < runs; ++i) bed.dp->run_only(path.program, packets[i % packets.size()], ifindex);
    size = sizeof after;
    bpf_obj_get_info_by_fd(bed.dp->fd(path.program), &after, &size);
    const auto count = after.run_cnt - before.run_cnt;
    return count == 0 ? 0 : static_cast<double>(after.run_time_ns - before.run_time_ns) / static_cast<double>(count);
}

double median(std::vector<double> values)
{
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

using Table = std::map<std::size_t, std::map<unsigned, double>>; ///< path -> peers -> ns

Result<Table> run(const Options& options)
{
    std::map<unsigned, Bed> beds;
    for (const unsigned peers : options.peers) {
        TWILL_TRY_AS(bed, make_bed(peers, options));
        beds.emplace(peers, std::move(bed));
    }
    const Fd stats(bpf_enable_stats(BPF_STATS_RUN_TIME));
    if (!stats) return Error{errno, "enable bpf_stats"};
    const auto all = paths();
    std::map<std::size_t, std::map<unsigned, std::vector<double>>> samples;
    for (unsigned round = 0; round <= options.rounds; ++round)
        for (std::size_t i = 0; i < all.size(); ++i)
            for (const unsigned peers : options.peers) {
                const double ns = measure(beds.at(peers), all[i], i, options.runs);
                if (round > 0) samples[i][peers].push_back(ns); // round 0 fills flow maps and caches
            }
    Table table;
    for (const auto& [i, by_peers] : samples)
        for (const auto& [peers, values] : by_peers) table[i][peers] = median(values);
    return table;
}

/// What the most peers cost against the fewest.
double growth(const std::map<unsigned, double>& ns) { return ns.rbegin()->second / ns.begin()->second; }

void print_text(const Table& table, const Options& options)
{
    const auto all = paths();
    fmt::print("ns per packet, median of rounds\n{:<16}{:<26}{:<7}", "program", "path", "family");
    for (const unsigned peers : options.peers) fmt::print("{:>8} peers", peers);
    fmt::print("{:>15}\n", "most / fewest");
    for (const auto& [i, ns] : table) {
        fmt::print("{:<16}{:<26}{:<7}", to_string(all[i].program), all[i].name, to_string(all[i].family));
        for (const unsigned peers : options.peers) fmt::print("{:>14.0f}", ns.at(peers));
        fmt::print("{:>15.2f}\n", growth(ns));
    }
}

void print_json(const Table& table, const Options& options)
{
    const auto all = paths();
    nlohmann::json out = {
        {"unit", "ns"}, {"rounds", options.rounds}, {"runs", options.runs}, {"active", options.active}};
    for (const auto& [i, ns] : table) {
        nlohmann::json row = {{"program", to_string(all[i].program)},
                              {"path", all[i].name},
                              {"family", std::string(to_string(all[i].family))},
                              {"ratio", growth(ns)}};
        for (const unsigned peers : options.peers) row["ns"][std::to_string(peers)] = ns.at(peers);
        out["rows"].push_back(row);
    }
    fmt::print("{}\n", out.dump(2));
}

constexpr const char* kHelp = "usage: bench_programs [--json] [--peers N,N,...] [--rounds N] [--runs N] [--active N]\n"
                              "Cost per packet of every program, and how it grows with the number of peers.\n"
                              "  --peers N,...  peers in each family (10,1000,10000), at most 15,000\n"
                              "  --rounds N     interleaved rounds, the median of which is shown (15)\n"
                              "  --runs N       packets per path in a round (500)\n"
                              "  --active N     peers that the traffic is spread over (10), the same at every size\n";

/// "10,1000": numbers that make sense as peers; empty when one does not.
std::vector<unsigned> parse_peers(const char* text)
{
    std::vector<unsigned> peers;
    for (;;) {
        char* end = nullptr;
        const unsigned long number = std::strtoul(text, &end, 10);
        if (end == text || number == 0 || number > 15000 || (*end != ',' && *end != 0)) return {};
        peers.push_back(static_cast<unsigned>(number));
        if (*end == 0) return peers;
        text = end + 1;
    }
}

} // namespace

int main(int argc, char** argv)
{
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string arg = argv[i];
        unsigned* number = arg == "--rounds"   ? &options.rounds
                           : arg == "--runs"   ? &options.runs
                           : arg == "--active" ? &options.active
                                               : nullptr;
        if (number != nullptr && i + 1 < argc) {
            *number = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10));
            if (*number > 0) continue;
        } else if (arg == "--peers" && i + 1 < argc) {
            options.peers = parse_peers(argv[++i]);
            if (!options.peers.empty()) continue;
        } else if (arg == "--json") {
            options.json = true;
            continue;
        }
        fmt::print(arg == "--help" || arg == "-h" ? stdout : stderr, "{}", kHelp);
        return arg == "--help" || arg == "-h" ? 0 : 2;
    }
    if (const auto missing = missing_for_bpf(); !missing.empty()) {
        fmt::print(stderr, "SKIP: needs {}\n", missing);
        return 77;
    }
    const auto table = run(options);
    if (!table) {
        fmt::print(stderr, "bench_programs: {}: {}\n", table.error().what, std::strerror(table.error().code));
        return 1;
    }
    options.json ? print_json(*table, options) : print_text(*table, options);
    return 0;
}
