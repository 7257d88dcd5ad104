// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "agent/dataplane/dataplane.hpp"
#include "agent/reconcile/desired_peers.hpp"
#include "agent/reconcile/table_sync.hpp"
#include "twill/clock.hpp"
#include "twill/result.hpp"

namespace twill {

/// An endpoint that is not in the map yet, or could not be deleted.
struct PendingEndpoint {
    Ip ip;
    std::string why;
    bool operator==(const PendingEndpoint&) const = default;
};

/// The one writer of the peer and endpoint maps.
///
/// Thread: control thread only.
/// State: desired as set, actual as adopted from the maps and changed by own writes.
/// Failure: one entry's failure stops no other; it stays in the delta and is retried, 100 ms to 30 s later.
/// Restart: adopt() reads the maps, the first run() writes only what differs and deletes what is stale.
/// Start: a table is not written before its first set_*(), so that an incomplete view never deletes anything.
///
/// Puts come before deletes. So a node that moves to another pod CIDR has, for a moment, two peers: Dataplane::del_peer
/// must remove a node's entry only if it still belongs to the CIDR that is deleted, and put_peer must remove the entry
/// of the CIDR's former node under the same condition.
class Reconciler {
public:
    /// Both must outlive it.
    Reconciler(Dataplane& dataplane, const Clock& clock) : dataplane_(dataplane), clock_(clock) {}

    /// Reads what the maps hold. May be repeated to repair drift. On error run() tries again by itself.
    Result<> adopt();

    /// From the first complete snapshot on.
    void set_peers(Peers desired) { peers_.want(std::move(desired)); }
    /// From the moment on when interfaces were listed and endpoints restored.
    void set_endpoints(Endpoints desired) { endpoints_.want(std::move(desired)); }

    /// Writes what differs. Returns in how long to call again at the latest; nullopt: everything is as desired.
    std::optional<std::chrono::milliseconds> run();

    /// Why the maps could not be read, while that is so: nothing is written to what is not adopted.
    const std::optional<Error>& adoption_trouble() const { return trouble_; }
    /// In the maps, as far as this class knows; empty before adoption.
    const Peers& programmed_peers() const { return peers_.actual(); }
    const Endpoints& programmed_endpoints() const { return endpoints_.actual(); }
    /// Failed writes, by key.
    std::vector<PendingPeer> pending_peers() const;
    std::vector<PendingEndpoint> pending_endpoints() const;

private:
    std::optional<SteadyTime> adopt_when_due(SteadyTime now);

    Dataplane& dataplane_;
    const Clock& clock_;
    TableSync<Cidr, Peer> peers_;
    TableSync<Ip, Endpoint> endpoints_;
    std::optional<Error> trouble_;
    std::optional<SteadyTime> adopt_at_;
    Backoff adoption_;
};

} // namespace twill
