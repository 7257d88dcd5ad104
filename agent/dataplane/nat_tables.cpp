// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/nat_tables.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "maps/codec.hpp"
#include "maps/nat_halves.hpp"

namespace twill {

namespace {

template <typename T>
bool same_bytes(const T& a, const T& b)
{
    static_assert(std::has_unique_object_representations_v<T>);
    return std::memcmp(&a, &b, sizeof(T)) == 0;
}

/// tw_nat_except has both families under one length.
tw_cidr_v6 to_key(const Cidr& cidr)
{
    tw_cidr_v6 key = to_key_v6(cidr);
    if (cidr.family() == Family::v4) key.bits += 96;
    return key;
}

} // namespace

tw_nat_if to_abi(const NatInterface& interface)
{
    tw_nat_if value{};
    if (interface.address.v4) value.v4 = to_abi(*interface.address.v4);
    if (interface.address.v6) value.v6 = to_abi(*interface.address.v6);
    std::fill(std::begin(value.on_link), std::end(value.on_link), no_net());
    for (std::size_t i = 0; i < std::min<std::size_t>(interface.on_link.size(), TW_NAT_NETS); ++i) {
        value.on_link[i] = to_net(interface.on_link[i].first);
        value.from[i] = to_abi(interface.on_link[i].second);
    }
    if (interface.is_bridge) value.flags |= TW_NAT_IF_BRIDGE;
    if (interface.is_aside) value.flags |= TW_NAT_IF_ASIDE;
    return value;
}

std::vector<tw_nat_range> to_ranges(const std::bitset<65536>& ports)
{
    std::vector<tw_nat_range> ranges(TW_NAT_RANGES);
    unsigned blocks = 0;
    for (unsigned port = 0; port < ports.size(); ++port)
        if (ports.test(port)) ranges[port / 64].ports |= 1ULL << port % 64;
    for (unsigned i = 0; i < ranges.size(); ++i)
        if (ranges[i].ports != 0) ranges[blocks++].nth = i;
    for (auto& range : ranges) range.blocks = blocks;
    return ranges;
}

Result<NatTables> NatTables::open(const PinDir& pins)
{
    NatTables tables;
    const auto into = [&](auto& map, const char* name) -> Result<> {
        TWILL_TRY_AS(opened, std::remove_reference_t<decltype(map)>::open(pins.map(name)));
        map = std::move(opened);
        return Ok{};
    };
    TWILL_TRY(into(tables.fwd_, "tw_nat_fwd"));
    TWILL_TRY(into(tables.rev_, "tw_nat_rev"));
    TWILL_TRY(into(tables.range_, "tw_nat_range"));
    TWILL_TRY(into(tables.interfaces_, "tw_nat_ifs"));
    TWILL_TRY(into(tables.except_, "tw_nat_except"));
    return tables;
}

Result<> NatTables::set_ports(const std::bitset<65536>& ports)
{
    const auto ranges = to_ranges(ports);
    for (unsigned i = 0; i < ranges.size(); ++i) {
        TWILL_TRY_AS(has, range_.get(i));
        if (!has || !same_bytes(*has, ranges[i])) TWILL_TRY(range_.put(i, ranges[i]));
    }
    return Ok{};
}

Result<> NatTables::set_except(const std::vector<Cidr>& networks)
{
    std::vector<tw_cidr_v6> stale;
    TWILL_TRY(except_.for_each([&](const tw_cidr_v6& key, const unsigned&) {
        if (std::none_of(networks.begin(), networks.end(),
                         [&](const Cidr& network) { return same_bytes(to_key(network), key); }))
            stale.push_back(key);
    }));
    for (const auto& key : stale) TWILL_TRY(except_.del(key));
    for (const auto& network : networks) TWILL_TRY(except_.put(to_key(network), 1));
    return Ok{};
}

Result<> NatTables::set_interfaces(const std::map<IfIndex, NatInterface>& interfaces)
{
    std::vector<unsigned> stale;
    TWILL_TRY(interfaces_.for_each([&](unsigned ifindex, const tw_nat_if&) {
        if (!interfaces.contains(IfIndex{static_cast<int>(ifindex)})) stale.push_back(ifindex);
    }));
    for (const auto ifindex : stale) TWILL_TRY(interfaces_.del(ifindex));
    for (const auto& [ifindex, interface] : interfaces) {
        const auto key = static_cast<unsigned>(ifindex.value);
        const tw_nat_if value = to_abi(interface);
        TWILL_TRY_AS(has, interfaces_.get(key));
        if (!has || !same_bytes(*has, value)) TWILL_TRY(interfaces_.put(key, value));
    }
    return Ok{};
}

Result<std::size_t> NatTables::keep_flows(const std::set<Ip>& addresses)
{
    std::vector<std::pair<tw_nat_key, tw_nat_key>> over;
    TWILL_TRY(for_each_flow(rev_, [&](const tw_nat_key& key, const tw_nat_flow& half) {
        if (!addresses.contains(from_abi(key.dst))) over.emplace_back(key, other_half(key, half, true));
    }));
    for (const auto& [rev, fwd] : over) {
        // One of the same packets that has another address by now lives on.
        TWILL_TRY_AS(half, fwd_.get(fwd));
        if (half && half->plain == 0 && same_bytes(half->addr, rev.dst)) TWILL_TRY(fwd_.del(fwd));
        TWILL_TRY(rev_.del(rev));
    }
    return over.size();
}

Result<std::size_t> NatTables::count_flows() const { return twill::count_flows(fwd_); }

} // namespace twill
