// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/api_server.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "twill/fd.hpp"

using namespace twill;

namespace {

/// A directory that goes with its content.
struct TempDir {
    TempDir()
    {
        char name[] = "/tmp/twill-api-XXXXXX";
        path = mkdtemp(name);
    }
    ~TempDir() { std::filesystem::remove_all(path); }
    std::filesystem::path path;
};

sockaddr_un address_of(const std::string& path)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

Fd bound(const std::string& path)
{
    Fd fd{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const auto address = address_of(path);
    REQUIRE(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    return fd;
}

/// Sends `request` as it is and reads until the server closes.
std::string talk(const std::string& path, const std::string& request)
{
    const Fd fd{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const auto address = address_of(path);
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return "";
    std::size_t sent = 0;
    while (sent < request.size()) {
        const auto n = send(fd.get(), request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += static_cast<std::size_t>(n);
    }
    std::string reply;
    char buffer[4096];
    for (ssize_t n = 0; (n = recv(fd.get(), buffer, sizeof(buffer), 0)) > 0;)
        reply.append(buffer, static_cast<std::size_t>(n));
    return reply;
}

std::string request(const std::string& line, const std::string& body = "")
{
    return line + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body;
}

int status_of(const std::string& reply) { return reply.size() < 12 ? 0 : std::atoi(reply.c_str() + 9); }
std::string body_of(const std::string& reply)
{
    const auto end = reply.find("\r\n\r\n");
    return end == std::string::npos ? "" : reply.substr(end + 4);
}

/// A server on a socket in a directory that does not exist yet; clients run in a thread beside the loop.
struct ApiFixture {
    TempDir dir;
    std::string path = (dir.path / "run" / "twill.sock").string();
    Loop loop;
    std::unique_ptr<ApiServer> server;

    ApiFixture()
    {
        auto listening = ApiServer::listen(loop, path);
        REQUIRE(listening);
        server = *std::move(listening);
        server->route("GET", "/v1/status", [](const Request&) { return Response::json("{\"ready\":true}"); });
        server->route("POST", "/v1/echo", [](const Request& r) { return Response::text(r.body); });
    }

    std::string ask(const std::string& text)
    {
        std::string reply;
        Mailbox done{loop};
        std::thread client{[&] {
            reply = talk(path, text);
            done.post([this] { loop.stop(); });
        }};
        loop.run();
        client.join();
        return reply;
    }
};

} // namespace

TEST_CASE_FIXTURE(ApiFixture, "api: a handler's answer arrives with its type")
{
    const std::string reply = ask(request("GET /v1/status?x=1"));
    CHECK(status_of(reply) == 200);
    CHECK(reply.find("Content-Type: application/json\r\n") != std::string::npos);
    CHECK(body_of(reply) == "{\"ready\":true}");
    CHECK(body_of(ask(request("POST /v1/echo", "hello"))) == "hello");
    CHECK(status_of(ask(request("HEAD /v1/status"))) == 200);
    CHECK(body_of(ask(request("HEAD /v1/status"))).empty());
}

namespace {

/// One GET over TCP; empty when nobody listens.
std::string get_tcp(int family, const char* address, std::uint16_t port)
{
    const Fd fd{socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_storage to{};
    socklen_t size = 0;
    if (family == AF_INET) {
        auto& v4 = reinterpret_cast<sockaddr_in&>(to);
        v4 = {};
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        inet_pton(AF_INET, address, &v4.sin_addr);
        size = sizeof(v4);
    } else {
        auto& v6 = reinterpret_cast<sockaddr_in6&>(to);
        v6 = {};
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(port);
        inet_pton(AF_INET6, address, &v6.sin6_addr);
        size = sizeof(v6);
    }
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), size) != 0) return "";
    const std::string text = request("GET /healthz");
    if (send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0) return "";
    std::string reply;
    char buffer[4096];
    for (ssize_t n = 0; (n = recv(fd.get(), buffer, sizeof(buffer), 0)) > 0;)
        reply.append(buffer, static_cast<std::size_t>(n));
    return reply;
}

/// A port that nobody uses now.
std::uint16_t free_port()
{
    const Fd fd{socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_in address{};
    address.sin_family = AF_INET;
    socklen_t size = sizeof(address);
    REQUIRE(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0);
    REQUIRE(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    return ntohs(address.sin_port);
}

} // namespace

TEST_CASE("api: a server on TCP listens where it is told, and 0.0.0.0 means every address of both families")
{
    struct Place {
        const char* host;
        bool v4, v6;
    };
    for (const Place& place : {Place{"127.0.0.1", true, false}, Place{"localhost", true, false},
                               Place{"0.0.0.0", true, true}, Place{"", true, true}, Place{"::", true, true}}) {
        CAPTURE(place.host);
        const std::uint16_t port = free_port();
        Loop loop;
        auto server = ApiServer::listen_tcp(loop, place.host, port);
        REQUIRE(server);
        (*server)->route("GET", "/healthz", [](const Request&) { return Response::text("fine"); });
        const auto ask = [&](int family, const char* address) {
            std::string reply;
            Mailbox done{loop};
            std::thread client{[&] {
                reply = get_tcp(family, address, port);
                done.post([&] { loop.stop(); });
            }};
            loop.run();
            client.join();
            return body_of(reply);
        };
        const bool is_local = place.host == std::string("localhost"); // of either family
        if (is_local)
            CHECK(ask(AF_INET, "127.0.0.1") + ask(AF_INET6, "::1") == "fine");
        else
            CHECK(ask(AF_INET, "127.0.0.1") == (place.v4 ? "fine" : ""));
        if (!is_local) CHECK(ask(AF_INET6, "::1") == (place.v6 ? "fine" : ""));
        const auto second = ApiServer::listen_tcp(loop, "127.0.0.1", port);
        if (!is_local) {
            REQUIRE_FALSE(second);
            CHECK(second.error().what.starts_with("health server on 127.0.0.1 port " + std::to_string(port) + ": "));
        }
    }
    Loop loop;
    CHECK_FALSE(ApiServer::listen_tcp(loop, "192.0.2.77", 1)); // an address of somebody else
    CHECK_FALSE(ApiServer::listen_tcp(loop, "no such host", 1));
}

TEST_CASE_FIXTURE(ApiFixture, "api: unknown paths and methods are problems in JSON")
{
    const std::string missing = ask(request("GET /v1/nothing"));
    CHECK(status_of(missing) == 404);
    CHECK(missing.find("Content-Type: application/problem+json\r\n") != std::string::npos);
    const auto problem = nlohmann::json::parse(body_of(missing));
    CHECK(problem["type"] == "about:blank");
    CHECK(problem["title"] == "Not Found");
    CHECK(problem["status"] == 404);
    CHECK(problem["detail"] == "no such path: /v1/nothing");

    const std::string wrong = ask(request("DELETE /v1/status"));
    CHECK(status_of(wrong) == 405);
    CHECK(wrong.find("Allow: GET\r\n") != std::string::npos);
}

TEST_CASE_FIXTURE(ApiFixture, "api: a body of the limit is taken, one byte more is refused")
{
    const std::string most(ApiServer::kMaxBodyBytes, 'x');
    CHECK(body_of(ask(request("POST /v1/echo", most))) == most);
    const std::string reply = ask(request("POST /v1/echo", most + "x"));
    CHECK(status_of(reply) == 413);
    CHECK(status_of(ask(request("GET /v1/status"))) == 200);
}

TEST_CASE_FIXTURE(ApiFixture, "api: junk and clients that leave do not stop the server")
{
    ask("\x01\x02 junk\r\n\r\n");
    {
        const Fd idle{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        const auto address = address_of(path);
        REQUIRE(connect(idle.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
        REQUIRE(send(idle.get(), "GET /v1/st", 10, MSG_NOSIGNAL) == 10);
    }
    CHECK(status_of(ask(request("GET /v1/status"))) == 200);
}

TEST_CASE_FIXTURE(ApiFixture, "api: what follows an answer runs when it has left")
{
    bool is_done = false;
    server->route("POST", "/v1/detach", [&](const Request&) {
        Response response = Response::json("{}");
        response.after_sent = [&] { is_done = true; };
        return response;
    });
    CHECK(body_of(ask(request("POST /v1/detach"))) == "{}");
    CHECK(is_done);
}

TEST_CASE_FIXTURE(ApiFixture, "api: the socket is 0660 in a directory of 0755, and goes with the server")
{
    struct stat info {};
    REQUIRE(stat(path.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0660);
    REQUIRE(stat((dir.path / "run").c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0755);
    server.reset();
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE_FIXTURE(ApiFixture, "api: a second agent on a live socket is refused and the first keeps it")
{
    const auto second = ApiServer::listen(loop, path);
    REQUIRE_FALSE(second);
    CHECK(second.error().code == EADDRINUSE);
    CHECK(second.error().what == "another twilld is running (socket " + path + ")");
    CHECK(status_of(ask(request("GET /v1/status"))) == 200);
}

TEST_CASE("api: the socket of an agent that died is replaced")
{
    TempDir dir;
    const std::string path = (dir.path / "s").string();
    bound(path).reset(); // the file stays, nobody listens
    REQUIRE(std::filesystem::exists(path));
    Loop loop;
    CHECK(ApiServer::listen(loop, path));
}

TEST_CASE("api: a file that is no socket is never removed")
{
    TempDir dir;
    const std::string path = (dir.path / "s").string();
    std::ofstream(path) << "precious";
    Loop loop;
    const auto server = ApiServer::listen(loop, path);
    REQUIRE_FALSE(server);
    CHECK(server.error().code == EEXIST);
    CHECK(std::filesystem::file_size(path) == 8);
}
