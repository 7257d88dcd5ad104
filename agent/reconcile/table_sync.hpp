// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/reconcile/backoff.hpp"
#include "agent/reconcile/delta.hpp"
#include "twill/clock.hpp"
#include "twill/result.hpp"

namespace twill {

/// Brings one kernel table to what is desired. What fails stays in the delta: it is retried with backoff, new and
/// changed entries are tried at once, and a success of theirs neither delays nor hastens the retry.
template <typename K, typename V>
class TableSync {
public:
    /// What the kernel was read to hold.
    void adopt(std::map<K, V> actual)
    {
        actual_ = std::move(actual);
        is_adopted_ = true;
        failed_.clear();
        retry_at_.reset();
    }
    bool is_adopted() const { return is_adopted_; }
    /// Before the first call nothing is written.
    void want(std::map<K, V> desired) { desired_ = std::move(desired); }
    /// nullptr before the first want().
    const std::map<K, V>* desired() const { return desired_ ? &*desired_ : nullptr; }

    /// One pass: puts, deletes, then once more those puts that met a full map if a delete made room. `put` and `del`
    /// return Result<>. Requires is_adopted(). Returns when to call again, nullopt: nothing is left.
    template <typename Put, typename Del>
    std::optional<SteadyTime> run(SteadyTime now, Put&& put, Del&& del);

    /// By key: what is not as desired, and why.
    std::map<K, std::string> failures() const;
    /// Empty before adopt().
    const std::map<K, V>& actual() const { return actual_; }

private:
    struct Failure {
        Error error;
        std::optional<V> tried; ///< nullopt: a delete
    };

    static bool is_full(int code) { return code == ENOSPC || code == E2BIG; }
    bool is_parked(const K& key, const V* value) const;
    bool settle(const K& key, std::optional<V> tried, const Result<>& outcome);
    void schedule(SteadyTime now, bool was_due, bool has_progress);

    std::map<K, V> actual_;
    bool is_adopted_ = false;
    std::optional<std::map<K, V>> desired_;
    std::map<K, Failure> failed_;
    std::optional<SteadyTime> retry_at_;
    Backoff backoff_;
};

template <typename K, typename V>
template <typename Put, typename Del>
std::optional<SteadyTime> TableSync<K, V>::run(SteadyTime now, Put&& put, Del&& del)
{
    if (!desired_) return std::nullopt;
    const auto delta = diff(*desired_, actual_);
    const bool is_due = retry_at_ && now >= *retry_at_;
    const std::size_t failed_before = failed_.size();
    std::vector<std::pair<K, V>> waits_for_room;
    std::set<K> wrong; // keys of the delta: failures of others are over
    bool has_progress = false;
    bool made_room = false;

    for (const auto& [key, value] : delta.put) {
        wrong.insert(key);
        const bool was_failed = failed_.count(key) != 0;
        if (is_due || !is_parked(key, &value)) has_progress |= settle(key, value, put(value)) && was_failed;
        if (const auto it = failed_.find(key); it != failed_.end() && is_full(it->second.error.code))
            waits_for_room.emplace_back(key, value);
    }
    for (const auto& key : delta.del) {
        wrong.insert(key);
        if (is_due || !is_parked(key, nullptr)) made_room |= settle(key, std::nullopt, del(key));
    }
    if (made_room)
        for (const auto& [key, value] : waits_for_room) has_progress |= settle(key, value, put(value));

    for (auto it = failed_.begin(); it != failed_.end();)
        it = wrong.count(it->first) ? std::next(it) : failed_.erase(it);
    schedule(now, is_due, has_progress || failed_.size() < failed_before);
    return retry_at_;
}

/// It failed before, just so, and its time has not come.
template <typename K, typename V>
bool TableSync<K, V>::is_parked(const K& key, const V* value) const
{
    const auto it = failed_.find(key);
    if (it == failed_.end()) return false;
    return value ? it->second.tried && *it->second.tried == *value : !it->second.tried;
}

/// Folds the outcome of one write into `actual_` or `failed_`. True: it succeeded.
template <typename K, typename V>
bool TableSync<K, V>::settle(const K& key, std::optional<V> tried, const Result<>& outcome)
{
    if (!outcome) {
        failed_.insert_or_assign(key, Failure{outcome.error(), std::move(tried)});
        return false;
    }
    failed_.erase(key);
    if (tried)
        actual_.insert_or_assign(key, std::move(*tried));
    else
        actual_.erase(key);
    return true;
}

template <typename K, typename V>
void TableSync<K, V>::schedule(SteadyTime now, bool was_due, bool has_progress)
{
    if (failed_.empty()) {
        backoff_.reset();
        retry_at_.reset();
        return;
    }
    if (has_progress) backoff_.reset();
    if (!retry_at_ || was_due) retry_at_ = now + backoff_.next();
}

template <typename K, typename V>
std::map<K, std::string> TableSync<K, V>::failures() const
{
    std::map<K, std::string> reasons;
    for (const auto& [key, failure] : failed_)
        reasons.emplace(key, (failure.tried ? "" : "delete: ") + failure.error.what);
    return reasons;
}

} // namespace twill
