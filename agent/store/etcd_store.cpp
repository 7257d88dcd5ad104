// SPDX-License-Identifier: Apache-2.0
#include "agent/store/etcd_store.hpp"

#include <algorithm>
#include <cerrno>
#include <random>

#include "agent/store/etcd_codec.hpp"

namespace twill {

namespace {

using std::chrono::milliseconds;

RandomSource machine_random()
{
    return [engine = std::mt19937(std::random_device{}())](std::uint32_t bound) mutable {
        return std::uniform_int_distribution<std::uint32_t>(0, bound - 1)(engine);
    };
}

} // namespace

Result<std::unique_ptr<Store>> make_etcd_store(EtcdOptions options, Loop& loop, const Clock& clock)
{
    if (options.endpoints.empty()) return Error{EINVAL, "etcd-endpoints: want at least one"};
    const bool has_files = !options.cert_file.empty() && !options.key_file.empty();
    for (auto& endpoint : options.endpoints) {
        TWILL_TRY_AS(url, etcd_endpoint(endpoint, has_files));
        endpoint = std::move(url);
    }
    auto transport = std::make_unique<EtcdClient>(loop, options);
    return Result<std::unique_ptr<Store>>(
        std::make_unique<EtcdStore>(loop, clock, std::move(options), std::move(transport)));
}

EtcdStore::EtcdStore(Loop& loop, const Clock& clock, EtcdOptions options, std::unique_ptr<EtcdTransport> transport)
    : clock_(clock), options_(std::move(options)), keys_(options_.prefix), transport_(std::move(transport)),
      outbox_timer_(loop), tick_timer_(loop), watch_timer_(loop), flush_timer_(loop), work_timer_(loop)
{
    if (!options_.random) options_.random = machine_random();
}

std::string EtcdStore::describe() const
{
    std::string text = "etcd://";
    for (const auto& endpoint : options_.endpoints) {
        if (text.back() != '/') text += ',';
        text += endpoint.substr(endpoint.find("://") + 3);
    }
    return text + keys_.prefix();
}

void EtcdStore::post(std::function<void()> delivery)
{
    outbox_.push_back(std::move(delivery));
    if (!outbox_timer_.is_active()) outbox_timer_.once(milliseconds{0}, [this] { deliver(); });
}

void EtcdStore::tell(std::function<void(StoreListener&)> delivery)
{
    if (listener_ == nullptr) return;
    post([this, delivery = std::move(delivery)] { delivery(*listener_); });
}

void EtcdStore::deliver()
{
    const std::weak_ptr<int> alive = alive_;
    while (!alive.expired() && !outbox_.empty()) {
        const auto delivery = std::move(outbox_.front());
        outbox_.pop_front();
        delivery();
    }
}

EtcdRange EtcdStore::range_of(Range range) const
{
    if (range == kLeases) return keys_.leases();
    if (range == kMarkers) return keys_.markers();
    return {keys_.config(), ""};
}

void EtcdStore::read_config(std::function<void(Result<NetConf>)> done)
{
    const auto take = [this, done = std::move(done)](const Result<std::string>& answer) {
        auto outcome = [&]() -> Result<NetConf> {
            TWILL_TRY_AS(message, answer);
            TWILL_TRY_AS(listing, decode_list(message, 1));
            const auto& kvs = listing.ranges[0];
            if (kvs.empty()) return Error{ENOENT, "etcd " + keys_.config() + ": no such key"};
            auto conf = NetConf::parse(kvs[0].value, keys_.config(), options_.twill_keys);
            if (!conf) return Error{EBADMSG, conf.error().what}; // somebody may write a better one
            config_text_ = kvs[0].value;
            conf_ = *conf;
            return conf;
        }();
        post([done, outcome = std::move(outcome)] { done(outcome); });
    };
    config_call_ = transport_->unary("KV/Txn", encode_list({range_of(kConfig)}), take);
}

void EtcdStore::list(EtcdCall& slot, std::function<void(Result<EtcdListing>)> done)
{
    std::vector<EtcdRange> ranges;
    for (const Range range : {kLeases, kMarkers, kConfig})
        if (!is_denied_[range]) ranges.push_back(range_of(range));
    const auto asked = is_denied_;
    slot = transport_->unary(
        "KV/Txn", encode_list(ranges),
        [this, asked, &slot, count = ranges.size(), done = std::move(done)](Result<std::string> answer) {
            if (!answer && answer.error().code == EACCES) {
                // A user may have rights on what flannel needs only: ask for less.
                for (const Range range : {kMarkers, kConfig}) {
                    if (asked[range]) continue;
                    is_denied_ = asked;
                    is_denied_[range] = true;
                    return list(slot, done);
                }
                is_denied_ = {};
            }
            if (!answer) return done(answer.error());
            auto listing = decode_list(*answer, count);
            if (!listing) return done(listing.error());
            for (const Range range : {kMarkers, kConfig})
                if (asked[range]) listing->ranges.insert(listing->ranges.begin() + range, std::vector<EtcdKv>{});
            done(std::move(listing));
        });
}

void EtcdStore::watch(StoreListener& listener)
{
    listener_ = &listener;
    told_trouble_.reset();
    tick_timer_.every(options_.tick, [this] { tick(); });
    if (own_) tell([lease = *own_](StoreListener& l) { l.on_own_lease(lease); });
    report_health();
    snapshot();
}

void EtcdStore::snapshot()
{
    is_streaming_ = false;
    has_snapshot_ = false;
    list(watch_call_, [this, written = own_mod_](Result<EtcdListing> listing) {
        if (!listing) return lose(listing.error());
        // Our own write passed it on the way: a listing without it would look like a lease lost.
        if (own_mod_ != written && own_mod_ > listing->header.revision) return snapshot();
        take_snapshot(*listing);
        open_stream();
    });
}

void EtcdStore::take_snapshot(const EtcdListing& listing)
{
    view_ = view_of(keys_, listing.ranges[kLeases], listing.ranges[kMarkers]);
    seen_ = listing.header;
    next_.fill(seen_.revision + 1);
    has_snapshot_ = true;
    dirty_.clear();
    told_.clear();
    LeaseSnapshot snapshot;
    for (const auto& [key, entry] : view_.entries()) {
        const auto seen = view(key);
        told_.emplace(key, *seen);
        if (const auto* lease = std::get_if<Lease>(&*seen))
            snapshot.leases.push_back(*lease);
        else
            snapshot.bad.push_back(std::get<BadLease>(*seen));
    }
    tell([snapshot = std::move(snapshot)](StoreListener& l) { l.on_snapshot(snapshot); });
    check_own();
    if (const auto& config = listing.ranges[kConfig]; !config.empty()) check_config(config[0].value);
}

void EtcdStore::resume()
{
    is_streaming_ = false;
    if (!has_snapshot_) return snapshot();
    const auto& entries = view_.entries();
    const auto last = std::max_element(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
        return a.second.mod_revision < b.second.mod_revision;
    });
    if (last == entries.end()) return snapshot();
    const auto take = [this, canary = last->second](const Result<std::string>& answer) {
        auto listing = answer ? decode_list(*answer, 1) : Result<EtcdListing>(answer.error());
        if (!listing) return lose(listing.error());
        if (!is_same_history(*listing, canary)) return snapshot();
        open_stream();
    };
    watch_call_ = transport_->unary("KV/Txn", encode_list({{keys_.lease(last->first), ""}}), take);
}

