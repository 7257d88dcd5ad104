// SPDX-License-Identifier: Apache-2.0
#include "agent/store/dir_watch.hpp"

#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "agent/store/file_io.hpp"

namespace twill {

namespace {

constexpr std::uint32_t kLost = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED;
constexpr std::uint32_t kWatched = IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB |
                                   IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

} // namespace

Result<std::unique_ptr<DirWatch>> DirWatch::open(Loop& loop, const std::vector<std::string>& directories,
                                                 std::function<void(WatchBatch)> on_change)
{
    std::unique_ptr<DirWatch> watch(new DirWatch);
    watch->fd_ = Fd(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!watch->fd_) return file_error(errno, "inotify", "init");
    for (const auto& directory : directories) {
        const int wd = inotify_add_watch(watch->fd_.get(), directory.c_str(), kWatched);
        if (wd < 0) return file_error(errno, "inotify watch", directory);
        watch->directories_.insert_or_assign(wd, directory);
    }
    watch->on_change_ = std::move(on_change);
    watch->poll_ = std::make_unique<Poll>(loop, watch->fd_.get(), [raw = watch.get()] { raw->read_events(); });
    return watch;
}

void DirWatch::decode(const char* events, std::size_t size, const std::map<int, std::string>& directories,
                      WatchBatch& batch)
{
    for (std::size_t at = 0; at + sizeof(inotify_event) <= size;) {
        inotify_event event;
        std::memcpy(&event, events + at, sizeof(event));
        const char* name = events + at + sizeof(event);
        at += sizeof(event) + event.len;
        if (at > size) return;
        if (event.mask & IN_Q_OVERFLOW) batch.overflow = true;
        if (event.mask & kLost) batch.directory_lost = true;
        const auto directory = directories.find(event.wd);
        if (directory == directories.end() || event.len == 0) continue;
        batch.names[directory->second].insert(std::string(name, strnlen(name, event.len)));
    }
}

void DirWatch::read_events()
{
    WatchBatch batch;
    alignas(inotify_event) char events[16 * 1024];
    bool is_any = false;
    for (int reads = 0; reads < 16; ++reads) { // the rest comes with the next turn of the loop
        const ssize_t got = read(fd_.get(), events, sizeof(events));
        if (got <= 0) break;
        is_any = true;
        decode(events, static_cast<std::size_t>(got), directories_, batch);
    }
    if (!is_any) return;
    const auto callback = on_change_; // may destroy this watch
    callback(std::move(batch));
}

} // namespace twill
