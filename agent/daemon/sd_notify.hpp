// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "twill/result.hpp"

namespace twill {

/// Sends `state` ("READY=1", "STOPPING=1", sd_notify(3)) to the socket named by $NOTIFY_SOCKET: a path, or an abstract
/// name behind '@'. Succeeds and does nothing without that variable. Errors: EINVAL for a bad name, those of sendto().
Result<> sd_notify(std::string_view state);

} // namespace twill
