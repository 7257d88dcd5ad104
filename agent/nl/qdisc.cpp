// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/qdisc.hpp"

#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "agent/nl/attributes.hpp"
#include "agent/nl/dump.hpp"
#include "agent/nl/message.hpp"

namespace twill::nl {

Result<QdiscInfo> parse_qdisc(const nlmsghdr* message)
{
    const auto* header = header_of<tcmsg>(message);
    if (header == nullptr) return Error{EBADMSG, "qdisc message: too short"};
    const Attributes attributes{message, sizeof *header};
    QdiscInfo info{.ifindex = {header->tcm_ifindex},
                   .kind = attributes.text(TCA_KIND),
                   .parent = header->tcm_parent,
                   .handle = header->tcm_handle};
    if (!info.ifindex || info.kind.empty()) return Error{EBADMSG, "qdisc message: no interface or no kind"};
    return info;
}

Result<std::vector<QdiscInfo>> qdiscs(Socket& socket)
{
    Message message{RTM_GETQDISC, 0};
    message.header(tcmsg{});
    return read_all(socket, message, "qdiscs", parse_qdisc);
}

bool is_shaped(const std::vector<QdiscInfo>& qdiscs, IfIndex ifindex)
{
    constexpr std::array<std::string_view, 6> kPlainQueues = {"noqueue", "pfifo_fast", "pfifo",
                                                              "bfifo",   "fq_codel",   "mq"};
    return std::any_of(qdiscs.begin(), qdiscs.end(), [&](const QdiscInfo& qdisc) {
        if (qdisc.ifindex != ifindex) return false;
        if (qdisc.kind == "ingress") return true;
        return qdisc.is_root() && qdisc.handle != 0 &&
               std::find(kPlainQueues.begin(), kPlainQueues.end(), qdisc.kind) == kPlainQueues.end();
    });
}

bool has_qdisc(const std::vector<QdiscInfo>& qdiscs, IfIndex ifindex, std::string_view kind)
{
    return std::any_of(qdiscs.begin(), qdiscs.end(),
                       [&](const QdiscInfo& qdisc) { return qdisc.ifindex == ifindex && qdisc.kind == kind; });
}

} // namespace twill::nl
