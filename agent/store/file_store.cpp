// SPDX-License-Identifier: Apache-2.0
#include "agent/store/file_store.hpp"

#include <cerrno>
#include <random>

#include "agent/store/file_io.hpp"

namespace twill {

namespace {

constexpr std::size_t kMaxConfigBytes = 1U << 20;
/// The wall clock ran ahead of the steady one by more than slewing and scheduling explain.
constexpr std::chrono::seconds kJump{5};

RandomSource machine_random()
{
    return [engine = std::mt19937(std::random_device{}())](std::uint32_t bound) mutable {
        return std::uniform_int_distribution<std::uint32_t>(0, bound - 1)(engine);
    };
}

} // namespace

FileStore::FileStore(Loop& loop, const Clock& clock, std::string directory, FileStoreOptions options)
    : loop_(loop), clock_(clock), options_(std::move(options)), dir_(std::move(directory)), outbox_timer_(loop),
      tick_timer_(loop), settle_timer_(loop), work_timer_(loop)
{
    if (!options_.random) options_.random = machine_random();
    last_wall_ = clock_.wall();
    last_steady_ = clock_.steady();
}

void FileStore::post(std::function<void()> delivery)
{
    outbox_.push_back(std::move(delivery));
    if (!outbox_timer_.is_active()) outbox_timer_.once(std::chrono::milliseconds{0}, [this] { deliver(); });
}

void FileStore::tell(std::function<void(StoreListener&)> delivery)
{
    if (listener_ == nullptr) return;
    post([this, delivery = std::move(delivery)] { delivery(*listener_); });
}

void FileStore::deliver()
{
    const std::weak_ptr<int> alive = alive_;
    while (!alive.expired() && !outbox_.empty()) {
        const auto delivery = std::move(outbox_.front());
        outbox_.pop_front();
        delivery();
    }
}

void FileStore::read_config(std::function<void(Result<NetConf>)> done)
{
    auto outcome = [&]() -> Result<NetConf> {
        TWILL_TRY_AS(text, read_file(dir_.config_path(), kMaxConfigBytes));
        TWILL_TRY_AS(conf, NetConf::parse(text, dir_.config_path(), options_.twill_keys));
        config_text_ = std::move(text);
        conf_ = conf;
        return conf;
    }();
    post([done = std::move(done), outcome = std::move(outcome)] { done(outcome); });
}

void FileStore::watch(StoreListener& listener)
{
    listener_ = &listener;
    told_trouble_.reset();
    start_ticks();
    // From the loop: a directory that is not there must be told by on_health(), after this call.
    settle_timer_.once(std::chrono::milliseconds{0}, [this] {
        attach();
        if (own_) tell([lease = *own_](StoreListener& l) { l.on_own_lease(lease); });
        report_health();
    });
}

void FileStore::start_ticks()
{
    if (!tick_timer_.is_active()) tick_timer_.every(options_.tick, [this] { tick(); });
}

void FileStore::attach()
{
    is_attached_ = false;
    is_watch_lost_ = false;
    watch_.reset();
    if (auto opened = dir_.open(); !opened) return lose(opened.error());
    auto watch = DirWatch::open(loop_, {dir_.root(), dir_.leases_path(), dir_.markers_path()},
                                [this](const WatchBatch& batch) { handle(batch); });
    if (watch)
        watch_ = *std::move(watch);
    else if (const int code = watch.error().code; code == ENOENT || code == ENOTDIR || code == EACCES)
        return lose(watch.error());
    resync();
}

void FileStore::lose(Error why)
{
    is_attached_ = false;
    watch_.reset();
    pending_.clear();
    watch_trouble_ = std::move(why);
    report_health();
}

void FileStore::resync()
{
    if (auto read = dir_.scan(true); !read) return lose(read.error());
    pending_.clear();
    told_.clear();
    LeaseSnapshot snapshot;
    for (const auto& [key, entry] : dir_.entries()) {
        const auto seen = view(key);
        if (!seen) continue;
        told_.emplace(key, *seen);
        if (const auto* lease = std::get_if<Lease>(&*seen))
            snapshot.leases.push_back(*lease);
        else
            snapshot.bad.push_back(std::get<BadLease>(*seen));
    }
    tell([snapshot](StoreListener& l) { l.on_snapshot(snapshot); });
    is_attached_ = true;
    next_rescan_ = clock_.steady() + kRescan;
    watch_trouble_.reset();
    report_health();
    check_own();
    check_config();
}

void FileStore::handle(const WatchBatch& batch)
{
    if (!is_attached_) return;
    if (batch.overflow) return resync();
    for (const auto& [directory, names] : batch.names) {
        if (directory == dir_.root()) {
            // Any other name may be what `config` is a link to.
            for (const auto& name : names) is_config_pending_ |= name != "lock" && !name.ends_with(kTempSuffix);
            continue;
        }
        for (const auto& name : names)
            if (auto key = LeaseDir::key_of(name)) pending_.insert(std::move(*key));
    }
    is_watch_lost_ |= batch.directory_lost;
    if ((is_watch_lost_ || is_config_pending_ || !pending_.empty()) && !settle_timer_.is_active())
        settle_timer_.once(options_.settle, [this] { read_pending(); });
}

void FileStore::read_pending()
{
    if (!is_attached_) return;
    // Whoever deletes the directory deletes the leases in it first: that ends no lease.
    if (!dir_.is_same()) return lose(file_error(ENOENT, "watch", dir_.root()));
    if (is_watch_lost_) return attach();
    if (std::exchange(is_config_pending_, false)) check_config();
    for (const auto& key : std::exchange(pending_, {}))
        if (dir_.reload(key)) sync(key);
}

void FileStore::check_config()
{
    if (!config_text_) return;
    auto text = read_file(dir_.config_path(), kMaxConfigBytes);
    if (!text || *text == *config_text_) return config_seen_.reset();
    if (config_seen_ != *text) {
        // An editor that truncates and then writes is one change: believed when it stays so for the settle time.
        config_seen_ = *std::move(text);
        is_config_pending_ = true;
        if (!settle_timer_.is_active()) settle_timer_.once(options_.settle, [this] { read_pending(); });
        return;
    }
    config_text_ = std::exchange(config_seen_, std::nullopt);
    tell([](StoreListener& l) { l.on_config_change(); });
}

bool FileStore::is_gone(const std::string& key, const Lease& lease) const
{
    if (!lease.expires || *lease.expires > clock_.wall()) return false;
    if (own_ && own_->key == key) return false; // ours until somebody takes it
    return clock_.steady() >= hold_until_ || !told_.contains(key);
}

std::optional<FileStore::Told> FileStore::view(const std::string& key) const
{
    const auto entry = dir_.entries().find(key);
    if (entry == dir_.entries().end()) return std::nullopt;
    auto lease = dir_.lease(key);
    if (!lease) return BadLease{key, entry->second.why};
    if (is_gone(key, *lease)) return std::nullopt;
    return *std::move(lease);
}

void FileStore::sync(const std::string& key)
{
    if (own_ && own_->key == key) check_own();
    if (!is_attached_) return;
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

void FileStore::report_health()
{
    if (listener_ == nullptr) return;
    const auto& trouble = watch_trouble_ ? watch_trouble_ : publish_trouble_;
    if (trouble == told_trouble_) return;
    told_trouble_ = trouble;
    tell([trouble](StoreListener& l) { l.on_health(trouble); });
}

void FileStore::note_time()
{
    const WallTime wall = clock_.wall();
    const SteadyTime steady = clock_.steady();
    if ((wall - last_wall_) - (steady - last_steady_) > kJump) hold_until_ = steady + options_.jump_hold;
    last_wall_ = wall;
    last_steady_ = steady;

    for (const auto& [key, entry] : dir_.entries()) {
        const auto& expires = entry.lease ? entry.lease->expires : std::nullopt;
        if (!expires || *expires > wall || (own_ && own_->key == key)) {
            expired_.erase(key);
        } else if (const auto known = expired_.find(key); known == expired_.end() || known->second.first != *expires) {
            expired_.insert_or_assign(key, std::pair(*expires, steady));
        }
    }
    std::erase_if(expired_, [&](const auto& item) { return !dir_.entries().contains(item.first); });
}

void FileStore::tick()
{
    note_time();
    if (listener_ != nullptr) tick_watch();
    if (own_ && !is_publish_due_ && is_due(*own_)) {
        is_publish_due_ = true;
        schedule_work(std::chrono::milliseconds{0});
    }
    const SteadyTime steady = clock_.steady();
    if (steady < next_sweep_ || is_sweep_due_) return;
    for (const auto& [key, since] : expired_) {
        if (steady - since.second < options_.delete_grace || clock_.wall() - since.first < options_.delete_grace)
            continue;
        is_sweep_due_ = true;
        if (!work_timer_.is_active()) schedule_work(std::chrono::milliseconds{0});
        return;
    }
}

void FileStore::tick_watch()
{
    if (!is_attached_) return attach();
    if (!dir_.is_same()) return lose(file_error(ENOENT, "watch", dir_.root()));
    std::set<std::string> changed;
    if (clock_.steady() >= next_rescan_ || !watch_) {
        next_rescan_ = clock_.steady() + kRescan;
        auto read = dir_.scan();
        if (!read) return lose(read.error());
        changed = *std::move(read);
        check_config();
    }
    for (const auto& [key, entry] : dir_.entries())
        if (entry.lease && is_gone(key, *entry.lease) == told_.contains(key)) changed.insert(key);
    for (const auto& key : changed) sync(key);
}

} // namespace twill
