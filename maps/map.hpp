// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill {

/// One BPF map by descriptor; values are raw bytes. Errors: those of bpf(2), `what` names the map and the operation.
/// Thread: any; the kernel serialises.
class RawMap {
public:
    RawMap() = default;
    RawMap(std::string name, Fd fd) : name_(std::move(name)), fd_(std::move(fd)) {}
    /// Opens a pinned map and checks its key and value sizes (bytes; for per-CPU maps of one CPU's value): EPROTO when
    /// they differ. ENOENT when there is no such pin.
    static Result<RawMap> open(const std::string& path, std::size_t key_size, std::size_t value_size);
    /// The same for a map of any sizes.
    static Result<RawMap> open(const std::string& path);

    const std::string& name() const { return name_; }
    int fd() const { return fd_.get(); }

    /// false: no such key.
    Result<bool> get(const void* key, void* value) const;
    Result<> put(const void* key, const void* value) const;
    /// Deleting an absent key succeeds.
    Result<> del(const void* key) const;
    /// All keys at one pass, `key_size` bytes each. Keys that come and go meanwhile may be missed.
    Result<std::vector<unsigned char>> keys(std::size_t key_size) const;

private:
    std::string name_;
    Fd fd_;
};

/// A hash, LRU hash, trie or array with typed keys and values.
template <typename K, typename V>
class Map {
    static_assert(std::is_trivially_copyable_v<K> && std::is_trivially_copyable_v<V>);

public:
    Map() = default;
    explicit Map(RawMap raw) : raw_(std::move(raw)) {}
    static Result<Map> open(const std::string& path)
    {
        TWILL_TRY_AS(raw, RawMap::open(path, sizeof(K), sizeof(V)));
        return Map(std::move(raw));
    }

    const RawMap& raw() const { return raw_; }
    Result<std::optional<V>> get(const K& key) const
    {
        V value;
        TWILL_TRY_AS(found, raw_.get(&key, &value));
        return found ? std::optional<V>(value) : std::nullopt;
    }
    Result<> put(const K& key, const V& value) const { return raw_.put(&key, &value); }
    Result<> del(const K& key) const { return raw_.del(&key); }
    Result<> for_each(const std::function<void(const K&, const V&)>& visit) const
    {
        TWILL_TRY_AS(keys, raw_.keys(sizeof(K)));
        for (std::size_t i = 0; i + sizeof(K) <= keys.size(); i += sizeof(K)) {
            K key;
            std::copy_n(keys.data() + i, sizeof(K), reinterpret_cast<unsigned char*>(&key));
            TWILL_TRY_AS(value, get(key));
            if (value) visit(key, *value);
        }
        return Ok{};
    }

private:
    RawMap raw_;
};

/// CPUs for which per-CPU maps hold a value: the possible ones.
std::size_t possible_cpus();

/// A per-CPU array; values are summed by the caller.
template <typename V>
class PerCpuArray {
public:
    PerCpuArray() = default;
    explicit PerCpuArray(RawMap raw) : raw_(std::move(raw)) {}
    static Result<PerCpuArray> open(const std::string& path)
    {
        TWILL_TRY_AS(raw, RawMap::open(path, sizeof(unsigned), sizeof(V)));
        return PerCpuArray(std::move(raw));
    }

    /// One value for each possible CPU.
    Result<std::vector<V>> get(unsigned index) const
    {
        static_assert(sizeof(V) % 8 == 0, "the kernel rounds a per-CPU value up to 8 bytes");
        std::vector<V> values(possible_cpus());
        TWILL_TRY(raw_.get(&index, values.data()));
        return values;
    }
    /// Sets the value of every CPU.
    Result<> put(unsigned index, const V& value) const
    {
        const std::vector<V> values(possible_cpus(), value);
        return raw_.put(&index, values.data());
    }

private:
    RawMap raw_;
};

} // namespace twill
