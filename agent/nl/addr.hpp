// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "agent/nl/socket.hpp"
#include "agent/nl/types.hpp"

namespace twill::nl {

/// One RTM_NEWADDR or RTM_DELADDR message. EBADMSG when it is malformed, EPROTONOSUPPORT for other
/// families than IPv4 and IPv6.
Result<Address> parse_address(const nlmsghdr* message);

/// All addresses of all interfaces, both families.
Result<std::vector<Address>> addresses(Socket& socket);

/// Adds the address, or leaves the same one in place. IPv6 without duplicate address detection: usable at once.
Result<> put_address(Socket& socket, const Address& address);
/// Deleting what is absent succeeds.
Result<> del_address(Socket& socket, const Address& address);

} // namespace twill::nl
