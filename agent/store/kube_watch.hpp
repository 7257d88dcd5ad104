// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "agent/loop/http.hpp"
#include "agent/loop/loop.hpp"
#include "agent/store/kube_access.hpp"
#include "agent/store/kube_node.hpp"
#include "agent/store/kube_reflector.hpp"

namespace twill {

/// What a NodeWatch tells, from the loop. None of it may destroy the NodeWatch.
struct NodeWatchHandler {
    std::function<void()> on_list_begin; ///< nodes told so far of this list are void
    std::function<void(const KubeNode&)> on_listed;
    std::function<void()> on_list_end; ///< all were told
    std::function<void(const KubeNode&)> on_changed;
    std::function<void(const std::string& name)> on_deleted;
    std::function<void(std::optional<Error>)> on_health; ///< as of StoreListener
};

/// Lists and watches nodes for ever: a KubeReflector and its requests. Bodies go through a JsonSieve as they come, so a
/// page of large nodes is never held.
class NodeWatch {
public:
    struct Options {
        KubeReflector::Options reflector;
        std::chrono::milliseconds answer_timeout{15000};
        std::chrono::milliseconds watch_silence{150000};
        std::string prefix; ///< of annotations
    };
    NodeWatch(Loop& loop, HttpClient& http, const KubeAccess& access, Options options, RandomSource random,
              NodeWatchHandler handler);

private:
    void request();
    void on_head(const HttpHead& head);
    void on_body(std::string_view piece);
    void on_end(const Result<HttpFields>& outcome);
    void on_text(std::string_view json, bool is_element);
    void take_event(std::string_view json);
    void finish(std::chrono::milliseconds delay, std::optional<Error> trouble);
    void broken(Error why);
    void refused();
    void page_end();

    HttpClient& http_;
    const KubeAccess& access_;
    Options options_;
    KubeReflector reflector_;
    NodeWatchHandler handler_;
    HttpCall call_;
    Timer retry_;
    Timer head_timer_;

    // Of the request under way.
    std::unique_ptr<JsonSieve> sieve_; ///< set: the answer is a success
    int status_ = 0;
    std::optional<std::chrono::seconds> retry_after_;
    std::string error_body_;
    std::optional<KubeEnvelope> page_;
    std::optional<Error> fault_;                     ///< of the body
    std::optional<std::chrono::milliseconds> ended_; ///< an event said that the watch is over; how long to wait
};

} // namespace twill