/// A server that came back from an old backup has other events under the same revisions, and a watch that goes on
/// behind the last one would miss them. The key written last tells.
bool EtcdStore::is_same_history(const EtcdListing& listing, const EtcdEntry& canary) const
{
    const auto& header = listing.header;
    if (header.cluster_id != seen_.cluster_id || header.revision < seen_.revision) return false;
    if (header.raft_term < seen_.raft_term || listing.ranges[0].empty()) return false;
    const auto mod = listing.ranges[0][0].mod_revision;
    return mod == canary.mod_revision || mod > seen_.revision;
}

void EtcdStore::open_stream()
{
    asked_.clear();
    confirmed_ = 0;
    watch_id_.fill(-1);
    std::vector<std::string> creates;
    for (const Range range : {kLeases, kMarkers, kConfig}) {
        if (is_denied_[range]) continue;
        asked_.push_back(range);
        creates.push_back(encode_watch(range_of(range), next_[range]));
    }
    is_streaming_ = true;
    stream_endpoint_ = transport_->endpoint();
    stream_since_ = last_word_ = clock_.steady();
    watch_call_ = transport_->stream(
        "Watch/Watch", creates,
        {[this](std::string_view message) { return on_watch(message); }, [this](Error why) { lose(std::move(why)); }});
}

