// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "maps/nat_view.hpp"

namespace twill {

using PortSet = std::bitset<65536>;

/// Host order. "1024-29999,40000". nullopt: anything else, port 0, a range that ends before it begins.
std::optional<std::vector<PortRange>> parse_port_ranges(std::string_view text);

/// What of the kernel's settings takes ports away from masquerade: they are those of the host itself.
struct PortSysctls {
    PortRange local{32768, 60999};   ///< net.ipv4.ip_local_port_range, both families
    std::vector<PortRange> reserved; ///< net.ipv4.ip_local_reserved_ports
};
/// Of this network namespace; the kernel's defaults where they cannot be read.
PortSysctls read_port_sysctls();

/// The ports for masqueraded flows.
struct MasqPorts {
    PortSet ports;
    bool is_shared = false; ///< the local range leaves none: also ports that the host itself may take
};
/// `wanted` of -masq-ports, empty: 1024-65535 without the host's and Kubernetes' node ports (30000-32767). Never the
/// VXLAN port: what comes there is VXLAN.
MasqPorts choose_masq_ports(const std::vector<PortRange>& wanted, const PortSysctls& sysctls, std::uint16_t vxlan_port);

} // namespace twill
