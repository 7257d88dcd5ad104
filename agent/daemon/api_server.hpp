// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "agent/loop/loop.hpp"
#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill {

/// One request, read completely.
struct Request {
    std::string method; ///< "GET"
    std::string path;   ///< without the query
    std::string body;
};

/// What a handler answers.
struct Response {
    int status = 200;
    std::string content_type = "application/json";
    std::string body;
    std::function<void()> after_sent; ///< runs when the answer has left (or the client has gone); may stop the loop

    static Response json(std::string body, int status = 200);
    static Response text(std::string body, int status = 200);
    /// RFC 9457: application/problem+json with type, title, status and detail.
    static Response problem(int status, std::string_view detail);
};

/// Runs on the control thread.
using Handler = std::function<Response(const Request&)>;

/// Does somebody listen at the socket?
bool is_listening(const std::string& socket_path);

/// The local API, or the health server: HTTP/1.1 on a unix socket, mode 0660, or on TCP, served on the control thread.
/// Unknown paths get 404, other methods 405, bodies over the limit 413, all as problem+json. The socket file is removed
/// by the destructor.
class ApiServer {
public:
    static constexpr std::size_t kMaxBodyBytes = std::size_t{64} * 1024;

    /// Listens at `socket_path`, making its directory (0755). A stale socket is replaced; a live one is EADDRINUSE
    /// "another twilld is running (socket ...)". `loop` must outlive the server.
    static Result<std::unique_ptr<ApiServer>> listen(Loop& loop, const std::string& socket_path);
    /// Listens on TCP as Go does: `host` is an address or a host name; empty or unspecified means all addresses of both
    /// families. The error names both.
    static Result<std::unique_ptr<ApiServer>> listen_tcp(Loop& loop, const std::string& host, std::uint16_t port);
    ~ApiServer();
    ApiServer(const ApiServer&) = delete;
    ApiServer& operator=(const ApiServer&) = delete;

    /// Adds a row to the table; also while running. HEAD is answered by the GET handler.
    void route(std::string method, std::string path, Handler handler);

private:
    struct State;
    explicit ApiServer(std::unique_ptr<State> state);
    static Result<std::unique_ptr<ApiServer>> serve(std::unique_ptr<State> state, Fd socket, unsigned max_connections);
    std::unique_ptr<State> state_;
};

} // namespace twill
