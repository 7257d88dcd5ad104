// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/nl/socket.hpp"
#include "twill/ids.hpp"

namespace twill {

/// Is any filter left on the clsact qdisc of `ifindex`, either side? False where there is no such qdisc.
Result<bool> has_tc_filters(nl::Socket& socket, IfIndex ifindex);

} // namespace twill
