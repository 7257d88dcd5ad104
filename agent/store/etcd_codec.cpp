// SPDX-License-Identifier: Apache-2.0
#include "agent/store/etcd_codec.hpp"

#include <cerrno>
#include <charconv>
#include <limits>

#include "agent/store/etcd.pb.h"

namespace twill {

namespace {

constexpr std::size_t kFrameHead = 5;

template <typename Message>
Result<Message> parse(std::string_view bytes, std::string_view what)
{
    Message message;
    if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()) ||
        !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
        return Error{EINVAL, "etcd " + std::string(what) + ": not such a message"};
    return message;
}

EtcdHeader header_of(const etcd::ResponseHeader& header)
{
    return {header.cluster_id(), header.revision(), header.raft_term()};
}

EtcdKv kv_of(etcd::KeyValue&& kv)
{
    return {std::move(*kv.mutable_key()), std::move(*kv.mutable_value()), kv.create_revision(), kv.mod_revision(),
            kv.lease()};
}

int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

/// grpc-message is percent-encoded; what comes out is fit for one line.
std::string readable(std::string_view text)
{
    std::string out;
    for (std::size_t i = 0; i < text.size() && out.size() < 300; ++i) {
        char c = text[i];
        if (c == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
            c = static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
            i += 2;
        }
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    }
    return out;
}

/// etcd tells apart by text what it sends with one code (api/v3rpc/rpctypes/error.go).
bool is_token_trouble(std::string_view text)
{
    return text.find("invalid auth token") != text.npos || text.find("user name is empty") != text.npos ||
           text.find("revision of auth store is old") != text.npos ||
           text.find("auth: revision in header") != text.npos;
}

int errno_of_grpc(int status, std::string_view text)
{
    if (is_token_trouble(text)) return EKEYREJECTED;
    if (text.find("authentication failed") != text.npos) return EACCES;
    if (text.find("authentication is not enabled") != text.npos) return EPERM;
    switch (status) {
    case 1:  // cancelled
    case 14: // unavailable
        return EAGAIN;
    case 3:
        return EINVAL;
    case 4:
        return ETIMEDOUT;
    case 5:
        return ENOENT;
    case 7:
        return EACCES;
    case 11:
        return ESTALE;
    case 16:
        return EKEYREJECTED;
    default:
        return EIO;
    }
}

} // namespace

EtcdRange EtcdRange::prefix(std::string prefix)
{
    std::string end = prefix;
    while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
    if (end.empty())
        end = std::string(1, '\0'); // etcd: to the end of all keys
    else
        end.back() = static_cast<char>(end.back() + 1);
    return {std::move(prefix), std::move(end)};
}

std::string encode_list(const std::vector<EtcdRange>& ranges)
{
    etcd::TxnRequest request;
    for (const auto& range : ranges) {
        auto* op = request.add_success()->mutable_request_range();
        op->set_key(range.key);
        op->set_range_end(range.end);
    }
    return request.SerializeAsString();
}

Result<EtcdListing> decode_list(std::string_view message, std::size_t ranges)
{
    TWILL_TRY_AS(response, parse<etcd::TxnResponse>(message, "TxnResponse"));
    if (static_cast<std::size_t>(response.responses_size()) != ranges)
        return Error{EINVAL, "etcd TxnResponse: " + std::to_string(response.responses_size()) + " answers, asked for " +
                                 std::to_string(ranges)};
    EtcdListing listing;
    listing.header = header_of(response.header());
    for (auto& op : *response.mutable_responses()) {
        if (!op.has_response_range()) return Error{EINVAL, "etcd TxnResponse: want a range"};
        auto& kvs = listing.ranges.emplace_back();
        kvs.reserve(static_cast<std::size_t>(op.response_range().kvs_size()));
        for (auto& kv : *op.mutable_response_range()->mutable_kvs()) kvs.push_back(kv_of(std::move(kv)));
    }
    return listing;
}

std::string encode_txn(const EtcdTxn& txn)
{
    etcd::TxnRequest request;
    for (const auto& condition : txn.conditions) {
        auto* compare = request.add_compare();
        compare->set_key(condition.key);
        if (!condition.end.empty()) {
            compare->set_range_end(condition.end);
            compare->set_target(etcd::Compare::MOD);
            compare->set_result(etcd::Compare::LESS);
            compare->set_mod_revision(condition.mod_revision + 1);
        } else if (condition.mod_revision == 0) {
            compare->set_target(etcd::Compare::VERSION); // flannel's condition
            compare->set_version(0);
        } else {
            compare->set_target(etcd::Compare::MOD);
            compare->set_mod_revision(condition.mod_revision);
        }
    }
    for (const auto& key : txn.removes) request.add_success()->mutable_request_delete_range()->set_key(key);
    for (const auto& kv : txn.puts) {
        auto* put = request.add_success()->mutable_request_put();
        put->set_key(kv.key);
        put->set_value(kv.value);
        put->set_lease(kv.lease);
    }
    return request.SerializeAsString();
}

