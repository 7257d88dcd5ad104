// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "maps/abi/cfg.h"
#include "maps/abi/nat.h"
#include "twill/ip.hpp"

namespace twill {

/// One masqueraded flow, as its halves in tw_nat_fwd and tw_nat_rev tell it.
struct NatFlow {
    enum class Halves : std::uint8_t { both, forward, reply };
    Ip pod; ///< or another sender whose packets are masqueraded
    Ip remote;
    Ip addr; ///< what the remote end sees as the source; of a plain flow `::`
    std::uint16_t pod_port = 0, remote_port = 0, port = 0;
    std::uint8_t proto = 0;
    std::uint8_t state = TW_NAT_NONE;
    Halves halves = Halves::both;
    bool plain = false;    ///< came from outside to the pod, is not masqueraded
    std::int32_t left = 0; ///< seconds until it counts as absent; 0 and less: it does

    bool is_alive() const { return left > 0; }
};

/// A half of a flow, from an entry of tw_nat_fwd or tw_nat_rev. `now`: CLOCK_MONOTONIC, seconds.
NatFlow from_forward_half(const tw_nat_key& key, const tw_nat_flow& half, std::uint32_t now);
NatFlow from_reply_half(const tw_nat_key& key, const tw_nat_flow& half, std::uint32_t now);
/// The keys of the halves of a flow.
tw_nat_key forward_key(const NatFlow& flow);
tw_nat_key reply_key(const NatFlow& flow);
/// Are the two halves of one flow?
bool is_same_flow(const NatFlow& a, const NatFlow& b);

/// Puts halves of both maps together; sorted by sender, then protocol, then remote end.
std::vector<NatFlow> join_halves(std::vector<NatFlow> forward, std::vector<NatFlow> reply);

/// Which ports masquerade may use.
struct PortRange {
    std::uint16_t first = 0, last = 0;
    bool operator==(const PortRange&) const = default;
};
/// From the entries of tw_nat_range, in its order.
std::vector<PortRange> port_ranges(const std::vector<tw_nat_range>& blocks);
std::size_t port_count(const std::vector<PortRange>& ranges);

/// How many flows use ports of one of our addresses towards one remote end.
struct NatDestination {
    Ip remote;
    Ip addr;
    std::uint16_t remote_port = 0;
    std::uint8_t proto = 0;
    std::size_t flows = 0;
};
/// Of living, masqueraded flows; those with the most flows first, at most `limit`.
std::vector<NatDestination> top_destinations(const std::vector<NatFlow>& flows, std::size_t limit);

/// "established"; the number of one that another version may know.
std::string nat_state_name(std::uint8_t state);
/// "tcp"; the number of one without a name here.
std::string nat_protocol_name(std::uint8_t proto);
/// Does the protocol have ports, or identifiers, that masquerade may change, so that they can be used up?
bool nat_has_ports(std::uint8_t proto);
/// "iptables", "nft" or "off".
std::string_view nat_rules_name(std::uint8_t rules);

/// Every name that nat_state_name() gives.
inline constexpr std::array<std::string_view, TW_NAT_OTHER + 1> kNatStateNames = {
    "none",      "syn_sent", "syn_recv",  "established", "fin_wait", "close_wait", "last_ack",
    "time_wait", "close",    "syn_sent2", "unanswered",  "answered", "echo",       "other"};

} // namespace twill
