// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "agent/nl/socket.hpp"
#include "agent/nl/types.hpp"

namespace twill::nl {

/// RTN_UNREACHABLE, RTN_UNICAST, RTN_LOCAL of linux/rtnetlink.h, which clashes with net/if.h in places.
inline constexpr std::uint8_t kRouteUnicast = 1;
inline constexpr std::uint8_t kRouteLocal = 2;
inline constexpr std::uint8_t kRouteUnreachable = 7;

/// One RTM_NEWROUTE or RTM_DELROUTE message. EBADMSG when it is malformed; EPROTONOSUPPORT for what is no route of a
/// table (cloned entries, multicast routing).
Result<Route> parse_route(const nlmsghdr* message);

/// The main table, of one family or of both.
Result<std::vector<Route>> routes(Socket& socket, Family family);
Result<std::vector<Route>> routes(Socket& socket);

/// Adds the route, or replaces the one of the same table, destination and metric, whoever owns it.
Result<> put_route(Socket& socket, const Route& route);
/// Adds the route before any other to its destination with its metric. That it is there already is a success.
Result<> prepend_route(Socket& socket, const Route& route);
/// Deletes exactly this route (all fields that are set). Deleting what is absent succeeds.
Result<> del_route(Socket& socket, const Route& route);

/// How the kernel would send to `to` now, policy rules included. nullopt when it would not: no route, or an
/// unreachable, prohibit or blackhole one.
Result<std::optional<RouteLookup>> lookup(Socket& socket, const Ip& to);
/// The same for a packet from `from` that came in by `in`.
Result<std::optional<RouteLookup>> lookup_forwarded(Socket& socket, const Ip& to, const Ip& from, IfIndex in);

} // namespace twill::nl
