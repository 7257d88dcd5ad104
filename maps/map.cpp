// SPDX-License-Identifier: Apache-2.0
#include "maps/map.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <cstring>

namespace twill {

namespace {

Error map_error(int code, const std::string& name, const char* operation)
{
    return Error{code, "map " + name + ": " + operation + ": " + std::strerror(code)};
}

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

} // namespace

Result<RawMap> RawMap::open(const std::string& path)
{
    Fd fd(bpf_obj_get(path.c_str()));
    if (!fd) return Error{errno, "open " + path + ": " + std::strerror(errno)};
    return RawMap(base_name(path), std::move(fd));
}

Result<RawMap> RawMap::open(const std::string& path, std::size_t key_size, std::size_t value_size)
{
    TWILL_TRY_AS(map, open(path));
    bpf_map_info info{};
    __u32 size = sizeof(info);
    if (bpf_obj_get_info_by_fd(map.fd(), &info, &size) != 0) return map_error(errno, map.name(), "info");
    if (info.key_size != key_size || info.value_size != value_size)
        return Error{EPROTO, "map " + path + " has keys of " + std::to_string(info.key_size) + " and values of " +
                                 std::to_string(info.value_size) + " bytes, not " + std::to_string(key_size) + " and " +
                                 std::to_string(value_size) + ": made by another version"};
    return map;
}

Result<bool> RawMap::get(const void* key, void* value) const
{
    if (bpf_map_lookup_elem(fd(), key, value) == 0) return true;
    if (errno == ENOENT) return false;
    return map_error(errno, name_, "lookup");
}

Result<> RawMap::put(const void* key, const void* value) const
{
    if (bpf_map_update_elem(fd(), key, value, BPF_ANY) == 0) return Ok{};
    // A full hash says E2BIG, a full trie ENOSPC: one word for callers.
    return map_error(errno == E2BIG ? ENOSPC : errno, name_, "update");
}

Result<> RawMap::del(const void* key) const
{
    if (bpf_map_delete_elem(fd(), key) == 0 || errno == ENOENT) return Ok{};
    return map_error(errno, name_, "delete");
}

Result<std::vector<unsigned char>> RawMap::keys(std::size_t key_size) const
{
    std::vector<unsigned char> keys;
    std::vector<unsigned char> key(key_size);
    const void* previous = nullptr;
    while (bpf_map_get_next_key(fd(), previous, key.data()) == 0) {
        keys.insert(keys.end(), key.begin(), key.end());
        previous = keys.data() + keys.size() - key_size;
    }
    if (errno != ENOENT) return map_error(errno, name_, "list keys");
    return keys;
}

std::size_t possible_cpus()
{
    static const int cpus = libbpf_num_possible_cpus();
    return cpus > 0 ? static_cast<std::size_t>(cpus) : 1;
}

} // namespace twill
