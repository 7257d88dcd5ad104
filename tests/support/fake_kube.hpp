// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace twill::test {

/// What a FakeKube knows of a node; the rest of the object is made up, as large as real ones.
struct FakeNode {
    std::vector<std::string> pod_cidrs;
    std::map<std::string, std::string> annotations; ///< full names
    bool is_announced = false;                      ///< NetworkUnavailable is False by flannel
    std::uint64_t version = 0;
    std::string announced_at{}; ///< lastTransitionTime of that condition
};

/// A misbehaviour of the next requests.
struct FakeFault {
    enum class Kind { status, half_body, no_answer, hang };
    Kind kind = Kind::status;
    int status = 500;
    std::string retry_after{};
};

struct FakeRequest {
    std::string method;
    std::string target;
    std::string content_type;
    std::string body;
};

/// The part of a Kubernetes API server that an agent asks: nodes by GET, LIST in pages, WATCH with bookmarks and 410,
/// PATCH of nodes/status, one pod. Plain HTTP/1.1 on a port of 127.0.0.1, a thread for each connection, so that a
/// test's loop need not turn for it. All methods may be called at any time from the test's thread.
class FakeKube {
public:
    explicit FakeKube(std::size_t padding_bytes = 0);
    ~FakeKube();
    FakeKube(const FakeKube&) = delete;
    FakeKube& operator=(const FakeKube&) = delete;

    std::string url() const;
    void put_node(const std::string& name, const FakeNode& node);
    void remove_node(const std::string& name);
    FakeNode node(const std::string& name) const;
    /// Every node is written again with a new version: what kubelets do every few minutes.
    void heartbeats(std::size_t count);

    /// The server goes away with all its connections, and comes back on its port.
    void stop();
    void start();
    void close_watches();                ///< as at the end of timeoutSeconds
    void compact();                      ///< versions before now are gone: 410
    void expire_pages();                 ///< so are the tokens of pages
    void bookmark();                     ///< to all watches, with a version of its own
    void restore(std::uint64_t version); ///< from a backup: this version is the newest
    void fail(std::size_t requests, FakeFault fault);
    void require_token(const std::string& token);

    std::vector<FakeRequest> requests() const;
    /// Bodies of the PATCHes that were accepted.
    std::vector<std::string> patches() const;
    std::size_t count(const std::string& part_of_target) const;
    std::size_t watches() const; ///< open ones

private:
    struct State;
    std::unique_ptr<State> state_;
};

} // namespace twill::test
