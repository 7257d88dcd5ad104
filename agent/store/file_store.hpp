// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "agent/loop/loop.hpp"
#include "agent/store/allocator.hpp"
#include "agent/store/dir_watch.hpp"
#include "agent/store/lease_dir.hpp"
#include "agent/store/store.hpp"
#include "twill/clock.hpp"

namespace twill {

/// Tests shorten the times; the daemon sets renew_margin.
struct FileStoreOptions {
    std::vector<std::string_view> twill_keys = {"overlay", "overlayName", "fastPath", "antiSpoof", "feature"};
    std::chrono::seconds renew_margin = std::chrono::minutes{60}; ///< before expiry
    std::chrono::seconds delete_grace = std::chrono::hours{1};    ///< an expired lease's file stays that long
    std::chrono::seconds jump_hold = std::chrono::minutes{2};     ///< after a jump of the clock nothing expires so long
    std::chrono::milliseconds tick{1000};                         ///< expiry, renewal, lost directories
    std::chrono::milliseconds settle{20};                         ///< changes are read so long after they are told
    std::chrono::milliseconds backoff_min{1000};                  ///< after a failed write
    std::chrono::milliseconds backoff_max{30000};
    RandomSource random; ///< empty: seeded by the machine
};

/// Leases as files in one directory, shared by the agents of a cluster: config (net-conf.json), leases/<key>.json,
/// twill/<key>.json (markers), lock.
///
/// API: Store. Callbacks come from the loop, in order, never from inside a call.
/// Threading: control thread. Blocks on the file system only; a held lock is retried by a timer.
/// Writers: flock(2) on lock around read, decide, write; every file is replaced by rename. So agents on one directory
/// never get one subnet, and a reader without the lock sees whole files.
/// Watch: inotify, a look at the directories each tick, and all stamps read again every 30 s (each tick where inotify
/// has no room), so that a network file system works too. Overflow, or a directory that comes back: a snapshot.
/// Time: a lease past its Expiration is gone, except the own one. Its file is deleted by an agent that needs the room,
/// or after delete_grace by the wall clock and by the steady clock of the deleter. When the wall clock jumps forward,
/// leases live on for jump_hold: owners renew what is about to expire each tick.
class FileStore final : public Store {
public:
    FileStore(Loop& loop, const Clock& clock, std::string directory, FileStoreOptions options = {});

    void read_config(std::function<void(Result<NetConf>)> done) override;
    void find_own(const LeaseRequest& request, std::function<void(Result<std::optional<Lease>>)> done) override;
    void publish(LeaseRequest request) override;
    void watch(StoreListener& listener) override;
    std::string describe() const override { return "file://" + dir_.root(); }

    /// What inotify told. Public for the test of a lost event.
    void handle(const WatchBatch& batch);

private:
    using Told = std::variant<Lease, BadLease>;
    static constexpr std::chrono::hours kLeaseTime{24}; // flannel's
    static constexpr std::chrono::seconds kRescan{30};

    // file_store.cpp: what others write
    void post(std::function<void()> delivery);
    void tell(std::function<void(StoreListener&)> delivery);
    void deliver();
    void start_ticks();
    void tick();
    void tick_watch();
    void note_time();
    void attach();
    void lose(Error why);
    void resync();
    void read_pending();
    void check_config();
    bool is_gone(const std::string& key, const Lease& lease) const;
    std::optional<Told> view(const std::string& key) const;
    void sync(const std::string& key);
    void report_health();

    // file_store_own.cpp: what this node writes
    void schedule_work(std::chrono::milliseconds after);
    void work();
    Result<bool> work_locked();
    Result<> acquire();
    Result<Lease> wanted_lease(const Allocation& allocation) const;
    std::vector<HeldSubnet> held_subnets(const LeaseDir& dir) const;
    AllocationRequest allocation_request(const LeaseRequest& wanted) const;
    void use_own_as_it_is();
    void keep_own(Lease lease);
    void check_own();
    bool is_due(const Lease& lease) const;
    void sweep_expired();

    Loop& loop_;
    const Clock& clock_;
    FileStoreOptions options_;
    LeaseDir dir_;
    StoreListener* listener_ = nullptr;
    std::optional<NetConf> conf_;
    std::optional<std::string> config_text_; ///< as read, or as last told by on_config_change()
    std::optional<std::string> config_seen_; ///< another text, not yet told

    bool is_attached_ = false; ///< the watch is up and the snapshot was told
    std::unique_ptr<DirWatch> watch_;
    std::set<std::string> pending_; ///< keys told by inotify, not read yet
    bool is_config_pending_ = false;
    bool is_watch_lost_ = false;
    std::map<std::string, Told> told_; ///< what the listener knows

    std::optional<LeaseRequest> request_;
    std::optional<Lease> own_; ///< as last told by on_own_lease()
    bool is_publish_due_ = false;
    bool is_own_lost_ = false; ///< the own lease was gone: acquired again it is told, also when it is the same
    bool is_sweep_due_ = false;
    std::chrono::milliseconds backoff_{0};
    std::chrono::milliseconds contest_backoff_{0};
    SteadyTime last_contest_{};
    std::optional<SteadyTime> lock_wait_since_;

    WallTime last_wall_{};
    SteadyTime last_steady_{};
    SteadyTime hold_until_{};
    SteadyTime next_rescan_{};
    SteadyTime next_sweep_{};
    std::map<std::string, std::pair<WallTime, SteadyTime>> expired_; ///< key -> its Expiration, when it was noticed

    std::optional<Error> watch_trouble_;
    std::optional<Error> publish_trouble_;
    std::optional<Error> told_trouble_;

    std::deque<std::function<void()>> outbox_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0); ///< a delivery may destroy the store
    Timer outbox_timer_;
    Timer tick_timer_;
    Timer settle_timer_;
    Timer work_timer_;
};

} // namespace twill
