// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "agent/store/kube_access.hpp"
#include "agent/store/kube_leases.hpp"
#include "agent/store/kube_store.hpp"
#include "agent/store/kube_watch.hpp"

namespace twill {

/// See make_kube_store(), which says what it promises.
///
/// Own node: whatever is to be done there begins with a GET of it, and writes what differs; a change that the watch
/// shows begins it again. One chain of requests at a time.
class KubeStore final : public Store {
public:
    KubeStore(KubeOptions options, std::string prefix, KubeAccess access, Loop& loop, const Clock& clock);

    void read_config(std::function<void(Result<NetConf>)> done) override;
    void find_public_ip(std::function<void(Result<PerFamily<std::optional<Ip>>>)> done) override;
    void find_own(const LeaseRequest& request, std::function<void(Result<std::optional<Lease>>)> done) override;
    void publish(LeaseRequest request) override;
    void announce_ready() override;
    void leave(std::function<void()> done) override;
    void watch(StoreListener& listener) override;
    void lose_address(const Ip& address) override { http_.lose_address(address); }
    std::string describe() const override;

private:
    using Milliseconds = std::chrono::milliseconds;
    using NodeDone = std::function<void(Result<KubeNode>)>;

    // kube_store.cpp: what others write
    void post(std::function<void()> delivery);
    void tell(std::function<void(StoreListener&)> delivery);
    void deliver();
    void report_health();
    void check_config();
    void start_watch();
    void list_end();
    void tell_events(std::vector<LeaseEvent> events);

    // kube_store_own.cpp: what this node reads and writes of itself
    void fetch(std::string what, HttpRequest request, std::function<void(Result<std::string>)> done);
    void with_name(std::function<void(Result<>)> done);
    void get_node(NodeDone done);
    void patch_status(std::string body, NodeDone done);
    void schedule_work(Milliseconds after);
    void work();
    void work_on(const KubeNode& node);
    void published(const KubeNode& node);
    void announce(const KubeNode& node);
    void work_failed(Error why);
    void work_done();
    Result<Lease> own_lease(const KubeNode& node) const;
    void see_own(const KubeNode& node);
    void lose_own();

    KubeOptions options_;
    std::string prefix_;
    KubeAccess access_;
    Loop& loop_;
    const Clock& clock_;
    HttpClient http_;
    StoreListener* listener_ = nullptr;
    std::string node_name_;
    std::optional<NetConf> conf_;
    std::optional<std::string> config_text_; ///< as read, or as last told by on_config_change()
    std::optional<std::string> config_seen_; ///< another text, not yet told

    std::optional<KubeLeases> leases_;  ///< as the listener knows them
    std::optional<KubeLeases> listing_; ///< of the list under way
    std::unique_ptr<NodeWatch> node_watch_;

    std::optional<LeaseRequest> request_;
    std::optional<Lease> own_; ///< as last told by on_own_lease()
    bool is_publish_due_ = false;
    bool is_announce_due_ = false;
    bool has_announced_ = false;
    bool is_working_ = false;
    bool is_work_again_ = false; ///< something changed while working
    unsigned name_failures_ = 0;
    unsigned failures_ = 0;
    unsigned contests_ = 0;
    SteadyTime last_contest_{};
    std::optional<std::chrono::seconds> retry_after_; ///< of the last answer

    std::optional<Error> watch_trouble_;
    std::optional<Error> own_trouble_;
    std::optional<Error> told_trouble_;

    std::deque<std::function<void()>> outbox_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0); ///< a delivery may destroy the store
    Timer outbox_timer_;
    Timer config_timer_;
    Timer work_timer_;
    Timer start_timer_;
    std::map<unsigned, HttpCall> calls_; ///< requests under way
    unsigned next_call_ = 0;
};

} // namespace twill