bool EtcdStore::on_watch(std::string_view message)
{
    const EtcdCall stream = watch_call_; // may be given up below
    auto response = decode_watch(message);
    if (!response) {
        lose(response.error());
        return false;
    }
    last_word_ = clock_.steady();
    if (response->header.cluster_id != seen_.cluster_id) {
        snapshot();
        return false;
    }
    if (response->is_created) on_created(*response);
    if (watch_call_ == stream && response->is_canceled) on_canceled(*response);
    if (watch_call_ != stream) return false;
    seen_.raft_term = std::max(seen_.raft_term, response->header.raft_term);
    if (response->is_created || response->is_canceled) return true;
    // Nothing but a header: all up to its revision was told.
    if (response->events.empty())
        for (const Range range : asked_)
            if (watch_id_[range] == response->watch_id)
                next_[range] = std::max(next_[range], response->header.revision + 1);
    for (auto& event : response->events) on_watch_event(std::move(event));
    return true;
}

void EtcdStore::on_created(const EtcdWatchResponse& response)
{
    if (confirmed_ >= asked_.size()) return;
    const Range range = asked_[confirmed_++];
    watch_id_[range] = response.watch_id;
    if (response.is_canceled && response.compact_revision == 0 && range != kLeases) {
        // No rights on it. An old etcd says so only here.
        is_denied_[range] = true;
        watch_id_[range] = -1;
        return;
    }
    if (response.header.revision + 1 < next_[range]) return snapshot();
    if (confirmed_ < asked_.size()) return;
    watch_trouble_.reset();
    watch_backoff_ = milliseconds{0};
    report_health();
}

void EtcdStore::on_canceled(const EtcdWatchResponse& response)
{
    if (response.compact_revision > 0) return snapshot();
    if (response.is_created && confirmed_ > 0 && is_denied_[asked_[confirmed_ - 1]]) return;
    lose({EAGAIN, "etcd watch: cancelled: " + response.reason});
}

void EtcdStore::on_watch_event(EtcdWatchEvent event)
{
    const auto revision = event.kv.mod_revision;
    seen_.revision = std::max(seen_.revision, revision);
    const auto note = [&](Range range) { next_[range] = std::max(next_[range], revision + 1); };
    if (event.kv.key == keys_.config()) {
        note(kConfig);
        if (!event.is_delete) check_config(std::move(event.kv.value));
    } else if (auto key = keys_.lease_key(event.kv.key)) {
        note(kLeases);
        const EtcdEntry* known = view_.find(*key);
        if (known != nullptr && known->mod_revision >= revision) return; // our own write, known already
        mark_dirty(*key);
        if (event.is_delete)
            view_.remove_lease(*key);
        else
            view_.put_lease(*std::move(key), event.kv);
    } else if (auto marked = keys_.marker_key(event.kv.key)) {
        note(kMarkers);
        mark_dirty(*marked);
        if (event.is_delete)
            view_.remove_marker(*marked);
        else
            view_.put_marker(*std::move(marked), event.kv.value);
    }
}

