// SPDX-License-Identifier: Apache-2.0
#include "tests/support/bpf_fixture.hpp"

#include <fmt/core.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <utility>

#include "agent/dataplane/skeleton.hpp"

namespace twill::test {
namespace {

int on_event(void* context, void* data, std::size_t size)
{
    tw_event event{};
    std::memcpy(&event, data, std::min(size, sizeof event));
    static_cast<std::vector<tw_event>*>(context)->push_back(event);
    return 0;
}

int log_warnings(libbpf_print_level level, const char* format, va_list args)
{
    return level == LIBBPF_WARN ? std::vfprintf(stderr, format, args) : 0;
}

/// Key of a flow with the ends in this order.
tw_flow flow_key(const Ip& a, std::uint16_t a_port, const Ip& b, std::uint16_t b_port, std::uint8_t proto)
{
    tw_flow key{};
    key.a = abi(a);
    key.b = abi(b);
    key.a_port = a_port;
    key.b_port = b_port;
    key.proto = proto;
    return key;
}

const char* flow_map(std::uint8_t proto) { return proto == IPPROTO_TCP ? "tw_flows_tcp" : "tw_flows_any"; }

void note_prefix(std::uint8_t (&list)[TW_PREFIXES_MAX], tw_addr (&masks)[TW_PREFIXES_MAX], std::uint8_t& count,
                 const Cidr& pods)
{
    if (std::find(list, list + count, pods.bits()) != list + count || count == TW_PREFIXES_MAX) return;
    list[count] = static_cast<std::uint8_t>(pods.bits());
    masks[count++] = abi(pods).mask;
}

/// What is tested: the built-in objects, or with TWILL_BPF_OBJECTS=DIR in the environment those of another compiler.
BpfObject object_for(bool can_ask_conntrack)
{
    const char* const directory = std::getenv("TWILL_BPF_OBJECTS");
    if (directory == nullptr) return built_in_object(can_ask_conntrack);
    static std::map<bool, std::string> read;
    std::string& bytes = read[can_ask_conntrack];
    const std::string path = std::string(directory) + (can_ask_conntrack ? "/twill.bpf.o" : "/twill_plain.bpf.o");
    if (bytes.empty()) bytes.assign(std::istreambuf_iterator<char>(std::ifstream(path, std::ios::binary).rdbuf()), {});
    if (bytes.empty()) fmt::print(stderr, "{}: no object\n", path);
    return {bytes.data(), bytes.size()};
}

} // namespace

tw_addr abi(const Ip& ip)
{
    tw_addr out{};
    std::memcpy(&out, ip.bytes().data(), sizeof out);
    return out;
}

tw_net abi(const Cidr& cidr)
{
    tw_net net{};
    net.addr = abi(cidr.address());
    std::array<std::uint8_t, 16> mask{};
    const unsigned bits = cidr.bits() + (cidr.family() == Family::v4 ? 96 : 0);
    for (unsigned i = 0; i < bits; ++i) mask[i / 8] = static_cast<std::uint8_t>(mask[i / 8] | 0x80U >> i % 8);
    std::memcpy(&net.mask, mask.data(), sizeof net.mask);
    return net;
}

tw_net no_net()
{
    tw_net net{};
    net.addr.low[3] = 1;
    return net;
}

const char* to_string(Program program)
{
    static constexpr const char* kNames[] = {"tw_from_pod",  "tw_to_pod",       "tw_from_wire",
                                             "tw_from_host", "tw_from_overlay", "tw_to_wire"};
    return kNames[static_cast<int>(program)];
}

const char* to_string(tw_reason reason)
{
#define X(name, class, text)                                                                                           \
    case TW_R_##name:                                                                                                  \
        return #name;
    switch (reason) {
        TW_REASONS(X)
    default:
        return "not exactly one reason";
    }
#undef X
}

char class_of(tw_reason reason)
{
#define X(name, class, text)                                                                                           \
    case TW_R_##name:                                                                                                  \
        return #class[0];
    switch (reason) {
        TW_REASONS(X)
    default:
        return '?';
    }
#undef X
}

std::string Outcome::to_string() const
{
    if (error != 0) return std::string("test run refused: ") + std::strerror(error);
    std::string text = verdict == kUnspec     ? "UNSPEC"
                       : verdict == kShot     ? "SHOT"
                       : verdict == kRedirect ? "REDIRECT"
                                              : fmt::format("verdict {}", verdict);
    for (const auto one : counted) text += std::string(" ") + test::to_string(one);
    if (foreign != 0) text += fmt::format(" ({} increments of other hooks)", foreign);
    return text;
}

Result<std::unique_ptr<Dataplane>> Dataplane::make(const tw_cfg& cfg, bool full_size_maps)
{
    libbpf_set_print(log_warnings);
    std::unique_ptr<Dataplane> dp(new Dataplane);
    dp->cfg_ = cfg;
    // Statistics take the place of the verifier's log, which a refusal needs.
    int rc = dp->open_and_load(full_size_maps, true);
    if (rc != 0) rc = dp->open_and_load(full_size_maps, false);
    if (rc != 0) return Error{-rc, "load programs"};
    dp->ring_ = ring_buffer__new(dp->map("tw_events"), on_event, &dp->events_, nullptr);
    if (dp->ring_ == nullptr) return Error{errno, "ring buffer tw_events"};
    return dp;
}

/// 0, or an errno negated.
int Dataplane::open_and_load(bool full_size_maps, bool with_statistics)
{
    constexpr __u32 kStatistics = 4; // BPF_LOG_STATS, kernel/bpf/verifier.c
    twill_dp__destroy(skeleton_);
    skeleton_ = open_programs(object_for(cfg_.ct_lookup != 0));
    if (skeleton_ == nullptr) return -errno;
    std::memcpy(const_cast<tw_cfg*>(&skeleton_->rodata->tw_cfg), &cfg_, sizeof cfg_);
    if (!full_size_maps)
        for (const char* name : {"tw_flows_tcp", "tw_flows_any", "tw_claims", "tw_nat_fwd", "tw_nat_rev",
                                 "tw_nat_slots", "tw_nat_frags"}) {
            bpf_map* map = bpf_object__find_map_by_name(skeleton_->obj, name);
            const bool nat = std::strncmp(name, "tw_nat_", 7) == 0 && cfg_.nat_max != 0;
            if (map != nullptr) bpf_map__set_max_entries(map, nat ? cfg_.nat_max : 256);
        }
    if (with_statistics)
        for (const Program which : kPrograms) {
            auto& text = statistics_[static_cast<std::size_t>(which)];
            bpf_program__set_log_level(program(which), kStatistics);
            bpf_program__set_log_buf(program(which), text.data(), text.size());
        }
    return twill_dp__load(skeleton_);
}

std::uint32_t Dataplane::walked(Program program) const
{
    const char* text = std::strstr(statistics_[static_cast<std::size_t>(program)].data(), "processed ");
    unsigned count = 0;
    return text != nullptr && std::sscanf(text, "processed %u insns", &count) == 1 ? count : 0;
}

Result<Dataplane*> Dataplane::load(const tw_cfg& cfg)
{
    static std::map<std::string, std::unique_ptr<Dataplane>> loaded;
    const std::string key(reinterpret_cast<const char*>(&cfg), sizeof cfg);
    auto& slot = loaded[key];
    if (!slot) {
        TWILL_TRY_AS(fresh, make(cfg, false));
        slot = std::move(fresh);
    }
    slot->clear();
    return slot.get();
}

Dataplane::~Dataplane()
{
    ring_buffer__free(ring_);
    twill_dp__destroy(skeleton_);
}

bpf_program* Dataplane::program(Program program) const
{
    return bpf_object__find_program_by_name(skeleton_->obj, to_string(program));
}

int Dataplane::fd(Program which) const { return bpf_program__fd(program(which)); }

int Dataplane::map(const char* name) const { return bpf_object__find_map_fd_by_name(skeleton_->obj, name); }

void Dataplane::empty(const char* name)
{
    const int map_fd = map(name);
    std::array<std::uint8_t, 64> key{};
    while (bpf_map_get_next_key(map_fd, nullptr, key.data()) == 0)
        if (bpf_map_delete_elem(map_fd, key.data()) != 0) return;
}

void Dataplane::clear()
{
    for (const char* name : {"tw_peers_v4", "tw_peers_v6", "tw_peers_lpm4", "tw_peers_lpm6", "tw_nodes", "tw_endpoints",
                             "tw_flows_tcp", "tw_flows_any", "tw_claims"})
        empty(name);
    prefixes_ = {};
    const std::uint32_t zero = 0;
    bpf_map_update_elem(map("tw_prefixes"), &zero, &prefixes_, BPF_ANY);
    changed();
    ring_buffer__consume(ring_);
    events_.clear();
}

void Dataplane::changed()
{
    const std::uint32_t zero = 0;
    ++epoch_;
    bpf_map_update_elem(map("tw_epoch"), &zero, &epoch_, BPF_ANY);
}

void Dataplane::add_peer(const Cidr& pods, const tw_peer& peer, bool trie)
{
    const bool v4 = pods.family() == Family::v4;
    const std::string name = std::string(trie ? "tw_peers_lpm" : "tw_peers_v") + (v4 ? "4" : "6");
    tw_cidr_v4 key4{.bits = pods.bits(), .addr = {}};
    tw_cidr_v6 key6{.bits = pods.bits(), .addr = {}};
    std::memcpy(v4 ? key4.addr : key6.addr, pods.address().network(), pods.address().network_size());
    bpf_map_update_elem(map(name.c_str()), v4 ? static_cast<void*>(&key4) : &key6, &peer, BPF_ANY);
    if (trie)
        (v4 ? prefixes_.v4_trie : prefixes_.v6_trie) = 1;
    else if (v4)
        note_prefix(prefixes_.v4, prefixes_.v4_mask, prefixes_.v4_count, pods);
    else
        note_prefix(prefixes_.v6, prefixes_.v6_mask, prefixes_.v6_count, pods);
    const std::uint32_t zero = 0;
    bpf_map_update_elem(map("tw_prefixes"), &zero, &prefixes_, BPF_ANY);
    changed();
}

void Dataplane::add_node(const Ip& node, const Cidr& pods, std::uint32_t stats)
{
    const tw_addr key = abi(node);
    tw_node value{};
    value.pods = abi(pods);
    value.stats = stats;
    bpf_map_update_elem(map("tw_nodes"), &key, &value, BPF_ANY);
    changed();
}

void Dataplane::add_endpoint(const Ip& pod, const tw_endpoint& endpoint)
{
    const tw_addr key = abi(pod);
    bpf_map_update_elem(map("tw_endpoints"), &key, &endpoint, BPF_ANY);
    changed();
}

void Dataplane::add_flow(const Ip& a, std::uint16_t a_port, const Ip& b, std::uint16_t b_port, std::uint8_t proto,
                         tw_verdict verdict)
{
    const tw_flow_state state{.verdict = verdict};
    for (const tw_flow& key : {flow_key(a, a_port, b, b_port, proto), flow_key(b, b_port, a, a_port, proto)})
        bpf_map_update_elem(map(flow_map(proto)), &key, &state, BPF_ANY);
    changed();
}

std::vector<tw_flow> Dataplane::flow_keys(std::uint8_t proto) const
{
    std::vector<tw_flow> keys;
    tw_flow key{};
    for (const tw_flow* last = nullptr; bpf_map_get_next_key(map(flow_map(proto)), last, &key) == 0;
         last = &keys.back())
        keys.push_back(key);
    return keys;
}

std::optional<tw_verdict> Dataplane::flow(const Ip& a, std::uint16_t a_port, const Ip& b, std::uint16_t b_port,
                                          std::uint8_t proto) const
{
    tw_flow_state state{};
    for (const tw_flow& key : {flow_key(a, a_port, b, b_port, proto), flow_key(b, b_port, a, a_port, proto)})
        if (bpf_map_lookup_elem(map(flow_map(proto)), &key, &state) == 0) return state.verdict;
    return std::nullopt;
}

tw_peer_stats Dataplane::stats(std::uint32_t index) const
{
    std::vector<tw_peer_stats> cpus(static_cast<std::size_t>(libbpf_num_possible_cpus()));
    tw_peer_stats sum{};
    if (bpf_map_lookup_elem(map("tw_peer_stats"), &index, cpus.data()) != 0) return sum;
    for (const auto& cpu : cpus) {
        sum.tx_packets += cpu.tx_packets;
        sum.tx_bytes += cpu.tx_bytes;
        sum.rx_packets += cpu.rx_packets;
        sum.rx_bytes += cpu.rx_bytes;
    }
    return sum;
}

std::vector<tw_reason_count> Dataplane::counters() const
{
    const int map_fd = map("tw_reasons");
    const auto cpus = static_cast<std::size_t>(libbpf_num_possible_cpus());
    std::vector<tw_reason_count> each(TW_R__MAX * cpus);
    std::array<std::uint32_t, TW_R__MAX> reasons{};
    std::uint32_t position = 0;
    std::uint32_t count = TW_R__MAX;
    LIBBPF_OPTS(bpf_map_batch_opts, opts);
    // All at once where the kernel can (5.13): one call for each reason takes longer than the packet itself.
    if (bpf_map_lookup_batch(map_fd, nullptr, &position, reasons.data(), each.data(), &count, &opts) != 0)
        for (std::uint32_t reason = 0; reason < TW_R__MAX; ++reason)
            bpf_map_lookup_elem(map_fd, &reason, &each[reason * cpus]);
    std::vector<tw_reason_count> sums(TW_R__MAX);
    for (std::size_t i = 0; i < each.size(); ++i) {
#define X(name, field) sums[i / cpus].field += each[i].field;
        TW_HOOKS(X)
#undef X
    }
    return sums;
}

Outcome Dataplane::run_only(Program which, const Bytes& packet, std::uint32_t ifindex, std::uint32_t mark)
{
    Outcome outcome;
    __sk_buff context{};
    context.ifindex = ifindex;
    context.mark = mark;
    outcome.out.resize(packet.size() + 256);
    LIBBPF_OPTS(bpf_test_run_opts, opts);
    opts.data_in = packet.data();
    opts.data_size_in = static_cast<std::uint32_t>(packet.size());
    opts.data_out = outcome.out.data();
    opts.data_size_out = static_cast<std::uint32_t>(outcome.out.size());
    opts.ctx_in = &context;
    opts.ctx_size_in = sizeof context;
    opts.ctx_out = &context;
    opts.ctx_size_out = sizeof context;
    opts.repeat = 1;
    const int rc = bpf_prog_test_run_opts(fd(which), &opts);
    if (rc != 0) outcome.error = -rc;
    outcome.verdict = static_cast<int>(opts.retval);
    outcome.out.resize(rc == 0 ? opts.data_size_out : 0);
    outcome.mark = context.mark;
    outcome.duration_ns = opts.duration;
    return outcome;
}

Outcome Dataplane::run(Program which, const Bytes& packet, std::uint32_t ifindex, std::uint32_t mark)
{
    const auto before = counters();
    Outcome outcome = run_only(which, packet, ifindex, mark);
    const auto after = counters();
    for (unsigned reason = 0; reason < TW_R__MAX; ++reason) {
        int hook = 0;
#define X(name, field)                                                                                                 \
    for (auto n = after[reason].field - before[reason].field; n > 0; --n) {                                            \
        if (hook == static_cast<int>(which))                                                                           \
            outcome.counted.push_back(static_cast<tw_reason>(reason));                                                 \
        else                                                                                                           \
            ++outcome.foreign;                                                                                         \
    }                                                                                                                  \
    ++hook;
        TW_HOOKS(X)
#undef X
    }
    outcome.events = take_events();
    return outcome;
}

std::vector<tw_event> Dataplane::take_events()
{
    ring_buffer__consume(ring_);
    return std::exchange(events_, {});
}

} // namespace twill::test
