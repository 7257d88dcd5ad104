// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "maps/abi/cfg.h"
#include "maps/abi/reasons.h"
#include "maps/pins.hpp"
#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill {

/// Name of a hook's program in the kernel: "tw_from_pod".
std::string_view program_name(tw_hook hook);
/// Which side of its interface the hook is: tc egress or tc ingress.
bool is_egress(tw_hook hook);

/// One loaded generation of the programs. Maps are shared with the generation before through their pins.
class Programs {
public:
    /// Loads all programs with `cfg` as constants; makes or reuses the maps pinned in `pins`. Errors carry the end of
    /// the verifier's log; EPROTO names a pinned map of another layout.
    static Result<Programs> load(const tw_cfg& cfg, const PinDir& pins);

    int fd(tw_hook hook) const { return fds_[hook].get(); }

private:
    std::array<Fd, TW_HOOK__MAX> fds_;
};

} // namespace twill
