// SPDX-License-Identifier: Apache-2.0
#include "agent/store/allocator.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace twill {

namespace {

constexpr std::size_t kCandidates = 100; // flannel's: few enough to pack, enough that racers seldom meet

bool in_range(const NetworkConf& conf, const Cidr& subnet)
{
    return subnet.bits() == conf.subnet_len && conf.subnet_min.address() <= subnet.address() &&
           subnet.address() <= conf.subnet_max.address();
}

/// The same families as the configuration, each inside its range.
bool fits(const NetConf& conf, const LeaseKey& pods)
{
    for (const Family family : kFamilies) {
        if (conf.network[family].has_value() != pods.pods[family].has_value()) return false;
        if (pods.pods[family] && !in_range(*conf.network[family], *pods.pods[family])) return false;
    }
    return true;
}

/// Taken CIDRs of one family, sorted by address.
std::vector<Cidr> taken_in(const std::vector<const HeldSubnet*>& held, Family family)
{
    std::vector<Cidr> taken;
    for (const HeldSubnet* entry : held)
        if (entry->pods.pods[family]) taken.push_back(*entry->pods.pods[family]);
    std::sort(taken.begin(), taken.end());
    return taken;
}

/// The first free subnets, at most kCandidates. Jumps over what is taken: the range may have 2^60 subnets.
std::vector<Cidr> free_subnets(const NetworkConf& conf, const std::vector<Cidr>& taken)
{
    std::vector<Cidr> free;
    auto next_taken = taken.begin();
    Cidr subnet = conf.subnet_min;
    while (subnet.address() <= conf.subnet_max.address() && free.size() < kCandidates) {
        while (next_taken != taken.end() && next_taken->last() < subnet.address()) ++next_taken;
        Cidr used = subnet;
        if (next_taken != taken.end() && next_taken->overlaps(subnet)) {
            if (auto end = Cidr::make(next_taken->last(), conf.subnet_len)) used = *end;
        } else {
            free.push_back(subnet);
        }
        const Cidr next = used.next();
        if (next.address() <= subnet.address()) break; // wrapped: end of the address space
        subnet = next;
    }
    return free;
}

std::optional<Cidr> choose(const NetworkConf& conf, const std::vector<Cidr>& taken,
                           const std::optional<Cidr>& preferred, const RandomSource& random)
{
    if (preferred && in_range(conf, *preferred) &&
        std::none_of(taken.begin(), taken.end(), [&](const Cidr& t) { return t.overlaps(*preferred); }))
        return preferred;
    const auto free = free_subnets(conf, taken);
    if (free.empty()) return std::nullopt;
    return free[random(static_cast<std::uint32_t>(free.size())) % free.size()];
}

/// Fresh CIDRs for every family that is on, none overlapping `taken`.
Result<LeaseKey> choose_all(const NetConf& conf, const std::vector<const HeldSubnet*>& taken,
                            const PerFamily<std::optional<Cidr>>& preferred, const RandomSource& random)
{
    LeaseKey key;
    for (const Family family : kFamilies) {
        const auto& network = conf.network[family];
        if (!network) continue;
        key.pods[family] = choose(*network, taken_in(taken, family), preferred[family], random);
        if (!key.pods[family])
            return Error{ENOSPC, "no free /" + std::to_string(network->subnet_len) + " from " +
                                     network->subnet_min.address().to_string() + " to " +
                                     network->subnet_max.address().to_string() + ": every one is leased"};
    }
    return key;
}

} // namespace

Claim claim_of(const HeldSubnet& entry, const AllocationRequest& request)
{
    const Family family = request.public_ip.v4 ? Family::v4 : Family::v6;
    const auto& ip = entry.public_ip[family];
    if (ip && ip == request.public_ip[family]) return Claim::address;
    if (!entry.public_ip.v4 && !entry.public_ip.v6) return Claim::none;
    const bool is_memory =
        request.held ? entry.key == request.held->key && entry.node == request.held->node &&
                           entry.public_ip == request.held->public_ip
                     : !entry.node.empty() && entry.node == request.node && entry.pods.pods == request.preferred;
    return is_memory ? Claim::memory : Claim::none;
}

const HeldSubnet* own_subnet(const NetConf* conf, const std::vector<HeldSubnet>& held, const AllocationRequest& request)
{
    const auto rank = [&](const HeldSubnet& entry, Claim claim) {
        int points = conf != nullptr && fits(*conf, entry.pods) ? 16 : 0;
        if (claim == Claim::address && !entry.is_expired) points += 8;
        if (request.held && entry.key == request.held->key) return points + 4;
        if (entry.is_reservation) return points + 2;
        for (const Family family : kFamilies)
            if (entry.pods.pods[family] && entry.pods.pods[family] == request.preferred[family]) return points + 1;
        return points;
    };
    const HeldSubnet* best = nullptr;
    int best_rank = -1;
    for (const HeldSubnet& entry : held) {
        const Claim claim = claim_of(entry, request);
        if (claim == Claim::none || rank(entry, claim) <= best_rank) continue;
        best = &entry;
        best_rank = rank(entry, claim);
    }
    return best;
}

Result<Allocation> allocate(const NetConf& conf, const std::vector<HeldSubnet>& held, const AllocationRequest& request,
                            const RandomSource& random)
{
    if (const HeldSubnet* kept = own_subnet(&conf, held, request); kept != nullptr && fits(conf, kept->pods))
        return Allocation{kept->pods, kept->is_reservation, {}};

    std::vector<const HeldSubnet*> own, live, expired;
    for (const HeldSubnet& entry : held) {
        if (claim_of(entry, request) != Claim::none)
            own.push_back(&entry);
        else
            (entry.is_expired ? expired : live).push_back(&entry);
    }
    // An own lease that no longer fits goes, but what fits of it is asked for again: pods keep their addresses.
    Allocation allocation;
    auto preferred = request.preferred;
    for (const HeldSubnet* entry : own) {
        bool fits_in_part = false;
        for (const Family family : kFamilies) {
            const auto& pods = entry->pods.pods[family];
            if (!pods || !conf.network[family] || !in_range(*conf.network[family], *pods)) continue;
            preferred[family] = pods;
            fits_in_part = true;
        }
        if (!fits_in_part && entry->is_reservation) live.push_back(entry);
    }
    auto everything = live;
    everything.insert(everything.end(), expired.begin(), expired.end());
    auto key = choose_all(conf, everything, preferred, random);
    if (!key) key = choose_all(conf, live, preferred, random);
    if (!key) return key.error();
    allocation.pods = *key;
    for (const HeldSubnet* entry : own) {
        const bool is_used = entry->pods.overlaps(allocation.pods);
        // A reservation is the user's: it is carried over into the new key or left alone.
        if (entry->is_reservation && !is_used) continue;
        allocation.is_reservation |= entry->is_reservation;
        allocation.replace.push_back(entry->key);
    }
    for (const HeldSubnet* entry : expired)
        if (entry->pods.overlaps(allocation.pods)) allocation.replace.push_back(entry->key);
    return allocation;
}

} // namespace twill
