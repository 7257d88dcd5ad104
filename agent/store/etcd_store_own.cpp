// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/store/etcd_codec.hpp"
#include "agent/store/etcd_store.hpp"

namespace twill {

namespace {

using std::chrono::milliseconds;

constexpr std::chrono::seconds kContestMemory{120}; // rewriting against somebody else starts over after so long
constexpr std::chrono::seconds kSpareTime{60};      // an unused etcd lease is used no later: its time runs
constexpr milliseconds kLongBackoff{30000};         // what needs a human's hand, and a listing for each try

bool equal_but_expiry(Lease a, const Lease& b)
{
    a.expires = b.expires;
    return a == b;
}

} // namespace

void EtcdStore::publish(LeaseRequest request)
{
    if (request_ && *request_ == request && own_) return;
    request_ = std::move(request);
    is_publish_due_ = true;
    is_renewal_ = is_check_ = false;
    backoff_ = milliseconds{0};
    tick_timer_.every(options_.tick, [this] { tick(); });
    work_call_.reset();
    schedule_work(milliseconds{0});
}

void EtcdStore::leave(std::function<void()> done)
{
    request_.reset();
    is_publish_due_ = is_renewal_ = is_check_ = false;
    work_timer_.stop();
    tick_timer_.stop(); // it renews
    work_call_.reset();
    if (!own_ || is_marker_denied_) return post(std::move(done));
    EtcdTxn txn;
    txn.removes.push_back(keys_.marker(own_->key));
    work_call_ =
        transport_->unary("KV/Txn", encode_txn(txn), [done = std::move(done)](const Result<std::string>&) { done(); });
}

void EtcdStore::schedule_work(milliseconds after)
{
    work_timer_.once(after, [this] { work(); });
}

void EtcdStore::work()
{
    if (!is_publish_due_) return;
    if (std::exchange(is_check_, false) && is_own_intact()) {
        is_publish_due_ = is_own_lost_ = false;
        return;
    }
    plan_ = {};
    if (!request_ || !conf_)
        return fail_work({EINVAL, "publish to " + describe() + ": " + keys_.config() + " was not read yet"});
    if (is_renewal_ && own_) {
        plan_.allocation.pods.pods = own_->pods;
        plan_.mod_revision = own_mod_;
        return grant();
    }
    list(work_call_, [this](Result<EtcdListing> listing) {
        if (!listing) return fail_work(listing.error());
        decide(*listing);
    });
}

void EtcdStore::decide(const EtcdListing& listing)
{
    const EtcdView view = view_of(keys_, listing.ranges[kLeases], listing.ranges[kMarkers]);
    auto allocation = allocate(*conf_, view.held(own_), allocation_request(*request_), options_.random);
    if (!allocation) return fail_work(allocation.error());
    plan_.allocation = *std::move(allocation);
    plan_.list_revision = listing.header.revision;
    const auto key = plan_.allocation.pods.to_string();
    if (const EtcdEntry* entry = view.find(key)) plan_.mod_revision = entry->mod_revision;
    for (const auto& replaced : plan_.allocation.replace)
        if (const EtcdEntry* entry = view.find(replaced); entry != nullptr && replaced != key)
            plan_.replace[replaced] = entry->mod_revision;
    if (plan_.allocation.is_reservation) return write();
    grant();
}

void EtcdStore::grant()
{
    const SteadyTime now = clock_.steady();
    if (spare_ && now - spare_since_ < std::min(kSpareTime, std::chrono::seconds{spare_->ttl_seconds / 4}))
        return write();
    spare_.reset();
    const auto take = [this, now](const Result<std::string>& answer) {
        auto grant = answer ? decode_grant(*answer) : Result<EtcdGrant>(answer.error());
        if (!grant) return fail_work(grant.error());
        spare_ = *grant;
        spare_since_ = now; // before it was asked for: ours ends no later than etcd's
        write();
    };
    work_call_ = transport_->unary("Lease/LeaseGrant", encode_grant(options_.lease_ttl.count()), take);
}

void EtcdStore::write()
{
    auto wanted = wanted_lease();
    if (!wanted) return fail_work(wanted.error());
    plan_.lease = *wanted;
    const std::int64_t etcd_lease = plan_.allocation.is_reservation ? 0 : spare_->lease;
    const auto key = keys_.lease(wanted->key);

    EtcdTxn txn;
    txn.conditions.push_back({key, "", plan_.mod_revision});
    // With two families two different keys may still overlap.
    if (wanted->pods.v4 && wanted->pods.v6 && plan_.mod_revision == 0)
        txn.conditions.push_back({keys_.leases().key, keys_.leases().end, plan_.list_revision});
    for (const auto& [replaced, mod_revision] : plan_.replace) {
        txn.conditions.push_back({keys_.lease(replaced), "", mod_revision});
        txn.removes.push_back(keys_.lease(replaced));
        if (!is_marker_denied_) txn.removes.push_back(keys_.marker(replaced));
    }
    txn.puts.push_back({key, format_etcd_lease(*wanted, request_->vni), 0, 0, etcd_lease});
    if (wanted->marker) {
        auto marker = format_marker(*wanted->marker);
        marker.erase(marker.find_last_not_of('\n') + 1);
        txn.puts.push_back({keys_.marker(wanted->key), std::move(marker), 0, 0, etcd_lease});
    }
    work_call_ =
        transport_->unary("KV/Txn", encode_txn(txn), [this](const Result<std::string>& answer) { written(answer); });
}

void EtcdStore::written(const Result<std::string>& answer)
{
    if (!answer && answer.error().code == EACCES && !is_marker_denied_) {
        is_marker_denied_ = true; // rights on what flannel writes only: then without
        return write();
    }
    auto result = answer ? decode_txn(*answer) : Result<EtcdTxnResult>(answer.error());
    if (!result) {
        if (result.error().code != EACCES) is_marker_denied_ = false;
        spare_.reset(); // perhaps it was written, perhaps etcd knows the lease no more
        return fail_work(result.error());
    }
    const Lease lease = *plan_.lease;
    if (!result->is_done) {
        is_renewal_ = false;
        publish_trouble_ = Error{EBUSY, "etcd " + keys_.lease(lease.key) + ": somebody else was faster"};
        report_health();
        return schedule_work(options_.settle + milliseconds{options_.random(50)});
    }
    is_publish_due_ = is_renewal_ = false;
    publish_trouble_.reset();
    backoff_ = milliseconds{0};
    own_mod_ = result->header.revision;
    own_etcd_lease_ = 0;
    if (!plan_.allocation.is_reservation) {
        own_etcd_lease_ = spare_->lease;
        own_granted_ = spare_since_;
        own_ttl_ = std::chrono::seconds{spare_->ttl_seconds};
        spare_.reset();
    }
    // What the watch will tell is known now, unless it was faster: then it knows of later writes.
    const EtcdKv kv{"", format_etcd_lease(lease, request_->vni), 0, own_mod_, own_etcd_lease_};
    if (next_[kLeases] <= own_mod_) view_.put_lease(lease.key, kv);
    if (lease.marker && next_[kMarkers] <= own_mod_) view_.put_marker(lease.key, format_marker(*lease.marker));
    const auto replaced = plan_.replace;
    keep_own(lease);
    mark_dirty(lease.key);
    for (const auto& [key, mod_revision] : replaced) {
        view_.remove_lease(key);
        view_.remove_marker(key);
        sync(key);
    }
    report_health();
}

void EtcdStore::fail_work(Error why)
{
    const bool is_lasting = why.code == ENOSPC || why.code == EINVAL || why.code == EACCES;
    backoff_ = std::clamp(backoff_ * 2, options_.backoff_min, is_lasting ? kLongBackoff : options_.backoff_max);
    publish_trouble_ = std::move(why);
    report_health();
    const auto wait = static_cast<std::uint32_t>(backoff_.count());
    schedule_work(milliseconds{wait / 2 + options_.random(wait / 2 + 1)});
}

void EtcdStore::find_own(const LeaseRequest& request, std::function<void(Result<std::optional<Lease>>)> done)
{
    list(find_call_, [this, request, done = std::move(done)](Result<EtcdListing> listing) {
        auto outcome = [&]() -> Result<std::optional<Lease>> {
            if (!listing) return listing.error();
            const EtcdView view = view_of(keys_, listing->ranges[kLeases], listing->ranges[kMarkers]);
            const auto held = view.held(own_);
            const HeldSubnet* own = own_subnet(conf_ ? &*conf_ : nullptr, held, allocation_request(request));
            return own != nullptr ? view.lease(own->key) : std::nullopt;
        }();
        post([done, outcome = std::move(outcome)] { done(outcome); });
    });
}

AllocationRequest EtcdStore::allocation_request(const LeaseRequest& wanted) const
{
    AllocationRequest request{wanted.node, {}, own_ ? own_->pods : wanted.preferred, own_};
    for (const Family family : kFamilies)
        if (!conf_ || conf_->network[family]) request.public_ip[family] = wanted.public_ip[family];
    return request;
}

Result<Lease> EtcdStore::wanted_lease() const
{
    Lease lease;
    lease.key = plan_.allocation.pods.to_string();
    lease.pods = plan_.allocation.pods.pods;
    lease.backend_type = request_->backend_type;
    for (const Family family : kFamilies) {
        if (!lease.pods[family]) continue;
        lease.public_ip[family] = request_->public_ip[family];
        lease.vtep_mac[family] = request_->vtep_mac[family];
    }
    // Nothing is written that a reader would refuse: a flannel node would drop every peer for it.
    auto read_back = parse_etcd_lease(lease.key, format_etcd_lease(lease, request_->vni));
    if (!read_back) return Error{EINVAL, "publish " + lease.key + ": " + read_back.error().what};
    lease = *std::move(read_back);
    if (!is_marker_denied_) lease.marker = request_->marker;
    if (!plan_.allocation.is_reservation)
        lease.expires = std::chrono::floor<std::chrono::seconds>(clock_.wall() - (clock_.steady() - spare_since_)) +
                        std::chrono::seconds{spare_->ttl_seconds};
    return lease;
}

void EtcdStore::keep_own(Lease lease)
{
    const auto known = told_.find(lease.key);
    // Lost and acquired again within a second it is the same to the letter, but may have been told gone.
    const bool is_new = std::exchange(is_own_lost_, false) || own_ != lease;
    // What was told of this key as somebody's, or as bad, is taken back; what on_own_lease() told is not told twice.
    const bool was_other =
        known != told_.end() && !(own_ && known->second == Told(*own_)) && known->second != Told(lease);
    const std::string old_key = own_ ? own_->key : lease.key;
    own_ = lease;
    if (has_snapshot_) told_.insert_or_assign(lease.key, lease);
    if (was_other) tell([lease](StoreListener& l) { l.on_event(LeasePut{lease}); });
    if (is_new) tell([lease](StoreListener& l) { l.on_own_lease(lease); });
    if (old_key != lease.key) sync(old_key);
}

bool EtcdStore::is_own_intact() const
{
    const EtcdEntry* entry = view_.find(own_->key);
    const auto seen = view(own_->key);
    return entry != nullptr && entry->etcd_lease == own_etcd_lease_ && seen == Told(*own_);
}

void EtcdStore::check_own()
{
    if (!own_ || !request_ || is_publish_due_ || !has_snapshot_) return;
    const EtcdEntry* entry = view_.find(own_->key);
    if (is_own_intact()) {
        own_mod_ = entry->mod_revision;
        return;
    }
    const auto seen = view(own_->key);
    const auto* lease = seen ? std::get_if<Lease>(&*seen) : nullptr;
    if (lease != nullptr && entry->etcd_lease == 0 && equal_but_expiry(*lease, *own_)) {
        own_etcd_lease_ = 0; // somebody made it a reservation
        own_mod_ = entry->mod_revision;
        return keep_own(*lease);
    }
    is_publish_due_ = is_check_ = is_own_lost_ = true;
    is_renewal_ = false;
    const SteadyTime now = clock_.steady();
    // Two agents that both think that they own a lease must not rewrite it in a hot loop.
    if (contest_backoff_ == milliseconds{0} || now - last_contest_ > kContestMemory)
        contest_backoff_ = options_.settle;
    else
        contest_backoff_ = std::clamp(contest_backoff_ * 2, options_.backoff_min, options_.backoff_max);
    last_contest_ = now;
    schedule_work(contest_backoff_);
}

bool EtcdStore::is_due() const
{
    if (own_etcd_lease_ == 0 || !own_->expires) return false;
    return *own_->expires - clock_.wall() <= options_.renew_margin ||
           clock_.steady() - own_granted_ >= own_ttl_ - options_.renew_margin;
}

} // namespace twill
