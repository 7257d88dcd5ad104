// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "agent/store/lease.hpp"
#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill {

/// A file as stat() shows it; equal stamps mean equal content, but for files written within the clock's last tick.
struct FileStamp {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    std::int64_t modified_ns = 0;
    std::int64_t changed_ns = 0;
    bool operator==(const FileStamp&) const = default;
};

/// One file of leases/.
struct LeaseEntry {
    std::optional<Lease> lease;   ///< without its marker
    std::string why;              ///< why it is no lease
    std::optional<LeaseKey> pods; ///< what the key takes, also when the content is bad
    std::optional<FileStamp> stamp;
};

/// The files of one store directory, and what was last read of them. Blocks on the file system only. One thread.
class LeaseDir {
public:
    explicit LeaseDir(std::string directory);

    const std::string& root() const { return root_; }
    std::string config_path() const { return root_ + "/config"; }
    std::string leases_path() const { return root_ + "/leases"; }
    std::string markers_path() const { return root_ + "/twill"; }

    /// Creates leases/ and twill/ where they are missing and remembers which directories they are. The root must exist.
    Result<> open();
    /// The directories are still those of open(): neither deleted nor replaced.
    bool is_same() const;

    /// Reads what changed since the last time; everything if `fresh`. Returns the keys that changed. An error is one of
    /// the directory: then nothing is known to be gone.
    Result<std::set<std::string>> scan(bool fresh = false);
    /// Reads one file of leases/ or twill/, whatever its stamp. Returns whether the key changed.
    bool reload(const std::string& key);
    /// "10.42.1.0-24.json" -> its key; nullopt for other names and hidden ones, which are nobody's business.
    static std::optional<std::string> key_of(std::string_view file_name);

    const std::map<std::string, LeaseEntry>& entries() const { return entries_; }
    /// The lease of a key, with its marker; nullopt when there is none or it is bad.
    std::optional<Lease> lease(const std::string& key) const;

    /// An exclusive lock of the whole store for as long as the descriptor is open; empty: somebody else holds it.
    Result<Fd> try_lock() const;
    /// Under the lock: writes marker and lease where they differ from what is there.
    Result<> put(const Lease& lease, Vni vni);
    /// Under the lock: deletes lease and marker.
    Result<> remove(const std::string& key);
    /// Under the lock: deletes temporary files that writers left when they died.
    void sweep_temporary();

private:
    std::string lease_path(const std::string& key) const { return leases_path() + "/" + key + ".json"; }
    std::string marker_path(const std::string& key) const { return markers_path() + "/" + key + ".json"; }
    bool reload_lease(const std::string& key);
    bool reload_marker(const std::string& key);
    Result<std::set<std::string>> scan_one(bool is_marker, bool fresh);

    struct MarkerEntry {
        std::optional<Marker> marker;
        std::optional<FileStamp> stamp;
    };
    std::string root_;
    std::map<std::string, std::pair<dev_t, ino_t>> identity_;
    std::map<std::string, LeaseEntry> entries_;
    std::map<std::string, MarkerEntry> markers_;
};

} // namespace twill
