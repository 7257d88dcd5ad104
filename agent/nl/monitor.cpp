// SPDX-License-Identifier: Apache-2.0
#include "agent/nl/monitor.hpp"

#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/nl/addr.hpp"
#include "agent/nl/link.hpp"
#include "agent/nl/neigh.hpp"
#include "agent/nl/qdisc.hpp"
#include "agent/nl/route.hpp"

namespace twill::nl {
namespace {

// Events carry statistics, so a link with many virtual functions is large; the kernel caps nothing here.
constexpr std::size_t kBufferBytes = std::size_t{64} * 1024;
// Datagrams in one turn of the loop; the poll is level-triggered, the rest follows in the next turn.
constexpr int kTurn = 256;
constexpr int kLocalTable = RT_TABLE_LOCAL;

struct FreeSocket {
    void operator()(nl_sock* socket) const noexcept { nl_socket_free(socket); }
};

Error failure(int code, const char* what) { return {code, std::string{what} + ": " + std::strerror(code)}; }

} // namespace

struct Monitor::State : std::enable_shared_from_this<State> {
    Loop& loop;
    std::unique_ptr<nl_sock, FreeSocket> socket;
    MonitorListener& listener;
    std::vector<char> buffer;
    std::optional<Poll> poll;
    bool is_stopped = false;
    bool is_discarding = false;

    State(Loop& on, MonitorListener& to) : loop(on), listener(to), buffer(kBufferBytes) {}

    Result<> open(int receive_buffer_bytes);
    void arm();
    ssize_t receive();
    void on_readable();
    void deliver(std::size_t size);
    void dispatch(const nlmsghdr* message);
    void neighbour(const nlmsghdr* message, bool gone);
    template <typename T>
    bool accept(const Result<T>& parsed);
};

Result<> Monitor::State::open(int receive_buffer_bytes)
{
    socket.reset(nl_socket_alloc());
    if (!socket) return failure(ENOMEM, "netlink monitor");
    if (const int rc = nl_connect(socket.get(), NETLINK_ROUTE); rc < 0)
        return Error{EIO, std::string{"netlink monitor: "} + nl_geterror(rc)};
    const int fd = nl_socket_get_fd(socket.get());
    // FORCE needs CAP_NET_ADMIN; without it the system's limit applies.
    if (::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer_bytes, sizeof receive_buffer_bytes) != 0 &&
        ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes) != 0)
        return failure(errno, "netlink monitor receive buffer");
    for (const int group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
                            RTNLGRP_IPV6_ROUTE, RTNLGRP_NEIGH, RTNLGRP_TC})
        if (::setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
            return failure(errno, "netlink monitor subscription");
    return Ok{};
}

// libuv gives up a descriptor whose error state it saw (UV_EBADF on POLLERR), as after ENOBUFS: so again after each
// loss.
void Monitor::State::arm()
{
    // The weak pointer: a callback that destroys the monitor finishes with the state it holds.
    poll.emplace(loop, nl_socket_get_fd(socket.get()), [weak = weak_from_this()] {
        if (const auto alive = weak.lock()) alive->on_readable();
    });
}

// Bytes of the next datagram, or -errno: EAGAIN when there is none, ENOBUFS when events were lost.
ssize_t Monitor::State::receive()
{
    for (;;) {
        sockaddr_nl from{};
        iovec part{buffer.data(), buffer.size()};
        msghdr datagram{};
        datagram.msg_name = &from;
        datagram.msg_namelen = sizeof from;
        datagram.msg_iov = &part;
        datagram.msg_iovlen = 1;
        const ssize_t size = ::recvmsg(nl_socket_get_fd(socket.get()), &datagram, MSG_DONTWAIT);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return -errno;
        if (from.nl_pid != 0) continue; // other processes may write to our address
        if ((datagram.msg_flags & MSG_TRUNC) != 0) return -ENOBUFS;
        return size;
    }
}

// What is queued when a loss is noticed is older than the loss, and would undo what a fresh read finds. So it is thrown
// away to the last datagram before the listener reads again.
void Monitor::State::on_readable()
{
    for (int i = 0; i < kTurn; ++i) {
        const ssize_t size = receive();
        if (size == -EAGAIN) {
            if (std::exchange(is_discarding, false)) listener.on_resync();
            return;
        }
        if (size < 0) {
            is_discarding = true;
            arm();
        } else if (!is_discarding) {
            deliver(static_cast<std::size_t>(size));
        }
        if (is_stopped) return;
    }
}

void Monitor::State::deliver(std::size_t size)
{
    int left = static_cast<int>(size);
    for (auto* message = reinterpret_cast<nlmsghdr*>(buffer.data()); nlmsg_ok(message, left) != 0;
         message = nlmsg_next(message, &left)) {
        dispatch(message);
        if (is_stopped || is_discarding) return;
    }
}

template <typename T>
bool Monitor::State::accept(const Result<T>& parsed)
{
    if (!parsed && parsed.error().code != EPROTONOSUPPORT) is_discarding = true;
    return parsed.has_value();
}

void Monitor::State::neighbour(const nlmsghdr* message, bool gone)
{
    if (const auto parsed = parse_fdb(message); accept(parsed)) return listener.on_fdb(*parsed, gone);
    if (const auto parsed = parse_vtep(message); accept(parsed)) return listener.on_vtep(*parsed, gone);
    if (const auto parsed = parse_neighbour(message); accept(parsed)) listener.on_neighbour(*parsed, gone);
}

void Monitor::State::dispatch(const nlmsghdr* message)
{
    switch (message->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        if (const auto parsed = parse_link(message); accept(parsed))
            listener.on_link(*parsed, message->nlmsg_type == RTM_DELLINK);
        return;
    case RTM_NEWADDR:
    case RTM_DELADDR:
        if (const auto parsed = parse_address(message); accept(parsed))
            listener.on_address(*parsed, message->nlmsg_type == RTM_DELADDR);
        return;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        if (const auto parsed = parse_route(message); accept(parsed) && parsed->table != kLocalTable)
            listener.on_route(*parsed, message->nlmsg_type == RTM_DELROUTE);
        return;
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
        return neighbour(message, message->nlmsg_type == RTM_DELNEIGH);
    case RTM_NEWQDISC:
    case RTM_DELQDISC:
        if (const auto parsed = parse_qdisc(message); accept(parsed)) listener.on_qdisc(parsed->ifindex);
        return;
    default:
        return;
    }
}

Monitor::Monitor(std::shared_ptr<State> state) : state_(std::move(state)) {}

Monitor::~Monitor()
{
    state_->is_stopped = true;
    state_->poll.reset();
}

Result<std::unique_ptr<Monitor>> Monitor::start(Loop& loop, MonitorListener& listener, MonitorOptions options)
{
    auto state = std::make_shared<State>(loop, listener);
    TWILL_TRY(state->open(options.receive_buffer_bytes));
    state->arm();
    return std::unique_ptr<Monitor>{new Monitor{std::move(state)}};
}

} // namespace twill::nl
