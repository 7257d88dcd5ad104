// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/mac.hpp"

namespace twill::nl {

/// What a vxlan device was created with (IFLA_INFO_DATA).
struct Vxlan {
    std::uint16_t port = 0;        ///< UDP destination port, host order
    std::uint32_t vni = 0;         ///< 0 with collect metadata
    bool collect_metadata = false; ///< "external": the tunnel key decides
    bool learning = false;
    bool zero_csum6_rx = false; ///< accepts outer IPv6 UDP checksum 0
    bool zero_csum6_tx = false;
    bool gbp = false;
    IfIndex lower{};           ///< of outer packets; zero: by route
    std::optional<Ip> local{}; ///< outer source; nullopt: by route
    bool operator==(const Vxlan&) const = default;
};

/// An interface, as RTM_NEWLINK tells it (include/uapi/linux/if_link.h).
struct Link {
    IfIndex index;
    std::string name;
    std::string kind;            ///< "veth", "bridge", "vxlan", ...; empty for hardware
    unsigned type = 0;           ///< ARPHRD_*: 1 is Ethernet
    Mac mac;                     ///< zero where the type has none
    unsigned mtu = 0;            ///< bytes
    unsigned flags = 0;          ///< IFF_*
    IfIndex master;              ///< bridge or bond that it is a port of
    bool is_bridge_port = false; ///< the master is a bridge
    std::string alias;
    std::string qdisc;    ///< kind of the root qdisc, "noqueue" for an unshaped veth
    IfIndex lower;        ///< IFLA_LINK: the device below, or the other end of a veth; an index in `lower_netns`
    int lower_netns = -1; ///< IFLA_LINK_NETNSID: `lower` is in another namespace; -1: in ours
    std::uint32_t group = 0;
    std::uint8_t addr_gen_mode = 0; ///< IN6_ADDR_GEN_MODE_*: 1 none
    std::optional<Vxlan> vxlan;     ///< of kind "vxlan"
    bool is_up() const { return (flags & 1U) != 0; }
    bool operator==(const Link&) const = default;
};

/// An address on an interface.
struct Address {
    IfIndex ifindex;
    Ip ip;
    unsigned bits = 0;
    std::uint8_t scope = 0;     ///< RT_SCOPE_*: 0 global, 253 link
    bool is_deprecated = false; ///< IFA_F_DEPRECATED
    bool is_permanent = true;   ///< IFA_F_PERMANENT
    bool is_temporary = false;  ///< IFA_F_TEMPORARY (IPv6 privacy)
    bool is_secondary = false;  ///< IFA_F_SECONDARY (IPv4: another address of the same network came first)
    bool is_tentative = false;  ///< IFA_F_TENTATIVE or IFA_F_DADFAILED: nothing may be sent from it
    bool operator==(const Address&) const = default;
};

/// The far end of a tunnel in a route to a collect-metadata device (RTA_ENCAP of type ip or ip6, by `dst`'s family).
struct Encap {
    Ip dst;
    std::optional<Ip> src; ///< nullopt: the kernel chooses by its route to `dst`
    std::uint64_t id = 0;  ///< VXLAN's VNI
    bool csum = false;     ///< outer UDP checksum
    bool operator==(const Encap&) const = default;
};

/// A route with at most one next hop (multipath routes show their first).
struct Route {
    Cidr dst; ///< default route: 0 bits
    IfIndex ifindex;
    std::optional<Ip> gateway;
    std::optional<Ip> prefsrc;
    unsigned mtu = 0;          ///< RTAX_MTU, 0: the device's
    std::uint32_t metric = 0;  ///< RTA_PRIORITY
    std::uint32_t table = 254; ///< main
    std::uint8_t type = 1;     ///< RTN_*: 1 unicast, 7 unreachable
    std::uint8_t protocol = 0; ///< rtm_protocol
    std::uint8_t scope = 0;
    bool onlink = false; ///< RTNH_F_ONLINK
    std::optional<Encap> encap;
    bool operator==(const Route&) const = default;
};

/// A neighbour table entry (ARP, ND).
struct Neighbour {
    IfIndex ifindex;
    Ip ip;
    Mac mac;                                                                  ///< zero while unresolved
    std::uint16_t state = 0;                                                  ///< NUD_*
    bool is_usable() const { return !mac.is_zero() && (state & 0xdeU) != 0; } ///< NUD_VALID
    bool operator==(const Neighbour&) const = default;
};

/// A bridge forwarding entry: behind which port a MAC lives.
struct FdbEntry {
    Mac mac;
    IfIndex port;
    IfIndex bridge;
    bool is_local = false; ///< the port's own address (NUD_PERMANENT)
    bool operator==(const FdbEntry&) const = default;
};

/// A permanent entry of a vxlan device's own table: the node on which a VtepMAC is.
struct VtepEntry {
    IfIndex device;
    Mac mac;
    Ip node;
    bool operator==(const VtepEntry&) const = default;
};

/// The kernel's answer to "how would you reach this address" (RTM_GETROUTE, RTM_F_LOOKUP_TABLE off).
struct RouteLookup {
    IfIndex ifindex;
    std::optional<Ip> gateway;
    std::optional<Ip> source;
    unsigned mtu = 0;      ///< of the route, 0: the device's
    std::uint8_t type = 1; ///< RTN_*: 1 unicast, 2 local
    bool operator==(const RouteLookup&) const = default;
};

} // namespace twill::nl
