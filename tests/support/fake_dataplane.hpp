// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstddef>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/dataplane/dataplane.hpp"

namespace twill::test {

/// A Dataplane in memory that fails on demand and keeps the node table as the contract asks.
class FakeDataplane final : public Dataplane {
public:
    Peers peers;
    Endpoints endpoints;
    std::map<Ip, Cidr> nodes; ///< what anti-spoof reads: node address -> pod CIDR

    std::size_t peers_max = std::numeric_limits<std::size_t>::max(); ///< a put beyond it is ENOSPC
    std::size_t endpoints_max = std::numeric_limits<std::size_t>::max();
    std::map<Cidr, int> broken_peers; ///< errno of every write of that key
    std::map<Ip, int> broken_endpoints;
    std::optional<Error> broken_read;

    std::vector<std::string> writes; ///< "put 10.42.1.0/24", "del 10.42.1.7", failed ones too, in order

    Result<Peers> read_peers() override
    {
        if (broken_read) return *broken_read;
        return peers;
    }

    Result<Endpoints> read_endpoints() override
    {
        if (broken_read) return *broken_read;
        return endpoints;
    }

    Result<> put_peer(const Peer& peer) override
    {
        writes.push_back("put " + peer.pods.to_string());
        if (auto failed = failure(broken_peers, peer.pods)) return *failed;
        if (peers.count(peer.pods) == 0 && peers.size() >= peers_max) return full(peer.pods);
        if (const auto old = peers.find(peer.pods); old != peers.end() && old->second.node != peer.node)
            release(old->second.node, peer.pods);
        peers.insert_or_assign(peer.pods, peer);
        nodes.insert_or_assign(peer.node, peer.pods);
        return Ok{};
    }

    Result<> del_peer(const Cidr& pods) override
    {
        writes.push_back("del " + pods.to_string());
        if (auto failed = failure(broken_peers, pods)) return *failed;
        const auto old = peers.find(pods);
        if (old == peers.end()) return Ok{};
        release(old->second.node, pods);
        peers.erase(old);
        return Ok{};
    }

    Result<> put_endpoint(const Endpoint& endpoint) override
    {
        writes.push_back("put " + endpoint.ip.to_string());
        if (auto failed = failure(broken_endpoints, endpoint.ip)) return *failed;
        if (endpoints.count(endpoint.ip) == 0 && endpoints.size() >= endpoints_max) return full(endpoint.ip);
        endpoints.insert_or_assign(endpoint.ip, endpoint);
        return Ok{};
    }

    Result<> del_endpoint(const Ip& ip) override
    {
        writes.push_back("del " + ip.to_string());
        if (auto failed = failure(broken_endpoints, ip)) return *failed;
        endpoints.erase(ip);
        return Ok{};
    }

private:
    template <typename K>
    static std::optional<Error> failure(const std::map<K, int>& broken, const K& key)
    {
        const auto it = broken.find(key);
        if (it == broken.end()) return std::nullopt;
        return Error{it->second, "write " + key.to_string() + ": broken on demand"};
    }

    template <typename K>
    static Error full(const K& key)
    {
        return Error{ENOSPC, "put " + key.to_string() + ": map is full"};
    }

    void release(const Ip& node, const Cidr& pods)
    {
        const auto it = nodes.find(node);
        if (it != nodes.end() && it->second == pods) nodes.erase(it);
    }
};

} // namespace twill::test
