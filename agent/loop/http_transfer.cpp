// SPDX-License-Identifier: Apache-2.0
#include "agent/loop/http_transfer.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cerrno>

namespace twill {

namespace {

constexpr std::size_t kMaxFieldBytes = 256U << 10; // all header fields of one answer

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

Result<> HttpCall::State::set_up()
{
    easy.reset(curl_easy_init());
    const CurlUrl url(curl_url());
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

} // namespace twill
