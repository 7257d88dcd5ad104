// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/store/allocator.hpp"
#include "agent/store/etcd_codec.hpp"
#include "agent/store/lease.hpp"

namespace twill {

/// flannel's keys under one prefix, and twill's.
class EtcdKeys {
public:
    /// "/coreos.com/network", in any spelling that Go's path.Join makes the same.
    explicit EtcdKeys(std::string_view prefix);
    const std::string& prefix() const { return prefix_; }
    std::string config() const { return prefix_ + "/config"; }
    /// A key without IPv4 starts with "0.0.0.0-0&", as flannel writes it; its readers want an IPv4 part.
    std::string lease(std::string_view key) const;
    std::string marker(std::string_view key) const { return prefix_ + "/twill/" + std::string(key); }
    /// "/coreos.com/network/subnets/10.42.1.0-24" -> "10.42.1.0-24"; nullopt: another key.
    std::optional<std::string> lease_key(std::string_view key) const;
    std::optional<std::string> marker_key(std::string_view key) const;
    EtcdRange leases() const { return EtcdRange::prefix(lease("")); }
    EtcdRange markers() const { return EtcdRange::prefix(marker("")); }

private:
    std::string prefix_;
};

/// The value of a lease: flannel's members, all others ignored as flannel does. Without marker and `expires`. EINVAL
/// names field and value. Never throws.
Result<Lease> parse_etcd_lease(std::string_view key, std::string_view json);
/// flannel's bytes.
std::string format_etcd_lease(const Lease& lease, Vni vni);

/// One key under subnets/.
struct EtcdEntry {
    std::optional<Lease> lease;   ///< without its marker
    std::string why;              ///< why it is no lease
    std::optional<LeaseKey> pods; ///< what the key takes, also when the value is bad
    std::int64_t mod_revision = 0;
    std::int64_t etcd_lease = 0; ///< 0: a reservation
};

/// The leases and markers that were read, by lease key. Pure: what etcd says goes in, in any order of the two.
class EtcdView {
public:
    /// `key` without its prefix.
    void put_lease(std::string key, const EtcdKv& kv);
    void remove_lease(const std::string& key) { entries_.erase(key); }
    void put_marker(std::string key, std::string_view value);
    void remove_marker(const std::string& key) { markers_.erase(key); }
    void clear_markers() { markers_.clear(); }

    const std::map<std::string, EtcdEntry>& entries() const { return entries_; }
    const EtcdEntry* find(const std::string& key) const;
    /// With its marker; nullopt when there is none or it is bad.
    std::optional<Lease> lease(const std::string& key) const;
    /// What allocation must know. `own`: the lease that this process wrote; its key is its own even when damaged.
    std::vector<HeldSubnet> held(const std::optional<Lease>& own) const;

private:
    std::map<std::string, EtcdEntry> entries_;
    std::map<std::string, Marker> markers_;
};

/// Both ranges of a listing.
EtcdView view_of(const EtcdKeys& keys, const std::vector<EtcdKv>& leases, const std::vector<EtcdKv>& markers);

} // namespace twill
