// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "maps/abi/reasons.h"
#include "tests/interop/port.hpp"

namespace twill::interop {

/// Where a packet enters a world: a pod's interface, the wire, or the node's own stack (an IP packet, no frame).
enum class Origin : std::uint8_t { pod_p, pod_q, wire, host };

struct Packet {
    Bytes bytes;
    Origin origin = Origin::pod_p;
    std::optional<Offload> offload = {};
    std::string what = {};
    bool is_valid = false; ///< comes out, and its checksums hold
};

/// A frame that came out: on the wire ('w'), to pod p or to pod q.
struct Frame {
    char port;
    Bytes bytes;
};

/// One node of worlds.sh, seen from the bench.
class World {
public:
    /// `bpf_root`: where its programs are pinned; empty: the kernel's vxlan.
    static Result<World> open(const std::string& lab, const std::string& name, char node, const std::string& bpf_root);

    /// Everything that comes out because of the packet. Returns when all of it has come, which marked packets behind
    /// it prove: the path of packets is first in, first out on one CPU. ETIMEDOUT: the marked ones did not come.
    Result<std::vector<Frame>> exchange(const Packet& packet);

    bool is_twill() const { return is_twill_; }
    char node() const { return node_; }
    const std::string& name() const { return name_; }
    /// Packets by hook and reason so far; zeros for the kernel's vxlan.
    using Reasons = std::array<std::array<std::uint64_t, TW_HOOK__MAX>, TW_R__MAX>;
    Reasons reasons() const;
    /// How many packets conntrack has found invalid.
    std::uint64_t invalid() const;
    unsigned lost() { return wire_.lost() + p_.lost() + q_.lost(); }

private:
    World() = default;
    Result<> enter(const std::string& lab);
    int send(const Packet& packet);
    void send_marks(Origin origin);
    /// Takes what is there; true when all marks were.
    bool collect(std::vector<Frame>& out);
    void take(char name, Port& port, std::vector<Frame>& out);

    std::string name_;
    char node_ = 'a';
    bool is_twill_ = false;
    Port wire_, p_, q_;
    Fd raw4_, raw6_, conntrack_, reasons_;
    std::uint64_t serial_ = 0;
    unsigned marks_missing_ = 0;
};

} // namespace twill::interop
