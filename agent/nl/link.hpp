// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/nl/socket.hpp"
#include "agent/nl/types.hpp"

namespace twill::nl {

/// Group of a device between its creation and the setting of its alias, which the kernel cannot do in one step: so a
/// process that dies in between leaves a device that is still recognisable as ours.
inline constexpr std::uint32_t kUnfinishedGroup = 0x7477;

/// One RTM_NEWLINK or RTM_DELLINK message of family AF_UNSPEC. EBADMSG when it is malformed, EPROTONOSUPPORT when it is
/// of another kind (bridge port state, wireless events).
Result<Link> parse_link(const nlmsghdr* message);

/// All interfaces of the namespace.
Result<std::vector<Link>> links(Socket& socket);
/// nullopt when there is none.
Result<std::optional<Link>> link(Socket& socket, IfIndex index);
Result<std::optional<Link>> link(Socket& socket, std::string_view name);

/// A vxlan device that learns nothing.
struct VxlanSpec {
    /// A device with a VNI of its own, as flannel makes it: outer packets of `local`'s family.
    struct Single {
        std::uint32_t vni = 0; ///< 24 bits
        IfIndex lower;         ///< the wire
        Ip local;              ///< outer source
    };
    std::string name;
    Mac mac;
    unsigned mtu = 0;       ///< bytes, inner IP packet
    std::uint16_t port = 0; ///< host order
    bool gbp = false;
    std::string alias;              ///< empty: none
    std::optional<Single> single{}; ///< nullopt: collect metadata, so no VNI, no lower device, both outer families
};
/// Creates it, down. One that collects metadata accepts outer IPv6 checksums of zero. EEXIST: the name is taken, or a
/// device of this kind has the port, or the port and VNI.
Result<> create_vxlan(Socket& socket, const VxlanSpec& spec);

/// A pair in this namespace; `mac` is that of `name`. Both ends get mtu, alias and NOARP.
struct VethSpec {
    std::string name;
    std::string peer_name;
    Mac mac;
    unsigned mtu = 0;
    std::string alias;
    bool noarp = false;
};
/// Creates it, both ends down. EEXIST: one of the names is taken.
Result<> create_veth_pair(Socket& socket, const VethSpec& spec);

/// EADDRINUSE: a vxlan device's UDP port is taken.
Result<> set_up(Socket& socket, IfIndex index);
Result<> set_noarp(Socket& socket, IfIndex index);
Result<> set_mtu(Socket& socket, IfIndex index, unsigned mtu);
Result<> set_mac(Socket& socket, IfIndex index, const Mac& mac);
/// Also puts the device into the default group, see kUnfinishedGroup.
Result<> set_alias(Socket& socket, IfIndex index, std::string_view alias);
/// No IPv6 link-local address, so no router solicitation, when it comes up. Succeeds where there is no IPv6.
Result<> set_addr_gen_none(Socket& socket, IfIndex index);
/// Deleting what is absent succeeds.
Result<> del_link(Socket& socket, IfIndex index);

} // namespace twill::nl
