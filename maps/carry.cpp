// SPDX-License-Identifier: Apache-2.0
#include "maps/carry.hpp"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <linux/btf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace twill {

namespace {

struct BtfDeleter {
    void operator()(btf* types) const noexcept { btf__free(types); }
};
using Btf = std::unique_ptr<btf, BtfDeleter>;

/// Structs of the map ABI are nested two deep; a loop is not possible without pointers.
constexpr unsigned kMaxDepth = 8;

bool flatten(const btf* types, unsigned type, const std::string& name, std::size_t offset, unsigned depth, Layout& out)
{
    const int resolved = btf__resolve_type(types, type);
    const auto size = btf__resolve_size(types, type);
    if (resolved <= 0 || size < 0 || depth == kMaxDepth) return false;
    const btf_type* what = btf__type_by_id(types, static_cast<unsigned>(resolved));
    if (btf_is_int(what) || btf_is_enum(what) || btf_is_array(what)) {
        out.fields.push_back({name, offset, static_cast<std::size_t>(size)});
        return true;
    }
    if (!btf_is_struct(what)) return false;
    const std::string prefix = name.empty() ? name : name + ".";
    const btf_member* member = btf_members(what);
    for (unsigned i = 0; i < btf_vlen(what); ++i, ++member) {
        if (btf_member_bitfield_size(what, i) != 0) return false;
        if (!flatten(types, member->type, prefix + btf__name_by_offset(types, member->name_off),
                     offset + btf_member_bit_offset(what, i) / 8, depth + 1, out))
            return false;
    }
    return true;
}

struct Side {
    bpf_map_info info{};
    Layout key, value;
    bool is_per_cpu = false;
    bool is_array = false;

    std::size_t stride() const { return is_per_cpu ? (value.size + 7) / 8 * 8 : value.size; }
    std::size_t values() const { return is_per_cpu ? possible_cpus() : 1; }
};

Error unsupported(const RawMap& map, const char* why) { return Error{ENOTSUP, "map " + map.name() + ": " + why}; }

Result<Side> read_side(const RawMap& map)
{
    Side side;
    __u32 size = sizeof(side.info);
    if (bpf_obj_get_info_by_fd(map.fd(), &side.info, &size) != 0)
        return Error{errno, "map " + map.name() + ": info: " + std::strerror(errno)};
    switch (side.info.type) {
    case BPF_MAP_TYPE_PERCPU_ARRAY:
        side.is_per_cpu = true;
        [[fallthrough]];
    case BPF_MAP_TYPE_ARRAY:
        side.is_array = true;
        break;
    case BPF_MAP_TYPE_HASH:
    case BPF_MAP_TYPE_LRU_HASH:
    case BPF_MAP_TYPE_LPM_TRIE:
        break;
    default:
        return unsupported(map, "a kind of map that is not carried over");
    }
    const Btf types(btf__load_from_kernel_by_id(side.info.btf_id));
    if (side.info.btf_id == 0 || !types) return unsupported(map, "no type information");
    const auto key = layout_of(types.get(), side.info.btf_key_type_id);
    const auto value = layout_of(types.get(), side.info.btf_value_type_id);
    if (!key || !value || key->size != side.info.key_size || value->size != side.info.value_size)
        return unsupported(map, "types that cannot be copied by name");
    side.key = *key;
    side.value = *value;
    return side;
}

} // namespace

std::optional<Layout> layout_of(const btf* types, unsigned type)
{
    Layout layout;
    const auto size = btf__resolve_size(types, type);
    if (size < 0 || !flatten(types, type, "", 0, 0, layout)) return std::nullopt;
    layout.size = static_cast<std::size_t>(size);
    return layout;
}

Conversion::Conversion(const Layout& from, const Layout& to) : to_size_(to.size)
{
    for (const auto& field : to.fields) {
        const auto same = std::find_if(from.fields.begin(), from.fields.end(), [&](const auto& other) {
            return other.name == field.name && other.size == field.size;
        });
        if (same != from.fields.end()) moves_.push_back({same->offset, field.offset, field.size});
    }
    is_lossless_ = moves_.size() == to.fields.size() && moves_.size() == from.fields.size();
}

void Conversion::apply(const unsigned char* from, unsigned char* to) const
{
    std::fill_n(to, to_size_, static_cast<unsigned char>(0));
    for (const auto& move : moves_) std::copy_n(from + move.from, move.size, to + move.to);
}

Result<std::size_t> carry_over(const RawMap& from, const RawMap& to)
{
    TWILL_TRY_AS(source, read_side(from));
    TWILL_TRY_AS(target, read_side(to));
    if (source.is_per_cpu != target.is_per_cpu || source.is_array != target.is_array)
        return unsupported(to, "its kind changed");
    const Conversion key_of(source.key, target.key);
    const Conversion value_of(source.value, target.value);
    if (!key_of.is_lossless()) return unsupported(to, "its keys changed");

    TWILL_TRY_AS(keys, from.keys(source.info.key_size));
    std::vector<unsigned char> old_value(source.stride() * source.values());
    std::vector<unsigned char> key(target.info.key_size);
    std::vector<unsigned char> value(target.stride() * target.values());
    std::size_t count = 0;
    for (std::size_t at = 0; at < keys.size(); at += source.info.key_size) {
        TWILL_TRY_AS(found, from.get(keys.data() + at, old_value.data()));
        if (!found) continue;
        key_of.apply(keys.data() + at, key.data());
        for (std::size_t cpu = 0; cpu < target.values(); ++cpu)
            value_of.apply(old_value.data() + cpu * source.stride(), value.data() + cpu * target.stride());
        if (target.is_array) {
            const bool is_zero = std::all_of(value.begin(), value.end(), [](auto byte) { return byte == 0; });
            __u32 index = 0;
            std::memcpy(&index, key.data(), sizeof(index));
            if (is_zero || index >= target.info.max_entries) continue;
        }
        TWILL_TRY(to.put(key.data(), value.data()));
        ++count;
    }
    return count;
}

} // namespace twill
