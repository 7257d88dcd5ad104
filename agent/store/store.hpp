// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <variant>

#include "agent/store/lease.hpp"
#include "agent/store/net_conf.hpp"
#include "twill/result.hpp"

namespace twill {

/// A lease appeared or changed.
struct LeasePut {
    Lease lease;
};
/// A lease is gone: deleted or expired. Also ends a BadLease of that key.
struct LeaseGone {
    std::string key;
};
/// What a store tells after its first snapshot. BadLease replaces a lease of the same key.
using LeaseEvent = std::variant<LeasePut, LeaseGone, BadLease>;

/// What this node wants to publish.
struct LeaseRequest {
    std::string node;
    PerFamily<std::optional<Ip>> public_ip;   ///< set for each family that the configuration has on
    std::string backend_type;                 ///< "vxlan", "host-gw", "" for alloc
    PerFamily<std::optional<Mac>> vtep_mac;   ///< vxlan only
    Vni vni;                                  ///< vxlan only
    PerFamily<std::optional<Cidr>> preferred; ///< from subnet.env: taken if free, or leased to `node` already
    Marker marker;
    bool operator==(const LeaseRequest&) const = default;
};

/// What a store tells the agent. Called on the control thread, never from inside a call into the store.
class StoreListener {
public:
    virtual ~StoreListener() = default;
    /// The complete state: first of all, and again after every gap (overflow, reconnect, compaction).
    virtual void on_snapshot(LeaseSnapshot snapshot) = 0;
    virtual void on_event(LeaseEvent event) = 0;
    /// The own lease was acquired, renewed with other content, or lost and acquired again, perhaps with other CIDRs.
    virtual void on_own_lease(Lease lease) = 0;
    /// The store does not answer (`trouble` set; it retries for ever) or works again (nullopt).
    virtual void on_health(std::optional<Error> trouble) = 0;
    /// The text of net-conf.json is no longer what read_config() read, or what was told last: once for each new text.
    /// Nothing is applied by itself.
    virtual void on_config_change() {}
};

/// Where leases live. Everything read from it is untrusted. All methods: control thread; none blocks on a network.
/// Implementations: FileStore, EtcdStore, KubeStore.
class Store {
public:
    virtual ~Store() = default;

    /// Reads net-conf.json. EINVAL is final: what the agent was started with cannot be right. Anything else is retried
    /// by the caller, as flannel does, also a text in etcd that cannot be used (EBADMSG).
    virtual void read_config(std::function<void(Result<NetConf>)> done) = 0;

    /// Addresses that somebody set for this node in the store itself (Kubernetes: the annotations node-public-ip and
    /// node-public-ipv6). They take the place of -public-ip and -public-ipv6 before the wire is chosen. `done` may be
    /// called before this returns. Most stores know none.
    // By value: a store that knows some keeps `done`. NOLINTNEXTLINE(performance-unnecessary-value-param)
    virtual void find_public_ip(std::function<void(Result<PerFamily<std::optional<Ip>>>)> done)
    {
        done(PerFamily<std::optional<Ip>>{});
    }

    /// The lease that publish() of the same request would get back, so that its VtepMAC can be kept: one with the
    /// public IP, else the one of `node` whose CIDRs are `preferred`. nullopt: none.
    virtual void find_own(const LeaseRequest& request, std::function<void(Result<std::optional<Lease>>)> done) = 0;

    /// Acquires the lease, then keeps it: renews, re-acquires when it is lost. `request` may be given again later, with
    /// other content, to publish a change. Another public IP keeps the lease, which is rewritten under its key, unless
    /// somebody else wrote it since or another lease has that address. Result by on_own_lease(); a full range or a lost
    /// race is reported by on_health() and retried. Requires read_config() to have succeeded.
    virtual void publish(LeaseRequest request) = 0;

    /// This node carries its pods' packets now: once after each start. What the store tells others of it (Kubernetes:
    /// the condition NetworkUnavailable, false) is retried until it is written. Most stores tell nothing.
    virtual void announce_ready() {}

    /// Another agent is to have this node: nothing is published any more, and the marker, which only twill writes, is
    /// taken away. `done` is called once that is written or has failed; may be called before this returns. The lease
    /// stays.
    // By value: a store that writes keeps `done`. NOLINTNEXTLINE(performance-unnecessary-value-param)
    virtual void leave(std::function<void()> done) { done(); }

    /// Starts the watch: on_snapshot() once, then events. `listener` must outlive the store.
    virtual void watch(StoreListener& listener) = 0;

    /// This machine no longer has that address: connections from it are dead without a sign, and are made again.
    virtual void lose_address(const Ip& address) { (void)address; }

    /// "file:///var/lib/twill": for status and logs; without credentials.
    virtual std::string describe() const = 0;
};

} // namespace twill
