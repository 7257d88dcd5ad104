// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "agent/nl/socket.hpp"
#include "agent/nl/types.hpp"
#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/mac.hpp"
#include "twill/result.hpp"

namespace twill {

/// flannel's vxlan device of one family (its backend/vxlan/device.go, v0.28.9), which is the overlay device of a node
/// that flannel ran. It stays flannel's: without alias or mark, so that flanneld takes it back as it is.
struct FlannelDevice {
    Cidr network; ///< the cluster's pods
    Cidr pods;    ///< this node's; its first address becomes the device's
    Vni vni;
    std::uint16_t port = 8472; ///< UDP, host order
    bool gbp = false;
    IfIndex wire;
    Ip local;         ///< own address on the wire, of the pods' family
    Mac mac;          ///< own VtepMAC
    unsigned mtu = 0; ///< bytes of inner IP packet that the wire takes
};

/// "flannel.<VNI>", "flannel-v6.<VNI>".
std::string flannel_device_name(Family family, Vni vni);

/// Has a device of that name, of whatever VNI, flannel's form? Its ipip device has, too.
bool is_flannel_name(std::string_view name);

/// The vxlan device of that name.
Result<std::optional<nl::Link>> find_flannel_device(nl::Socket& socket, Family family, Vni vni);

/// Does another of flannel's vxlan devices, of a former configuration, have the UDP port?
Result<bool> is_flannel_port(nl::Socket& socket, std::uint16_t port);

/// Makes the device right as flannel would: one whose VNI, port, wire or GBP differ, whose own address is not the
/// wire's, or that is none of vxlan, is made anew; the address is put, others inside the network go. Returns its index.
/// Errors of netlink.
Result<IfIndex> ensure_flannel_device(nl::Socket& socket, const FlannelDevice& want);

} // namespace twill
