// SPDX-License-Identifier: Apache-2.0
#include "maps/pins.hpp"

#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/vfs.h>

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

PinDir::PinDir(std::string root) : root_(std::move(root)) {}

std::string PinDir::maps() const { return root_ + "/v" + std::to_string(TW_SCHEMA) + "/maps"; }

std::string PinDir::links() const { return root_ + "/v" + std::to_string(TW_SCHEMA) + "/links"; }

std::string PinDir::map(std::string_view name) const { return maps() + "/" + std::string(name); }

std::string PinDir::link(std::string_view name) const { return links() + "/" + std::string(name); }

Result<> PinDir::create() const
{
    const bool below_default = root_.starts_with(std::string(kBpffs) + "/");
    if (!is_bpffs(existing(root_)) && below_default && mount("bpf", kBpffs, "bpf", 0, "mode=0700") != 0)
        return Error{errno, std::string("mount bpffs on ") + kBpffs + ": " + std::strerror(errno)};
    if (!is_bpffs(existing(root_)))
        return Error{ENOTSUP, "-bpf-root " + root_ + ": not on a BPF file system (mount -t bpf bpf /sys/fs/bpf)"};
    for (const auto& dir : {maps(), links()}) {
        std::error_code error;
        fs::create_directories(dir, error);
        if (error) return Error{error.value(), "create " + dir + ": " + error.message()};
    }
    return Ok{};
}

std::vector<std::string> PinDir::list_maps() const { return names_in(maps()); }

std::vector<std::string> PinDir::list_links() const { return names_in(links()); }

std::vector<std::string> PinDir::other_schemas() const
{
    std::vector<std::string> others;
    const std::string own = "v" + std::to_string(TW_SCHEMA);
    for (auto& name : names_in(root_))
        if (is_schema(name) && name != own) others.push_back(std::move(name));
    return others;
}

Result<> PinDir::remove_all() const
{
    std::error_code error;
    if (!fs::exists(root_, error)) return Ok{};
    if (!is_bpffs(root_)) return Error{ENOTSUP, "-bpf-root " + root_ + ": not on a BPF file system, nothing removed"};
    Result<> outcome = Ok{};
    const auto note = [&](const fs::path& path) {
        // What is not empty holds something of others, and stays.
        if (error && error != std::errc::directory_not_empty)
            outcome = Error{error.value(), "remove " + path.string() + ": " + error.message()};
    };
    for (const auto& name : names_in(root_)) {
        if (!is_schema(name)) continue;
        const fs::path schema = fs::path(root_) / name;
        for (const auto* part : {"maps", "links"}) {
            fs::remove_all(schema / part, error);
            note(schema / part);
        }
        fs::remove(schema, error);
        note(schema);
    }
    fs::remove(root_, error);
    note(root_);
    return outcome;
}

} // namespace twill
