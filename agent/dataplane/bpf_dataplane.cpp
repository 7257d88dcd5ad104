// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/bpf_dataplane.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "maps/codec.hpp"

namespace twill {

std::string_view to_string(PeerMode mode) { return mode == PeerMode::direct ? "direct" : "vxlan"; }

namespace {

tw_peer to_value(const Peer& peer, unsigned stats)
{
    tw_peer value{};
    value.node = to_abi(peer.node);
    value.nexthop = to_abi(peer.nexthop);
    value.mode = peer.mode == PeerMode::direct ? TW_MODE_DIRECT : TW_MODE_ENCAP;
    value.wire = static_cast<unsigned>(peer.wire.value);
    value.mtu = peer.mtu;
    value.stats = stats;
    to_abi(peer.vtep_mac, value.vtep_mac);
    value.zero_csum6 = peer.zero_csum6 ? 1 : 0;
    return value;
}

Peer from_value(const Cidr& pods, const tw_peer& value)
{
    Peer peer;
    peer.pods = pods;
    peer.node = from_abi(value.node);
    peer.nexthop = from_abi(value.nexthop);
    peer.wire = IfIndex{static_cast<int>(value.wire)};
    peer.mtu = value.mtu;
    peer.mode = value.mode == TW_MODE_DIRECT ? PeerMode::direct : PeerMode::encap;
    peer.vtep_mac = mac_from_abi(value.vtep_mac);
    peer.zero_csum6 = value.zero_csum6 != 0;
    return peer;
}

/// The family's part of tw_prefixes; Byte is const for a const one.
template <typename Byte, typename Addr>
struct Lengths {
    Byte& count;
    Byte& trie;
    Addr* mask;   ///< of each length
    Byte* length; ///< TW_PREFIXES_MAX of them, the first `count` in use
    Byte* find(unsigned bits) const { return std::find(length, length + count, bits); }
    bool has(unsigned bits) const { return find(bits) != length + count; }
};

template <typename Prefixes>
auto lengths_of(Prefixes& prefixes, Family family)
{
    using Byte = std::remove_reference_t<decltype((prefixes.v4_count))>;
    using Addr = std::remove_reference_t<decltype((prefixes.v4_mask[0]))>;
    using Of = Lengths<Byte, Addr>;
    if (family == Family::v4) return Of{prefixes.v4_count, prefixes.v4_trie, prefixes.v4_mask, prefixes.v4};
    return Of{prefixes.v6_count, prefixes.v6_trie, prefixes.v6_mask, prefixes.v6};
}

} // namespace

Result<> BpfDataplane::Table::put(const Cidr& pods, const tw_peer& value) const
{
    return pods.family() == Family::v4 ? v4.put(to_key_v4(pods), value) : v6.put(to_key_v6(pods), value);
}

Result<> BpfDataplane::Table::del(const Cidr& pods) const
{
    return pods.family() == Family::v4 ? v4.del(to_key_v4(pods)) : v6.del(to_key_v6(pods));
}

Result<> BpfDataplane::Table::for_each(const std::function<void(const Cidr&, const tw_peer&)>& visit) const
{
    const auto decode = [&](const auto& key, const tw_peer& value) {
        if (const auto pods = from_key(key)) visit(*pods, value);
    };
    TWILL_TRY(v4.for_each(decode));
    return v6.for_each(decode);
}

Result<BpfDataplane> BpfDataplane::open(const PinDir& pins)
{
    BpfDataplane dataplane;
    const auto into = [&](auto& map, const char* name) -> Result<> {
        TWILL_TRY_AS(opened, std::remove_reference_t<decltype(map)>::open(pins.map(name)));
        map = std::move(opened);
        return Ok{};
    };
    TWILL_TRY(into(dataplane.hash_.v4, "tw_peers_v4"));
    TWILL_TRY(into(dataplane.hash_.v6, "tw_peers_v6"));
    TWILL_TRY(into(dataplane.trie_.v4, "tw_peers_lpm4"));
    TWILL_TRY(into(dataplane.trie_.v6, "tw_peers_lpm6"));
    TWILL_TRY(into(dataplane.nodes_, "tw_nodes"));
    TWILL_TRY(into(dataplane.prefixes_map_, "tw_prefixes"));
    TWILL_TRY(into(dataplane.endpoints_, "tw_endpoints"));
    TWILL_TRY(into(dataplane.stats_, "tw_peer_stats"));
    TWILL_TRY(into(dataplane.epoch_, "tw_epoch"));
    dataplane.stats_taken_.assign(std::size_t{2} * TW_PEERS_MAX, false);
    return dataplane;
}

Result<Peers> BpfDataplane::read_peers()
{
    Peers peers;
    slots_.clear();
    std::fill(stats_taken_.begin(), stats_taken_.end(), false);
    const auto note = [&](bool in_trie) {
        return [this, &peers, in_trie](const Cidr& pods, const tw_peer& value) {
            peers[pods] = from_value(pods, value);
            slots_[pods] = Slot{from_abi(value.node), value.stats, in_trie};
            if (value.stats < stats_taken_.size()) stats_taken_[value.stats] = true;
        };
    };
    TWILL_TRY(trie_.for_each(note(true)));
    TWILL_TRY(hash_.for_each(note(false)));
    TWILL_TRY_AS(known, prefixes_map_.get(0));
    auto prefixes = known.value_or(tw_prefixes{});
    // A trie that an agent did not live to announce; and masks follow from lengths: maps of another version have none.
    for (const auto& [pods, slot] : slots_)
        if (slot.in_trie) lengths_of(prefixes, pods.family()).trie = 1;
    TWILL_TRY(write_prefixes(prefixes));

    // Nodes without a peer are left from an agent that died between two writes.
    std::vector<tw_addr> orphans;
    TWILL_TRY(nodes_.for_each([&](const tw_addr& addr, const tw_node& node) {
        const auto slot = slots_.find(from_net(node.pods));
        if (slot == slots_.end() || slot->second.node != from_abi(addr)) orphans.push_back(addr);
    }));
    for (const auto& addr : orphans) TWILL_TRY(nodes_.del(addr));
    // Likewise a peer whose node or prefix length was not written yet: the first is put again, the second announced.
    std::vector<Cidr> incomplete;
    for (const auto& [pods, slot] : slots_) {
        if (!slot.in_trie) TWILL_TRY(announce_length(pods));
        TWILL_TRY_AS(node, nodes_.get(to_abi(slot.node)));
        if (!node) incomplete.push_back(pods);
    }
    for (const auto& pods : incomplete) peers.erase(pods);
    TWILL_TRY(end_cached()); // an agent that died may have changed something and not said so
    return peers;
}

Result<Endpoints> BpfDataplane::read_endpoints()
{
    Endpoints endpoints;
    TWILL_TRY(endpoints_.for_each([&](const tw_addr& addr, const tw_endpoint& value) {
        const Ip ip = from_abi(addr);
        endpoints[ip] = Endpoint{ip, IfIndex{static_cast<int>(value.ifindex)}, mac_from_abi(value.mac),
                                 mac_from_abi(value.host_mac), value.shaped != 0};
    }));
    return endpoints;
}

Result<unsigned> BpfDataplane::take_stats()
{
    // Index 0 counts what comes from senders that are no peer (-anti-spoof=off).
    const auto free = std::find(stats_taken_.begin() + 1, stats_taken_.end(), false);
    if (free == stats_taken_.end()) return Error{ENOSPC, "map tw_peer_stats: every index is in use"};
    const auto index = static_cast<unsigned>(free - stats_taken_.begin());
    TWILL_TRY(stats_.put(index, tw_peer_stats{}));
    *free = true;
    return index;
}

/// Completes `prefixes` by the masks. Memory follows the map: what was not written is tried again by the next change.
Result<> BpfDataplane::write_prefixes(tw_prefixes prefixes)
{
    for (const auto family : kFamilies) {
        const auto lengths = lengths_of(prefixes, family);
        for (unsigned i = 0; i < TW_PREFIXES_MAX; ++i)
            lengths.mask[i] = i < lengths.count ? to_mask(family, lengths.length[i]) : tw_addr{};
    }
    TWILL_TRY(prefixes_map_.put(0, prefixes));
    prefixes_ = prefixes;
    return Ok{};
}

Result<> BpfDataplane::announce_length(const Cidr& pods)
{
    auto prefixes = prefixes_;
    const auto lengths = lengths_of(prefixes, pods.family());
    if (lengths.has(pods.bits())) return Ok{};
    if (lengths.count < TW_PREFIXES_MAX) {
        lengths.length[lengths.count++] = static_cast<__u8>(pods.bits());
    } else if (lengths.trie == 0) {
        lengths.trie = 1;
    } else {
        return Ok{};
    }
    return write_prefixes(prefixes);
}

Result<> BpfDataplane::end_cached() const
{
    return epoch_.put(0, static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
}

/// For the end of every change, also of one that failed half-way.
Result<> BpfDataplane::changed(const Result<>& change) const
{
    auto ended = end_cached();
    return change ? ended : change;
}

Result<> BpfDataplane::put_peer(const Peer& peer) { return changed(write_peer(peer)); }
Result<> BpfDataplane::del_peer(const Cidr& pods) { return changed(erase_peer(pods)); }

Result<> BpfDataplane::write_peer(const Peer& peer)
{
    const auto known = slots_.find(peer.pods);
    Slot slot;
    slot.node = peer.node;
    if (known != slots_.end()) {
        slot.stats = known->second.stats;
        slot.in_trie = known->second.in_trie;
    } else {
        TWILL_TRY_AS(index, take_stats());
        slot.stats = index;
        const auto lengths = lengths_of(std::as_const(prefixes_), peer.pods.family());
        slot.in_trie = !lengths.has(peer.pods.bits()) && lengths.count == TW_PREFIXES_MAX;
    }
    const auto give_up = [&](Error error) -> Result<> {
        if (known == slots_.end()) stats_taken_[slot.stats] = false;
        return error;
    };

    // Accept from the node before sending to it; look for the prefix only once it is there.
    tw_node node{};
    node.pods = to_net(peer.pods);
    node.stats = slot.stats;
    if (auto done = nodes_.put(to_abi(peer.node), node); !done) return give_up(done.error());
    const auto& table = slot.in_trie ? trie_ : hash_;
    if (auto done = table.put(peer.pods, to_value(peer, slot.stats)); !done) {
        if (known == slots_.end() || known->second.node != peer.node) (void)forget_node(peer.node, peer.pods);
        return give_up(done.error());
    }
    if (known != slots_.end() && known->second.node != peer.node) TWILL_TRY(forget_node(known->second.node, peer.pods));
    slots_[peer.pods] = slot;
    return announce_length(peer.pods);
}

Result<> BpfDataplane::forget_node(const Ip& node, const Cidr& pods)
{
    TWILL_TRY_AS(value, nodes_.get(to_abi(node)));
    // The address may serve another CIDR by now.
    if (!value || from_net(value->pods) != pods) return Ok{};
    return nodes_.del(to_abi(node));
}

Result<> BpfDataplane::erase_peer(const Cidr& pods)
{
    const auto known = slots_.find(pods);
    if (known == slots_.end()) return Ok{};
    const Slot slot = known->second;
    TWILL_TRY((slot.in_trie ? trie_ : hash_).del(pods));
    TWILL_TRY(forget_node(slot.node, pods));
    stats_taken_[slot.stats] = false;
    slots_.erase(known);

    const auto same = [&](const auto& entry) {
        return entry.first.family() == pods.family() && entry.second.in_trie == slot.in_trie &&
               (slot.in_trie || entry.first.bits() == pods.bits());
    };
    if (std::any_of(slots_.begin(), slots_.end(), same)) return Ok{};
    auto prefixes = prefixes_;
    const auto lengths = lengths_of(prefixes, pods.family());
    if (slot.in_trie) {
        lengths.trie = 0;
    } else {
        auto* end = std::remove(lengths.length, lengths.length + lengths.count, static_cast<__u8>(pods.bits()));
        lengths.count = static_cast<__u8>(end - lengths.length);
        std::fill(end, lengths.length + TW_PREFIXES_MAX, __u8{0});
    }
    return write_prefixes(prefixes);
}

Result<> BpfDataplane::put_endpoint(const Endpoint& endpoint)
{
    tw_endpoint value{};
    value.ifindex = static_cast<unsigned>(endpoint.ifindex.value);
    to_abi(endpoint.mac, value.mac);
    to_abi(endpoint.host_mac, value.host_mac);
    value.shaped = endpoint.shaped ? 1 : 0;
    return changed(endpoints_.put(to_abi(endpoint.ip), value));
}

Result<> BpfDataplane::del_endpoint(const Ip& ip) { return changed(endpoints_.del(to_abi(ip))); }

} // namespace twill
