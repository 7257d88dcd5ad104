// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/nl/socket.hpp"
#include "agent/nl/types.hpp"

namespace twill::nl {

/// A queueing discipline, as RTM_NEWQDISC tells it.
struct QdiscInfo {
    IfIndex ifindex;
    std::string kind;
    std::uint32_t parent = 0; ///< TC_H_ROOT, TC_H_INGRESS (also clsact's), or a class
    std::uint32_t handle = 0; ///< 0: the kernel attached it by default, nobody asked for it
    bool is_root() const { return parent == 0xffffffffU; }
    bool operator==(const QdiscInfo&) const = default;
};

/// One RTM_NEWQDISC or RTM_DELQDISC message. EBADMSG when it is malformed.
Result<QdiscInfo> parse_qdisc(const nlmsghdr* message);

/// Of all interfaces; noqueue is not among them.
Result<std::vector<QdiscInfo>> qdiscs(Socket& socket);

/// Somebody limits or delays what passes `ifindex`, so that no packet may bypass it: a root qdisc that was set by hand
/// and does more than queue, or an `ingress` qdisc (the CNI bandwidth plugin redirects from there). clsact, the
/// kernel's own choices and plain queues are not shaping.
bool is_shaped(const std::vector<QdiscInfo>& qdiscs, IfIndex ifindex);
/// `ifindex` has a qdisc of this kind: "clsact", "ingress".
bool has_qdisc(const std::vector<QdiscInfo>& qdiscs, IfIndex ifindex, std::string_view kind);

} // namespace twill::nl
