// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/store/file_store.hpp"

namespace twill {

namespace {

using std::chrono::milliseconds;

constexpr std::chrono::seconds kLockPatience{5};    // then a held lock is told as trouble
constexpr std::chrono::minutes kClockTolerance{5};  // an own lease that ends later was written by a wrong clock
constexpr std::chrono::minutes kSweepRetry{5};      // a store that is read-only for this agent stays so
constexpr std::chrono::seconds kContestMemory{120}; // rewriting against somebody else starts over after so long

bool equal_but_expiry(Lease a, const Lease& b)
{
    a.expires = b.expires;
    return a == b;
}

} // namespace

void FileStore::publish(LeaseRequest request)
{
    if (request_ && *request_ == request && own_) return;
    request_ = std::move(request);
    is_publish_due_ = true;
    backoff_ = milliseconds{0};
    start_ticks();
    schedule_work(milliseconds{0});
}

void FileStore::schedule_work(milliseconds after)
{
    work_timer_.once(after, [this] { work(); });
}

void FileStore::work()
{
    if (!is_publish_due_ && !is_sweep_due_) return;
    auto done = work_locked();
    if (done && !*done) {
        const SteadyTime now = clock_.steady();
        if (!lock_wait_since_) lock_wait_since_ = now;
        if (is_publish_due_ && now - *lock_wait_since_ > kLockPatience) {
            publish_trouble_ = Error{EBUSY, "lock " + dir_.root() + "/lock: another process holds it"};
            report_health();
        }
        return schedule_work(milliseconds{5 + options_.random(20)});
    }
    lock_wait_since_.reset();
    is_sweep_due_ = false;
    if (!done && !is_publish_due_) {
        next_sweep_ = clock_.steady() + kSweepRetry;
    } else if (!done) {
        publish_trouble_ = done.error();
        use_own_as_it_is();
        backoff_ = std::clamp(backoff_ * 2, options_.backoff_min, options_.backoff_max);
        schedule_work(backoff_);
    } else {
        publish_trouble_.reset();
        backoff_ = milliseconds{0};
    }
    report_health();
}

Result<bool> FileStore::work_locked()
{
    if (!is_attached_) TWILL_TRY(dir_.open());
    if (!dir_.is_same()) return Error{ENOENT, "publish to " + dir_.root() + ": the directory was replaced"};
    TWILL_TRY_AS(lock, dir_.try_lock());
    if (!lock) return false;
    // The lock orders writers: what is read now is what every other one left.
    TWILL_TRY_AS(changed, dir_.scan());
    dir_.sweep_temporary();
    Result<> outcome = Ok{};
    if (is_publish_due_) outcome = acquire();
    if (is_sweep_due_) sweep_expired();
    for (const auto& key : changed) sync(key);
    if (!outcome) return outcome.error();
    return true;
}

void FileStore::find_own(const LeaseRequest& request, std::function<void(Result<std::optional<Lease>>)> done)
{
    auto outcome = [&]() -> Result<std::optional<Lease>> {
        LeaseDir dir(dir_.root());
        TWILL_TRY(dir.open());
        TWILL_TRY(dir.scan());
        const auto held = held_subnets(dir);
        const HeldSubnet* own = own_subnet(conf_ ? &*conf_ : nullptr, held, allocation_request(request));
        return own != nullptr ? dir.lease(own->key) : std::nullopt;
    }();
    post([done = std::move(done), outcome = std::move(outcome)] { done(outcome); });
}

std::vector<HeldSubnet> FileStore::held_subnets(const LeaseDir& dir) const
{
    std::vector<HeldSubnet> held;
    const WallTime now = clock_.wall();
    for (const auto& [key, entry] : dir.entries()) {
        if (!entry.pods) continue;
        HeldSubnet subnet{key, *entry.pods, {}, {}, false, false};
        if (entry.lease) {
            subnet.node = entry.lease->node;
            subnet.public_ip = entry.lease->public_ip;
            subnet.is_reservation = !entry.lease->expires;
            subnet.is_expired = entry.lease->expires && *entry.lease->expires <= now && clock_.steady() >= hold_until_;
        } else if (own_ && own_->key == key) {
            subnet.node = own_->node; // our own file, damaged: write it again
            subnet.public_ip = own_->public_ip;
            subnet.is_reservation = !own_->expires;
        }
        held.push_back(std::move(subnet));
    }
    return held;
}

AllocationRequest FileStore::allocation_request(const LeaseRequest& wanted) const
{
    AllocationRequest request{wanted.node, {}, own_ ? own_->pods : wanted.preferred, own_};
    for (const Family family : kFamilies)
        if (!conf_ || conf_->network[family]) request.public_ip[family] = wanted.public_ip[family];
    return request;
}

Result<Lease> FileStore::wanted_lease(const Allocation& allocation) const
{
    Lease lease;
    lease.key = allocation.pods.to_string();
    lease.node = request_->node;
    lease.pods = allocation.pods.pods;
    lease.backend_type = request_->backend_type;
    for (const Family family : kFamilies) {
        if (!lease.pods[family]) continue;
        lease.public_ip[family] = request_->public_ip[family];
        lease.vtep_mac[family] = request_->vtep_mac[family];
    }
    // Nothing is written that a reader would refuse.
    auto read_back = parse_lease(lease.key, format_lease(lease, request_->vni));
    if (!read_back) return Error{EINVAL, "publish " + lease.key + ": " + read_back.error().what};
    lease = *std::move(read_back);
    lease.marker = request_->marker;

    const auto there = dir_.lease(lease.key);
    if (allocation.is_reservation) return lease;
    if (own_ && there && there->expires && equal_but_expiry(lease, *there) && !is_due(*there)) {
        lease.expires = there->expires;
    } else {
        lease.expires = std::chrono::floor<std::chrono::seconds>(clock_.wall()) + kLeaseTime;
    }
    return lease;
}

Result<> FileStore::acquire()
{
    if (!request_ || !conf_) return Error{EINVAL, "publish to " + dir_.root() + ": net-conf.json was not read yet"};
    TWILL_TRY_AS(allocation, allocate(*conf_, held_subnets(dir_), allocation_request(*request_), options_.random));
    TWILL_TRY_AS(lease, wanted_lease(allocation));
    TWILL_TRY(dir_.put(lease, request_->vni));
    is_publish_due_ = false;
    keep_own(lease);
    for (const auto& key : allocation.replace) {
        if (key == lease.key) continue;
        (void)dir_.remove(key); // what stays expires by itself, or is an expired one
        sync(key);
    }
    return Ok{};
}

/// A full disk must not keep a restarted node from the lease that it has: while that is what it would write, but for
/// its end, and holds, it is used until the store takes writes again.
void FileStore::use_own_as_it_is()
{
    if (own_ || !request_ || !conf_) return;
    const auto held = held_subnets(dir_);
    const HeldSubnet* subnet = own_subnet(&*conf_, held, allocation_request(*request_));
    auto lease = subnet != nullptr && !subnet->is_expired ? dir_.lease(subnet->key) : std::nullopt;
    if (!lease || lease->backend_type != request_->backend_type) return;
    for (const Family family : kFamilies)
        if (lease->pods[family] && (lease->public_ip[family] != request_->public_ip[family] ||
                                    lease->vtep_mac[family] != request_->vtep_mac[family]))
            return;
    keep_own(*std::move(lease));
}

void FileStore::keep_own(Lease lease)
{
    const bool is_new = std::exchange(is_own_lost_, false) || own_ != lease;
    const auto known = told_.find(lease.key);
    // What was told of this key as somebody's, or as bad, is taken back; what on_own_lease() told is not told twice.
    const bool was_other =
        known != told_.end() && !(own_ && known->second == Told(*own_)) && known->second != Told(lease);
    const std::string old_key = own_ ? own_->key : lease.key;
    own_ = lease;
    if (is_attached_) told_.insert_or_assign(lease.key, lease);
    if (was_other) tell([lease](StoreListener& l) { l.on_event(LeasePut{lease}); });
    if (is_new) tell([lease](StoreListener& l) { l.on_own_lease(lease); });
    if (old_key != lease.key) sync(old_key);
}

void FileStore::check_own()
{
    if (!own_ || !request_ || is_publish_due_) return;
    const auto there = dir_.lease(own_->key);
    if (there == own_) return;
    if (there && equal_but_expiry(*there, *own_)) return keep_own(*there); // made a reservation, or its end moved
    is_publish_due_ = true;
    is_own_lost_ |= !there;
    const SteadyTime now = clock_.steady();
    // Two agents that both think that they own a lease must not rewrite it in a hot loop.
    if (contest_backoff_ == milliseconds{0} || now - last_contest_ > kContestMemory)
        contest_backoff_ = options_.settle;
    else
        contest_backoff_ = std::clamp(contest_backoff_ * 2, options_.backoff_min, options_.backoff_max);
    last_contest_ = now;
    schedule_work(contest_backoff_);
}

bool FileStore::is_due(const Lease& lease) const
{
    if (!lease.expires) return false;
    const auto left = *lease.expires - clock_.wall();
    return left <= options_.renew_margin || left > kLeaseTime + kClockTolerance;
}

void FileStore::sweep_expired()
{
    const SteadyTime steady = clock_.steady();
    const WallTime wall = clock_.wall();
    for (const auto& [key, since] : std::map(expired_)) {
        const auto lease = dir_.lease(key);
        if (!lease || lease->expires != since.first || (own_ && own_->key == key)) continue;
        if (steady - since.second < options_.delete_grace || wall - since.first < options_.delete_grace) continue;
        if (!dir_.remove(key)) next_sweep_ = steady + kSweepRetry;
        sync(key);
    }
}

} // namespace twill
