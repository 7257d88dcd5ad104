// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/sd_notify.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "twill/fd.hpp"

using namespace twill;

namespace {

/// A datagram socket at `name`; a leading '@' stands for the zero of an abstract name.
Fd receiver(const std::string& name)
{
    Fd fd{socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    const bool is_abstract = name[0] == '@';
    if (is_abstract) address.sun_path[0] = '\0';
    const auto length = offsetof(sockaddr_un, sun_path) + name.size() + (is_abstract ? 0U : 1U);
    REQUIRE(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(length)) == 0);
    return fd;
}

std::string received(const Fd& fd)
{
    char buffer[64];
    const auto n = recv(fd.get(), buffer, sizeof(buffer), 0);
    return n < 0 ? "" : std::string(buffer, static_cast<std::size_t>(n));
}

} // namespace

TEST_CASE("sd_notify: without systemd it does nothing")
{
    unsetenv("NOTIFY_SOCKET");
    CHECK(sd_notify("READY=1"));
}

TEST_CASE("sd_notify: the state arrives at a path and at an abstract name")
{
    const std::string id = std::to_string(getpid());
    for (const std::string& name : {"/tmp/twill-notify-" + id, "@twill-notify-" + id}) {
        CAPTURE(name);
        const Fd fd = receiver(name);
        setenv("NOTIFY_SOCKET", name.c_str(), 1);
        CHECK(sd_notify("READY=1"));
        CHECK(received(fd) == "READY=1");
        CHECK(sd_notify("STOPPING=1"));
        CHECK(received(fd) == "STOPPING=1");
        if (name[0] == '/') unlink(name.c_str());
    }
    unsetenv("NOTIFY_SOCKET");
}

TEST_CASE("sd_notify: a bad or dead socket is an error that names it")
{
    for (const char* name : {"relative", "/tmp/twill-notify-nobody"}) {
        setenv("NOTIFY_SOCKET", name, 1);
        const auto sent = sd_notify("READY=1");
        REQUIRE_FALSE(sent);
        CHECK(sent.error().what.find(name) != std::string::npos);
    }
    unsetenv("NOTIFY_SOCKET");
}
