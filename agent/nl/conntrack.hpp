// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/netlink.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill::nl {

/// Addresses and ports (host order) of the packets of one direction.
struct Tuple {
    Ip src;
    Ip dst;
    std::uint16_t sport = 0;
    std::uint16_t dport = 0;
    bool operator==(const Tuple&) const = default;
};

/// A TCP or UDP connection as conntrack has it (linux/netfilter/nfnetlink_conntrack.h).
struct Connection {
    std::uint8_t proto = 0; ///< IPPROTO_TCP or IPPROTO_UDP
    bool is_translated = false;
    Tuple original; ///< as its opener sends
    Tuple reply;    ///< as the answers come back: the turned-round original unless it is translated
    bool operator==(const Connection&) const = default;
};

/// EPROTONOSUPPORT: of another protocol. EBADMSG.
Result<Connection> parse_connection(const nlmsghdr* message);

/// The connections of this network namespace, both families, that `keep` wants. The question alone makes the kernel
/// load nf_conntrack and nf_conntrack_netlink. EINVAL, EPROTONOSUPPORT or the like: it has none.
Result<std::vector<Connection>> connections(const std::function<bool(const Connection&)>& keep);

/// Makes conntrack forget them: the next packet of each is that of a new one. Those that are gone already are fine.
Result<> forget(const std::vector<Connection>& connections);

/// Whether connection tracking sees this namespace's packets of the family: it is idle as long as no rule needs it.
/// Found out by a packet.
bool tracks_connections(Family family);

/// Whether this namespace has connection tracking, loading it where it is a module.
bool has_conntrack();

} // namespace twill::nl
