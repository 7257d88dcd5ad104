// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/host_local.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace twill {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxAllocationBytes = 4096;
constexpr std::size_t kMaxContainerId = 255; // it is part of a file name
constexpr std::size_t kMaxIfname = 15;       // IFNAMSIZ without the NUL
constexpr milliseconds kTick{1000};
constexpr milliseconds kDebounce{10};
constexpr std::uint32_t kEvents = IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
                                  IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW;

/// Names in a directory, sorted, without those that start with a dot.
struct Listing {
    std::vector<std::string> names;
    bool is_complete = true; ///< false: it is not known what else there is
};

bool is_absence(int code) { return code == ENOENT || code == ENOTDIR || code == ELOOP; }

/// A directory below `parent`; not through a symbolic link. Empty with errno set.
Fd open_directory(int parent, const std::string& name)
{
    return Fd{::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
}

/// Reads the directory that `directory` is open on; errno of the open where it is empty.
Listing list(const Fd& directory, int open_error)
{
    Listing listing;
    const int copy = directory ? ::openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    DIR* stream = copy >= 0 ? ::fdopendir(copy) : nullptr;
    if (stream == nullptr) {
        if (copy >= 0) ::close(copy);
        listing.is_complete = !directory && is_absence(open_error);
        return listing;
    }
    while (const dirent* entry = ::readdir(stream)) {
        if (entry->d_name[0] == '.') continue;
        if (listing.names.size() == HostLocal::kMaxFiles) {
            listing.is_complete = false;
            break;
        }
        listing.names.emplace_back(entry->d_name);
    }
    ::closedir(stream);
    std::sort(listing.names.begin(), listing.names.end());
    return listing;
}

/// A regular file's content of at most `most` bytes. EFBIG, EINVAL, errno.
Result<std::string> read_at(const Fd& directory, const std::string& name, std::size_t most)
{
    // Non-blocking: the name may be that of a FIFO.
    const Fd file{::openat(directory.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
    if (!file) return Error{errno, "open " + name};
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) return Error{errno, "stat " + name};
    if (!S_ISREG(status.st_mode)) return Error{EINVAL, "read " + name + ": no regular file"};
    if (status.st_size > static_cast<off_t>(most)) return Error{EFBIG, "read " + name};

    std::string content(most + 1, '\0');
    std::size_t used = 0;
    while (used < content.size()) {
        const ssize_t got = ::read(file.get(), content.data() + used, content.size() - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return Error{errno, "read " + name};
        if (got == 0) break;
        used += static_cast<std::size_t>(got);
    }
    if (used > most) return Error{EFBIG, "read " + name};
    content.resize(used);
    return content;
}

std::string_view first_line(std::string_view& rest)
{
    const std::size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    constexpr std::string_view kSpace = " \t\r\v\f";
    const std::size_t first = line.find_first_not_of(kSpace);
    if (first == std::string_view::npos) return {};
    return line.substr(first, line.find_last_not_of(kSpace) - first + 1);
}

/// What CNI allows in an ID; narrower than what a kernel allows in an interface name, and safe in a file name.
bool is_word(std::string_view text, std::size_t most)
{
    return !text.empty() && text.size() <= most && std::all_of(text.begin(), text.end(), [](unsigned char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.' ||
               c == '-' || c == '@' || c == ':';
    });
}

std::string cached_host_interface(const Fd& results, const std::vector<std::string>& names, const std::string& network,
                                  const Owner& owner)
{
    const std::string stem = network + "-" + owner.container_id + "-";
    // Allocations of old versions do not name the interface: the container's first cache entry then.
    const auto found = std::lower_bound(names.begin(), names.end(), stem + owner.ifname);
    if (found == names.end() || found->compare(0, stem.size(), stem) != 0) return {};
    if (!owner.ifname.empty() && *found != stem + owner.ifname) return {};
    const auto content = read_at(results, *found, HostLocal::kMaxResultBytes);
    return content ? host_interface_of(*content) : std::string{};
}

} // namespace

bool parse_allocation(std::string_view content, Owner& owner)
{
    owner = Owner{};
    const std::string_view id = first_line(content);
    if (!is_word(id, kMaxContainerId)) return false;
    owner.container_id = id;
    const std::string_view ifname = first_line(content);
    if (is_word(ifname, kMaxIfname)) owner.ifname = ifname;
    return true;
}

std::string host_interface_of(std::string_view cache_entry)
{
    using nlohmann::json;
    std::string host;
    try {
        const json entry = json::parse(cache_entry, nullptr, false);
        if (!entry.is_object()) return {};
        const auto result = entry.find("result"); // before 0.8, libcni cached the bare result
        const json& holder = result != entry.end() ? *result : entry;
        if (!holder.is_object()) return {};
        const auto interfaces = holder.find("interfaces");
        if (interfaces == holder.end() || !interfaces->is_array()) return {};
        for (const json& one : *interfaces) {
            if (!one.is_object()) continue;
            const auto sandbox = one.find("sandbox");
            if (sandbox != one.end() && !(sandbox->is_string() && sandbox->get_ref<const std::string&>().empty()))
                continue;
            const auto name = one.find("name");
            if (name == one.end() || !name->is_string()) continue;
            const auto& text = name->get_ref<const std::string&>();
            if (is_word(text, kMaxIfname)) host = text; // a bridge comes before its port
        }
    } catch (const std::exception&) { // a library's; memory at worst
        return {};
    }
    return host;
}

HostLocal::HostLocal(Loop& loop, std::string cni_state_dir, Listener& listener)
    : dir_(std::move(cni_state_dir)), listener_(listener), inotify_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)),
      tick_(loop), debounce_(loop)
{
    if (inotify_) poll_ = std::make_unique<Poll>(loop, inotify_.get(), [this] { read_events(); });
    (void)watch_directories();
    tick_.every(kTick, [this] {
        if (watch_directories()) schedule_scan();
    });
}

