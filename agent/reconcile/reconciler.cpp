// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/reconciler.hpp"

#include <algorithm>
#include <utility>

namespace twill {

namespace {

std::optional<SteadyTime> earlier(std::optional<SteadyTime> a, std::optional<SteadyTime> b)
{
    if (!a || !b) return a ? a : b;
    return std::min(*a, *b);
}

} // namespace

Result<> Reconciler::adopt()
{
    trouble_.reset();
    if (auto peers = dataplane_.read_peers())
        peers_.adopt(*std::move(peers));
    else
        trouble_ = peers.error();
    if (auto endpoints = dataplane_.read_endpoints())
        endpoints_.adopt(*std::move(endpoints));
    else if (!trouble_)
        trouble_ = endpoints.error();
    if (trouble_) return *trouble_;
    adopt_at_.reset();
    adoption_.reset();
    return Ok{};
}

/// Returns when to try again, nullopt: both tables are adopted.
std::optional<SteadyTime> Reconciler::adopt_when_due(SteadyTime now)
{
    if (peers_.is_adopted() && endpoints_.is_adopted()) return std::nullopt;
    if (adopt_at_ && now < *adopt_at_) return adopt_at_;
    if (!adopt()) adopt_at_ = now + adoption_.next();
    return adopt_at_;
}

std::optional<std::chrono::milliseconds> Reconciler::run()
{
    const SteadyTime now = clock_.steady();
    auto next = adopt_when_due(now);

    // Endpoints first: a peer's packets find their pods.
    if (endpoints_.is_adopted())
        next = earlier(next, endpoints_.run(
                                 now, [this](const Endpoint& endpoint) { return dataplane_.put_endpoint(endpoint); },
                                 [this](const Ip& ip) { return dataplane_.del_endpoint(ip); }));
    if (peers_.is_adopted())
        next = earlier(next, peers_.run(
                                 now, [this](const Peer& peer) { return dataplane_.put_peer(peer); },
                                 [this](const Cidr& pods) { return dataplane_.del_peer(pods); }));
    if (!next) return std::nullopt;
    return std::max(std::chrono::ceil<std::chrono::milliseconds>(*next - now), std::chrono::milliseconds(1));
}

std::vector<PendingPeer> Reconciler::pending_peers() const
{
    std::vector<PendingPeer> pending;
    for (const auto& [pods, why] : peers_.failures()) {
        const Peers* desired = peers_.desired();
        const bool is_wanted = desired && desired->count(pods) != 0;
        const Peers& source = is_wanted ? *desired : peers_.actual();
        const auto peer = source.find(pods);
        pending.push_back({pods, peer == source.end() ? Ip{} : peer->second.node, why});
    }
    return pending;
}

std::vector<PendingEndpoint> Reconciler::pending_endpoints() const
{
    std::vector<PendingEndpoint> pending;
    for (const auto& [ip, why] : endpoints_.failures()) pending.push_back({ip, why});
    return pending;
}

} // namespace twill
