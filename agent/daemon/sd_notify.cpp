// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/sd_notify.hpp"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "twill/fd.hpp"

namespace twill {

Result<> sd_notify(std::string_view state)
{
    const char* name = std::getenv("NOTIFY_SOCKET");
    if (name == nullptr || *name == '\0') return Ok{};

    const std::string_view path = name;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if ((path[0] != '/' && path[0] != '@') || path.size() >= sizeof(address.sun_path))
        return Error{EINVAL, "sd_notify NOTIFY_SOCKET \"" + std::string(path) + "\": neither a path nor an @name"};
    std::memcpy(address.sun_path, path.data(), path.size());
    if (path[0] == '@') address.sun_path[0] = '\0'; // abstract name (unix(7)): no terminating zero

    const Fd socket{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    if (!socket) return Error{errno, "sd_notify socket"};
    const auto length =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (path[0] == '/' ? 1 : 0));
    const auto sent = ::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL,
                               reinterpret_cast<const sockaddr*>(&address), length);
    if (sent < 0) return Error{errno, "sd_notify " + std::string(path) + ": " + std::strerror(errno)};
    return Ok{};
}

} // namespace twill
