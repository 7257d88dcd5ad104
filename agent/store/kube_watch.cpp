// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_watch.hpp"

#include <cerrno>

namespace twill {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::size_t kMaxErrorBody = 65536;
/// A page that trickles is not silent: it ends all the same.
constexpr milliseconds kPageTimeout = std::chrono::minutes{5};

} // namespace

NodeWatch::NodeWatch(Loop& loop, HttpClient& http, const KubeAccess& access, Options options, RandomSource random,
                     NodeWatchHandler handler)
    : http_(http), access_(access), options_(std::move(options)), reflector_(options_.reflector, std::move(random)),
      handler_(std::move(handler)), retry_(loop), head_timer_(loop)
{
    retry_.once(milliseconds{0}, [this] { request(); });
}

void NodeWatch::request()
{
    sieve_.reset();
    status_ = 0;
    retry_after_.reset();
    error_body_.clear();
    page_.reset();
    fault_.reset();
    ended_.reset();

    auto headers = access_.headers();
    if (!headers) return broken(headers.error());
    if (reflector_.is_first_page()) handler_.on_list_begin();
    HttpRequest request;
    request.url = access_.url + reflector_.target();
    request.headers = *std::move(headers);
    request.headers.emplace_back("Accept: application/json");
    request.tls = access_.tls;
    request.is_proxy_allowed = true;
    request.max_body = 0; // bounded by the sieve
    if (reflector_.is_watch()) {
        request.is_own_connection = true;
        request.silence = std::chrono::ceil<seconds>(options_.watch_silence);
        head_timer_.once(options_.answer_timeout, [this] {
            call_.cancel();
            broken(Error{ETIMEDOUT, "watch nodes: " + access_.describe() + " does not answer"});
        });
    } else {
        request.silence = std::chrono::ceil<seconds>(options_.answer_timeout);
        request.timeout = kPageTimeout;
    }
    HttpHandler handler;
    handler.on_head = [this](const HttpHead& head) { on_head(head); };
    handler.on_body = [this](std::string_view piece) { on_body(piece); };
    handler.on_end = [this](const Result<HttpFields>& outcome) { on_end(outcome); };
    call_ = http_.start(std::move(request), std::move(handler));
}

void NodeWatch::on_head(const HttpHead& head)
{
    head_timer_.stop();
    status_ = head.status;
    retry_after_ = retry_after(http_field(head.fields, "retry-after"));
    if (status_ != 200) return;
    auto rules = reflector_.is_watch() ? node_event_rules(options_.prefix) : node_list_rules(options_.prefix);
    sieve_ = std::make_unique<JsonSieve>(std::move(rules),
                                         [this](std::string_view json, bool is_element) { on_text(json, is_element); });
    if (!reflector_.is_watch()) return;
    reflector_.on_watch_open();
    handler_.on_health(std::nullopt);
}

void NodeWatch::on_body(std::string_view piece)
{
    if (!sieve_) {
        error_body_ += piece.substr(0, kMaxErrorBody - std::min(kMaxErrorBody, error_body_.size()));
        return;
    }
    if (fault_ || ended_) return;
    if (auto fed = sieve_->feed(piece); !fed && !fault_) fault_ = fed.error();
    if (ended_) {
        call_.cancel();
        return finish(*ended_, std::nullopt);
    }
    if (!fault_) return;
    call_.cancel();
    const Error why{fault_->code, "read nodes from " + access_.describe() + ": " + fault_->what};
    if (!reflector_.is_watch()) return broken(why);
    // The same event may come again for ever: after some of these the reflector lists.
    finish(reflector_.on_event_error(0), why);
}

void NodeWatch::on_text(std::string_view json, bool is_element)
{
    if (fault_ || ended_) return;
    if (reflector_.is_watch()) return take_event(json);
    if (!is_element) {
        auto page = parse_list_end(json);
        if (page)
            page_ = *std::move(page);
        else
            fault_ = page.error();
        return;
    }
    auto node = parse_node(json, options_.prefix);
    if (!node) {
        fault_ = node.error();
        return;
    }
    reflector_.on_object(node->name, node->resource_version);
    if (!reflector_.is_probe()) handler_.on_listed(*node);
}

void NodeWatch::take_event(std::string_view json)
{
    auto event = parse_event(json, options_.prefix);
    if (!event) {
        fault_ = event.error();
        return;
    }
    if (event->type == "ERROR") {
        ended_ = reflector_.on_event_error(event->status->code);
        return;
    }
    if (event->type == "ADDED" || event->type == "MODIFIED")
        handler_.on_changed(*event->node);
    else if (event->type == "DELETED")
        handler_.on_deleted(event->node->name);
    if (event->type != "BOOKMARK")
        reflector_.on_object(event->node->name, event->node->resource_version, event->type != "DELETED");
    reflector_.on_event(event->node->resource_version);
}

void NodeWatch::on_end(const Result<HttpFields>& outcome)
{
    head_timer_.stop();
    if (!outcome) return broken(outcome.error());
    if (!sieve_) return refused();
    if (!sieve_->is_between()) return broken(Error{ECONNRESET, "read nodes from " + access_.describe() + ": cut off"});
    if (reflector_.is_watch()) return finish(reflector_.on_watch_end(), std::nullopt);
    page_end();
}

void NodeWatch::page_end()
{
    if (!page_) return broken(Error{EPROTO, "list nodes: " + access_.describe() + " answered without a list"});
    if (reflector_.on_page(page_->resource_version, page_->next_page)) handler_.on_list_end();
    finish(milliseconds{0}, std::nullopt);
}

void NodeWatch::refused()
{
    const auto status = parse_status(error_body_);
    const int code = status_ == 401 || status_ == 403 ? EACCES : EAGAIN;
    Error why{code, std::string(reflector_.is_watch() ? "watch" : "list") + " nodes: " + access_.describe() +
                        " answers " + std::to_string(status_) + (status.message.empty() ? "" : ": " + status.message)};
    const auto delay = reflector_.on_http_error(status_, retry_after_);
    // A version or token that is too old is a matter of course.
    finish(delay, status_ == 410 ? std::nullopt : std::optional(std::move(why)));
}

void NodeWatch::broken(Error why) { finish(reflector_.on_broken(), std::move(why)); }

void NodeWatch::finish(milliseconds delay, std::optional<Error> trouble)
{
    head_timer_.stop();
    sieve_.reset();
    if (trouble) handler_.on_health(std::move(trouble));
    retry_.once(delay, [this] { request(); });
}

} // namespace twill
