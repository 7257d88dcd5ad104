// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/api_server.hpp"

#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "twill/ip.hpp"

namespace twill {

namespace {

constexpr unsigned kMaxConnections = 32;
constexpr unsigned kMaxTcpConnections = 128; ///< anybody may connect, and the kubelet must still get through
constexpr unsigned kIdleSeconds = 10;        ///< a client that says nothing for so long is closed

std::string_view title_of(int status)
{
    switch (status) {
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 409:
        return "Conflict";
    case 413:
        return "Content Too Large";
    case 503:
        return "Service Unavailable";
    default:
        return "Internal Server Error";
    }
}

/// What is kept of a request between libmicrohttpd's calls.
struct Exchange {
    std::string body;
    bool is_too_large = false;
    bool is_queued = false;
    std::function<void()> after_sent;
};

struct DaemonStop {
    void operator()(MHD_Daemon* daemon) const noexcept { MHD_stop_daemon(daemon); }
};
using Daemon = std::unique_ptr<MHD_Daemon, DaemonStop>;

Result<sockaddr_un> address_of(const std::string& path)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) return Error{ENAMETOOLONG, "socket " + path + ": path too long"};
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

Error system_error(const std::string& what, int code) { return {code, what + ": " + std::strerror(code)}; }

/// Removes the file of a server that is gone. Only a refused connection proves that nobody listens.
Result<> clear_stale(const std::string& path, const sockaddr_un& address)
{
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) {
        if (errno == ENOENT) return Ok{};
        return system_error("socket " + path, errno);
    }
    if (!S_ISSOCK(info.st_mode)) return Error{EEXIST, "socket " + path + ": the file is there and is no socket"};
    const Fd probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!probe) return system_error("socket", errno);
    if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 || errno == EAGAIN)
        return Error{EADDRINUSE, "another twilld is running (socket " + path + ")"};
    if (errno != ECONNREFUSED) return system_error("socket " + path, errno);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return system_error("socket " + path + ": remove", errno);
    return Ok{};
}

Result<Fd> listen_at(const std::string& path)
{
    TWILL_TRY_AS(address, address_of(path));
    std::error_code failed;
    const auto parent = std::filesystem::path(path).parent_path();
    if (!parent.empty() && std::filesystem::create_directories(parent, failed) && !failed)
        ::chmod(parent.c_str(), 0755);
    if (failed) return Error{failed.value(), "directory " + parent.string() + ": " + failed.message()};
    TWILL_TRY(clear_stale(path, address));

    Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!socket) return system_error("socket", errno);
    // The mode of the descriptor becomes that of the file, so that it is never wider than 0660 (unix(7)).
    ::fchmod(socket.get(), 0660);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
        return system_error("socket " + path + ": bind", errno);
    if (::chmod(path.c_str(), 0660) != 0 || ::listen(socket.get(), 16) != 0) {
        const int code = errno;
        ::unlink(path.c_str());
        return system_error("socket " + path + ": listen", code);
    }
    return socket;
}

struct AddrinfoFree {
    void operator()(addrinfo* list) const noexcept { ::freeaddrinfo(list); }
};

Result<Fd> listen_on(const sockaddr* address, socklen_t size, const std::string& what)
{
    Fd socket{::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!socket) return system_error(what, errno);
    const int on = 1, off = 0;
    ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address->sa_family == AF_INET6)
        ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)); // [::] takes IPv4 too
    if (::bind(socket.get(), address, size) != 0 || ::listen(socket.get(), 128) != 0) return system_error(what, errno);
    return socket;
}

