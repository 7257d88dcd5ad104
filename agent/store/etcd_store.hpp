// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "agent/loop/loop.hpp"
#include "agent/store/etcd_client.hpp"
#include "agent/store/etcd_options.hpp"
#include "agent/store/etcd_view.hpp"
#include "agent/store/store.hpp"
#include "twill/clock.hpp"

namespace twill {

/// Leases in etcd v3, as flannel keeps them: <prefix>/config, <prefix>/subnets/<key> under an etcd lease of 24 hours,
/// and twill's markers in <prefix>/twill/<key> under the same.
///
/// API: Store. Callbacks come from the loop, in order, never from inside a call.
/// Writers: every write is a Txn that holds only if nobody wrote the key (dual stack: any lease) since it was read. So
/// two agents never get one subnet, and a node that wakes up late takes nothing from anybody.
/// Watch: a listing, then three watches (leases, markers, config) on one stream. When it breaks it goes on behind the
/// last event, at the next endpoint, if the last key written is still what it was; else, and after compaction, a
/// snapshot. A user without rights on <prefix>/twill has no markers, and everything else.
/// Time: etcd's leases expire on etcd's clock. The own one is renewed when the wall clock or the steady one says so.
class EtcdStore final : public Store {
public:
    /// `options` as make_etcd_store() checked them.
    EtcdStore(Loop& loop, const Clock& clock, EtcdOptions options, std::unique_ptr<EtcdTransport> transport);

    void read_config(std::function<void(Result<NetConf>)> done) override;
    void find_own(const LeaseRequest& request, std::function<void(Result<std::optional<Lease>>)> done) override;
    void publish(LeaseRequest request) override;
    void leave(std::function<void()> done) override;
    void watch(StoreListener& listener) override;
    void lose_address(const Ip& address) override { transport_->lose_address(address); }
    std::string describe() const override;

private:
    using Told = std::variant<Lease, BadLease>;
    enum Range : std::size_t { kLeases, kMarkers, kConfig, kRanges };

    // etcd_store.cpp: what others write
    void post(std::function<void()> delivery);
    void tell(std::function<void(StoreListener&)> delivery);
    void deliver();
    void tick();
    void list(EtcdCall& slot, std::function<void(Result<EtcdListing>)> done);
    EtcdRange range_of(Range range) const;
    void snapshot();
    void take_snapshot(const EtcdListing& listing);
    void resume();
    bool is_same_history(const EtcdListing& listing, const EtcdEntry& canary) const;
    void open_stream();
    bool on_watch(std::string_view message);
    void on_watch_event(EtcdWatchEvent event);
    void on_created(const EtcdWatchResponse& response);
    void on_canceled(const EtcdWatchResponse& response);
    void lose(Error why);
    void probe();
    void check_config(std::optional<std::string> text);
    std::optional<Told> view(const std::string& key) const;
    void mark_dirty(const std::string& key);
    void sync(const std::string& key);
    void report_health();

    // etcd_store_own.cpp: what this node writes
    void schedule_work(std::chrono::milliseconds after);
    void work();
    void decide(const EtcdListing& listing);
    void grant();
    void write();
    void written(const Result<std::string>& answer);
    void fail_work(Error why);
    Result<Lease> wanted_lease() const;
    AllocationRequest allocation_request(const LeaseRequest& wanted) const;
    void keep_own(Lease lease);
    void check_own();
    bool is_own_intact() const;
    bool is_due() const;

    const Clock& clock_;
    EtcdOptions options_;
    EtcdKeys keys_;
    StoreListener* listener_ = nullptr;
    std::optional<NetConf> conf_;
    std::optional<std::string> config_text_; ///< as read, or as last told by on_config_change()

    EtcdView view_;
    std::map<std::string, Told> told_; ///< what the listener knows
    std::set<std::string> dirty_;      ///< keys to compare with told_
    bool has_snapshot_ = false;
    EtcdHeader seen_;                          ///< of the last answer that counted
    std::array<std::int64_t, kRanges> next_{}; ///< revision that each watch goes on from
    std::array<std::int64_t, kRanges> watch_id_{};
    std::array<bool, kRanges> is_denied_{}; ///< by the rights of the user
    std::vector<Range> asked_;              ///< watches of the stream, in the order in which they are confirmed
    std::size_t confirmed_ = 0;
    std::size_t stream_endpoint_ = 0;
    bool is_streaming_ = false;
    SteadyTime stream_since_{};
    SteadyTime last_word_{}; ///< of the stream or of a probe

    std::optional<LeaseRequest> request_;
    std::optional<Lease> own_;        ///< as last told by on_own_lease()
    std::int64_t own_mod_ = 0;        ///< revision of our last write of it
    std::int64_t own_etcd_lease_ = 0; ///< 0: a reservation
    SteadyTime own_granted_{};
    bool is_publish_due_ = false;
    bool is_renewal_ = false;  ///< due for its age only: written without listing first
    bool is_check_ = false;    ///< due because the own key looked wrong: looked at once more before anything is written
    bool is_own_lost_ = false; ///< it was not as written: told again once it is
    bool is_marker_denied_ = false;
    /// What the write under way wants.
    struct Plan {
        Allocation allocation;
        std::int64_t mod_revision = 0; ///< of the key as it is; 0: not there
        std::int64_t list_revision = 0;
        std::map<std::string, std::int64_t> replace; ///< keys to delete, as they are
        std::optional<Lease> lease;
    };
    Plan plan_;
    std::optional<EtcdGrant> spare_; ///< an etcd lease without keys
    SteadyTime spare_since_{};
    std::chrono::seconds own_ttl_{0};
    std::chrono::milliseconds backoff_{0};
    std::chrono::milliseconds contest_backoff_{0};
    SteadyTime last_contest_{};
    std::chrono::milliseconds watch_backoff_{0};

    std::optional<Error> watch_trouble_;
    std::optional<Error> publish_trouble_;
    std::optional<Error> told_trouble_;

    std::deque<std::function<void()>> outbox_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0); ///< a delivery may destroy the store
    std::unique_ptr<EtcdTransport> transport_;
    EtcdCall watch_call_; ///< listing, check before going on, or the stream
    EtcdCall probe_call_;
    EtcdCall work_call_;
    EtcdCall config_call_;
    EtcdCall find_call_;
    Timer outbox_timer_;
    Timer tick_timer_;
    Timer watch_timer_;
    Timer flush_timer_;
    Timer work_timer_;
};

} // namespace twill
