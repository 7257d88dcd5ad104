// SPDX-License-Identifier: Apache-2.0
#include "agent/store/etcd_client.hpp"

#include <cerrno>
#include <utility>

#include "agent/store/etcd_codec.hpp"

namespace twill {

namespace {

/// A listing of 5,000 leases has 2 MB; etcd itself takes no value above 1.5 MB.
constexpr std::size_t kMaxAnswer = 64U << 20;
constexpr std::string_view kAuthenticate = "Auth/Authenticate";

/// Another endpoint may do better.
bool is_endpoint_trouble(const Error& why)
{
    return why.code == EAGAIN || why.code == ETIMEDOUT || why.code == ECONNREFUSED || why.code == ECONNRESET ||
           why.code == EHOSTUNREACH || why.code == EPROTO || why.code == EIO;
}

Result<std::string> message_of(const HttpReply& reply)
{
    TWILL_TRY(grpc_outcome(reply.head, reply.trailers));
    std::optional<std::string> message;
    GrpcReader reader(kMaxAnswer);
    TWILL_TRY(reader.feed(reply.body, [&](std::string_view m) {
        if (!message) message = m;
        return true;
    }));
    if (!message || !reader.is_empty()) return Error{EAGAIN, "half an answer"};
    return *std::move(message);
}

} // namespace

struct EtcdClient::Unary {
    std::string method;
    std::string message;
    std::function<void(Result<std::string>)> done;
    std::size_t tries = 0;
    std::size_t endpoint = 0;
    bool has_new_token = false; ///< a second refusal is final
    HttpCall http;
};

struct EtcdClient::Stream {
    StreamHandler handler;
    GrpcReader reader{kMaxAnswer};
    HttpHead head;
    std::string method;
    std::size_t endpoint = 0;
    HttpCall http;
};

Result<std::string> etcd_endpoint(std::string_view text, bool has_tls_files)
{
    std::string url(text);
    while (!url.empty() && (url.front() == ' ' || url.front() == '\t')) url.erase(0, 1);
    while (!url.empty() && (url.back() == ' ' || url.back() == '\t')) url.pop_back();
    const bool is_shown = url.find('@') == url.npos; // before it may be a password
    if (url.find("://") == url.npos) url = (has_tls_files ? "https://" : "http://") + url;
    while (url.ends_with('/') && !url.ends_with("://")) url.pop_back();
    const std::string_view host = std::string_view(url).substr(url.find("://") + 3);
    if ((!url.starts_with("http://") && !url.starts_with("https://")) || host.empty() ||
        host.find_first_of("/?#@ \t\r\n") != host.npos)
        return Error{EINVAL, "etcd-endpoints " + (is_shown ? std::string(text) : "...") +
                                 ": want URLs such as http://192.0.2.1:2379"};
    return url;
}

EtcdClient::EtcdClient(Loop& loop, EtcdOptions options) : http_(loop), options_(std::move(options)) {}

HttpRequest EtcdClient::request(std::string_view method) const
{
    HttpRequest request;
    request.method = "POST";
    request.url = options_.endpoints[current_] + "/etcdserverpb." + std::string(method);
    request.version = HttpVersion::http2;
    // A second call on a connection of etcd ends in "Error in the HTTP2 framing layer" with libcurl 7.88. Calls are
    // few.
    request.is_own_connection = true;
    request.headers = {"Content-Type: application/grpc", "TE: trailers", "User-Agent: twilld"};
    if (!token_.empty() && method != kAuthenticate) request.headers.push_back("token: " + token_);
    request.tls.ca_file = options_.ca_file;
    request.tls.cert_file = options_.cert_file;
    request.tls.key_file = options_.key_file;
    request.connect_timeout = std::min(options_.call_timeout, std::chrono::milliseconds{3000});
    return request;
}

Error EtcdClient::at_endpoint(std::string_view method, std::size_t endpoint, const Error& why) const
{
    // Errors of HTTP name the whole URL already.
    if (why.what.starts_with("POST ")) return Error{why.code, "etcd: " + why.what.substr(5)};
    return Error{why.code, "etcd " + options_.endpoints[endpoint] + " " + std::string(method) + ": " + why.what};
}

void EtcdClient::rotate(std::size_t from)
{
    if (current_ == from) current_ = (current_ + 1) % options_.endpoints.size();
}

EtcdCall EtcdClient::unary(std::string_view method, std::string message, std::function<void(Result<std::string>)> done)
{
    auto call = std::make_shared<Unary>();
    call->method = method;
    call->message = grpc_frame(message);
    call->done = std::move(done);
    attempt(call);
    return call;
}

void EtcdClient::attempt(const std::shared_ptr<Unary>& call)
{
    call->endpoint = current_;
    if (!options_.username.empty() && token_.empty() && !is_auth_off_) return authenticate(call);
    auto http = request(call->method);
    http.body = call->message;
    http.timeout = options_.call_timeout;
    http.max_body = kMaxAnswer;
    call->http = http_.fetch(std::move(http), [this, weak = std::weak_ptr(call)](const Result<HttpReply>& reply) {
        if (const auto strong = weak.lock()) ended(strong, reply);
    });
}

void EtcdClient::ended(const std::shared_ptr<Unary>& call, const Result<HttpReply>& reply)
{
    auto message = reply ? message_of(*reply) : Result<std::string>(reply.error());
    if (message) return call->done(*std::move(message));
    if (message.error().code == EKEYREJECTED && !options_.username.empty() && !call->has_new_token) {
        call->has_new_token = true;
        is_auth_off_ = false;
        token_.clear();
        return attempt(call);
    }
    failed(call, message.error());
}

void EtcdClient::authenticate(const std::shared_ptr<Unary>& call)
{
    auto http = request(kAuthenticate);
    http.body = grpc_frame(encode_authenticate(options_.username, options_.password));
    http.timeout = options_.call_timeout;
    call->http = http_.fetch(std::move(http), [this, weak = std::weak_ptr(call)](Result<HttpReply> reply) {
        const auto strong = weak.lock();
        if (!strong) return;
        auto message = reply ? message_of(*reply) : Result<std::string>(reply.error());
        if (!message && message.error().code == EPERM) {
            is_auth_off_ = true; // as etcd's own client: go on without
            return attempt(strong);
        }
        if (!message) return failed(strong, message.error());
        auto token = decode_authenticate(*message);
        if (!token || token->empty()) return failed(strong, token ? Error{EIO, "no token"} : token.error());
        token_ = *std::move(token);
        attempt(strong);
    });
}

void EtcdClient::failed(const std::shared_ptr<Unary>& call, Error why)
{
    why = at_endpoint(call->method, call->endpoint, why);
    if (is_endpoint_trouble(why)) {
        rotate(call->endpoint);
        if (++call->tries < options_.endpoints.size()) return attempt(call);
    }
    call->done(std::move(why));
}

EtcdCall EtcdClient::stream(std::string_view method, const std::vector<std::string>& messages, StreamHandler handler)
{
    auto call = std::make_shared<Stream>();
    call->handler = std::move(handler);
    call->method = method;
    call->endpoint = current_;
    auto http = request(method);
    for (const auto& message : messages) http.body += grpc_frame(message);
    http.headers.emplace_back("hasleader: true"); // a member that lost its leader ends the stream
    http.max_body = 0;
    HttpHandler h;
    h.on_head = [weak = std::weak_ptr(call)](const HttpHead& head) {
        if (const auto strong = weak.lock()) strong->head = head;
    };
    const auto end = [this, weak = std::weak_ptr(call)](const Error& why) {
        const auto strong = weak.lock();
        if (!strong) return;
        rotate(strong->endpoint);
        const auto on_end = std::move(strong->handler.on_end);
        if (on_end) on_end(at_endpoint(strong->method, strong->endpoint, why));
    };
    h.on_body = [weak = std::weak_ptr(call), end](std::string_view piece) {
        const auto strong = weak.lock();
        if (!strong) return;
        auto fed = strong->reader.feed(piece, [&](std::string_view m) { return strong->handler.on_message(m); });
        if (fed) return;
        strong->http.cancel();
        end(fed.error());
    };
    h.on_end = [weak = std::weak_ptr(call), end](Result<HttpFields> trailers) {
        const auto strong = weak.lock();
        if (!strong) return;
        if (!trailers) return end(trailers.error());
        const auto outcome = grpc_outcome(strong->head, *trailers);
        end(outcome ? Error{EAGAIN, "the server ended the watch"} : outcome.error());
    };
    call->http = http_.start(std::move(http), std::move(h));
    return call;
}

} // namespace twill
