// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <curl/curl.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "agent/loop/http.hpp"

namespace twill {

/// Frees what curl made.
template <auto Free>
struct CurlFree {
    template <typename T>
    void operator()(T* object) const noexcept
    {
        Free(object);
    }
};
using CurlList = std::unique_ptr<curl_slist, CurlFree<curl_slist_free_all>>;
using CurlEasy = std::unique_ptr<CURL, CurlFree<curl_easy_cleanup>>;
using CurlUrl = std::unique_ptr<CURLU, CurlFree<curl_url_cleanup>>;

/// One transfer: a curl handle with its options, and what came of the answer. Private to HttpClient.
struct HttpCall::State : std::enable_shared_from_this<State> {
    HttpRequest request;
    HttpHandler handler;
    std::weak_ptr<HttpClient::Impl> client;
    CurlEasy easy;
    CurlList headers;
    CurlList connect_to;
    HttpHead head;
    HttpFields trailers;
    std::size_t field_bytes = 0;
    std::size_t body_bytes = 0;
    bool is_head_done = false;
    bool is_cancelled = false;
    bool is_added = false;
    std::string why; ///< our own reason to break off
    std::array<char, CURL_ERROR_SIZE> error{};

    /// Makes the curl handle. EINVAL: URL.
    Result<> set_up();
    /// curl's callbacks: anything but the size ends the transfer.
    std::size_t take_field(std::string_view line);
    std::size_t take_body(std::string_view piece);
    Error failure(CURLcode code) const;
};

} // namespace twill