Result<EtcdTxnResult> decode_txn(std::string_view message)
{
    TWILL_TRY_AS(response, parse<etcd::TxnResponse>(message, "TxnResponse"));
    return EtcdTxnResult{header_of(response.header()), response.succeeded()};
}

std::string encode_watch(const EtcdRange& range, std::int64_t start_revision)
{
    etcd::WatchRequest request;
    auto* create = request.mutable_create_request();
    create->set_key(range.key);
    create->set_range_end(range.end);
    create->set_start_revision(start_revision);
    create->set_progress_notify(true);
    return request.SerializeAsString();
}

Result<EtcdWatchResponse> decode_watch(std::string_view message)
{
    TWILL_TRY_AS(response, parse<etcd::WatchResponse>(message, "WatchResponse"));
    EtcdWatchResponse out{header_of(response.header()),
                          response.watch_id(),
                          response.created(),
                          response.canceled(),
                          response.compact_revision(),
                          readable(response.cancel_reason()),
                          {}};
    out.events.reserve(static_cast<std::size_t>(response.events_size()));
    for (auto& event : *response.mutable_events())
        out.events.push_back({event.type() == etcd::Event::DELETE, kv_of(std::move(*event.mutable_kv()))});
    return out;
}

std::string encode_grant(std::int64_t ttl_seconds)
{
    etcd::LeaseGrantRequest request;
    request.set_ttl(ttl_seconds);
    return request.SerializeAsString();
}

Result<EtcdGrant> decode_grant(std::string_view message)
{
    TWILL_TRY_AS(response, parse<etcd::LeaseGrantResponse>(message, "LeaseGrantResponse"));
    if (!response.error().empty()) return Error{EIO, "etcd LeaseGrant: " + readable(response.error())};
    if (response.id() == 0 || response.ttl() <= 0) return Error{EINVAL, "etcd LeaseGrant: no lease in the answer"};
    return EtcdGrant{response.id(), response.ttl()};
}

std::string encode_authenticate(const std::string& name, const std::string& password)
{
    etcd::AuthenticateRequest request;
    request.set_name(name);
    request.set_password(password);
    return request.SerializeAsString();
}

Result<std::string> decode_authenticate(std::string_view message)
{
    TWILL_TRY_AS(response, parse<etcd::AuthenticateResponse>(message, "AuthenticateResponse"));
    // It becomes a header line.
    for (const char c : response.token())
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return Error{EINVAL, "etcd Authenticate: bad token"};
    return response.token();
}

std::string grpc_frame(std::string_view message)
{
    std::string frame(1, '\0');
    for (const unsigned shift : {24U, 16U, 8U, 0U}) frame += static_cast<char>(message.size() >> shift & 0xff);
    frame += message;
    return frame;
}

Result<> GrpcReader::feed(std::string_view piece, const std::function<bool(std::string_view)>& take)
{
    rest_ += piece;
    std::size_t begin = 0;
    while (rest_.size() - begin >= kFrameHead) {
        std::size_t size = 0;
        for (std::size_t i = 1; i < kFrameHead; ++i) size = size << 8 | static_cast<unsigned char>(rest_[begin + i]);
        if (rest_[begin] != '\0') return Error{EINVAL, "gRPC: a compressed message, which was not asked for"};
        if (size > max_message_)
            return Error{EFBIG, "gRPC: a message of " + std::to_string(size) + " bytes, more than " +
                                    std::to_string(max_message_)};
        if (rest_.size() - begin - kFrameHead < size) break;
        const std::string_view message = std::string_view(rest_).substr(begin + kFrameHead, size);
        begin += kFrameHead + size;
        if (!take(message)) return Ok{};
    }
    rest_.erase(0, begin);
    if (rest_.empty() && rest_.capacity() > (1U << 20)) rest_.shrink_to_fit();
    return Ok{};
}

Result<> grpc_outcome(const HttpHead& head, const HttpFields& trailers)
{
    if (head.status != 200)
        return Error{head.status == 429 || head.status >= 500 ? EAGAIN : EIO, "HTTP " + std::to_string(head.status)};
    const bool is_in_head = http_field(trailers, "grpc-status").empty();
    const HttpFields& fields = is_in_head ? head.fields : trailers;
    const auto text = http_field(fields, "grpc-status");
    int status = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), status);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size())
        return Error{EAGAIN, "no grpc-status: not an etcd v3 server, or it broke off"};
    if (status == 0) return Ok{};
    const auto message = readable(http_field(fields, "grpc-message"));
    return Error{errno_of_grpc(status, message), message.empty() ? "gRPC status " + std::to_string(status) : message};
}

} // namespace twill