Result<Fd> listen_at(const std::string& host, std::uint16_t port)
{
    const std::string what = "health server on " + host + (host.empty() ? "" : " ") + "port " + std::to_string(port);
    const auto literal = Ip::parse(host);
    if (host.empty() || (literal && literal->is_unspecified())) {
        sockaddr_in6 any{};
        any.sin6_family = AF_INET6;
        any.sin6_port = htons(port);
        auto socket = listen_on(reinterpret_cast<const sockaddr*>(&any), sizeof(any), what);
        // Without IPv6 in the kernel, or on this node, IPv4 is all there is.
        if (socket || (socket.error().code != EAFNOSUPPORT && socket.error().code != EADDRNOTAVAIL)) return socket;
        sockaddr_in any4{};
        any4.sin_family = AF_INET;
        any4.sin_port = htons(port);
        return listen_on(reinterpret_cast<const sockaddr*>(&any4), sizeof(any4), what);
    }
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV | (literal ? AI_NUMERICHOST : 0);
    addrinfo* found = nullptr;
    const int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
    if (failed != 0) return Error{EINVAL, what + ": " + ::gai_strerror(failed)};
    const std::unique_ptr<addrinfo, AddrinfoFree> list{found};
    return listen_on(found->ai_addr, found->ai_addrlen, what);
}

} // namespace

Response Response::json(std::string body, int status) { return {status, "application/json", std::move(body), nullptr}; }

Response Response::text(std::string body, int status)
{
    return {status, "text/plain; charset=utf-8", std::move(body), nullptr};
}

