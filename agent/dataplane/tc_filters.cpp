// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/tc_filters.hpp"

#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include <cerrno>
#include <string>

#include "agent/nl/message.hpp"

namespace twill {

Result<bool> has_tc_filters(nl::Socket& socket, IfIndex ifindex)
{
    bool found = false;
    for (const unsigned side : {TC_H_MIN_INGRESS, TC_H_MIN_EGRESS}) {
        nl::Message request{RTM_GETTFILTER, 0};
        tcmsg header{};
        header.tcm_ifindex = ifindex.value;
        header.tcm_parent = TC_H_MAKE(TC_H_CLSACT, side);
        request.header(header);
        auto done = socket.dump(
            request, "filters of interface " + std::to_string(ifindex.value), [] {},
            [&](const nlmsghdr*) -> Result<> {
                found = true;
                return Ok{};
            });
        // Without the qdisc, or without the interface, there is nothing to list.
        if (!done && done.error().code != EINVAL && done.error().code != ENODEV && done.error().code != ENOENT)
            return done.error();
    }
    return found;
}

} // namespace twill
