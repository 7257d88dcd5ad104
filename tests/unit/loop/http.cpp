// SPDX-License-Identifier: Apache-2.0
#include "agent/loop/http.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <memory>
#include <optional>

#include "twill/fd.hpp"

using namespace twill;

namespace {

/// A server on the same loop: reads one request of each connection, then sends what the test gives it.
class Server {
public:
    explicit Server(Loop& loop) : loop_(loop), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0))
    {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof(address);
        REQUIRE(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
        REQUIRE(listen(listener_.get(), 16) == 0);
        REQUIRE(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
        port_ = ntohs(address.sin_port);
        accept_ = std::make_unique<Poll>(loop, listener_.get(), [this] { take(); });
    }
    std::string url(const std::string& path = "/") const { return "http://127.0.0.1:" + std::to_string(port_) + path; }
    void send(const std::string& text)
    {
        REQUIRE(!connections.empty());
        auto& last = *connections.rbegin()->second;
        CHECK(::send(last.fd.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
    }
    void hang_up() { connections.clear(); }

    struct Connection {
        Fd fd;
        std::unique_ptr<Poll> poll;
    };
    std::map<int, std::unique_ptr<Connection>> connections;
    std::string received;
    int accepted = 0;
    bool is_closed_by_peer = false;
    std::string answer; ///< sent when a request came; empty: the test sends

private:
    void take()
    {
        const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK);
        if (fd < 0) return;
        auto connection = std::make_unique<Connection>();
        connection->fd = Fd(fd);
        connection->poll = std::make_unique<Poll>(loop_, fd, [this, fd] { read(fd); });
        connections[++accepted] = std::move(connection);
    }
    void read(int fd)
    {
        char bytes[4096];
        const auto size = ::recv(fd, bytes, sizeof(bytes), 0);
        if (size <= 0) {
            is_closed_by_peer = true;
            std::erase_if(connections, [&](const auto& item) { return item.second->fd.get() == fd; });
            return;
        }
        received.append(bytes, static_cast<std::size_t>(size));
        if (!answer.empty() && received.find("\r\n\r\n") != received.npos)
            CHECK(::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(answer.size()));
    }

    Loop& loop_;
    Fd listener_;
    int port_ = 0;
    std::unique_ptr<Poll> accept_;
};

struct HttpFixture {
    template <typename F>
    bool until(F done)
    {
        Timer poll(loop);
        Timer limit(loop);
        bool is_late = false;
        poll.every(std::chrono::milliseconds{1}, [&] {
            if (done()) loop.stop();
        });
        limit.once(std::chrono::seconds{20}, [&] {
            is_late = true;
            loop.stop();
        });
        loop.run();
        return !is_late;
    }
    Result<HttpReply> fetch(HttpRequest request)
    {
        std::optional<Result<HttpReply>> reply;
        const auto call = client->fetch(std::move(request), [&](Result<HttpReply> r) { reply = std::move(r); });
        CHECK_FALSE(reply); // never from inside the call
        REQUIRE(until([&] { return reply.has_value(); }));
        return *reply;
    }
    HttpRequest get(const std::string& path = "/")
    {
        HttpRequest request;
        request.url = server.url(path);
        return request;
    }

    Loop loop;
    Server server{loop};
    std::unique_ptr<HttpClient> client = std::make_unique<HttpClient>(loop);
};

} // namespace

TEST_CASE_FIXTURE(HttpFixture, "http: method, headers and body arrive, and so does the answer with its fields")
{
    server.answer = "HTTP/1.1 404 Not Found\r\nX-Kind:  Blue \r\nContent-Length: 5\r\n\r\nhello";
    auto request = get("/a?b=c");
    request.method = "PATCH";
    request.headers = {"Content-Type: application/json"};
    request.body = "{}";
    const auto reply = fetch(request);
    REQUIRE_MESSAGE(reply.has_value(), reply.error().what);
    CHECK(reply->head.status == 404);
    CHECK_FALSE(reply->head.is_success());
    CHECK(http_field(reply->head.fields, "x-kind") == "Blue");
    CHECK(reply->body == "hello");
    CHECK(server.received.starts_with("PATCH /a?b=c HTTP/1.1\r\n"));
    CHECK(server.received.find("Content-Type: application/json\r\n") != std::string::npos);
    CHECK(server.received.ends_with("\r\n\r\n{}"));
}

TEST_CASE_FIXTURE(HttpFixture, "http: pieces come as they are sent, then the trailers")
{
    std::string log;
    auto request = get();
    request.max_body = 0;
    HttpHandler handler;
    handler.on_head = [&](const HttpHead& head) { log += std::to_string(head.status) + ";"; };
    handler.on_body = [&](std::string_view piece) { log += std::string(piece) + ";"; };
    handler.on_end = [&](Result<HttpFields> end) {
        log += end ? "end " + std::string(http_field(*end, "grpc-status")) : end.error().what;
    };
    const auto call = client->start(request, handler);
    REQUIRE(until([&] { return server.received.ends_with("\r\n\r\n"); }));
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    REQUIRE(until([&] { return log == "200;one;"; }));
    server.send("3\r\ntwo\r\n");
    REQUIRE(until([&] { return log == "200;one;two;"; }));
    server.send("0\r\nGrpc-Status: 7\r\n\r\n");
    REQUIRE(until([&] { return log == "200;one;two;end 7"; }));
}

TEST_CASE_FIXTURE(HttpFixture, "http: a call that is destroyed calls nothing any more, also inside its own callback")
{
    int calls = 0;
    std::unique_ptr<HttpCall> call;
    HttpHandler handler;
    SUBCASE("before the answer") {}
    SUBCASE("in on_head")
    {
        handler.on_head = [&](const HttpHead&) { call.reset(); };
    }
    SUBCASE("in on_body")
    {
        handler.on_body = [&](std::string_view) { call.reset(); };
    }
    SUBCASE("the client goes in on_body")
    {
        handler.on_body = [&](std::string_view) { client.reset(); };
    }
    const bool is_early = !handler.on_head && !handler.on_body;
    handler.on_end = [&](Result<HttpFields>) { ++calls; };
    call = std::make_unique<HttpCall>(client->start(get(), handler));
    REQUIRE(until([&] { return server.received.ends_with("\r\n\r\n"); }));
    if (is_early) call.reset();
    if (!is_early) server.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnine byte");
    REQUIRE(until([&] { return server.is_closed_by_peer; }));
    CHECK(calls == 0);
}

TEST_CASE_FIXTURE(HttpFixture, "http: a callback may start the next transfer, and a connection is used again")
{
    server.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    int done = 0;
    HttpCall second, third;
    HttpHandler handler;
    handler.on_head = [&](const HttpHead&) {
        third = client->fetch(get("/own"), [&](Result<HttpReply> reply) { done += reply.has_value(); });
    };
    handler.on_end = [&](Result<HttpFields>) {
        second = client->fetch(get("/second"), [&](Result<HttpReply> reply) { done += reply.has_value(); });
    };
    const auto first = client->start(get(), handler);
    REQUIRE(until([&] { return done == 2; }));
    CHECK(server.accepted == 2);
}

TEST_CASE_FIXTURE(HttpFixture, "http: an own connection is not shared and not kept")
{
    server.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    auto own = get();
    own.is_own_connection = true;
    REQUIRE(fetch(get()));
    REQUIRE(fetch(own));
    CHECK(server.accepted == 2);
    REQUIRE(until([&] { return server.connections.size() == 1; }));
}

TEST_CASE_FIXTURE(HttpFixture, "http: connections from an address that is gone end, and are not used again")
{
    server.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    REQUIRE(fetch(get()));
    server.answer.clear();
    std::optional<Result<HttpReply>> own_end;
    auto own = get();
    own.is_own_connection = true;
    const auto call = client->fetch(own, [&](Result<HttpReply> reply) { own_end = std::move(reply); });
    REQUIRE(until([&] { return server.accepted == 2; }));
    client->lose_address(*Ip::parse("192.0.2.1"));
    client->lose_address(*Ip::parse("::1"));
    REQUIRE(until([&] { return true; })); // nothing of it is theirs
    CHECK(!own_end);
    client->lose_address(*Ip::parse("127.0.0.1"));
    REQUIRE(until([&] { return own_end.has_value() && server.connections.empty(); }));
    REQUIRE(!*own_end);
    CHECK(own_end->error().code == ECONNRESET);
    server.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    REQUIRE(fetch(get()));
    CHECK(server.accepted == 3);
}

TEST_CASE_FIXTURE(HttpFixture, "http: what breaks off says how, and shows no secret")
{
    auto request = get("/x?token=hunter2");
    SUBCASE("nobody listens")
    {
        request.url = "http://user:hunter2@127.0.0.1:1/x?token=hunter2";
        const auto reply = fetch(request);
        REQUIRE_FALSE(reply);
        CHECK(reply.error().code == ECONNREFUSED);
        CHECK(reply.error().what.starts_with("GET http://127.0.0.1:1/x: "));
        CHECK(reply.error().what.find("hunter2") == std::string::npos);
    }
    SUBCASE("half a body")
    {
        server.answer = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        std::optional<Result<HttpReply>> reply;
        const auto call = client->fetch(request, [&](Result<HttpReply> r) { reply = std::move(r); });
        REQUIRE(until([&] { return !server.received.empty(); }));
        server.hang_up();
        REQUIRE(until([&] { return reply.has_value(); }));
        REQUIRE_FALSE(*reply);
        CHECK(reply->error().code == ECONNRESET);
    }
    SUBCASE("more than the cap")
    {
        server.answer = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnine byte";
        request.max_body = 8;
        const auto reply = fetch(request);
        REQUIRE_FALSE(reply);
        CHECK(reply.error().code == EFBIG);
        request.max_body = 9;
        CHECK(fetch(request).has_value());
    }
    SUBCASE("no answer in time")
    {
        request.timeout = std::chrono::milliseconds{50};
        const auto reply = fetch(request);
        REQUIRE_FALSE(reply);
        CHECK(reply.error().code == ETIMEDOUT);
    }
    SUBCASE("silence in the middle")
    {
        server.answer = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        request.silence = std::chrono::seconds{1};
        const auto reply = fetch(request);
        REQUIRE_FALSE(reply);
        CHECK(reply.error().code == ETIMEDOUT);
    }
    SUBCASE("not a URL")
    {
        request.url = "http://:bad:/";
        const auto reply = fetch(request);
        REQUIRE_FALSE(reply);
        CHECK(reply.error().code == EINVAL);
    }
    SUBCASE("not HTTP")
    {
        server.answer = "SSH-2.0-OpenSSH\r\n\r\n";
        const auto reply = fetch(request);
        REQUIRE_FALSE(reply);
        CHECK(reply.error().code == EPROTO);
    }
}
