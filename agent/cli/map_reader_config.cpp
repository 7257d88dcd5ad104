// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include "agent/cli/map_reader.hpp"

// The programs' configuration is in no pinned map, but in their .rodata: it is found by way of a pinned map that they
// use.

namespace twill::cli {

namespace {

constexpr char kMapOfPrograms[] = "tw_reasons"; // every program counts
constexpr std::size_t kMaxMaps = 64;            // of one program; ours use fewer

struct BtfFree {
    void operator()(btf* types) const noexcept { btf__free(types); }
};

struct LoadedProgram {
    std::uint64_t loaded = 0; ///< CLOCK_BOOTTIME, ns
    std::vector<std::uint32_t> maps;
};

/// nullopt: it is gone by now.
std::optional<LoadedProgram> program(std::uint32_t id)
{
    const Fd fd{bpf_prog_get_fd_by_id(id)};
    if (!fd) return std::nullopt;
    LoadedProgram out;
    out.maps.resize(kMaxMaps);
    bpf_prog_info info{};
    info.nr_map_ids = kMaxMaps;
    info.map_ids = reinterpret_cast<std::uintptr_t>(out.maps.data());
    std::uint32_t size = sizeof(info);
    if (bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) return std::nullopt;
    out.maps.resize(std::min<std::size_t>(info.nr_map_ids, kMaxMaps));
    out.loaded = info.load_time;
    return out;
}

/// The program loaded last among those that use the map: after an upgrade the old ones may still be there.
Result<LoadedProgram> newest_user_of(std::uint32_t map)
{
    std::optional<LoadedProgram> newest;
    std::uint32_t id = 0;
    while (bpf_prog_get_next_id(id, &id) == 0) {
        auto found = program(id);
        if (!found || std::ranges::find(found->maps, map) == found->maps.end()) continue;
        if (!newest || found->loaded > newest->loaded) newest = std::move(found);
    }
    if (errno != ENOENT) return Error{errno, std::string("list BPF programs: ") + std::strerror(errno)};
    if (!newest) return Error{ENOENT, "no program of twill is loaded"};
    return std::move(*newest);
}

/// Where `tw_cfg` is in the map, if its types tell.
std::optional<std::size_t> offset_of_cfg(const bpf_map_info& info)
{
    if (info.btf_id == 0) return std::nullopt;
    const std::unique_ptr<btf, BtfFree> types{btf__load_from_kernel_by_id(info.btf_id)};
    const btf_type* section = types ? btf__type_by_id(types.get(), info.btf_value_type_id) : nullptr;
    if (section == nullptr || btf_kind(section) != BTF_KIND_DATASEC) return std::nullopt;
    const btf_var_secinfo* variable = btf_var_secinfos(section);
    for (unsigned i = 0; i < btf_vlen(section); ++i, ++variable) {
        const btf_type* type = btf__type_by_id(types.get(), variable->type);
        const char* name = type == nullptr ? nullptr : btf__name_by_offset(types.get(), type->name_off);
        if (name != nullptr && std::string_view(name) == "tw_cfg" && variable->size == sizeof(tw_cfg))
            return variable->offset;
    }
    return std::nullopt;
}

/// nullopt: it is another map.
std::optional<tw_cfg> config_in(std::uint32_t map)
{
    const Fd fd{bpf_map_get_fd_by_id(map)};
    bpf_map_info info{};
    std::uint32_t size = sizeof(info);
    if (!fd || bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) return std::nullopt;
    if (info.type != BPF_MAP_TYPE_ARRAY || info.max_entries != 1 || !std::string_view(info.name).ends_with(".rodata"))
        return std::nullopt;
    const auto offset = offset_of_cfg(info);
    Bytes value(info.value_size);
    const std::uint32_t first = 0;
    if (!offset || bpf_map_lookup_elem(fd.get(), &first, value.data()) != 0) return std::nullopt;
    const auto cfg = as<tw_cfg>(value, *offset);
    return cfg ? std::optional(*cfg) : std::nullopt;
}

} // namespace

Result<tw_cfg> PinnedMaps::config()
{
    TWILL_TRY_AS(fd, open(kMapOfPrograms));
    bpf_map_info info{};
    std::uint32_t size = sizeof(info);
    if (bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0)
        return Error{errno, std::string("map ") + kMapOfPrograms + ": " + std::strerror(errno)};
    TWILL_TRY_AS(newest, newest_user_of(info.id));
    for (const auto map : newest.maps)
        if (const auto cfg = config_in(map)) return *cfg;
    return Error{EPROTO, "the programs' configuration is not as this version of twillctl knows it"};
}

} // namespace twill::cli
