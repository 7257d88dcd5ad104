// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_store.hpp"

#include <cerrno>
#include <random>

#include "agent/store/file_io.hpp"
#include "agent/store/kube_store_state.hpp"

namespace twill {

namespace {

constexpr std::size_t kMaxConfigBytes = 1U << 20;

RandomSource machine_random()
{
    return [engine = std::mt19937(std::random_device{}())](std::uint32_t bound) mutable {
        return std::uniform_int_distribution<std::uint32_t>(0, bound - 1)(engine);
    };
}

} // namespace

Result<std::unique_ptr<Store>> make_kube_store(KubeOptions options, Loop& loop, const Clock& clock)
{
    if (options.node_name.empty() && (options.pod_name.empty() || options.pod_namespace.empty()))
        return Error{EINVAL, "which node is this? want NODE_NAME, or POD_NAME and POD_NAMESPACE"};
    TWILL_TRY_AS(prefix, annotation_prefix(options.annotation_prefix));
    TWILL_TRY_AS(access, kube_access(options));
    if (!options.random) options.random = machine_random();
    return std::unique_ptr<Store>(
        std::make_unique<KubeStore>(std::move(options), std::move(prefix), std::move(access), loop, clock));
}

KubeStore::KubeStore(KubeOptions options, std::string prefix, KubeAccess access, Loop& loop, const Clock& clock)
    : options_(std::move(options)), prefix_(std::move(prefix)), access_(std::move(access)), loop_(loop), clock_(clock),
      http_(loop), node_name_(options_.node_name), outbox_timer_(loop), config_timer_(loop), work_timer_(loop),
      start_timer_(loop)
{}

std::string KubeStore::describe() const
{
    return "kubernetes " + access_.describe() + (node_name_.empty() ? "" : " node " + node_name_);
}

void KubeStore::post(std::function<void()> delivery)
{
    outbox_.push_back(std::move(delivery));
    if (!outbox_timer_.is_active()) outbox_timer_.once(Milliseconds{0}, [this] { deliver(); });
}

void KubeStore::tell(std::function<void(StoreListener&)> delivery)
{
    if (listener_ == nullptr) return;
    post([this, delivery = std::move(delivery)] { delivery(*listener_); });
}

void KubeStore::deliver()
{
    const std::weak_ptr<int> alive = alive_;
    while (!alive.expired() && !outbox_.empty()) {
        const auto delivery = std::move(outbox_.front());
        outbox_.pop_front();
        delivery();
    }
}

void KubeStore::report_health()
{
    const auto& trouble = watch_trouble_ ? watch_trouble_ : own_trouble_;
    if (listener_ == nullptr || trouble == told_trouble_) return;
    told_trouble_ = trouble;
    tell([trouble](StoreListener& l) { l.on_health(trouble); });
}

void KubeStore::read_config(std::function<void(Result<NetConf>)> done)
{
    auto outcome = [&]() -> Result<NetConf> {
        TWILL_TRY_AS(text, read_file(options_.net_config_path, kMaxConfigBytes));
        TWILL_TRY_AS(conf, NetConf::parse(text, options_.net_config_path, options_.twill_keys, Subnets::given));
        config_text_ = std::move(text);
        conf_ = conf;
        return conf;
    }();
    if (outcome) {
        // A ConfigMap is changed by turning a link, at most once a minute: looking is simpler than being told.
        config_timer_.every(options_.config_poll, [this] { check_config(); });
        start_timer_.once(Milliseconds{0}, [this] { start_watch(); });
    }
    post([done = std::move(done), outcome = std::move(outcome)] { done(outcome); });
}

void KubeStore::check_config()
{
    auto text = read_file(options_.net_config_path, kMaxConfigBytes);
    if (!text || *text == *config_text_) return config_seen_.reset();
    // An editor that truncates and then writes is one change: believed when it stays.
    if (config_seen_ != *text) {
        config_seen_ = *std::move(text);
        return;
    }
    config_text_ = std::exchange(config_seen_, std::nullopt);
    tell([](StoreListener& l) { l.on_config_change(); });
}

void KubeStore::watch(StoreListener& listener)
{
    listener_ = &listener;
    told_trouble_.reset();
    start_timer_.once(Milliseconds{0}, [this] {
        if (leases_) list_end();
        if (own_) tell([lease = *own_](StoreListener& l) { l.on_own_lease(lease); });
        report_health();
        start_watch();
    });
}

void KubeStore::start_watch()
{
    if (listener_ == nullptr || !conf_ || node_watch_) return;
    with_name([this](const Result<>& named) {
        if (node_watch_) return;
        if (!named) {
            watch_trouble_ = named.error();
            report_health();
            const auto wait =
                jittered_backoff(name_failures_++, Milliseconds{100}, options_.refused_backoff_max, options_.random);
            return start_timer_.once(wait, [this] { start_watch(); });
        }
        NodeWatch::Options options;
        options.prefix = prefix_;
        options.answer_timeout = options_.answer_timeout;
        options.watch_silence = options_.watch_silence;
        options.reflector.page_size = options_.page_size;
        options.reflector.refused_backoff_max = options_.refused_backoff_max;
        options.reflector.error_backoff_max = options_.error_backoff_max;
        // Somebody else routes between nodes: what they publish is of no use here.
        if (conf_->backend == Backend::alloc) options.reflector.field_selector = "metadata.name=" + node_name_;

        NodeWatchHandler handler;
        handler.on_list_begin = [this] { listing_.emplace(*conf_); };
        handler.on_listed = [this](const KubeNode& node) {
            (void)listing_->put(node);
            if (node.name == node_name_) see_own(node);
        };
        handler.on_list_end = [this] {
            leases_ = std::exchange(listing_, std::nullopt);
            list_end();
        };
        handler.on_changed = [this](const KubeNode& node) {
            tell_events(leases_->put(node));
            if (node.name == node_name_) see_own(node);
        };
        handler.on_deleted = [this](const std::string& name) {
            tell_events(leases_->remove(name));
            if (name == node_name_) lose_own();
        };
        handler.on_health = [this](std::optional<Error> trouble) {
            watch_trouble_ = std::move(trouble);
            report_health();
        };
        node_watch_ =
            std::make_unique<NodeWatch>(loop_, http_, access_, std::move(options), options_.random, std::move(handler));
    });
}

void KubeStore::list_end()
{
    // Shared, because a std::function copies what it holds and this may be thousands of leases.
    tell([snapshot = std::make_shared<LeaseSnapshot>(leases_->snapshot())](StoreListener& l) {
        l.on_snapshot(std::move(*snapshot));
    });
    watch_trouble_.reset();
    report_health();
}

void KubeStore::tell_events(std::vector<LeaseEvent> events)
{
    for (auto& event : events) tell([event = std::move(event)](StoreListener& l) { l.on_event(event); });
}

} // namespace twill
