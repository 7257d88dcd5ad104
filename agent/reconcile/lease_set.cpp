// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/lease_set.hpp"

#include <limits>
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
        stay(entry.key);
        bad_.insert_or_assign(entry.key, std::move(entry));
    }
    for (const auto& lease : snapshot.leases) named.insert(lease.key);
    std::vector<std::string> gone;
    for (const auto& [key, lease] : leases_)
        if (named.count(key) == 0) gone.push_back(key);
    for (const auto& key : gone) leave(key, now);
    for (auto& lease : snapshot.leases) put(std::move(lease));
    is_complete_ = true;
}

void LeaseSet::apply(LeaseEvent event, SteadyTime now)
{
    if (auto* good = std::get_if<LeasePut>(&event)) {
        ++arrivals_;
        bad_.erase(good->lease.key);
        put(std::move(good->lease));
    } else if (auto* bad = std::get_if<BadLease>(&event)) {
        stay(bad->key);
        bad_.insert_or_assign(bad->key, std::move(*bad));
    } else if (const auto* gone = std::get_if<LeaseGone>(&event)) {
        bad_.erase(gone->key);
        leave(gone->key, now);
    }
}

void LeaseSet::leave(const std::string& key, SteadyTime now)
{
    if (leases_.count(key) == 0) return;
    if (linger_ == linger_.zero()) return drop(key);
    auto& since = since_[key];
    // Where it contradicts another one, even one that came before it went, it is the other that is meant.
    if (leaving_.try_emplace(key, Leaving{now + linger_, since}).second)
        since = std::numeric_limits<std::uint64_t>::max();
}

void LeaseSet::stay(const std::string& key)
{
    const auto back = leaving_.find(key);
    if (back == leaving_.end()) return;
    since_[key] = back->second.since;
    leaving_.erase(back);
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
    for (const auto& [key, leaving] : leaving_)
        if (leaving.end <= now) ended.push_back(key);
    for (const auto& key : ended) drop(key);
    return !ended.empty();
}

std::optional<SteadyTime> LeaseSet::next_end() const
{
    std::optional<SteadyTime> next;
    for (const auto& [key, leaving] : leaving_)
        if (!next || leaving.end < *next) next = leaving.end;
    return next;
}

void LeaseSet::put(Lease lease)
{
    stay(lease.key);
    std::vector<std::string> replaced;
    for (const auto& [key, leaving] : leaving_)
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