HostLocal::~HostLocal() = default;

bool HostLocal::watch(const std::string& path)
{
    const int wd = inotify_ ? ::inotify_add_watch(inotify_.get(), path.c_str(), kEvents) : -1;
    const bool is_blind = wd < 0 && (!inotify_ || !is_absence(errno));
    const auto known = watches_.find(path);
    // The kernel gives an inode that is watched already its old descriptor, and never gives one out twice.
    const bool has_changed = known == watches_.end() ? wd >= 0 : known->second != wd;
    if (has_changed && known != watches_.end()) {
        (void)::inotify_rm_watch(inotify_.get(), known->second); // moved away; EINVAL when it was deleted
        watches_.erase(known);
    }
    if (wd >= 0) watches_.insert_or_assign(path, wd);
    return has_changed || is_blind;
}

bool HostLocal::watch_directories()
{
    const std::string networks = dir_ + "/networks";
    bool has_changed = watch(networks);
    has_changed |= watch(dir_ + "/results");

    const std::string below = networks + "/";
    std::set<std::string> wanted;
    const Fd root = open_directory(AT_FDCWD, networks);
    for (const auto& name : list(root, errno).names) {
        if (wanted.size() == kMaxNetworks) break;
        wanted.insert(below + name);
    }
    for (const auto& [path, wd] : watches_)
        if (path.starts_with(below)) wanted.insert(path);
    for (const auto& path : wanted) has_changed |= watch(path);
    return has_changed;
}

void HostLocal::read_events()
{
    alignas(inotify_event) char events[16 * 1024];
    bool is_any = false;
    // What they say is of no interest, an overflow included: all is read again.
    for (int reads = 0; reads < 16 && ::read(inotify_.get(), events, sizeof events) > 0; ++reads) is_any = true;
    if (is_any) schedule_scan();
}

void HostLocal::schedule_scan()
{
    if (debounce_.is_active()) return;
    debounce_.once(kDebounce, [this] { scan(); });
}

bool HostLocal::read_network(const Fd& directory, const std::string& network, const Results& results, Owners& seen)
{
    const Listing files = list(directory, errno);
    for (const auto& name : files.names) {
        if (seen.size() == kMaxFiles) return false;
        const auto ip = Ip::parse(name);
        if (!ip || seen.count(*ip) != 0) continue;
        const auto content = read_at(directory, name, kMaxAllocationBytes);
        if (!content) {
            const int code = content.error().code;
            const auto told = told_.find(*ip);
            const bool is_unknown = !is_absence(code) && code != EFBIG && code != EINVAL;
            if (is_unknown && told != told_.end()) seen.insert(*told);
            continue;
        }
        Owner owner;
        if (!parse_allocation(*content, owner)) continue;
        owner.host_interface = cached_host_interface(results.directory, results.names, network, owner);
        seen.emplace(*ip, std::move(owner));
    }
    return files.is_complete;
}

void HostLocal::scan()
{
    (void)watch_directories(); // before reading: what comes between is then told by inotify

    Owners seen;
    const Fd networks = open_directory(AT_FDCWD, dir_ + "/networks");
    const Listing listing = list(networks, errno);
    Results results{open_directory(AT_FDCWD, dir_ + "/results"), {}};
    results.names = list(results.directory, errno).names;
    bool is_complete = listing.is_complete;
    std::size_t count = 0;
    for (const auto& name : listing.names) {
        if (++count > kMaxNetworks) {
            is_complete = false;
            break;
        }
        const Fd directory = open_directory(networks.get(), name);
        if (!directory) {
            is_complete &= is_absence(errno);
            continue;
        }
        is_complete &= read_network(directory, name, results, seen);
    }
    tell(std::move(seen), is_complete);
}

void HostLocal::tell(Owners seen, bool is_complete)
{
    const Owners before = std::exchange(told_, {});
    for (const auto& [ip, owner] : before) {
        if (seen.count(ip) != 0) continue;
        if (is_complete)
            listener_.on_owner_gone(ip);
        else
            seen.emplace(ip, owner); // nobody knows that it has gone
    }
    told_ = std::move(seen);
    for (const auto& [ip, owner] : told_) {
        const auto old = before.find(ip);
        if (old == before.end() || old->second != owner) listener_.on_owner(ip, owner);
    }
}

} // namespace twill
