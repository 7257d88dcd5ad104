// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/loop/http.hpp"
#include "twill/result.hpp"

namespace twill {

// etcd's v3 messages as plain structs; etcd.proto stays inside the .cpp. decode_*(): EINVAL; never throw.

struct EtcdHeader {
    std::uint64_t cluster_id = 0;
    std::int64_t revision = 0;
    std::uint64_t raft_term = 0;
};

struct EtcdKv {
    std::string key;
    std::string value;
    std::int64_t create_revision = 0;
    std::int64_t mod_revision = 0;
    std::int64_t lease = 0; ///< 0: none, the key stays
};

/// A key, or all keys from `key` to before `end`.
struct EtcdRange {
    std::string key;
    std::string end;
    /// Every key that starts with `prefix`.
    static EtcdRange prefix(std::string prefix);
};

/// Several ranges at one revision (a Txn without conditions).
std::string encode_list(const std::vector<EtcdRange>& ranges);
struct EtcdListing {
    EtcdHeader header;
    std::vector<std::vector<EtcdKv>> ranges; ///< as many as were asked for
};
Result<EtcdListing> decode_list(std::string_view message, std::size_t ranges);

/// What a Txn wants to find before it writes.
struct EtcdCondition {
    std::string key;
    std::string end;               ///< set: holds for each key of the range
    std::int64_t mod_revision = 0; ///< of `key`; 0: there is no such key. With `end`: none was written after it.
};
struct EtcdTxn {
    std::vector<EtcdCondition> conditions;
    std::vector<EtcdKv> puts; ///< key, value, lease
    std::vector<std::string> removes;
};
std::string encode_txn(const EtcdTxn& txn);
struct EtcdTxnResult {
    EtcdHeader header;
    bool is_done = false; ///< false: a condition did not hold, nothing was written
};
Result<EtcdTxnResult> decode_txn(std::string_view message);

std::string encode_watch(const EtcdRange& range, std::int64_t start_revision);
struct EtcdWatchEvent {
    bool is_delete = false; ///< then kv has key and mod_revision only
    EtcdKv kv;
};
struct EtcdWatchResponse {
    EtcdHeader header;
    std::int64_t watch_id = 0;
    bool is_created = false;
    bool is_canceled = false;
    std::int64_t compact_revision = 0; ///< > 0: the start revision is gone
    std::string reason;                ///< of cancelling
    std::vector<EtcdWatchEvent> events;
};
Result<EtcdWatchResponse> decode_watch(std::string_view message);

std::string encode_grant(std::int64_t ttl_seconds);
struct EtcdGrant {
    std::int64_t lease = 0;
    std::int64_t ttl_seconds = 0;
};
Result<EtcdGrant> decode_grant(std::string_view message);

std::string encode_authenticate(const std::string& name, const std::string& password);
/// The token.
Result<std::string> decode_authenticate(std::string_view message);

/// gRPC over HTTP/2: each message has 5 bytes before it (compressed or not, length).
std::string grpc_frame(std::string_view message);

/// Takes frames apart, however they are cut. EINVAL: compressed; EFBIG: longer than `max_message`.
class GrpcReader {
public:
    explicit GrpcReader(std::size_t max_message) : max_message_(max_message) {}
    /// Calls `take` for each message that is complete; stops when it returns false.
    Result<> feed(std::string_view piece, const std::function<bool(std::string_view)>& take);
    /// Nothing of a message is left.
    bool is_empty() const { return rest_.empty(); }

private:
    std::size_t max_message_;
    std::string rest_;
};

/// How a call ended: HTTP status, then grpc-status and grpc-message of the trailers, or of the head where there is no
/// body. Errors: EAGAIN unavailable (another endpoint may do), EKEYREJECTED the token is no longer good, EACCES
/// permission or password, ENOENT, ESTALE compacted, ETIMEDOUT, EINVAL, EPERM authentication is off, EIO.
Result<> grpc_outcome(const HttpHead& head, const HttpFields& trailers);

} // namespace twill
