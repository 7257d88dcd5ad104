// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/lease_set.hpp"

#include <algorithm>
#include <set>
#include <utility>
#include <variant>

namespace twill {

namespace {

/// Both cannot be in use: `a` is where `b` was, or is what became of its node.
bool replaces(const Lease& a, const Lease& b)
{
    for (const Family family : kFamilies) {
        if (a.public_ip[family] && a.public_ip[family] == b.public_ip[family]) return true;
        if (a.pods[family] && b.pods[family] && a.pods[family]->overlaps(*b.pods[family])) return true;
    }
    return false;
}

} // namespace

void LeaseSet::apply(LeaseSnapshot snapshot, SteadyTime now)
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
    std::vector<std::string> gone;
    for (const auto& [key, lease] : leases_)
        if (named.count(key) == 0) gone.push_back(key);
    for (const auto& key : gone) leave(key, now);
    is_complete_ = true;
}

void LeaseSet::apply(LeaseEvent event, SteadyTime now)
{
    if (auto* good = std::get_if<LeasePut>(&event)) {
        ++arrivals_;
        bad_.erase(good->lease.key);
        put(std::move(good->lease));
    } else if (auto* bad = std::get_if<BadLease>(&event)) {
        bad_.insert_or_assign(bad->key, std::move(*bad));
    } else if (const auto* gone = std::get_if<LeaseGone>(&event)) {
        bad_.erase(gone->key);
        leave(gone->key, now);
    }
}

void LeaseSet::leave(const std::string& key, SteadyTime now)
{
    const auto leaving = leases_.find(key);
    if (leaving == leases_.end()) return;
    const bool is_replaced = std::any_of(leases_.begin(), leases_.end(), [&](const auto& other) {
        return other.first != key && leaving_.count(other.first) == 0 && replaces(other.second, leaving->second);
    });
    if (linger_ == linger_.zero() || is_replaced) return drop(key);
    leaving_.try_emplace(key, now + linger_);
}

void LeaseSet::drop(const std::string& key)
{
    leaving_.erase(key);
    leases_.erase(key);
    since_.erase(key);
}

bool LeaseSet::end_lingering(SteadyTime now)
{
    std::vector<std::string> ended;
    for (const auto& [key, end] : leaving_)
        if (end <= now) ended.push_back(key);
    for (const auto& key : ended) drop(key);
    return !ended.empty();
}

std::optional<SteadyTime> LeaseSet::next_end() const
{
    std::optional<SteadyTime> next;
    for (const auto& [key, end] : leaving_)
        if (!next || end < *next) next = end;
    return next;
}

void LeaseSet::put(Lease lease)
{
    leaving_.erase(lease.key);
    std::vector<std::string> replaced;
    for (const auto& [key, end] : leaving_)
        if (replaces(lease, leases_.at(key))) replaced.push_back(key);
    for (const auto& key : replaced) drop(key);
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
