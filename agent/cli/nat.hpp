// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/cli/subcommand.hpp"
#include "maps/nat_view.hpp"

namespace twill::cli {

// What the actions of `twillctl nat` share.

Exit nat_list(const Env& env);
Exit nat_stats(const Env& env);
Exit nat_trace(const Env& env);

/// All flows, also those that are over. A half whose other one came or went while the maps were read is no lone half.
Result<std::vector<NatFlow>> read_nat_flows(const Env& env);
/// A flow as a JSON object.
Json nat_flow_json(const NatFlow& flow);

/// "192.0.2.1:80", "[2001:db8::1]:80"; without a port if it is 0.
std::string show_end(const Ip& ip, std::uint16_t port);

/// An address or prefix and perhaps a port.
struct End {
    Cidr net;
    std::optional<std::uint16_t> port;

    bool is_one_address() const { return net.bits() == net.address().network_size() * 8; }
    bool has(const Ip& ip, std::uint16_t of_port) const { return net.contains(ip) && (!port || *port == of_port); }
};
/// "10.42.1.5", "10.42.1.0/24", "10.42.1.5:80", "fd00::5", "[fd00::5]:80". EINVAL names `argument` and the text.
Result<End> parse_end(std::string_view argument, const std::string& text);
/// A name of nat_protocol_name() or a number. EINVAL names --proto and the text.
Result<std::uint8_t> parse_protocol(const std::string& text);

} // namespace twill::cli