void EtcdStore::lose(Error why)
{
    watch_call_.reset();
    is_streaming_ = false;
    // The first failure is mended at once, by the next endpoint, without a word.
    if (watch_backoff_ > milliseconds{0}) {
        watch_trouble_ = std::move(why);
        report_health();
    }
    // Half of it at random: nodes that lost one server together do not come back together.
    const auto wait = static_cast<std::uint32_t>(watch_backoff_.count());
    watch_timer_.once(milliseconds{wait > 1 ? wait / 2 + options_.random(wait / 2) : wait}, [this] { resume(); });
    watch_backoff_ = std::clamp(watch_backoff_ * 2, options_.backoff_min, options_.backoff_max);
}

void EtcdStore::tick()
{
    if (own_ && !is_publish_due_ && is_due()) {
        is_publish_due_ = is_renewal_ = true;
        is_check_ = false;
        schedule_work(milliseconds{0});
    }
    if (!is_streaming_) return;
    const SteadyTime now = clock_.steady();
    if (confirmed_ < asked_.size() && now - stream_since_ > options_.call_timeout)
        return lose({ETIMEDOUT, "etcd watch: not confirmed in time"});
    if (transport_->endpoint() != stream_endpoint_) return resume(); // a call found that this one is dead
    if (now - last_word_ >= options_.probe && !probe_call_) probe();
}

/// A watch that has nothing to say looks like one of a server that hangs.
void EtcdStore::probe()
{
    const auto take = [this](const Result<std::string>& answer) {
        probe_call_.reset();
        if (answer || answer.error().code == EACCES)
            last_word_ = clock_.steady();
        else if (is_streaming_)
            lose(answer.error());
    };
    probe_call_ = transport_->unary("KV/Txn", encode_list({range_of(kConfig)}), take);
}

void EtcdStore::check_config(std::optional<std::string> text)
{
    if (!config_text_ || !text || *text == *config_text_) return;
    config_text_ = std::move(text);
    tell([](StoreListener& l) { l.on_config_change(); });
}

std::optional<EtcdStore::Told> EtcdStore::view(const std::string& key) const
{
    const EtcdEntry* entry = view_.find(key);
    if (entry == nullptr) return std::nullopt;
    auto lease = view_.lease(key);
    if (!lease) return BadLease{key, entry->why};
    if (own_ && own_->key == key) {
        // etcd tells no time with a key, and perhaps no marker: that of our own we know.
        if (entry->etcd_lease != 0 && entry->etcd_lease == own_etcd_lease_) lease->expires = own_->expires;
        if (is_denied_[kMarkers]) lease->marker = own_->marker;
    }
    return *std::move(lease);
}

void EtcdStore::mark_dirty(const std::string& key)
{
    dirty_.insert(key);
    // Lease and marker of one write come one after the other.
    if (!flush_timer_.is_active())
        flush_timer_.once(milliseconds{0}, [this] {
            for (const auto& dirty : std::exchange(dirty_, {})) sync(dirty);
        });
}

void EtcdStore::sync(const std::string& key)
{
    if (own_ && own_->key == key) check_own();
    if (!has_snapshot_) return;
    const auto seen = view(key);
    const auto known = told_.find(key);
    if (!seen) {
        if (known == told_.end()) return;
        told_.erase(known);
        tell([key](StoreListener& l) { l.on_event(LeaseGone{key}); });
        // A full range may have room now.
        if (publish_trouble_ && publish_trouble_->code == ENOSPC) schedule_work(options_.settle);
        return;
    }
    if (known != told_.end() && known->second == *seen) return;
    told_.insert_or_assign(key, *seen);
    if (const auto* lease = std::get_if<Lease>(&*seen))
        tell([lease = *lease](StoreListener& l) { l.on_event(LeasePut{lease}); });
    else
        tell([bad = std::get<BadLease>(*seen)](StoreListener& l) { l.on_event(bad); });
}

void EtcdStore::report_health()
{
    if (listener_ == nullptr) return;
    const auto& trouble = watch_trouble_ ? watch_trouble_ : publish_trouble_;
    if (trouble == told_trouble_) return;
    told_trouble_ = trouble;
    tell([trouble](StoreListener& l) { l.on_health(trouble); });
}

} // namespace twill
