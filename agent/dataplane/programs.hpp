// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <optional>
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

/// The bytes of the objects to choose from; empty: what is built in.
struct ProgramObjects {
    std::string_view can_ask; ///< asks conntrack
    std::string_view plain;   ///< calls no kernel function
};

/// One loaded generation of the programs. Maps are shared with the generation before through their pins.
class Programs {
public:
    /// Loads all programs with `cfg` as constants; makes or reuses the maps pinned in `pins`. Where the kernel refuses
    /// those that ask conntrack, though it seemed to have what they need, the plain ones are taken. Errors carry the
    /// end of the verifier's log; EPROTO names a pinned map of another layout.
    static Result<Programs> load(const tw_cfg& cfg, const PinDir& pins, const ProgramObjects& objects = {});

    /// The constants that they have: without ct_lookup where that was refused.
    const tw_cfg& cfg() const { return cfg_; }
    /// Why those that ask conntrack were refused, when they were.
    const std::optional<Error>& refused() const { return refused_; }

    int fd(tw_hook hook) const { return fds_[hook].get(); }

private:
    static Result<Programs> load_object(const tw_cfg& cfg, const PinDir& pins, std::string_view object);

    tw_cfg cfg_{};
    std::optional<Error> refused_;
    std::array<Fd, TW_HOOK__MAX> fds_;
};

} // namespace twill
