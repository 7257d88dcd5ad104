// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/socket.hpp"

#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "agent/nl/attributes.hpp"
#include "agent/nl/message.hpp"

namespace twill::nl {
namespace {

// The kernel fills dump datagrams up to 32 KiB (netlink_dump, net/netlink/af_netlink.c); one link is larger only with
// the statistics and virtual functions that are not asked for.
constexpr std::size_t kBufferBytes = std::size_t{64} * 1024;
// The kernel answers within the system call; this only keeps a bug from hanging the control thread.
constexpr timeval kAnswerTimeout{10, 0};
constexpr int kDumpAttempts = 16;

Error failure(int code, std::string_view what) { return {code, std::string{what} + ": " + std::strerror(code)}; }

void enable(int fd, int option)
{
    const int on = 1;
    // Kernels without the option (strict check is 4.20) only say more, or less, than asked.
    (void)::setsockopt(fd, SOL_NETLINK, option, &on, sizeof on);
}

// The outcome in an NLMSG_ERROR or NLMSG_DONE message, with the kernel's own words where it has some.
Result<> outcome_of(const nlmsghdr* message, std::string_view what)
{
    const int* status = header_of<int>(message);
    if (status == nullptr || *status == 0) return Ok{};
    std::size_t offset = sizeof(int);
    if (message->nlmsg_type == NLMSG_ERROR) {
        const auto* error = header_of<nlmsgerr>(message);
        if (error == nullptr) return failure(EBADMSG, what);
        offset = sizeof(nlmsgerr);
        if ((message->nlmsg_flags & NLM_F_CAPPED) == 0 && error->msg.nlmsg_len > NLMSG_HDRLEN)
            offset += NLMSG_ALIGN(error->msg.nlmsg_len - NLMSG_HDRLEN);
    }
    Error error = failure(*status < 0 ? -*status : *status, what);
    if ((message->nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
        const std::string text = Attributes{message, offset}.text(NLMSGERR_ATTR_MSG);
        if (!text.empty()) error.what += " (" + text + ")";
    }
    return error;
}

} // namespace

void Socket::Free::operator()(nl_sock* socket) const noexcept { nl_socket_free(socket); }

Result<Socket> Socket::open(int protocol)
{
    Socket opened;
    opened.socket_.reset(nl_socket_alloc());
    if (!opened.socket_) return failure(ENOMEM, "netlink socket");
    if (const int rc = nl_connect(opened.socket_.get(), protocol); rc < 0)
        return Error{EIO, std::string{"netlink socket: "} + nl_geterror(rc)};
    nl_socket_disable_auto_ack(opened.socket_.get());

    const int fd = nl_socket_get_fd(opened.socket_.get());
    enable(fd, NETLINK_EXT_ACK);
    enable(fd, NETLINK_CAP_ACK);
    enable(fd, NETLINK_GET_STRICT_CHK);
    if (::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kAnswerTimeout, sizeof kAnswerTimeout) != 0)
        return failure(errno, "netlink socket timeout");
    opened.buffer_.resize(kBufferBytes);
    return opened;
}

Result<> Socket::send(Message& message, std::string_view what, int flags)
{
    if (!message.is_valid()) return failure(ENOMEM, what);
    nlmsghdr* header = nlmsg_hdr(message.get());
    header->nlmsg_seq = NL_AUTO_SEQ;
    header->nlmsg_flags = static_cast<std::uint16_t>(header->nlmsg_flags | flags);
    nl_complete_msg(socket_.get(), message.get());
    sequence_ = header->nlmsg_seq;
    while (::send(nl_socket_get_fd(socket_.get()), header, header->nlmsg_len, 0) < 0)
        if (errno != EINTR) return failure(errno, what);
    return Ok{};
}

Result<std::size_t> Socket::receive_datagram(std::string_view what)
{
    for (;;) {
        sockaddr_nl from{};
        iovec part{buffer_.data(), buffer_.size()};
        msghdr datagram{};
        datagram.msg_name = &from;
        datagram.msg_namelen = sizeof from;
        datagram.msg_iov = &part;
        datagram.msg_iovlen = 1;
        const ssize_t size = ::recvmsg(nl_socket_get_fd(socket_.get()), &datagram, 0);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return failure(errno == EAGAIN ? ETIMEDOUT : errno, what);
        if (from.nl_pid != 0) continue; // other processes may write to our address
        if ((datagram.msg_flags & MSG_TRUNC) != 0) return failure(EMSGSIZE, what);
        return static_cast<std::size_t>(size);
    }
}

// Reads to the end of the answer even after an error, so that the next request finds the socket empty.
Result<> Socket::receive(std::string_view what, const Visitor* visit, bool until_done, bool& is_interrupted)
{
    Result<> outcome = Ok{};
    for (;;) {
        auto size = receive_datagram(what);
        if (!size && size.error().code != EMSGSIZE) return size.error();
        if (!size) {
            outcome = size.error();
            continue;
        }
        int left = static_cast<int>(*size);
        for (auto* message = reinterpret_cast<nlmsghdr*>(buffer_.data()); nlmsg_ok(message, left) != 0;
             message = nlmsg_next(message, &left)) {
            if (message->nlmsg_seq != sequence_) continue;
            if ((message->nlmsg_flags & NLM_F_DUMP_INTR) != 0) is_interrupted = true;
            const bool is_end = message->nlmsg_type == NLMSG_ERROR || (until_done && message->nlmsg_type == NLMSG_DONE);
            if (is_end) {
                auto end = outcome_of(message, what);
                return outcome ? end : outcome;
            }
            if (visit == nullptr || !outcome || message->nlmsg_type < NLMSG_MIN_TYPE) continue;
            outcome = (*visit)(message);
        }
    }
}

Result<> Socket::change(Message& message, std::string_view what)
{
    bool is_interrupted = false;
    TWILL_TRY(send(message, what, NLM_F_REQUEST | NLM_F_ACK));
    return receive(what, nullptr, false, is_interrupted);
}

Result<> Socket::ask(Message& message, std::string_view what, const Visitor& visit)
{
    bool is_interrupted = false;
    TWILL_TRY(send(message, what, NLM_F_REQUEST | NLM_F_ACK));
    return receive(what, &visit, false, is_interrupted);
}

Result<> Socket::dump(Message& message, std::string_view what, const std::function<void()>& restart,
                      const Visitor& visit)
{
    for (int attempt = 0; attempt < kDumpAttempts; ++attempt) {
        bool is_interrupted = false;
        restart();
        TWILL_TRY(send(message, what, NLM_F_REQUEST | NLM_F_DUMP));
        TWILL_TRY(receive(what, &visit, true, is_interrupted));
        if (!is_interrupted) return Ok{};
    }
    return failure(EAGAIN, what);
}

} // namespace twill::nl
