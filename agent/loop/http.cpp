// SPDX-License-Identifier: Apache-2.0
#include "agent/loop/http.hpp"

#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <set>

#include "agent/loop/http_transfer.hpp"

namespace twill {

namespace {

std::optional<Ip> local_address(int socket)
{
    sockaddr_storage name{};
    socklen_t size = sizeof(name);
    if (::getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size) != 0) return std::nullopt;
    if (name.ss_family == AF_INET) {
        const auto& in = reinterpret_cast<const sockaddr_in&>(name).sin_addr;
        if (auto ip = Ip::from_network(&in, sizeof(in))) return *ip;
    } else if (name.ss_family == AF_INET6) {
        const auto& in = reinterpret_cast<const sockaddr_in6&>(name).sin6_addr;
        if (auto ip = Ip::from_network(&in, sizeof(in))) return *ip;
    }
    return std::nullopt;
}

} // namespace

/// Owns the multi handle and every transfer. Kept alive while curl runs, because a callback may destroy the client.
struct HttpClient::Impl : std::enable_shared_from_this<Impl> {
    using State = HttpCall::State;
    struct Socket {
        uv_poll_t poll{};
        Impl* impl = nullptr;
        curl_socket_t fd = -1;
    };

    explicit Impl(Loop& l) : loop(l), timer(l), fail_timer(l) {}
    ~Impl();
    void open();
    void add(const std::shared_ptr<State>& state);
    void cancel(const std::shared_ptr<State>& state);
    void close();
    void drop(const std::shared_ptr<State>& state);
    /// Everything that enters curl, so that nothing is added or removed while curl is on the stack.
    void run(curl_socket_t fd, int events);
    void settle();
    void finish(CURL* easy, CURLcode code);
    void fail();
    static int on_socket(CURL*, curl_socket_t fd, int what, Impl* impl, Socket* socket);
    static int on_timer(CURLM*, long milliseconds, Impl* impl);
    static curl_socket_t on_open(Impl* impl, curlsocktype, curl_sockaddr* address);
    static int on_close(Impl* impl, curl_socket_t fd);

    Loop& loop;
    Timer timer;
    Timer fail_timer;
    CURLM* multi = nullptr;
    std::set<std::shared_ptr<State>> states;
    std::vector<std::shared_ptr<State>> to_add;
    std::vector<std::shared_ptr<State>> to_drop;
    std::vector<std::pair<std::shared_ptr<State>, Error>> failed;
    std::set<Socket*> sockets;
    std::set<curl_socket_t> connections; ///< those that are kept for the next transfer, too
    int depth = 0;
    bool is_closed = false;
};

void HttpClient::Impl::open()
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    multi = curl_multi_init();
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, &on_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, &on_timer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, this);
    // Transfers that share a connection would share its flow control and its death.
    curl_multi_setopt(multi, CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_NOTHING));
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 8L);
}

HttpClient::Impl::~Impl() { close(); }

int HttpClient::Impl::on_socket(CURL*, curl_socket_t fd, int what, Impl* impl, Socket* socket)
{
    if (what == CURL_POLL_REMOVE) {
        if (socket == nullptr) return 0;
        curl_multi_assign(impl->multi, fd, nullptr);
        impl->sockets.erase(socket);
        uv_poll_stop(&socket->poll);
        uv_close(reinterpret_cast<uv_handle_t*>(&socket->poll),
                 [](uv_handle_t* handle) { delete static_cast<Socket*>(handle->data); });
        return 0;
    }
    if (socket == nullptr) {
        socket = new Socket;
        socket->impl = impl;
        socket->fd = fd;
        if (uv_poll_init(impl->loop.uv(), &socket->poll, fd) != 0) {
            delete socket;
            return -1;
        }
        socket->poll.data = socket;
        impl->sockets.insert(socket);
        curl_multi_assign(impl->multi, fd, socket);
    }
    const int events = ((what & CURL_POLL_IN) != 0 ? UV_READABLE : 0) | ((what & CURL_POLL_OUT) != 0 ? UV_WRITABLE : 0);
    uv_poll_start(&socket->poll, events, [](uv_poll_t* handle, int status, int ready) {
        const auto* s = static_cast<Socket*>(handle->data);
        int flags = 0;
        if (status < 0) flags = CURL_CSELECT_ERR;
        if ((ready & UV_READABLE) != 0) flags |= CURL_CSELECT_IN;
        if ((ready & UV_WRITABLE) != 0) flags |= CURL_CSELECT_OUT;
        s->impl->shared_from_this()->run(s->fd, flags);
    });
    return 0;
}

int HttpClient::Impl::on_timer(CURLM*, long milliseconds, Impl* impl)
{
    if (milliseconds < 0)
        impl->timer.stop();
    else // a timeout of 0 must come from the loop, too
        impl->timer.once(std::chrono::milliseconds{milliseconds},
                         [impl] { impl->shared_from_this()->run(CURL_SOCKET_TIMEOUT, 0); });
    return 0;
}

curl_socket_t HttpClient::Impl::on_open(Impl* impl, curlsocktype, curl_sockaddr* address)
{
    const int fd = ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd < 0) return CURL_SOCKET_BAD;
    impl->connections.insert(fd);
    return fd;
}

int HttpClient::Impl::on_close(Impl* impl, curl_socket_t fd)
{
    impl->connections.erase(fd);
    return ::close(fd);
}

