// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/nat_resize.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include "maps/nat_halves.hpp"

namespace twill {

namespace {

constexpr std::string_view kPrefix = "tw_nat_";
/// Those with an entry for each flow.
constexpr std::array<std::string_view, 3> kByFlow = {"tw_nat_fwd", "tw_nat_rev", "tw_nat_slots"};

/// Fills the maps of flows, which are new, from those of another size. Places are given anew: the old ones may be
/// beyond the end.
class FlowCarrier {
public:
    FlowCarrier(const NatFlowMap& fwd, const NatFlowMap& rev, const Map<unsigned, tw_nat_key>& slots, unsigned room)
        : fwd_(fwd), rev_(rev), slots_(slots), room_(room), now_(nat_now())
    {}

    Result<std::size_t> carry(const NatFlowMap& from_fwd, const NatFlowMap& from_rev)
    {
        TWILL_TRY(for_each_flow(from_rev, [&](const tw_nat_key& key, const tw_nat_flow& half) {
            if (is_alive(half, now_)) note(put_flow(from_fwd, key, half));
        }));
        TWILL_TRY(for_each_flow(from_fwd, [&](const tw_nat_key& key, const tw_nat_flow& half) {
            if (half.plain != 0 && is_alive(half, now_)) note(put_half(fwd_, key, half));
        }));
        if (trouble_) return *trouble_;
        return place_;
    }

private:
    void note(const Result<>& done)
    {
        if (!done && !trouble_) trouble_ = done.error();
    }

    Result<> put_half(const NatFlowMap& map, const tw_nat_key& key, tw_nat_flow half)
    {
        if (place_ == room_) return Ok{};
        half.place = place_;
        TWILL_TRY(map.put(key, half));
        tw_nat_key slot = key;
        slot.reserved[0] = half.plain;
        return slots_.put(place_++, slot);
    }

    /// A half alone is completed by the programs.
    Result<> put_flow(const NatFlowMap& from_fwd, const tw_nat_key& key, const tw_nat_flow& half)
    {
        if (place_ == room_) return Ok{};
        const tw_nat_key turned = other_half(key, half, true);
        TWILL_TRY_AS(other, from_fwd.get(turned));
        if (other && other->plain == 0) {
            other->place = place_;
            TWILL_TRY(fwd_.put(turned, *other));
        }
        return put_half(rev_, key, half);
    }

    const NatFlowMap& fwd_;
    const NatFlowMap& rev_;
    const Map<unsigned, tw_nat_key>& slots_;
    unsigned room_;
    unsigned place_ = 0;
    std::uint32_t now_;
    std::optional<Error> trouble_;
};

} // namespace

NatResize::~NatResize()
{
    if (is_done_) return;
    for (const auto& map : replaced_) {
        const std::string path = pins_.map(map.name());
        unlink(path.c_str()); // the new one, of programs that were not loaded
        bpf_obj_pin(map.fd(), path.c_str());
    }
}

Result<> NatResize::make_room(const bpf_map* map)
{
    const std::string path = pins_.map(bpf_map__name(map));
    auto pinned = RawMap::open(path);
    if (!pinned) return Ok{}; // none, or one that libbpf has a word about
    bpf_map_info info{};
    __u32 size = sizeof(info);
    if (bpf_obj_get_info_by_fd(pinned->fd(), &info, &size) != 0)
        return Error{errno, "map " + path + ": info: " + std::strerror(errno)};
    if (info.max_entries == bpf_map__max_entries(map)) return Ok{};
    if (unlink(path.c_str()) != 0) return Error{errno, "unpin " + path + ": " + std::strerror(errno)};
    replaced_.push_back(*std::move(pinned));
    return Ok{};
}

Result<> NatResize::prepare(bpf_object* object, const tw_cfg& cfg)
{
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, object)
    {
        const std::string_view name = bpf_map__name(map);
        if (!name.starts_with(kPrefix)) continue;
        const bool is_by_flow = std::find(kByFlow.begin(), kByFlow.end(), name) != kByFlow.end();
        if (cfg.nat == TW_NAT_OFF)
            bpf_map__set_max_entries(map, 1);
        else if (is_by_flow)
            bpf_map__set_max_entries(map, cfg.nat_max);
        TWILL_TRY(make_room(map));
    }
    return Ok{};
}

const RawMap* NatResize::replaced(std::string_view name) const
{
    const auto found =
        std::find_if(replaced_.begin(), replaced_.end(), [&](const auto& map) { return map.name() == name; });
    return found == replaced_.end() ? nullptr : &*found;
}

Result<std::size_t> NatResize::carry(const tw_cfg& cfg)
{
    is_done_ = true;
    const RawMap* old_fwd = replaced("tw_nat_fwd");
    const RawMap* old_rev = replaced("tw_nat_rev");
    if (cfg.nat == TW_NAT_OFF || old_fwd == nullptr || old_rev == nullptr) return std::size_t{0};
    TWILL_TRY_AS(fwd, NatFlowMap::open(pins_.map("tw_nat_fwd")));
    TWILL_TRY_AS(rev, NatFlowMap::open(pins_.map("tw_nat_rev")));
    TWILL_TRY_AS(slots, (Map<unsigned, tw_nat_key>::open(pins_.map("tw_nat_slots"))));
    const auto borrow = [](const RawMap& map) { return NatFlowMap(RawMap(map.name(), Fd(dup(map.fd())))); };
    return FlowCarrier(fwd, rev, slots, cfg.nat_max).carry(borrow(*old_fwd), borrow(*old_rev));
}

} // namespace twill
