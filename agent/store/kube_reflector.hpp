// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "agent/store/allocator.hpp"
#include "twill/result.hpp"

namespace twill {

/// How long to wait after the `n`th failure in a row: doubled from `min` to `max`, of that at least half, the rest by
/// chance, so that the agents of a cluster do not come all at once.
std::chrono::milliseconds jittered_backoff(unsigned n, std::chrono::milliseconds min, std::chrono::milliseconds max,
                                           const RandomSource& random);

/// The value of Retry-After in seconds, at most a minute; a date is not read. nullopt: none.
std::optional<std::chrono::seconds> retry_after(std::string_view text);

/// How LIST and WATCH follow each other: a state machine without I/O. The owner makes the request that target() names,
/// tells what became of it, waits as long as it is told, and asks again.
///
/// LIST in pages until the last, then WATCH from there. A watch that ends is begun again where it was: no gap. 410 Gone
/// (as an answer or as an event), or a continue token that expired: LIST from the start. After a broken connection the
/// object that changed last is looked at: a server that was restored from a backup has other objects under the versions
/// that it told, and soon versions beyond them.
class KubeReflector {
public:
    struct Options {
        std::string resource = "/api/v1/nodes"; ///< path
        std::string field_selector;             ///< "metadata.name=a", empty: all
        unsigned page_size = 500;
        std::chrono::milliseconds backoff_min{100};
        std::chrono::milliseconds refused_backoff_max{1000};
        std::chrono::milliseconds error_backoff_max{5000};
    };
    using Delay = std::chrono::milliseconds;

    KubeReflector(Options options, RandomSource random) : options_(std::move(options)), random_(std::move(random)) {}

    /// Path and query of the next request.
    std::string target() const;
    bool is_watch() const { return is_watch_ && !is_probe_; }
    /// The next request asks for one object, to learn whether the server is still where it was.
    bool is_probe() const { return is_probe_; }
    /// The next request is for the first page: what was listed so far is void.
    bool is_first_page() const { return !is_watch_ && page_.empty(); }

    /// An object of a page, before on_page(), or of an event, before on_event(). Not `is_there`: it was deleted.
    void on_object(const std::string& name, const std::string& version, bool is_there = true);
    /// A page was read whole. True: it was the last.
    bool on_page(const std::string& resource_version, const std::string& next_page);
    /// The watch was answered 200.
    void on_watch_open() { is_heard_ = false; }
    /// An event that was taken, bookmarks too.
    void on_event(const std::string& resource_version);
    /// An event of type ERROR. How long to wait before the next request.
    Delay on_event_error(int code);
    /// The answer is no success.
    Delay on_http_error(int status, std::optional<std::chrono::seconds> retry);
    /// The transfer broke off, or was not answered, or what came is no such answer.
    Delay on_broken();
    /// The watch ended as watches do.
    Delay on_watch_end();

private:
    void relist();
    Delay fail(Delay max);
    bool is_same_history(const std::string& version_now) const;

    Options options_;
    RandomSource random_;
    bool is_watch_ = false;
    bool is_probe_ = false;      ///< only with is_watch_
    std::string page_;           ///< continue token of the next page
    std::string version_;        ///< to watch from
    std::string canary_;         ///< name of the object that changed last
    std::string canary_version_; ///< of it; empty: it was deleted
    std::string probed_version_; ///< what the probe found of it; empty: nothing
    bool is_heard_ = false;
    unsigned failures_ = 0;
    unsigned watch_failures_ = 0; ///< of watches from one version
};

} // namespace twill
