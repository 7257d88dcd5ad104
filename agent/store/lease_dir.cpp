// SPDX-License-Identifier: Apache-2.0
#include "agent/store/lease_dir.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "agent/store/file_io.hpp"

namespace twill {

namespace {

constexpr std::int64_t kNsPerSecond = 1'000'000'000;

std::int64_t to_ns(const timespec& time) { return time.tv_sec * kNsPerSecond + time.tv_nsec; }

/// nullopt: absent, or changed so lately that one more change may leave the same stamp.
std::optional<FileStamp> stamp_of(const std::string& path)
{
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) return std::nullopt;
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    const std::int64_t changed = to_ns(status.st_ctim);
    if (to_ns(now) - changed < kNsPerSecond / 10) return std::nullopt;
    return FileStamp{status.st_dev, status.st_ino, status.st_size, to_ns(status.st_mtim), changed};
}

struct CloseDir {
    void operator()(DIR* directory) const noexcept { closedir(directory); }
};

/// Names in a directory, "." and ".." left out.
Result<std::set<std::string>> list(const std::string& path)
{
    const std::unique_ptr<DIR, CloseDir> directory(opendir(path.c_str()));
    if (!directory) return file_error(errno, "open directory", path);
    std::set<std::string> names;
    for (;;) {
        errno = 0;
        const dirent* entry = readdir(directory.get());
        if (entry == nullptr && errno != 0) return file_error(errno, "read directory", path);
        if (entry == nullptr) return names;
        if (const std::string_view name = entry->d_name; name != "." && name != "..") names.emplace(name);
    }
}

std::optional<std::pair<dev_t, ino_t>> identity_of(const std::string& path)
{
    struct stat status {};
    if (stat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) return std::nullopt;
    return std::pair(status.st_dev, status.st_ino);
}

} // namespace

LeaseDir::LeaseDir(std::string directory) : root_(std::move(directory)) {}

Result<> LeaseDir::open()
{
    if (!identity_of(root_)) return file_error(ENOENT, "open directory", root_);
    std::map<std::string, std::pair<dev_t, ino_t>> identity;
    for (const auto& path : {root_, leases_path(), markers_path()}) {
        if (!identity_of(path)) TWILL_TRY(make_directory(path, 0755));
        const auto found = identity_of(path);
        if (!found) return file_error(ENOTDIR, "open directory", path);
        identity.emplace(path, *found);
    }
    identity_ = std::move(identity);
    return Ok{};
}

bool LeaseDir::is_same() const
{
    if (identity_.empty()) return false;
    for (const auto& [path, identity] : identity_)
        if (identity_of(path) != identity) return false;
    return true;
}

std::optional<std::string> LeaseDir::key_of(std::string_view file_name)
{
    constexpr std::string_view kSuffix = ".json";
    if (file_name.starts_with('.') || !file_name.ends_with(kSuffix)) return std::nullopt;
    file_name.remove_suffix(kSuffix.size());
    return file_name.empty() ? std::nullopt : std::optional(std::string(file_name));
}

Result<std::set<std::string>> LeaseDir::scan_one(bool is_marker, bool fresh)
{
    TWILL_TRY_AS(names, list(is_marker ? markers_path() : leases_path()));
    std::set<std::string> keys, changed;
    for (const auto& name : names)
        if (auto key = key_of(name)) keys.insert(std::move(*key));
    auto known = keys;
    if (is_marker) {
        for (const auto& [key, entry] : markers_) known.insert(key);
    } else {
        for (const auto& [key, entry] : entries_) known.insert(key);
    }
    for (const auto& key : known) {
        std::optional<FileStamp> stamp;
        if (is_marker) {
            if (const auto found = markers_.find(key); found != markers_.end()) stamp = found->second.stamp;
        } else {
            if (const auto found = entries_.find(key); found != entries_.end()) stamp = found->second.stamp;
        }
        if (!fresh && stamp && stamp == stamp_of(is_marker ? marker_path(key) : lease_path(key))) continue;
        if (is_marker ? reload_marker(key) : reload_lease(key)) changed.insert(key);
    }
    return changed;
}

Result<std::set<std::string>> LeaseDir::scan(bool fresh)
{
    TWILL_TRY_AS(changed, scan_one(false, fresh));
    TWILL_TRY_AS(marked, scan_one(true, fresh));
    changed.merge(marked);
    return changed;
}

