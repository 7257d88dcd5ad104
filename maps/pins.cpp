// SPDX-License-Identifier: Apache-2.0
#include "maps/pins.hpp"

#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "maps/abi/limits.h"

namespace twill {

namespace fs = std::filesystem;

namespace {

constexpr const char* kBpffs = "/sys/fs/bpf";

bool is_bpffs(const fs::path& path)
{
    struct statfs stat {};
    return statfs(path.c_str(), &stat) == 0 && static_cast<unsigned long>(stat.f_type) == BPF_FS_MAGIC;
}

/// The nearest ancestor that exists, or the path itself.
fs::path existing(fs::path path)
{
    std::error_code ignored;
    while (!fs::exists(path, ignored) && path.has_parent_path() && path != path.parent_path())
        path = path.parent_path();
    return path;
}

std::vector<std::string> names_in(const std::string& dir)
{
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(dir, error)) names.push_back(entry.path().filename());
    return names;
}

/// "v1", "v2", ...
bool is_schema(const std::string& name)
{
    return name.size() > 1 && name[0] == 'v' && name.find_first_not_of("0123456789", 1) == std::string::npos;
}

} // namespace

PinDir::PinDir(std::string root) : PinDir(std::move(root), "v" + std::to_string(TW_SCHEMA)) {}

std::string PinDir::maps() const { return root_ + "/" + schema_ + "/maps"; }

std::string PinDir::links() const { return root_ + "/" + schema_ + "/links"; }

std::string PinDir::map(std::string_view name) const { return maps() + "/" + std::string(name); }

std::string PinDir::link(std::string_view name) const { return links() + "/" + std::string(name); }

bool PinDir::is_below_default() const { return root_.starts_with(std::string(kBpffs) + "/"); }

bool PinDir::can_create() const { return is_below_default() || is_bpffs(existing(root_)); }

Result<> PinDir::make(const std::string& dir) const
{
    if (!is_bpffs(existing(root_)) && is_below_default() && mount("bpf", kBpffs, "bpf", 0, "mode=0700") != 0)
        return Error{errno, std::string("mount bpffs on ") + kBpffs + ": " + std::strerror(errno)};
    if (!is_bpffs(existing(root_)))
        return Error{ENOTSUP, "-bpf-root " + root_ + ": not on a BPF file system (mount -t bpf bpf /sys/fs/bpf)"};
    std::error_code error;
    fs::create_directories(dir, error);
    if (error) return Error{error.value(), "create " + dir + ": " + error.message()};
    return Ok{};
}

Result<bool> PinDir::begin() const
{
    TWILL_TRY(make(maps()));
    if (is_filled()) return false;
    for (const auto& name : list_maps()) {
        std::error_code error;
        fs::remove(map(name), error);
        if (error) return Error{error.value(), "remove " + map(name) + ": " + error.message()};
    }
    return true;
}

Result<> PinDir::create() const
{
    TWILL_TRY(make(maps()));
    return make(links());
}

bool PinDir::is_filled() const
{
    std::error_code ignored;
    return fs::is_directory(links(), ignored);
}

std::vector<std::string> PinDir::list_maps() const { return names_in(maps()); }

std::vector<std::string> PinDir::list_links() const { return names_in(links()); }

std::vector<std::string> PinDir::other_schemas() const
{
    std::vector<std::string> others;
    for (auto& name : names_in(root_))
        if (is_schema(name) && name != schema_) others.push_back(std::move(name));
    return others;
}

std::vector<PinDir> PinDir::others() const
{
    auto names = other_schemas();
    // Numbers without leading zeros: the longer one is higher.
    std::sort(names.begin(), names.end(),
              [](const auto& a, const auto& b) { return a.size() != b.size() ? a.size() > b.size() : a > b; });
    std::vector<PinDir> others;
    others.reserve(names.size());
    for (auto& name : names) others.push_back(PinDir(root_, std::move(name)));
    return others;
}

Result<> PinDir::remove() const
{
    const std::string dir = root_ + "/" + schema_;
    std::error_code error;
    Result<> outcome = Ok{};
    // Links first: without them the next agent of this schema knows that the maps are no longer whole.
    for (const auto& path : {links(), maps(), dir}) {
        if (path == dir)
            fs::remove(path, error);
        else
            fs::remove_all(path, error);
        // What is not empty holds something of others, and stays.
        if (error && error != std::errc::directory_not_empty)
            outcome = Error{error.value(), "remove " + path + ": " + error.message()};
    }
    return outcome;
}

Result<> PinDir::remove_all() const
{
    std::error_code error;
    if (!fs::exists(root_, error)) return Ok{};
    if (!is_bpffs(root_)) return Error{ENOTSUP, "-bpf-root " + root_ + ": not on a BPF file system, nothing removed"};
    Result<> outcome = remove();
    for (const auto& other : others())
        if (auto done = other.remove(); !done) outcome = done;
    fs::remove(root_, error);
    if (error && error != std::errc::directory_not_empty)
        outcome = Error{error.value(), "remove " + root_ + ": " + error.message()};
    return outcome;
}

} // namespace twill
