// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/store/lease.hpp"
#include "agent/store/store.hpp"
#include "twill/clock.hpp"

namespace twill {

/// The store's leases as it told them. A key that turns bad after it was good keeps its last good content, in snapshots
/// too: the entry is shown as bad while its traffic flows, until it is corrected, gone, or the kept content expires.
/// A lease that is gone stays in use for `linger`: deleted by hand, or lost with an old backup of the store, its node
/// writes it again at once, and its traffic need not stop for that. A lease that takes its place ends it at once.
class LeaseSet {
public:
    explicit LeaseSet(std::chrono::milliseconds linger = {}) : linger_(linger) {}
    /// The complete state: keys that it does not name are gone.
    void apply(LeaseSnapshot snapshot, SteadyTime now = {});
    void apply(LeaseEvent event, SteadyTime now = {});
    /// Drops what is gone for `linger`. True: something was dropped.
    bool end_lingering(SteadyTime now);
    /// When end_lingering() next has something to do.
    std::optional<SteadyTime> next_end() const;
    /// Drops kept content of bad keys that expired by `now`; the store itself ends what it can read. True: something
    /// was dropped.
    bool expire(WallTime now);
    /// When expire() next has something to do.
    std::optional<WallTime> next_expiry() const;

    /// A snapshot has been applied.
    bool is_complete() const { return is_complete_; }
    /// What is in use, by key: good leases, the last good content of bad ones, and what lingers. The node's own is
    /// included.
    const std::map<std::string, Lease>& leases() const { return leases_; }
    /// For status, by key.
    std::vector<BadLease> bad() const;
    /// Order of arrival of the key's pod CIDRs; keys that arrived with one snapshot share it. What lingers is last. 0:
    /// unknown key.
    std::uint64_t since(const std::string& key) const;

private:
    void put(Lease lease);
    void leave(const std::string& key, SteadyTime now);
    void stay(const std::string& key);
    void drop(const std::string& key);

    std::chrono::milliseconds linger_;
    struct Leaving {
        SteadyTime end;
        std::uint64_t since = 0; ///< when it comes back
    };
    std::map<std::string, Leaving> leaving_; ///< gone keys of leases_
    std::map<std::string, Lease> leases_;
    std::map<std::string, BadLease> bad_;
    std::map<std::string, std::uint64_t> since_;
    std::uint64_t arrivals_ = 0;
    bool is_complete_ = false;
};

} // namespace twill
