// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/dataplane/programs.hpp"
#include "agent/nl/socket.hpp"
#include "maps/abi/owned.h"
#include "maps/map.hpp"
#include "maps/pins.hpp"
#include "twill/ids.hpp"
#include "twill/result.hpp"

namespace twill {

/// One program on one interface.
struct Attachment {
    tw_hook hook;
    IfIndex ifindex;
    auto operator<=>(const Attachment&) const = default;
};

/// Puts programs on interfaces and takes them off: TCX links pinned below `pins`, or clsact filters of a fixed handle
/// where the kernel has no TCX. Control thread. Replacing a program is atomic either way, also one that a twilld of
/// another map schema attached: its link is updated and its pin moved to ours. Other people's programs,
/// filters and qdiscs stay: TCX programs go to the tail, a clsact qdisc is removed only if we made it and nothing else
/// is in it.
class Attachments {
public:
    /// `owned` remembers over restarts which qdiscs are ours; an empty one (no descriptor): that is not known.
    Attachments(nl::Socket& socket, PinDir pins, Map<unsigned, tw_owned> owned, bool use_tcx);

    /// Attaches, or replaces what is attached there of an earlier generation or by the other mechanism. ENODEV: no such
    /// interface.
    Result<> attach(const Attachment& where, const Programs& programs);
    /// Taking off what is not there succeeds.
    Result<> detach(const Attachment& where);
    /// Takes off everything of ours that is not in `keep`, also from before a restart. `interfaces` are all that exist.
    Result<> sweep(const std::set<Attachment>& keep, const std::vector<IfIndex>& interfaces);
    /// Does the kernel still have it? Somebody may have taken it off.
    bool is_attached(const Attachment& where) const;

    /// Forgets what the kernel refused for good (see impossible()), to try again: qdiscs changed.
    void retry_impossible() { impossible_.clear(); }
    /// Without TCX: egress hooks of interfaces on which somebody's `ingress` qdisc takes the place of clsact.
    const std::set<Attachment>& impossible() const { return impossible_; }
    /// No longer counts as attached; the next attach() sees to it.
    void forget(const Attachment& where) { current_.erase(where); }

    bool uses_tcx() const { return use_tcx_; }
    const std::set<Attachment>& current() const { return current_; }

private:
    Result<> attach_tcx(const Attachment& where, int program);
    Result<> attach_clsact(const Attachment& where, int program);
    /// Links of other schemas there; true: one of them has the program now and is ours.
    Result<bool> adopt_tcx(const Attachment& where, int program);
    void drop_tcx(const Attachment& where);
    /// What other schemas have there.
    void drop_foreign_tcx(const Attachment& where);
    void drop_clsact(const Attachment& where);
    Result<> drop_qdisc(IfIndex ifindex);

    nl::Socket& socket_;
    PinDir pins_;
    Map<unsigned, tw_owned> owned_;
    bool use_tcx_;
    std::set<Attachment> current_;
    std::set<Attachment> impossible_;
};

} // namespace twill
