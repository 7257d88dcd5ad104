// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/map_reader.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "maps/abi/limits.h"

namespace twill::cli {

namespace {

constexpr std::uint32_t kBatch = 4096; // larger than any hash bucket: a smaller one ends in ENOSPC

std::string type_name(std::uint32_t type)
{
    switch (type) {
    case BPF_MAP_TYPE_HASH:
        return "hash";
    case BPF_MAP_TYPE_LRU_HASH:
        return "lru_hash";
    case BPF_MAP_TYPE_LPM_TRIE:
        return "lpm_trie";
    case BPF_MAP_TYPE_ARRAY:
        return "array";
    case BPF_MAP_TYPE_PERCPU_ARRAY:
        return "percpu_array";
    case BPF_MAP_TYPE_RINGBUF:
        return "ringbuf";
    default:
        return std::to_string(type);
    }
}

bool is_array(std::uint32_t type) { return type == BPF_MAP_TYPE_ARRAY || type == BPF_MAP_TYPE_PERCPU_ARRAY; }

Error bpf_error(const std::string& map, int code)
{
    if (code == EPERM || code == EACCES)
        return {code, "map " + map + ": no permission: run as root, or with CAP_BPF and CAP_NET_ADMIN"};
    return {code, "map " + map + ": " + std::strerror(code)};
}

Result<bpf_map_info> kernel_info(const Fd& fd, const std::string& map)
{
    bpf_map_info info{};
    std::uint32_t size = sizeof(info);
    if (bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) return bpf_error(map, errno);
    return info;
}

/// Bytes that a lookup writes: per-CPU maps give one slot for each possible CPU.
Result<std::size_t> value_size(const bpf_map_info& info, const std::string& map)
{
    if (info.type != BPF_MAP_TYPE_PERCPU_ARRAY && info.type != BPF_MAP_TYPE_PERCPU_HASH) return info.value_size;
    const int cpus = libbpf_num_possible_cpus();
    if (cpus < 0) return bpf_error(map, -cpus);
    return static_cast<std::size_t>(cpus) * ((std::size_t{info.value_size} + 7) / 8 * 8);
}

/// `memlock:` of fdinfo: what the kernel charged for the map.
std::optional<std::uint64_t> memory_of(const Fd& fd)
{
    std::ifstream file("/proc/self/fdinfo/" + std::to_string(fd.get()));
    for (std::string word; file >> word;)
        if (std::uint64_t bytes = 0; word == "memlock:" && file >> bytes) return bytes;
    return std::nullopt;
}

void append(std::vector<Entry>& out, const Bytes& keys, const Bytes& values, std::uint32_t count, std::size_t key_size,
            std::size_t one_value)
{
    const auto cut = [](const Bytes& from, std::size_t index, std::size_t size) {
        const auto begin = from.begin() + static_cast<std::ptrdiff_t>(index * size);
        return Bytes(begin, begin + static_cast<std::ptrdiff_t>(size));
    };
    for (std::uint32_t i = 0; i < count; ++i) out.push_back({cut(keys, i, key_size), cut(values, i, one_value)});
}

/// Key by key, for maps without batch operations. A concurrent delete may start the walk again: hence the limit.
Result<std::vector<Entry>> walk(const Fd& fd, const bpf_map_info& info, const std::string& map, std::size_t one_value)
{
    std::vector<Entry> out;
    Bytes key(info.key_size);
    Bytes next(info.key_size);
    const void* previous = nullptr;
    for (std::uint64_t steps = 0; steps < 2ULL * info.max_entries; ++steps) {
        if (bpf_map_get_next_key(fd.get(), previous, next.data()) != 0) {
            if (errno == ENOENT) break;
            return bpf_error(map, errno);
        }
        Bytes value(one_value);
        if (bpf_map_lookup_elem(fd.get(), next.data(), value.data()) == 0) out.push_back({next, std::move(value)});
        key = next;
        previous = key.data();
    }
    return out;
}

} // namespace

PinnedMaps::PinnedMaps(std::string bpf_root) : dir_(std::move(bpf_root) + "/v" + std::to_string(TW_SCHEMA) + "/maps") {}

Result<std::vector<std::string>> PinnedMaps::names()
{
    std::error_code failed;
    std::vector<std::string> found;
    for (std::filesystem::directory_iterator it(dir_, failed), end; !failed && it != end; it.increment(failed))
        found.push_back(it->path().filename().string());
    if (failed == std::errc::permission_denied) return bpf_error(dir_, EACCES);
    if (failed) return Error{failed.value(), "no twill data plane under " + dir_ + ": " + failed.message()};
    std::ranges::sort(found);
    return found;
}

Result<Fd> PinnedMaps::open(const std::string& map) const
{
    Fd fd{bpf_obj_get((dir_ + "/" + map).c_str())};
    if (fd) return fd;
    const int code = errno;
    if (code == ENOENT) return Error{ENOENT, "no twill data plane: " + dir_ + "/" + map + " does not exist"};
    return bpf_error(map, code);
}

Result<MapInfo> PinnedMaps::info(const std::string& map)
{
    TWILL_TRY_AS(fd, open(map));
    TWILL_TRY_AS(kernel, kernel_info(fd, map));
    MapInfo out;
    out.name = map;
    out.type = type_name(kernel.type);
    out.id = kernel.id;
    out.key_bytes = kernel.key_size;
    out.value_bytes = kernel.value_size;
    out.max_entries = kernel.max_entries;
    out.memory_bytes = memory_of(fd);
    if (is_array(kernel.type)) {
        out.entries = kernel.max_entries;
    } else if (kernel.type != BPF_MAP_TYPE_RINGBUF) {
        TWILL_TRY_AS(all, entries(map));
        out.entries = all.size();
    }
    return out;
}

Result<std::vector<Entry>> PinnedMaps::entries(const std::string& map)
{
    TWILL_TRY_AS(fd, open(map));
    TWILL_TRY_AS(info, kernel_info(fd, map));
    TWILL_TRY_AS(one_value, value_size(info, map));
    const std::uint32_t batch = std::min(kBatch, info.max_entries);
    Bytes keys(std::size_t{batch} * info.key_size);
    Bytes values(std::size_t{batch} * one_value);
    Bytes cursor(std::max<std::size_t>(info.key_size, sizeof(std::uint64_t)));
    std::vector<Entry> out;
    bool is_first = true;
    while (true) {
        std::uint32_t count = batch;
        const int rc = bpf_map_lookup_batch(fd.get(), is_first ? nullptr : cursor.data(), cursor.data(), keys.data(),
                                            values.data(), &count, nullptr);
        const int code = rc == 0 ? 0 : errno;
        if (code == EINVAL || code == ENOTSUP || code == 524 || code == ENOSPC) // 524: the kernel's own ENOTSUPP
            return walk(fd, info, map, one_value);
        if (code != 0 && code != ENOENT) return bpf_error(map, code);
        append(out, keys, values, count, info.key_size, one_value);
        if (code == ENOENT) return out;
        is_first = false;
    }
}

Result<std::optional<Bytes>> PinnedMaps::lookup(const std::string& map, const Bytes& key)
{
    TWILL_TRY_AS(fd, open(map));
    TWILL_TRY_AS(info, kernel_info(fd, map));
    TWILL_TRY_AS(size, value_size(info, map));
    if (key.size() != info.key_size) return Error{EPROTO, "map " + map + ": key size differs: made by another version"};
    Bytes value(size);
    if (bpf_map_lookup_elem(fd.get(), key.data(), value.data()) == 0) return std::optional<Bytes>{std::move(value)};
    if (errno == ENOENT) return std::optional<Bytes>{};
    return bpf_error(map, errno);
}

} // namespace twill::cli
