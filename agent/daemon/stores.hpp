// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "agent/daemon/settings.hpp"
#include "agent/loop/loop.hpp"
#include "agent/store/store.hpp"
#include "twill/clock.hpp"
#include "twill/result.hpp"

namespace twill {

/// The store that the flags choose: a directory, Kubernetes, or etcd. Errors name the flag. `loop` and `clock` must
/// outlive it.
Result<std::unique_ptr<Store>> open_store(const Settings& settings, Loop& loop, const Clock& clock);

} // namespace twill
