// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "maps/abi/cfg.h"
#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill::cli {

using Bytes = std::vector<std::uint8_t>;

/// What the kernel says of one pinned map.
struct MapInfo {
    std::string name;
    std::string type; ///< "hash", "lru_hash", "lpm_trie", "array", "percpu_array", "ringbuf"; else the number
    std::uint32_t id = 0;
    std::uint32_t key_bytes = 0;
    std::uint32_t value_bytes = 0; ///< of one CPU
    std::uint32_t max_entries = 0; ///< bytes for a ring buffer
    std::optional<std::uint64_t> memory_bytes;
    std::optional<std::uint64_t> entries; ///< nullopt: cannot be counted (ring buffer)
};

/// Key and value as the kernel holds them; a per-CPU value has one slot a CPU, each rounded up to 8 bytes.
struct Entry {
    Bytes key;
    Bytes value;
};

/// Looks at the pinned maps of one node; never writes. Errors: ENOENT no such map, EPERM, EACCES.
class MapReader {
public:
    virtual ~MapReader() = default;
    /// Names of all pinned maps, sorted. ENOENT: there is no data plane.
    virtual Result<std::vector<std::string>> names() = 0;
    virtual Result<MapInfo> info(const std::string& map) = 0;
    /// Every entry once, while others may write: what comes or goes meanwhile may be in or not.
    virtual Result<std::vector<Entry>> entries(const std::string& map) = 0;
    /// What the programs that use these maps were loaded with. ENOENT: there are none; EPROTO: of another version.
    virtual Result<tw_cfg> config() = 0;
    /// nullopt: no such key.
    virtual Result<std::optional<Bytes>> lookup(const std::string& map, const Bytes& key) = 0;
};

/// Maps pinned under `<bpf_root>/v<schema>/maps`.
class PinnedMaps final : public MapReader {
public:
    explicit PinnedMaps(std::string bpf_root);
    Result<std::vector<std::string>> names() override;
    Result<MapInfo> info(const std::string& map) override;
    Result<std::vector<Entry>> entries(const std::string& map) override;
    Result<std::optional<Bytes>> lookup(const std::string& map, const Bytes& key) override;
    Result<tw_cfg> config() override;

private:
    Result<Fd> open(const std::string& map) const;
    std::string dir_;
};

/// Reads `bytes` as one of the structs of maps/abi. EPROTO: another size, so the map is of another version.
template <typename T>
Result<T> as(const Bytes& bytes, std::size_t offset = 0)
{
    static_assert(std::is_trivially_copyable_v<T>);
    if (offset + sizeof(T) > bytes.size()) return Error{EPROTO, "map value: too short, made by another version"};
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
    return value;
}

/// The sum of a per-CPU value's slots; T is a struct of 64-bit counters.
template <typename T>
T sum_over_cpus(const Bytes& slots)
{
    static_assert(sizeof(T) % sizeof(std::uint64_t) == 0);
    std::uint64_t sums[sizeof(T) / sizeof(std::uint64_t)] = {};
    for (std::size_t offset = 0; offset + sizeof(T) <= slots.size(); offset += sizeof(T)) {
        std::uint64_t slot[sizeof(T) / sizeof(std::uint64_t)];
        std::memcpy(slot, slots.data() + offset, sizeof(T));
        for (std::size_t i = 0; i < std::size(slot); ++i) sums[i] += slot[i];
    }
    T total;
    std::memcpy(&total, sums, sizeof(T));
    return total;
}

/// The bytes of a key.
template <typename T>
Bytes bytes_of(const T& value)
{
    static_assert(std::is_trivially_copyable_v<T>);
    Bytes bytes(sizeof(T));
    std::memcpy(bytes.data(), &value, sizeof(T));
    return bytes;
}

} // namespace twill::cli
