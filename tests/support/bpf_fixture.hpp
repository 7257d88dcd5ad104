// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <array>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "maps/abi/cfg.h"
#include "maps/abi/endpoint.h"
#include "maps/abi/event.h"
#include "maps/abi/flow.h"
#include "maps/abi/nat.h"
#include "maps/abi/peer.h"
#include "maps/abi/reasons.h"
#include "tests/support/packet.hpp"
#include "twill/result.hpp"

struct twill_dp;

namespace twill::test {

/// What this process lacks to load BPF programs (root, mainly); empty when nothing is missing.
std::string missing_for_bpf();

/// Whether the running kernel has the function (a kfunc, say), in itself or in a loaded module of that name.
bool kernel_has(const char* function, const char* module);

/// Whether tc programs may call the helper (BPF_FUNC_*).
bool kernel_has_helper(int helper);

/// Whether bpf_skb_adjust_room knows BPF_F_ADJ_ROOM_ENCAP_L2_ETH. True where that cannot be asked.
bool kernel_encapsulates();

/// Moves the process into a network namespace of its own (once) and makes a veth pair `name` there, MAC `mac`. Returns
/// the interface index; asking again for the same name returns the same one. EPERM, ENOMEM, EIO.
Result<std::uint32_t> private_interface(const std::string& name, const Mac& mac);

/// Makes the kernel forward both families out of a private_interface() that is up, with its other end, and reach
/// `on_link` there. Asking again changes nothing. EIO, or the errno of a setting.
Result<> private_route(const std::string& interface, const Cidr& on_link);
/// Gives `neighbour` a permanent link-layer address there. EIO.
Result<> private_neighbour(const std::string& interface, const Ip& neighbour, const Mac& mac);
/// Brings up both ends of a private_interface() on which the kernel itself sends nothing. EIO, or the errno of a
/// setting.
Result<> private_quiet_up(const std::string& interface);

/// The ABI's form of vocabulary types, written here a second time so that tests do not trust the code under test.
tw_addr abi(const Ip& ip);
tw_net abi(const Cidr& cidr);
/// A prefix that matches nothing.
tw_net no_net();

enum class Program { from_pod, to_pod, from_wire, from_host, from_overlay, to_wire };
inline constexpr Program kPrograms[] = {Program::from_pod,  Program::to_pod,       Program::from_wire,
                                        Program::from_host, Program::from_overlay, Program::to_wire};
const char* to_string(Program program);
const char* to_string(tw_reason reason);
/// 'F' fast, 'S' stack, 'D' drop: the class in maps/abi/reasons.h.
char class_of(tw_reason reason);

// TC verdicts (linux/pkt_cls.h) that the programs may return.
inline constexpr int kUnspec = -1;
inline constexpr int kShot = 2;
inline constexpr int kRedirect = 7;

/// What one run did.
struct Outcome {
    int error = 0; ///< errno of the kernel's test run, which then did not start
    int verdict = 0;
    Bytes out;
    std::uint32_t mark = 0;
    std::vector<tw_reason> counted; ///< one element per increment, of this program's counters
    std::uint64_t foreign = 0;      ///< increments of other programs' counters: always 0
    std::vector<tw_event> events;
    std::uint32_t duration_ns = 0;

    /// The one reason, or TW_R__MAX when it was not exactly one.
    tw_reason reason() const { return counted.size() == 1 && foreign == 0 ? counted[0] : TW_R__MAX; }
    /// "verdict reason", for messages.
    std::string to_string() const;
};

/// One node's programs, loaded with `cfg`, maps unpinned. Loaded programs are kept per `cfg` for the life of the
/// process: load() empties the maps and hands out the same object again.
class Dataplane {
public:
    /// The kernel's verifier log goes to stderr when a program is refused.
    static Result<Dataplane*> load(const tw_cfg& cfg);
    static Result<std::unique_ptr<Dataplane>> make(const tw_cfg& cfg, bool full_size_maps);
    ~Dataplane();
    Dataplane(const Dataplane&) = delete;
    Dataplane& operator=(const Dataplane&) = delete;

    const tw_cfg& cfg() const { return cfg_; }
    int fd(Program program) const;
    bpf_program* program(Program program) const;
    /// How many instructions the verifier walked in it, by the verifier's own words: kernels before 5.16 tell nowhere
    /// else. 0: not known.
    std::uint32_t walked(Program program) const;
    /// File descriptor of a map by name; -1 when there is none.
    int map(const char* name) const;

    /// Empties every map but the counters.
    void clear();
    /// Ends what programs have cached, as the agent does after each change; those below do it themselves.
    void changed();
    /// Puts the peer under its CIDR and keeps tw_prefixes; `trie`: into tw_peers_lpm*.
    void add_peer(const Cidr& pods, const tw_peer& peer, bool trie = false);
    void add_node(const Ip& node, const Cidr& pods, std::uint32_t stats);
    void add_endpoint(const Ip& pod, const tw_endpoint& endpoint);
    /// Puts the flow under both orders of its ends, so that tests do not depend on which one the programs use.
    void add_flow(const Ip& a, std::uint16_t a_port, const Ip& b, std::uint16_t b_port, std::uint8_t proto,
                  tw_verdict verdict);
    /// Verdict held for a flow, if any.
    std::optional<tw_verdict> flow(const Ip& a, std::uint16_t a_port, const Ip& b, std::uint16_t b_port,
                                   std::uint8_t proto) const;
    /// Every key of the flow map for `proto`.
    std::vector<tw_flow> flow_keys(std::uint8_t proto) const;
    tw_peer_stats stats(std::uint32_t index) const;

    /// Runs one packet that came in on (or leaves by) `ifindex`. Its pkt_type follows from the Ethernet destination and
    /// the MAC of that interface, as eth_type_trans() has it.
    Outcome run(Program program, const Bytes& packet, std::uint32_t ifindex, std::uint32_t mark = 0);
    /// The same without looking at counters and events: verdict and output only.
    Outcome run_only(Program program, const Bytes& packet, std::uint32_t ifindex, std::uint32_t mark = 0);
    /// What run_only() has left in the ring.
    std::vector<tw_event> take_events();
    /// tw_reasons, summed over the CPUs; the index is the reason.
    std::vector<tw_reason_count> counters() const;

private:
    Dataplane() = default;
    void empty(const char* name);
    int open_and_load(bool full_size_maps, bool with_statistics);

    tw_cfg cfg_{};
    std::array<std::array<char, 4096>, std::size(kPrograms)> statistics_{}; ///< verifier's, for each program
    twill_dp* skeleton_ = nullptr;
    ring_buffer* ring_ = nullptr;
    std::vector<tw_event> events_;
    tw_prefixes prefixes_{};
    std::uint64_t epoch_ = 0;
};

} // namespace twill::test
