// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "twill/result.hpp"

namespace twill {

/// Where the data plane lives while no agent runs: <root>/v<schema>/{maps,links} on a BPF file system. Names there hold
/// no dot (bpffs refuses it).
class PinDir {
public:
    /// Only names paths; touches nothing.
    explicit PinDir(std::string root);

    const std::string& root() const { return root_; }
    std::string maps() const;
    std::string links() const;
    std::string map(std::string_view name) const;
    std::string link(std::string_view name) const;

    /// The links directory is made last, so it says that the maps are filled. Without it nothing is attached that uses
    /// them: true, and maps that another start left half way are unpinned. Makes the maps directory; errors as
    /// create().
    Result<bool> begin() const;
    /// Makes the directories. Mounts bpffs on /sys/fs/bpf when the root lies there and nothing is mounted; ENOTSUP when
    /// the root is on no BPF file system and that could not be mended.
    Result<> create() const;
    /// Is the root on a BPF file system, or where create() would mount one?
    bool can_create() const;
    /// Names of what is pinned; an absent directory is empty.
    std::vector<std::string> list_maps() const;
    std::vector<std::string> list_links() const;
    /// Names of <root>/v* of other schemas: left by another version.
    std::vector<std::string> other_schemas() const;
    /// The same as directories, the highest schema first: they answer for that schema's maps and links.
    std::vector<PinDir> others() const;
    /// Is it filled: does it have the links directory?
    bool is_filled() const;
    /// Unpins this schema's maps and links and removes its directories. Absent is fine.
    Result<> remove() const;
    /// Unpins our maps and links, those of other schemas too, and removes the directories that are empty then. Absent
    /// is fine. ENOTSUP, and nothing is removed, when the root is on no BPF file system.
    Result<> remove_all() const;

private:
    PinDir(std::string root, std::string schema) : root_(std::move(root)), schema_(std::move(schema)) {}
    bool is_below_default() const;
    Result<> make(const std::string& dir) const;

    std::string root_;
    std::string schema_; ///< "v1"
};

} // namespace twill
