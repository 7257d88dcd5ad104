// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/api_client.hpp"

#include <curl/curl.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

namespace twill::cli {

namespace {

constexpr std::size_t kMaxReplyBytes = 64U << 20;
constexpr long kTimeoutSeconds = 30;

struct Cleanup {
    void operator()(CURL* handle) const noexcept { curl_easy_cleanup(handle); }
};

std::size_t collect(char* data, std::size_t, std::size_t size, void* body)
{
    auto& text = *static_cast<std::string*>(body);
    if (text.size() + size > kMaxReplyBytes) return 0;
    text.append(data, size);
    return size;
}

Error curl_error(CURL* handle, CURLcode code, const std::string& path)
{
    long os_error = 0;
    curl_easy_getinfo(handle, CURLINFO_OS_ERRNO, &os_error);
    const std::string subject = "socket " + path + ": ";
    if (code == CURLE_COULDNT_CONNECT && os_error != 0)
        return {static_cast<int>(os_error), subject + std::strerror(static_cast<int>(os_error))};
    if (code == CURLE_OPERATION_TIMEDOUT) return {ETIMEDOUT, subject + "no answer"};
    return {EIO, subject + curl_easy_strerror(code)};
}

Result<HttpReply> request(const std::string& socket_path, const std::string& method, const std::string& path)
{
    const std::unique_ptr<CURL, Cleanup> handle{curl_easy_init()};
    if (!handle) return Error{ENOMEM, "curl"};
    HttpReply reply;
    const std::string url = "http://localhost" + path;
    curl_easy_setopt(handle.get(), CURLOPT_UNIX_SOCKET_PATH, socket_path.c_str());
    curl_easy_setopt(handle.get(), CURLOPT_URL, url.c_str());
    curl_easy_setopt(handle.get(), CURLOPT_PROXY, "");
    curl_easy_setopt(handle.get(), CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT, kTimeoutSeconds);
    curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, &collect);
    curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &reply.body);
    if (method != "GET") {
        curl_easy_setopt(handle.get(), CURLOPT_POSTFIELDS, "");
        curl_easy_setopt(handle.get(), CURLOPT_CUSTOMREQUEST, method.c_str());
    }
    if (const CURLcode code = curl_easy_perform(handle.get()); code != CURLE_OK)
        return curl_error(handle.get(), code, socket_path);
    long status = 0;
    curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
    reply.status = static_cast<int>(status);
    return reply;
}

} // namespace

Api unix_api(std::string socket_path)
{
    return [socket = std::move(socket_path)](const std::string& method, const std::string& path) {
        return request(socket, method, path);
    };
}

} // namespace twill::cli
