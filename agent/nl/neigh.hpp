// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "agent/nl/socket.hpp"
#include "agent/nl/types.hpp"

namespace twill::nl {

/// One RTM_NEWNEIGH or RTM_DELNEIGH message of AF_INET or AF_INET6; EPROTONOSUPPORT for other families and proxies.
Result<Neighbour> parse_neighbour(const nlmsghdr* message);
/// The same of AF_BRIDGE; EPROTONOSUPPORT for entries that are not a bridge's (a vxlan device's own, IP entries).
Result<FdbEntry> parse_fdb(const nlmsghdr* message);

/// All entries of both families, also unresolved ones.
Result<std::vector<Neighbour>> neighbours(Socket& socket);
/// Makes the entry permanent (NUD_PERMANENT, whatever `state` says), replacing what was known of that address.
Result<> put_neighbour(Socket& socket, const Neighbour& neighbour);
/// Deleting what is absent succeeds.
Result<> del_neighbour(Socket& socket, const Neighbour& neighbour);

/// Forwarding entries of all bridges.
Result<std::vector<FdbEntry>> fdb(Socket& socket);

/// One message of AF_BRIDGE about a vxlan device's own entry; EPROTONOSUPPORT for others: a bridge's, learned ones, the
/// default entry, those without a node's address.
Result<VtepEntry> parse_vtep(const nlmsghdr* message);
/// Those of one device.
Result<std::vector<VtepEntry>> vteps(Socket& socket, IfIndex device);
/// Adds the entry, or gives the MAC another node.
Result<> put_vtep(Socket& socket, const VtepEntry& entry);
/// Deletes the MAC's entry, whatever node it names. Deleting what is absent succeeds.
Result<> del_vtep(Socket& socket, const VtepEntry& entry);

} // namespace twill::nl