bool LeaseDir::reload(const std::string& key)
{
    const bool is_lease_new = reload_lease(key);
    const bool is_marker_new = reload_marker(key);
    return is_lease_new || is_marker_new;
}

bool LeaseDir::reload_lease(const std::string& key)
{
    const std::string path = lease_path(key);
    LeaseEntry entry;
    entry.stamp = stamp_of(path); // before reading: a change in between shows as another stamp
    auto text = read_file(path, kMaxLeaseBytes);
    if (!text && text.error().code == ENOENT) return entries_.erase(key) != 0;
    if (auto pods = LeaseKey::parse(key)) entry.pods = *pods;
    if (!text) {
        entry.why = text.error().what;
    } else if (auto lease = parse_lease(key, *text)) {
        entry.lease = *std::move(lease);
    } else {
        entry.why = lease.error().what;
    }
    auto& known = entries_[key];
    const bool is_new = known.lease != entry.lease || known.why != entry.why;
    known = std::move(entry);
    return is_new;
}

bool LeaseDir::reload_marker(const std::string& key)
{
    const std::string path = marker_path(key);
    MarkerEntry entry;
    entry.stamp = stamp_of(path);
    auto text = read_file(path, kMaxLeaseBytes);
    if (!text && text.error().code == ENOENT) {
        const auto known = markers_.find(key);
        if (known == markers_.end()) return false;
        const bool was_marked = known->second.marker.has_value();
        markers_.erase(known);
        return was_marked;
    }
    // A marker that cannot be read is none: the peer is then treated as a flannel node, which always works.
    if (text)
        if (auto marker = parse_marker(*text)) entry.marker = *marker;
    auto& known = markers_[key];
    const bool is_new = known.marker != entry.marker;
    known = entry;
    return is_new;
}

std::optional<Lease> LeaseDir::lease(const std::string& key) const
{
    const auto entry = entries_.find(key);
    if (entry == entries_.end() || !entry->second.lease) return std::nullopt;
    Lease lease = *entry->second.lease;
    if (const auto marker = markers_.find(key); marker != markers_.end())
        lease.marker = marker_of(marker->second.marker, lease);
    return lease;
}

Result<Fd> LeaseDir::try_lock() const
{
    const std::string path = root_ + "/lock";
    Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644));
    if (!fd) return file_error(errno, "open", path);
    if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK || errno == EINTR) return Fd();
        return file_error(errno, "lock", path);
    }
    struct stat held {
    }, there{};
    if (fstat(fd.get(), &held) != 0 || stat(path.c_str(), &there) != 0 || held.st_ino != there.st_ino ||
        held.st_dev != there.st_dev)
        return Fd(); // somebody replaced the file: others lock another one now
    return fd;
}

Result<> LeaseDir::put(const Lease& lease, Vni vni)
{
    const auto marker = markers_.find(lease.key);
    const bool is_marked = marker != markers_.end() && marker->second.marker == lease.marker;
    // The marker first: who reads the lease must find it.
    if (lease.marker && !is_marked) {
        TWILL_TRY(write_file(marker_path(lease.key), format_marker(*lease.marker), 0644));
        reload_marker(lease.key);
    }
    const auto entry = entries_.find(lease.key);
    Lease plain = lease;
    plain.marker.reset();
    if (entry != entries_.end() && entry->second.lease == plain) return Ok{};
    TWILL_TRY(write_file(lease_path(lease.key), format_lease(lease, vni), 0644));
    reload_lease(lease.key);
    return Ok{};
}

Result<> LeaseDir::remove(const std::string& key)
{
    TWILL_TRY(remove_file(lease_path(key)));
    TWILL_TRY(remove_file(marker_path(key)));
    entries_.erase(key);
    markers_.erase(key);
    return Ok{};
}

void LeaseDir::sweep_temporary()
{
    for (const auto& path : {leases_path(), markers_path()}) {
        auto names = list(path);
        if (!names) continue;
        const std::string below = path + "/";
        for (const auto& name : *names)
            if (name.starts_with('.') && name.ends_with(kTempSuffix)) (void)remove_file(below + name);
    }
}

} // namespace twill
