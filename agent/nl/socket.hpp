// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "twill/result.hpp"

struct nl_sock;

namespace twill::nl {

class Message;

/// Sees one message of a reply. It is valid during the call and lies wholly in memory (nlmsg_len bytes).
using Visitor = std::function<Result<>(const nlmsghdr*)>;

/// A route-netlink request socket: one request at a time, synchronous, for the thread that owns it. Works in the
/// network namespace in which it was opened. Errors of all requests: the kernel's errno and, where it gives one, its
/// own explanation (NLMSGERR_ATTR_MSG) in `what`; ETIMEDOUT when the kernel does not answer within seconds.
class Socket {
public:
    /// `protocol`: NETLINK_ROUTE, or another family whose dumps work alike.
    static Result<Socket> open(int protocol = NETLINK_ROUTE);

    /// Sends a change and waits for its ACK. `what` names the operation and its subject, for the error.
    Result<> change(Message& message, std::string_view what);
    /// Sends a question with one answer. ENOENT-like answers are errors here; callers turn them into values.
    Result<> ask(Message& message, std::string_view what, const Visitor& visit);
    /// Sends a dump request; `restart` is called first and again whenever a concurrent change (NLM_F_DUMP_INTR) makes
    /// what was visited worthless. EAGAIN when that happens too often.
    Result<> dump(Message& message, std::string_view what, const std::function<void()>& restart, const Visitor& visit);

private:
    struct Free {
        void operator()(nl_sock* socket) const noexcept;
    };

    Result<> send(Message& message, std::string_view what, int flags);
    Result<> receive(std::string_view what, const Visitor* visit, bool until_done, bool& is_interrupted);
    Result<std::size_t> receive_datagram(std::string_view what);

    std::unique_ptr<nl_sock, Free> socket_;
    std::vector<char> buffer_;
    unsigned sequence_ = 0;
};

} // namespace twill::nl
