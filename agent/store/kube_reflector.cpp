// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_reflector.hpp"

#include <algorithm>
#include <charconv>

namespace twill {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr unsigned kGone = 410;
constexpr unsigned kWatchSeconds = 300;   // client-go: 5 minutes, and as much again by chance
constexpr unsigned kMaxWatchFailures = 5; // then the version itself is doubted
constexpr seconds kMaxRetryAfter{60};

std::string percent_encoded(std::string_view text)
{
    static constexpr std::string_view kDigits = "0123456789ABCDEF";
    std::string out;
    for (const char c : text) {
        const bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
                              c == '.' || c == '_' || c == '~';
        if (is_plain) {
            out += c;
            continue;
        }
        const auto byte = static_cast<unsigned char>(c);
        out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
    return out;
}

/// Versions are decimal numbers (KEP-5504); what is none cannot be trusted to be newer.
bool is_older(const std::string& version, const std::string& than)
{
    const auto is_number = [](const std::string& text) {
        return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
    };
    if (!is_number(version) || !is_number(than)) return version != than;
    return version.size() != than.size() ? version.size() < than.size() : version < than;
}

} // namespace

milliseconds jittered_backoff(unsigned n, milliseconds min, milliseconds max, const RandomSource& random)
{
    const auto doubled = std::min(max, min * (std::int64_t{1} << std::min(n, 20U)));
    const auto half = std::max<std::int64_t>(doubled.count() / 2, 1);
    return milliseconds{half + random(static_cast<std::uint32_t>(half))};
}

std::optional<seconds> retry_after(std::string_view text)
{
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || end != text.data() + text.size()) return std::nullopt;
    if (error == std::errc::result_out_of_range) return kMaxRetryAfter;
    if (error != std::errc{}) return std::nullopt;
    return std::min(kMaxRetryAfter, seconds{value});
}

std::string KubeReflector::target() const
{
    std::string target = options_.resource + '?';
    const auto& selector = is_probe_ && !canary_.empty() ? "metadata.name=" + canary_ : options_.field_selector;
    if (!selector.empty()) target += "fieldSelector=" + percent_encoded(selector) + '&';
    if (is_probe_) return target + "limit=1";
    if (is_watch_)
        return target + "watch=true&allowWatchBookmarks=true&resourceVersion=" + percent_encoded(version_) +
               "&timeoutSeconds=" + std::to_string(kWatchSeconds + random_(kWatchSeconds));
    target += "limit=" + std::to_string(options_.page_size);
    if (!page_.empty()) target += "&continue=" + percent_encoded(page_);
    return target;
}

void KubeReflector::relist()
{
    is_watch_ = false;
    is_probe_ = false;
    page_.clear();
    version_.clear();
    canary_.clear();
    canary_version_.clear();
    watch_failures_ = 0;
}

KubeReflector::Delay KubeReflector::fail(Delay max)
{
    if (is_watch_ && ++watch_failures_ > kMaxWatchFailures) relist();
    return jittered_backoff(failures_++, options_.backoff_min, max, random_);
}

void KubeReflector::on_object(const std::string& name, const std::string& version, bool is_there)
{
    if (is_probe_) {
        probed_version_ = version;
        return;
    }
    if (!is_watch_ && !canary_.empty() && is_older(version, canary_version_)) return;
    canary_ = name;
    canary_version_ = is_there ? version : "";
}

bool KubeReflector::is_same_history(const std::string& version_now) const
{
    if (is_older(version_now, version_)) return false;
    if (canary_.empty() || probed_version_ == canary_version_) return true;
    // Gone since, it would be in the watch, too; but so would be one that the backup does not know.
    return !probed_version_.empty() && probed_version_ != version_ && !is_older(probed_version_, version_);
}

bool KubeReflector::on_page(const std::string& resource_version, const std::string& next_page)
{
    if (is_probe_) {
        failures_ = 0;
        is_probe_ = false;
        if (!is_same_history(resource_version)) relist();
        return false;
    }
    page_ = next_page;
    if (!page_.empty()) return false;
    version_ = resource_version;
    is_watch_ = true;
    is_heard_ = false;
    failures_ = 0;
    return true;
}

void KubeReflector::on_event(const std::string& resource_version)
{
    if (!resource_version.empty()) version_ = resource_version;
    is_heard_ = true;
    failures_ = 0;
    watch_failures_ = 0;
}

KubeReflector::Delay KubeReflector::on_event_error(int code)
{
    if (code != kGone) return fail(options_.error_backoff_max);
    relist();
    return fail(options_.error_backoff_max);
}

KubeReflector::Delay KubeReflector::on_http_error(int status, std::optional<seconds> retry)
{
    if (status == kGone || status == 400) {
        // 400: a token or version that this server cannot read, such as one from before a restore.
        relist();
        return fail(options_.error_backoff_max);
    }
    // Refused for now: the version stays good however often that happens.
    const auto delay = jittered_backoff(failures_++, options_.backoff_min, options_.error_backoff_max, random_);
    if (!retry) return delay;
    const milliseconds asked = *retry;
    return std::max(delay, asked + milliseconds{random_(static_cast<std::uint32_t>(asked.count() / 4 + 1))});
}

KubeReflector::Delay KubeReflector::on_broken()
{
    // A watch that said something and broke is a server that went away: begin again at once, then back off.
    if (is_watch_ && is_heard_) {
        is_heard_ = false;
        failures_ = 0;
    }
    is_probe_ = is_watch_;
    probed_version_.clear();
    return jittered_backoff(failures_++, options_.backoff_min, options_.refused_backoff_max, random_);
}

KubeReflector::Delay KubeReflector::on_watch_end()
{
    if (!is_heard_) return fail(options_.refused_backoff_max);
    is_heard_ = false;
    return milliseconds{random_(20)};
}

} // namespace twill
