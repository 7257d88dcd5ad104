// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/store/lease.hpp"
#include "agent/store/net_conf.hpp"
#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

/// A number from 0 to bound - 1.
using RandomSource = std::function<std::uint32_t(std::uint32_t bound)>;

/// An entry of the store, as allocation sees it. Entries that are no leases count too when their key is one.
struct HeldSubnet {
    std::string key;                        ///< as in the store
    LeaseKey pods;                          ///< what it takes
    std::string node;                       ///< as written in it, may be empty
    PerFamily<std::optional<Ip>> public_ip; ///< none: not a valid lease, belongs to nobody known
    bool is_reservation = false;
    bool is_expired = false;
};

/// Who asks for pod CIDRs.
struct AllocationRequest {
    std::string node;
    PerFamily<std::optional<Ip>> public_ip;   ///< now, for each family that the configuration has on
    PerFamily<std::optional<Cidr>> preferred; ///< what the node remembers to have used
    std::optional<Lease> held;                ///< the lease that this process wrote last
};

/// Why an entry is the node's own.
enum class Claim : std::uint8_t {
    none,
    memory,  ///< it has another public IP, and is the lease that the node wrote when it had that one
    address, ///< its public IP is the node's: flannel's rule
};

struct Allocation {
    LeaseKey pods;
    bool is_reservation = false;      ///< reused, and to be kept without expiry
    std::vector<std::string> replace; ///< leases to delete once this one is written: own unfit ones, expired ones
    bool operator==(const Allocation&) const = default;
};

/// Chooses pod CIDRs as flannel does: an own lease that fits the configuration; else each family by itself: the
/// preferred CIDR if it is free, else a random one of the first 100 free. Whatever overlaps an entry is taken; expired
/// entries only as long as there is other room. ENOSPC names the range. Pure.
Result<Allocation> allocate(const NetConf& conf, const std::vector<HeldSubnet>& held, const AllocationRequest& request,
                            const RandomSource& random);

/// Whether `entry` is a lease of who asks, so that a node keeps its pods when its public IP changes. By address: IPv4
/// where it has one, else IPv6. By memory, in a running process: the very lease that it wrote (key, node, public IPs).
/// By memory, after a start: node and all CIDRs as remembered; neither alone will do, because two machines may have one
/// host name, and a CIDR that was given up may be another node's by now.
Claim claim_of(const HeldSubnet& entry, const AllocationRequest& request);

/// The own entry to go on with, nullptr if there is none. One that fits `conf` (where given) comes first. Then: a lease
/// with the node's public IP wins over one by memory, as with flannel: another lease of that address is how an operator
/// or a replaced machine says what belongs there. An expired one does not win: the address changed hands. Then the
/// lease in use, a reservation, a preferred one.
const HeldSubnet* own_subnet(const NetConf* conf, const std::vector<HeldSubnet>& held,
                             const AllocationRequest& request);

} // namespace twill