void HttpClient::Impl::run(curl_socket_t fd, int events)
{
    const auto self = shared_from_this();
    if (is_closed) return;
    int running = 0;
    ++depth;
    curl_multi_socket_action(multi, fd, events, &running);
    --depth;
    int left = 0;
    // finish() runs callbacks, which may destroy the client: then close() has emptied the multi handle.
    while (!is_closed) {
        const CURLMsg* message = curl_multi_info_read(multi, &left);
        if (message == nullptr) break;
        if (message->msg == CURLMSG_DONE) finish(message->easy_handle, message->data.result);
    }
    settle();
}

void HttpClient::Impl::settle()
{
    if (depth > 0) return;
    for (const auto& state : std::exchange(to_drop, {})) drop(state);
    if (is_closed) return close();
    for (const auto& state : std::exchange(to_add, {}))
        if (!state->is_cancelled) add(state);
}

void HttpClient::Impl::finish(CURL* easy, CURLcode code)
{
    void* raw = nullptr;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &raw);
    const auto state = static_cast<State*>(raw)->shared_from_this();
    drop(state);
    if (state->is_cancelled) return;
    state->is_cancelled = true; // nothing comes after on_end
    if (!state->handler.on_end) return;
    if (code != CURLE_OK) return state->handler.on_end(state->failure(code));
    if (!state->is_head_done) return state->handler.on_end(state->failure(CURLE_GOT_NOTHING));
    state->handler.on_end(std::move(state->trailers));
}

void HttpClient::Impl::add(const std::shared_ptr<State>& state)
{
    if (depth > 0) {
        to_add.push_back(state);
        return;
    }
    states.insert(state);
    auto ready = state->set_up();
    if (ready) {
        curl_easy_setopt(state->easy.get(), CURLOPT_OPENSOCKETFUNCTION, &on_open);
        curl_easy_setopt(state->easy.get(), CURLOPT_OPENSOCKETDATA, this);
        curl_easy_setopt(state->easy.get(), CURLOPT_CLOSESOCKETFUNCTION, &on_close);
        curl_easy_setopt(state->easy.get(), CURLOPT_CLOSESOCKETDATA, this);
    }
    if (ready && curl_multi_add_handle(multi, state->easy.get()) == CURLM_OK) {
        state->is_added = true;
        return;
    }
    failed.emplace_back(state, ready ? Error{ENOMEM, "curl_multi_add_handle"} : ready.error());
    fail_timer.once(std::chrono::milliseconds{0}, [this] { shared_from_this()->fail(); }); // never from inside start()
}

void HttpClient::Impl::fail()
{
    for (const auto& [state, why] : std::exchange(failed, {})) {
        drop(state);
        if (std::exchange(state->is_cancelled, true)) continue;
        if (state->handler.on_end) state->handler.on_end(why);
    }
}

void HttpClient::Impl::cancel(const std::shared_ptr<State>& state)
{
    if (state->is_cancelled) return;
    state->is_cancelled = true;
    // While curl is on the stack it refuses to remove a transfer; its callback returns 0 instead, which ends it.
    if (depth > 0)
        to_drop.push_back(state);
    else
        drop(state);
}

void HttpClient::Impl::drop(const std::shared_ptr<State>& state)
{
    // `state` may be what is erased. NOLINTNEXTLINE(performance-unnecessary-copy-initialization)
    const auto keep = state;
    if (std::exchange(state->is_added, false)) curl_multi_remove_handle(multi, state->easy.get());
    states.erase(state);
}

void HttpClient::Impl::close()
{
    is_closed = true;
    timer.stop();
    fail_timer.stop();
    for (const auto& state : std::set(states)) state->is_cancelled = true;
    if (depth > 0 || multi == nullptr) return; // settle() comes here again
    for (const auto& state : std::set(states)) drop(state);
    to_add.clear();
    failed.clear();
    curl_multi_cleanup(std::exchange(multi, nullptr));
}

HttpCall& HttpCall::operator=(HttpCall&& other) noexcept
{
    if (this != &other) {
        cancel();
        state_ = std::move(other.state_);
        other.state_.reset();
    }
    return *this;
}

HttpCall::~HttpCall() { cancel(); }

void HttpCall::cancel()
{
    const auto state = state_.lock();
    state_.reset();
    if (!state) return;
    if (const auto client = state->client.lock())
        client->cancel(state);
    else
        state->is_cancelled = true;
}

HttpClient::HttpClient(Loop& loop) : impl_(std::make_shared<Impl>(loop)) { impl_->open(); }

HttpClient::~HttpClient() { impl_->close(); }

HttpCall HttpClient::start(HttpRequest request, HttpHandler handler)
{
    auto state = std::make_shared<HttpCall::State>();
    state->request = std::move(request);
    state->handler = std::move(handler);
    state->client = impl_;
    impl_->add(state);
    return HttpCall(state);
}

void HttpClient::lose_address(const Ip& address)
{
    // curl sees the end as if the server had closed, also of a connection that it keeps.
    for (const auto fd : impl_->connections)
        if (local_address(fd) == address) (void)::shutdown(fd, SHUT_RDWR);
}

HttpCall HttpClient::fetch(HttpRequest request, std::function<void(Result<HttpReply>)> done)
{
    auto reply = std::make_shared<HttpReply>();
    HttpHandler handler;
    handler.on_head = [reply](const HttpHead& head) { reply->head = head; };
    handler.on_body = [reply](std::string_view piece) { reply->body += piece; };
    handler.on_end = [reply, done = std::move(done)](Result<HttpFields> end) {
        if (!end) return done(end.error());
        reply->trailers = *std::move(end);
        done(std::move(*reply));
    };
    return start(std::move(request), std::move(handler));
}

} // namespace twill
