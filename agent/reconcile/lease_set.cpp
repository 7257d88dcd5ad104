// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/lease_set.hpp"

#include <set>
#include <utility>
#include <variant>

namespace twill {

void LeaseSet::apply(LeaseSnapshot snapshot)
{
    std::set<std::string> named;
    bad_.clear();
    ++arrivals_;
    for (auto& entry : snapshot.bad) {
        named.insert(entry.key);
        bad_.insert_or_assign(entry.key, std::move(entry));
    }
    for (auto& lease : snapshot.leases) {
        named.insert(lease.key);
        put(std::move(lease));
    }
    for (auto it = leases_.begin(); it != leases_.end();) {
        if (named.count(it->first) != 0) {
            ++it;
            continue;
        }
        since_.erase(it->first);
        it = leases_.erase(it);
    }
    is_complete_ = true;
}

void LeaseSet::apply(LeaseEvent event)
{
    if (auto* good = std::get_if<LeasePut>(&event)) {
        ++arrivals_;
        bad_.erase(good->lease.key);
        put(std::move(good->lease));
    } else if (auto* bad = std::get_if<BadLease>(&event)) {
        bad_.insert_or_assign(bad->key, std::move(*bad));
    } else if (const auto* gone = std::get_if<LeaseGone>(&event)) {
        bad_.erase(gone->key);
        leases_.erase(gone->key);
        since_.erase(gone->key);
    }
}

void LeaseSet::put(Lease lease)
{
    const auto known = leases_.find(lease.key);
    if (known == leases_.end() || known->second.pods != lease.pods) since_[lease.key] = arrivals_;
    leases_.insert_or_assign(lease.key, std::move(lease));
}

bool LeaseSet::expire(WallTime now)
{
    bool dropped = false;
    for (const auto& [key, bad] : bad_) {
        const auto kept = leases_.find(key);
        if (kept == leases_.end() || !kept->second.expires || *kept->second.expires > now) continue;
        leases_.erase(kept);
        since_.erase(key);
        dropped = true;
    }
    return dropped;
}

std::optional<WallTime> LeaseSet::next_expiry() const
{
    std::optional<WallTime> next;
    for (const auto& [key, bad] : bad_) {
        const auto kept = leases_.find(key);
        if (kept == leases_.end() || !kept->second.expires) continue;
        if (!next || *kept->second.expires < *next) next = kept->second.expires;
    }
    return next;
}

std::vector<BadLease> LeaseSet::bad() const
{
    std::vector<BadLease> entries;
    entries.reserve(bad_.size());
    for (const auto& [key, entry] : bad_) entries.push_back(entry);
    return entries;
}

std::uint64_t LeaseSet::since(const std::string& key) const
{
    const auto it = since_.find(key);
    return it == since_.end() ? 0 : it->second;
}

} // namespace twill
