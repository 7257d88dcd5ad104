// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/loop/http.hpp"
#include "agent/store/etcd_options.hpp"
#include "twill/result.hpp"

namespace twill {

/// A call under way. Giving it up cancels it.
using EtcdCall = std::shared_ptr<void>;

/// What EtcdStore needs of a connection to etcd; tests put their own. Control thread; callbacks from the loop only.
class EtcdTransport {
public:
    virtual ~EtcdTransport() = default;
    /// One message there, one back. Each endpoint is tried once before it is an error; the first to answer stays the
    /// current one.
    virtual EtcdCall unary(std::string_view method, std::string message,
                           std::function<void(Result<std::string>)> done) = 0;
    struct StreamHandler {
        std::function<bool(std::string_view)> on_message; ///< false: the call was given up inside
        std::function<void(Error)> on_end; ///< a stream never ends well; the next endpoint is current now
    };
    /// Messages there at once, messages back for as long as it lasts, at the current endpoint.
    virtual EtcdCall stream(std::string_view method, const std::vector<std::string>& messages,
                            StreamHandler handler) = 0;
    /// As of Store.
    virtual void lose_address(const Ip& address) { (void)address; }
    /// Index of the current endpoint.
    virtual std::size_t endpoint() const = 0;
};

/// "http://192.0.2.1:2379" from any spelling that etcd's own client takes: no scheme means https where both TLS files
/// are given, else http. EINVAL names the text.
Result<std::string> etcd_endpoint(std::string_view text, bool has_tls_files);

/// gRPC over HttpClient: endpoints with fail-over, TLS, user and password. A token that is no longer good is replaced
/// and the call repeated once.
class EtcdClient final : public EtcdTransport {
public:
    /// `options.endpoints` as etcd_endpoint() gives them.
    EtcdClient(Loop& loop, EtcdOptions options);

    EtcdCall unary(std::string_view method, std::string message,
                   std::function<void(Result<std::string>)> done) override;
    EtcdCall stream(std::string_view method, const std::vector<std::string>& messages, StreamHandler handler) override;
    void lose_address(const Ip& address) override { http_.lose_address(address); }
    std::size_t endpoint() const override { return current_; }

private:
    struct Unary;
    struct Stream;
    HttpRequest request(std::string_view method) const;
    void attempt(const std::shared_ptr<Unary>& call);
    void ended(const std::shared_ptr<Unary>& call, const Result<HttpReply>& reply);
    void authenticate(const std::shared_ptr<Unary>& call);
    void failed(const std::shared_ptr<Unary>& call, Error why);
    void rotate(std::size_t from);
    Error at_endpoint(std::string_view method, std::size_t endpoint, const Error& why) const;

    HttpClient http_;
    EtcdOptions options_;
    std::size_t current_ = 0;
    std::string token_;
    bool is_auth_off_ = false; ///< the server said that it knows no users
};

} // namespace twill
