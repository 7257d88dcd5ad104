// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "agent/dataplane/dataplane.hpp"
#include "maps/abi/endpoint.h"
#include "maps/abi/peer.h"
#include "maps/map.hpp"
#include "maps/pins.hpp"

namespace twill {

/// The maps behind Dataplane. Knows what the maps hold from read_peers() on, which must be called first.
class BpfDataplane final : public Dataplane {
public:
    /// Opens the pinned maps, which Programs::load() has made.
    static Result<BpfDataplane> open(const PinDir& pins);

    Result<Peers> read_peers() override;
    Result<Endpoints> read_endpoints() override;
    Result<> put_peer(const Peer& peer) override;
    Result<> del_peer(const Cidr& pods) override;
    Result<> put_endpoint(const Endpoint& endpoint) override;
    Result<> del_endpoint(const Ip& ip) override;
    /// Ends what programs have cached (tw_epoch). The functions above do it; for whoever changes something else that
    /// findings rest on, such as the programs' configuration.
    Result<> end_cached() const;

private:
    /// What is known of one programmed peer beside its value.
    struct Slot {
        Ip node;
        unsigned stats = 0;
        bool in_trie = false;
    };

    struct Table {
        Map<tw_cidr_v4, tw_peer> v4;
        Map<tw_cidr_v6, tw_peer> v6;
        Result<> put(const Cidr& pods, const tw_peer& value) const;
        Result<> del(const Cidr& pods) const;
        Result<> for_each(const std::function<void(const Cidr&, const tw_peer&)>& visit) const;
    };

    BpfDataplane() = default;
    Result<> changed(const Result<>& change) const;
    Result<> write_peer(const Peer& peer);
    Result<> erase_peer(const Cidr& pods);
    Result<unsigned> take_stats();
    /// Makes sure that programs look for prefixes of this length.
    Result<> announce_length(const Cidr& pods);
    Result<> write_prefixes(tw_prefixes prefixes);
    Result<> forget_node(const Ip& node, const Cidr& pods);

    Table hash_;
    Table trie_;
    Map<tw_addr, tw_node> nodes_;
    Map<unsigned, tw_prefixes> prefixes_map_;
    Map<tw_addr, tw_endpoint> endpoints_;
    PerCpuArray<tw_peer_stats> stats_;
    Map<unsigned, std::uint64_t> epoch_;
    std::map<Cidr, Slot> slots_;
    std::vector<bool> stats_taken_;
    tw_prefixes prefixes_{};
};

} // namespace twill
