// SPDX-License-Identifier: Apache-2.0
#include "agent/loop/http.hpp"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>

namespace twill {

namespace {

constexpr std::size_t kMaxFieldBytes = 256U << 10; // all header fields of one answer

template <auto Free>
struct Deleter {
    template <typename T>
    void operator()(T* object) const noexcept
    {
        Free(object);
    }
};
using Slist = std::unique_ptr<curl_slist, Deleter<curl_slist_free_all>>;
using Easy = std::unique_ptr<CURL, Deleter<curl_easy_cleanup>>;
using Url = std::unique_ptr<CURLU, Deleter<curl_url_cleanup>>;

int errno_of(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_CONNECT:
        return ECONNREFUSED;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return EHOSTUNREACH;
    case CURLE_OPERATION_TIMEDOUT:
        return ETIMEDOUT;
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
        return ECONNRESET;
    case CURLE_URL_MALFORMAT:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
        return EINVAL;
    default:
        return EPROTO;
    }
}

/// The URL's parts that an error may show: no user, no query.
std::string without_secrets(const std::string& url)
{
    const auto end = url.find_first_of("?#");
    std::string text = url.substr(0, end);
    const auto host = text.find("://");
    const auto slash = text.find('/', host == text.npos ? 0 : host + 3);
    const auto at = text.rfind('@', slash);
    if (host != text.npos && at != text.npos && at > host) text.erase(host + 3, at - host - 2);
    return text;
}

std::string url_part(CURLU* url, CURLUPart part)
{
    char* text = nullptr;
    if (curl_url_get(url, part, &text, part == CURLUPART_PORT ? CURLU_DEFAULT_PORT : 0) != CURLUE_OK) return {};
    std::string copy = text;
    curl_free(text);
    return copy;
}

void set_blob(CURL* easy, CURLoption option, const std::string& pem)
{
    curl_blob blob{const_cast<char*>(pem.data()), pem.size(), CURL_BLOB_COPY};
    curl_easy_setopt(easy, option, &blob);
}

void set_tls(CURL* easy, const HttpTls& tls)
{
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    // A resumed session would keep the certificate of the old one.
    curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
    curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
    if (tls.is_insecure) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (!tls.ca_file.empty() || !tls.ca_pem.empty()) curl_easy_setopt(easy, CURLOPT_CAPATH, nullptr);
    if (!tls.ca_file.empty())
        curl_easy_setopt(easy, CURLOPT_CAINFO, tls.ca_file.c_str());
    else if (!tls.ca_pem.empty())
        set_blob(easy, CURLOPT_CAINFO_BLOB, tls.ca_pem);
    if (!tls.cert_file.empty())
        curl_easy_setopt(easy, CURLOPT_SSLCERT, tls.cert_file.c_str());
    else if (!tls.cert_pem.empty())
        set_blob(easy, CURLOPT_SSLCERT_BLOB, tls.cert_pem);
    if (!tls.key_file.empty())
        curl_easy_setopt(easy, CURLOPT_SSLKEY, tls.key_file.c_str());
    else if (!tls.key_pem.empty())
        set_blob(easy, CURLOPT_SSLKEY_BLOB, tls.key_pem);
}

int set_user_timeout(void* milliseconds, curl_socket_t socket, curlsocktype)
{
    const auto value = static_cast<unsigned>(static_cast<HttpRequest*>(milliseconds)->user_timeout.count());
    // A unix socket has no such option.
    if (value > 0) (void)setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, sizeof(value));
    return CURL_SOCKOPT_OK;
}

} // namespace

std::string_view http_field(const HttpFields& fields, std::string_view name)
{
    for (const auto& [key, value] : fields)
        if (key == name) return value;
    return {};
}

struct HttpCall::State : std::enable_shared_from_this<State> {
    HttpRequest request;
    HttpHandler handler;
    std::weak_ptr<HttpClient::Impl> client;
    Easy easy;
    Slist headers;
    Slist connect_to;
    HttpHead head;
    HttpFields trailers;
    std::size_t field_bytes = 0;
    std::size_t body_bytes = 0;
    bool is_head_done = false;
    bool is_cancelled = false;
    bool is_added = false;
    std::string why; ///< our own reason to break off
    std::array<char, CURL_ERROR_SIZE> error{};

    Result<> set_up();
    std::size_t take_field(std::string_view line);
    std::size_t take_body(std::string_view piece);
    Error failure(CURLcode code) const;
};

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

    Loop& loop;
    Timer timer;
    Timer fail_timer;
    CURLM* multi = nullptr;
    std::set<std::shared_ptr<State>> states;
    std::vector<std::shared_ptr<State>> to_add;
    std::vector<std::shared_ptr<State>> to_drop;
    std::vector<std::pair<std::shared_ptr<State>, Error>> failed;
    std::set<Socket*> sockets;
    int depth = 0;
    bool is_closed = false;
};

