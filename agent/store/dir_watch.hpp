// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/loop/loop.hpp"
#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill {

/// What inotify told in one read.
struct WatchBatch {
    bool overflow = false;                              ///< events were lost (IN_Q_OVERFLOW)
    bool directory_lost = false;                        ///< a watched directory was deleted, moved or unmounted
    std::map<std::string, std::set<std::string>> names; ///< directory -> what changed in it
};

/// Watches directories (not what lies below them) with inotify(7). Calls back on the loop. A file shows up when its
/// writer closed it, when it was linked, renamed, deleted, or its mode changed.
class DirWatch {
public:
    /// ENOSPC, EMFILE: limits of inotify; ENOENT and others of inotify_add_watch().
    static Result<std::unique_ptr<DirWatch>> open(Loop& loop, const std::vector<std::string>& directories,
                                                  std::function<void(WatchBatch)> on_change);

    /// Adds the events of one read() to `batch`. `directories` maps watch descriptors to paths.
    static void decode(const char* events, std::size_t size, const std::map<int, std::string>& directories,
                       WatchBatch& batch);

private:
    DirWatch() = default;
    void read_events();

    Fd fd_;
    std::map<int, std::string> directories_;
    std::function<void(WatchBatch)> on_change_;
    std::unique_ptr<Poll> poll_; // after fd_: must go first
};

} // namespace twill
