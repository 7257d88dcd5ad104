// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>

#include "agent/store/kube_store_state.hpp"

namespace twill {

namespace {

constexpr std::chrono::minutes kContestMemory{2}; // writing against somebody else starts over after so long
constexpr std::size_t kMaxObject = std::size_t{8} << 20;

int code_of(int status)
{
    switch (status) {
    case 401:
    case 403:
        return EACCES;
    case 404:
        return ENOENT;
    default:
        return EAGAIN;
    }
}

} // namespace

/// One request of the API; `done` has the body of a success. Never from inside the call.
void KubeStore::fetch(std::string what, HttpRequest request, std::function<void(Result<std::string>)> done)
{
    auto headers = access_.headers();
    if (!headers) return post([done = std::move(done), error = headers.error()] { done(error); });
    request.url = access_.url + request.url;
    for (auto& header : *headers) request.headers.push_back(std::move(header));
    request.headers.emplace_back("Accept: application/json");
    request.tls = access_.tls;
    request.is_proxy_allowed = true;
    request.max_body = kMaxObject;
    request.timeout = options_.answer_timeout;
    const unsigned id = next_call_++;
    calls_[id] = http_.fetch(std::move(request), [this, id, what = std::move(what),
                                                  done = std::move(done)](Result<HttpReply> reply) mutable {
        // The call holds this closure: what is still needed of it moves out first.
        const auto go_on = std::move(done);
        const std::string about = std::move(what);
        calls_.erase(id);
        if (!reply) return go_on(reply.error());
        if (reply->head.is_success()) return go_on(std::move(reply->body));
        retry_after_ = retry_after(http_field(reply->head.fields, "retry-after"));
        const auto status = parse_status(reply->body);
        go_on(Error{code_of(reply->head.status), about + ": " + access_.describe() + " answers " +
                                                     std::to_string(reply->head.status) +
                                                     (status.message.empty() ? "" : ": " + status.message)});
    });
}

void KubeStore::with_name(std::function<void(Result<>)> done)
{
    if (!node_name_.empty()) return done(Ok{});
    HttpRequest request;
    request.url = "/api/v1/namespaces/" + options_.pod_namespace + "/pods/" + options_.pod_name;
    const std::string pod = options_.pod_namespace + "/" + options_.pod_name;
    fetch("get pod " + pod, std::move(request), [this, pod, done = std::move(done)](Result<std::string> body) {
        if (!body) return done(body.error());
        auto name = parse_pod_node(*body);
        if (!name) return done(Error{EAGAIN, "pod " + pod + ": " + name.error().what});
        node_name_ = *std::move(name);
        done(Ok{});
    });
}

void KubeStore::get_node(NodeDone done)
{
    with_name([this, done = std::move(done)](const Result<>& named) {
        if (!named) return done(named.error());
        HttpRequest request;
        request.url = "/api/v1/nodes/" + node_name_;
        fetch("get node " + node_name_, std::move(request), [this, done](Result<std::string> body) {
            if (!body) return done(body.error());
            auto node = parse_node(*body, prefix_);
            if (!node) return done(Error{EPROTO, "get node " + node_name_ + ": " + node.error().what});
            done(std::move(node));
        });
    });
}

/// As client-go sends it for flannel: the role allows PATCH of nodes/status, and of nothing else.
void KubeStore::patch_status(std::string body, NodeDone done)
{
    HttpRequest request;
    request.method = "PATCH";
    request.url = "/api/v1/nodes/" + node_name_ + "/status";
    request.headers = {"Content-Type: application/strategic-merge-patch+json"};
    request.body = std::move(body);
    fetch("patch status of node " + node_name_, std::move(request),
          [this, done = std::move(done)](Result<std::string> answer) {
              if (!answer) return done(answer.error());
              auto node = parse_node(*answer, prefix_);
              if (!node) return done(Error{EPROTO, "patch node " + node_name_ + ": " + node.error().what});
              done(std::move(node));
          });
}

void KubeStore::find_public_ip(std::function<void(Result<PerFamily<std::optional<Ip>>>)> done)
{
    get_node([this, done = std::move(done)](Result<KubeNode> node) {
        post([done, ips = node ? node_public_ip(*node) : Result<PerFamily<std::optional<Ip>>>(node.error())] {
            done(ips);
        });
    });
}

void KubeStore::find_own(const LeaseRequest&, std::function<void(Result<std::optional<Lease>>)> done)
{
    get_node([this, done = std::move(done)](Result<KubeNode> node) {
        auto outcome = [&]() -> Result<std::optional<Lease>> {
            TWILL_TRY_AS(own, node);
            if (!conf_) return Error{EINVAL, "find own lease: net-conf.json was not read yet"};
            auto pods = node_pods(own, *conf_);
            if (!pods) return Error{EAGAIN, "node " + own.name + ": " + pods.error().what};
            if (auto lease = node_to_lease(own, *conf_); lease && *lease) return *lease;
            Lease lease;
            lease.node = own.name;
            lease.pods = *pods;
            lease.key = LeaseKey{lease.pods}.to_string();
            lease.vtep_mac = node_macs(own);
            if (!lease.vtep_mac.v4 && !lease.vtep_mac.v6) return std::optional<Lease>{};
            return std::optional(std::move(lease));
        }();
        post([done, outcome = std::move(outcome)] { done(outcome); });
    });
}

void KubeStore::publish(LeaseRequest request)
{
    if (request_ && *request_ == request && own_) return;
    request_ = std::move(request);
    is_publish_due_ = true;
    failures_ = 0;
    schedule_work(Milliseconds{0});
}

void KubeStore::announce_ready()
{
    if (!options_.set_node_network_unavailable) return;
    is_announce_due_ = true;
    schedule_work(Milliseconds{0});
}

void KubeStore::leave(std::function<void()> done)
{
    request_.reset();
    is_publish_due_ = is_announce_due_ = false;
    work_timer_.stop();
    calls_.clear(); // what they ask is not wanted any more
    if (!own_) return post(std::move(done));
    patch_status(R"({"metadata":{"annotations":{")" + prefix_ + R"(twill":null}}})",
                 [done = std::move(done)](const Result<KubeNode>&) { done(); });
}

void KubeStore::schedule_work(Milliseconds after)
{
    if (is_working_)
        is_work_again_ = true;
    else
        work_timer_.once(after, [this] { work(); });
}

void KubeStore::work()
{
    if (!request_ || (!is_publish_due_ && !is_announce_due_)) return;
    is_working_ = true;
    is_work_again_ = false;
    retry_after_.reset();
    get_node([this](Result<KubeNode> node) {
        if (!node) return work_failed(node.error());
        if (!is_publish_due_) return announce(*node);
        work_on(*node);
    });
}

/// What the node's annotations say of this node, as everybody reads them.
Result<Lease> KubeStore::own_lease(const KubeNode& node) const
{
    const auto named = [&](const Error& why) { return Error{why.code, "node " + node.name + ": " + why.what}; };
    if (!conf_) return Error{EINVAL, "publish: net-conf.json was not read yet"};
    const auto lease = node_to_lease(node, *conf_);
    if (!lease) return named(lease.error());
    if (!*lease) return Error{EAGAIN, "node " + node.name + ": the annotations written are not there"};
    return **lease;
}

void KubeStore::work_on(const KubeNode& node)
{
    const auto failed = [&](const Error& why) { work_failed(Error{why.code, "node " + node.name + ": " + why.what}); };
    if (!conf_) return failed(Error{EINVAL, "net-conf.json was not read yet"});
    const auto pods = node_pods(node, *conf_);
    if (!pods) return failed(pods.error());
    for (const Family family : kFamilies)
        if (const auto& cidr = (*pods)[family]; cidr && !conf_->network[family]->network.contains(*cidr))
            return failed(Error{EINVAL, "pod CIDR " + cidr->to_string() + " is outside of the network " +
                                            conf_->network[family]->network.to_string() + " of net-conf.json"});
    const auto wanted = wanted_annotations(node, *request_);
    if (!wanted) return failed(wanted.error());
    is_publish_due_ = false; // what is asked for from now on is another round
    auto patch = annotation_patch(node, *wanted, prefix_);
    if (!patch) return published(node);
    patch_status(*std::move(patch), [this](Result<KubeNode> after) {
        if (!after) return work_failed(after.error());
        published(*after);
    });
}

void KubeStore::published(const KubeNode& node)
{
    auto lease = own_lease(node);
    if (!lease) return work_failed(lease.error());
    if (own_ != *lease) {
        own_ = *lease;
        tell([lease = *lease](StoreListener& l) { l.on_own_lease(lease); });
    }
    announce(node);
}

void KubeStore::announce(const KubeNode& node)
{
    if (!is_announce_due_ || node.is_network_announced) {
        has_announced_ |= std::exchange(is_announce_due_, false);
        return work_done();
    }
    patch_status(announce_patch(clock_.wall()), [this](const Result<KubeNode>& after) {
        if (!after) return work_failed(after.error());
        is_announce_due_ = false;
        has_announced_ = true;
        work_done();
    });
}

void KubeStore::work_failed(Error why)
{
    is_working_ = false;
    is_publish_due_ = true;
    const bool is_answered = why.code == EACCES || why.code == EAGAIN || why.code == EINVAL || why.code == ENOENT;
    auto wait =
        jittered_backoff(failures_++, Milliseconds{100},
                         is_answered ? options_.error_backoff_max : options_.refused_backoff_max, options_.random);
    if (retry_after_) wait = std::max<Milliseconds>(wait, *retry_after_);
    own_trouble_ = std::move(why);
    report_health();
    schedule_work(wait);
}

void KubeStore::work_done()
{
    is_working_ = false;
    failures_ = 0;
    own_trouble_.reset();
    report_health();
    if (is_work_again_ && (is_publish_due_ || is_announce_due_)) schedule_work(Milliseconds{0});
}

/// The own node, as the watch shows it: somebody may have taken away or changed what this node needs to be there.
void KubeStore::see_own(const KubeNode& node)
{
    if (!request_ || is_publish_due_ || !own_) return;
    const auto wanted = wanted_annotations(node, *request_);
    const auto lease = own_lease(node);
    if (wanted && !annotation_patch(node, *wanted, prefix_) && lease && *lease == *own_) return;
    is_publish_due_ = true;
    const SteadyTime now = clock_.steady();
    if (now - last_contest_ > kContestMemory) contests_ = 0;
    last_contest_ = now;
    schedule_work(jittered_backoff(contests_++, Milliseconds{10}, options_.error_backoff_max, options_.random));
}

void KubeStore::lose_own()
{
    if (!request_) return;
    is_publish_due_ = true;
    is_announce_due_ |= has_announced_; // a node that registers again has new conditions
    schedule_work(Milliseconds{20});
}

} // namespace twill