Result<> HttpCall::State::set_up()
{
    easy.reset(curl_easy_init());
    const Url url(curl_url());
    if (!easy || !url) return Error{ENOMEM, "curl_easy_init"};
    CURL* e = easy.get();
    if (curl_url_set(url.get(), CURLUPART_URL, request.url.c_str(), CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
        return Error{EINVAL, "URL " + without_secrets(request.url) + ": not a URL"};

    std::vector<std::string> fields = request.headers;
    fields.emplace_back("Expect:"); // no 100-continue round trip
    if (!request.tls.server_name.empty()) {
        // curl takes SNI and the name to verify from the URL: put it there, and connect where the URL said.
        const std::string host = url_part(url.get(), CURLUPART_HOST);
        const std::string port = url_part(url.get(), CURLUPART_PORT);
        const std::string target = "::" + host + ":" + port;
        connect_to.reset(curl_slist_append(nullptr, target.c_str()));
        curl_easy_setopt(e, CURLOPT_CONNECT_TO, connect_to.get());
        curl_url_set(url.get(), CURLUPART_HOST, request.tls.server_name.c_str(), 0);
        fields.push_back("Host: " + host + ":" + port);
    }
    const std::string target = url_part(url.get(), CURLUPART_URL);
    curl_easy_setopt(e, CURLOPT_URL, target.c_str());
    for (const auto& field : fields) {
        curl_slist* longer = curl_slist_append(headers.get(), field.c_str());
        (void)headers.release();
        headers.reset(longer);
    }
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers.get());

    if (request.method == "HEAD") curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    if (!request.body.empty() || request.method == "POST") {
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, request.body.data());
    }
    curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    const bool is_tls = target.starts_with("https:");
    long version = CURL_HTTP_VERSION_1_1;
    if (request.version == HttpVersion::http2)
        version = is_tls ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, version);
    if (is_tls) set_tls(e, request.tls);
    if (!request.unix_socket.empty()) curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, request.unix_socket.c_str());
    if (!request.is_proxy_allowed) curl_easy_setopt(e, CURLOPT_PROXY, "");
    if (request.is_own_connection) {
        curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
        curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
    }
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request.connect_timeout.count()));
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, static_cast<long>(request.timeout.count()));
    if (request.silence.count() > 0) {
        curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, static_cast<long>(request.silence.count()));
    }
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, 10L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, 5L);
    curl_easy_setopt(e, CURLOPT_SOCKOPTFUNCTION, &set_user_timeout);
    curl_easy_setopt(e, CURLOPT_SOCKOPTDATA, &request);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); // cancelling does not wait for a resolver's thread
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, error.data());
    curl_easy_setopt(e, CURLOPT_PRIVATE, this);
    using Take = std::size_t (*)(const char*, std::size_t, std::size_t, void*);
    const Take on_field = [](const char* data, std::size_t size, std::size_t count, void* self) {
        return static_cast<State*>(self)->take_field({data, size * count});
    };
    const Take on_body = [](const char* data, std::size_t size, std::size_t count, void* self) {
        return static_cast<State*>(self)->take_body({data, size * count});
    };
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_field);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, this);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, this);
    return Ok{};
}

std::size_t HttpCall::State::take_field(std::string_view line)
{
    if (is_cancelled) return 0;
    const std::size_t taken = line.size();
    field_bytes += taken;
    if (field_bytes > kMaxFieldBytes) {
        why = "more than " + std::to_string(kMaxFieldBytes) + " bytes of header fields";
        return 0;
    }
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
    if (!is_head_done && line.starts_with("HTTP/")) {
        head = {};
        return taken;
    }
    if (line.empty()) {
        long status = 0;
        curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
        if (is_head_done || status < 200) return taken; // 1xx: the head is still to come
        is_head_done = true;
        head.status = static_cast<int>(status);
        if (handler.on_head) handler.on_head(head);
        return is_cancelled ? 0 : taken;
    }
    const auto colon = line.find(':');
    if (colon == line.npos) return taken;
    std::string name(line.substr(0, colon));
    for (char& c : name)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    auto value = line.substr(colon + 1);
    while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
    while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
    (is_head_done ? trailers : head.fields).emplace_back(std::move(name), value);
    return taken;
}

std::size_t HttpCall::State::take_body(std::string_view piece)
{
    if (is_cancelled) return 0;
    body_bytes += piece.size();
    if (request.max_body > 0 && body_bytes > request.max_body) {
        why = "the answer has more than " + std::to_string(request.max_body) + " bytes";
        return 0;
    }
    if (!piece.empty() && handler.on_body) handler.on_body(piece);
    return is_cancelled ? 0 : piece.size();
}

Error HttpCall::State::failure(CURLcode code) const
{
    const std::string at = request.method + " " + without_secrets(request.url) + ": ";
    if (!why.empty()) return Error{EFBIG, at + why};
    return Error{errno_of(code), at + (error[0] != '\0' ? error.data() : curl_easy_strerror(code))};
}

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