Response Response::problem(int status, std::string_view detail)
{
    const nlohmann::ordered_json body = {
        {"type", "about:blank"}, {"title", title_of(status)}, {"status", status}, {"detail", detail}};
    return {status, "application/problem+json",
            body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", nullptr};
}

/// libmicrohttpd without a thread of its own: its epoll descriptor and its next timeout are watched by our loop.
struct ApiServer::State {
    State(Loop& the_loop, std::string the_path) : path(std::move(the_path)), loop(the_loop), timer(the_loop) {}
    ~State()
    {
        // The daemon's epoll descriptor must outlive the Poll; the daemon closes the listening socket.
        poll.reset();
        daemon.reset();
        // Only if the file is still ours: another server may have replaced it.
        struct stat info {};
        if (inode != 0 && ::lstat(path.c_str(), &info) == 0 && info.st_ino == inode && info.st_dev == device)
            ::unlink(path.c_str());
    }

    void run()
    {
        MHD_run(daemon.get());
        MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
        if (MHD_get_timeout(daemon.get(), &timeout_ms) == MHD_YES)
            timer.once(std::chrono::milliseconds(timeout_ms), [this] { run(); });
        else
            timer.stop();
    }

    Response answer(const Request& request) const
    {
        const auto by_path = routes.find(request.path);
        if (by_path == routes.end()) return Response::problem(404, "no such path: " + request.path);
        const auto by_method = by_path->second.find(request.method == "HEAD" ? "GET" : request.method);
        if (by_method == by_path->second.end())
            return Response::problem(405, request.path + " does not take " + request.method);
        return by_method->second(request);
    }

    std::string allowed_methods(const std::string& request_path) const
    {
        std::string out;
        if (const auto found = routes.find(request_path); found != routes.end())
            for (const auto& [method, handler] : found->second) out += (out.empty() ? "" : ", ") + method;
        return out;
    }

    MHD_Result queue(MHD_Connection* connection, Exchange& exchange, const std::string& request_path,
                     Response response) const
    {
        MHD_Response* out =
            MHD_create_response_from_buffer(response.body.size(), response.body.data(), MHD_RESPMEM_MUST_COPY);
        if (out == nullptr) return MHD_NO;
        MHD_add_response_header(out, MHD_HTTP_HEADER_CONTENT_TYPE, response.content_type.c_str());
        if (response.status == 405)
            MHD_add_response_header(out, MHD_HTTP_HEADER_ALLOW, allowed_methods(request_path).c_str());
        exchange.after_sent = std::move(response.after_sent);
        exchange.is_queued = true;
        const auto queued = MHD_queue_response(connection, static_cast<unsigned>(response.status), out);
        MHD_destroy_response(out);
        return queued;
    }

    static MHD_Result on_request(void* self, MHD_Connection* connection, const char* url, const char* method,
                                 const char*, const char* data, std::size_t* size, void** context)
    {
        const auto* state = static_cast<const State*>(self);
        if (*context == nullptr) { // the headers: the body follows in further calls
            *context = new Exchange;
            return MHD_YES;
        }
        auto& exchange = *static_cast<Exchange*>(*context);
        if (*size > 0) {
            exchange.is_too_large = exchange.is_too_large || exchange.body.size() + *size > kMaxBodyBytes;
            if (!exchange.is_too_large) exchange.body.append(data, *size);
            *size = 0;
            return MHD_YES;
        }
        if (exchange.is_queued) return MHD_YES;
        if (exchange.is_too_large)
            return state->queue(
                connection, exchange, url,
                Response::problem(413, "the body is larger than " + std::to_string(kMaxBodyBytes) + " bytes"));
        const Request request{method, url, std::move(exchange.body)};
        return state->queue(connection, exchange, request.path, state->answer(request));
    }

    static void on_completed(void*, MHD_Connection*, void** context, MHD_RequestTerminationCode)
    {
        const std::unique_ptr<Exchange> exchange{static_cast<Exchange*>(*context)};
        *context = nullptr;
        if (exchange && exchange->after_sent) exchange->after_sent();
    }

    std::string path;
    ino_t inode = 0;
    dev_t device = 0;
    Loop& loop;
    std::map<std::string, std::map<std::string, Handler>> routes; ///< path -> method -> handler
    Timer timer;
    std::optional<Poll> poll;
    Daemon daemon;
};

ApiServer::ApiServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

ApiServer::~ApiServer() = default;

Result<std::unique_ptr<ApiServer>> ApiServer::listen(Loop& loop, const std::string& socket_path)
{
    TWILL_TRY_AS(socket, listen_at(socket_path));
    auto state = std::make_unique<State>(loop, socket_path);
    struct stat info {};
    if (::lstat(socket_path.c_str(), &info) == 0) {
        state->inode = info.st_ino;
        state->device = info.st_dev;
    }
    return serve(std::move(state), std::move(socket), kMaxConnections);
}

Result<std::unique_ptr<ApiServer>> ApiServer::listen_tcp(Loop& loop, const std::string& host, std::uint16_t port)
{
    TWILL_TRY_AS(socket, listen_at(host, port));
    return serve(std::make_unique<State>(loop, host + ":" + std::to_string(port)), std::move(socket),
                 kMaxTcpConnections);
}

Result<std::unique_ptr<ApiServer>> ApiServer::serve(std::unique_ptr<State> state, Fd socket, unsigned max_connections)
{
    state->daemon.reset(MHD_start_daemon(MHD_USE_EPOLL, 0, nullptr, nullptr, &State::on_request, state.get(),
                                         MHD_OPTION_LISTEN_SOCKET, socket.get(), MHD_OPTION_NOTIFY_COMPLETED,
                                         &State::on_completed, state.get(), MHD_OPTION_CONNECTION_LIMIT,
                                         max_connections, MHD_OPTION_CONNECTION_TIMEOUT, kIdleSeconds, MHD_OPTION_END));
    if (!state->daemon) return Error{EIO, "socket " + state->path + ": libmicrohttpd did not start"};
    [[maybe_unused]] const int owned_by_daemon = socket.release();
    const auto* epoll = MHD_get_daemon_info(state->daemon.get(), MHD_DAEMON_INFO_EPOLL_FD);
    if (epoll == nullptr) return Error{EIO, "socket " + state->path + ": libmicrohttpd has no epoll descriptor"};
    state->poll.emplace(state->loop, epoll->epoll_fd, [raw = state.get()] { raw->run(); });
    return std::unique_ptr<ApiServer>(new ApiServer(std::move(state)));
}

void ApiServer::route(std::string method, std::string path, Handler handler)
{
    state_->routes[std::move(path)].insert_or_assign(std::move(method), std::move(handler));
}

bool is_listening(const std::string& socket_path)
{
    const auto address = address_of(socket_path);
    const Fd probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!address || !probe) return false;
    return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) == 0 ||
           errno == EAGAIN;
}

} // namespace twill
