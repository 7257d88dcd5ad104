// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/loop/loop.hpp"
#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

/// Who the server must be and who we are. Files are read again on every connect, so that rotation needs no restart.
struct HttpTls {
    std::string ca_file;   ///< PEM; empty (and no ca_pem): the system's authorities
    std::string cert_file; ///< PEM, with the chain
    std::string key_file;
    std::string ca_pem; ///< the same as text, for a kubeconfig that holds them; a file wins
    std::string cert_pem;
    std::string key_pem;
    std::string server_name; ///< in SNI and certificate, where it is not the URL's host
    bool is_insecure = false;
    bool operator==(const HttpTls&) const = default;
};

enum class HttpVersion : std::uint8_t {
    http1,
    http2, ///< https: by ALPN, else HTTP/1.1; http: with prior knowledge (gRPC in plain text)
};

/// Names in lower case, in the order of arrival, repeated where the server repeats them.
using HttpFields = std::vector<std::pair<std::string, std::string>>;
/// The first field of that name; empty if there is none.
std::string_view http_field(const HttpFields& fields, std::string_view name);

struct HttpRequest {
    std::string method = "GET";
    std::string url;                  ///< http:// or https://; redirects are not followed
    std::vector<std::string> headers; ///< "Name: value"
    std::string body;                 ///< sent with any method when not empty, always with POST
    HttpTls tls;
    std::string unix_socket; ///< connect there; the URL still gives scheme, Host and path
    HttpVersion version = HttpVersion::http1;
    bool is_own_connection = false;                  ///< neither shared nor kept: for a watch
    bool is_proxy_allowed = false;                   ///< https_proxy, no_proxy of the environment hold
    std::size_t max_body = 64U << 20;                ///< of the answer; more is EFBIG; 0: endless, for a watch
    std::chrono::milliseconds connect_timeout{5000}; ///< TLS included
    std::chrono::milliseconds timeout{0};            ///< for all of it; 0: none
    std::chrono::seconds silence{0};                 ///< ends it when no byte moved for so long; 0: never
    std::chrono::milliseconds user_timeout{
        20000}; ///< TCP_USER_TIMEOUT: bytes in flight unacknowledged so long; keepalive
};

struct HttpHead {
    int status = 0; ///< 200 to 599
    HttpFields fields;
    bool is_success() const { return status >= 200 && status < 300; }
};

/// What a transfer calls; any may be empty. Each may destroy its HttpCall and start others.
struct HttpHandler {
    std::function<void(const HttpHead&)> on_head;   ///< once
    std::function<void(std::string_view)> on_body;  ///< for each piece, as it comes
    std::function<void(Result<HttpFields>)> on_end; ///< once, last: the trailers, or why it broke off
};

/// A whole answer.
struct HttpReply {
    HttpHead head;
    std::string body;
    HttpFields trailers;
};

/// A transfer under way. Destroying it cancels: nothing is called any more. It may outlive its HttpClient.
class HttpCall {
public:
    HttpCall() = default;
    HttpCall(HttpCall&&) noexcept = default;
    HttpCall& operator=(HttpCall&& other) noexcept;
    ~HttpCall();
    void cancel();

    struct State;

private:
    friend class HttpClient;
    explicit HttpCall(std::weak_ptr<State> state) : state_(std::move(state)) {}
    std::weak_ptr<State> state_;
};

/// Outbound HTTP/1.1 and HTTP/2, with or without TLS (at least 1.2), on the control thread's loop.
/// Threading: control thread; only name resolution runs elsewhere. Nothing blocks.
/// Callbacks come from the loop, never from inside start() or fetch(), and never after the client or the call is gone.
/// Errors of on_end: ECONNREFUSED, EHOSTUNREACH (name), ETIMEDOUT (any of the times), ECONNRESET (broke off),
/// EPROTO (TLS, HTTP), EFBIG, EINVAL (URL, files). The text has method, URL without query, and reason; no header.
class HttpClient {
public:
    explicit HttpClient(Loop& loop);
    ~HttpClient();
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    HttpCall start(HttpRequest request, HttpHandler handler);
    /// The whole answer at once, whatever its status.
    HttpCall fetch(HttpRequest request, std::function<void(Result<HttpReply>)> done);
    /// This machine no longer has that address. The kernel leaves connections from it as they are, and nothing comes on
    /// them any more: transfers on them end with ECONNRESET, and none is kept for the next.
    void lose_address(const Ip& address);

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
    friend struct HttpCall::State;
};

} // namespace twill
