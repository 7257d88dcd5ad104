// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "twill/clock.hpp"
#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/mac.hpp"
#include "twill/result.hpp"

namespace twill {

/// What a node says of itself beside its lease (never in it, flannel would not know it). JSON {"v":1,"zeroCsum6":true,
/// "vtepMAC":"0a:1b:2c:3d:4e:5f"}.
struct Marker {
    bool zero_csum6 = false; ///< takes VXLAN over IPv6 with UDP checksum zero
    /// Of the device that it speaks of: see marker_mac(). flannel on the same node leaves the marker
    /// where it is, and its own device drops zero checksums.
    std::optional<Mac> vtep_mac{};
    /// Kubernetes: lastTransitionTime of the condition NetworkUnavailable, which flannel writes at each start. There it
    /// takes over the MAC too.
    std::string since{};
    bool operator==(const Marker&) const = default;
};

/// One node's claim on part of the pod space. Parsed once, at the store's edge: past that point it is valid. At least
/// one family has pods; a family that has pods has a public IP of that family; CIDRs are /31 (/127) or wider.
struct Lease {
    std::string key;  ///< flannel's: "10.42.1.0-24", dual stack "10.42.1.0-24&fd00:42:1::-64"
    std::string node; ///< name, may be empty (flannel's etcd values have none)
    PerFamily<std::optional<Cidr>> pods;
    PerFamily<std::optional<Ip>> public_ip; ///< underlay address that peers send to
    std::string backend_type;               ///< as published: "vxlan", "host-gw", "" (alloc) or any other
    PerFamily<std::optional<Mac>> vtep_mac; ///< vxlan only; from BackendData, BackendV6Data
    std::optional<WallTime> expires;        ///< nullopt: a reservation, which never expires
    std::optional<Marker> marker;           ///< nullopt: not a twill node
    bool operator==(const Lease&) const = default;
};

/// The name of a lease in a store: its pod CIDRs.
struct LeaseKey {
    PerFamily<std::optional<Cidr>> pods; ///< at least one
    bool operator==(const LeaseKey&) const = default;

    /// "10.42.1.0-24", "10.42.1.0-24&fd00:42:1::-64" or "fd00:42:1::-64". Host bits and other spellings are accepted
    /// and made canonical; lengths up to 31 and 127. EINVAL names the key.
    static Result<LeaseKey> parse(std::string_view text);
    std::string to_string() const;
    /// Some address belongs to both.
    bool overlaps(const LeaseKey& other) const;
};

/// Longer texts are no lease: nothing of flannel's comes near.
inline constexpr std::size_t kMaxLeaseBytes = 65536;

/// One lease of the file store: flannel's value and the fields Subnet, IPv6Subnet, Expiration, Node. The marker is not
/// part of it. EINVAL names field and value; EFBIG above 64 KiB. Never throws.
Result<Lease> parse_lease(std::string_view key, std::string_view json);
/// The text that parse_lease() reads and that flannel's decoder takes: one line, BackendData compact.
std::string format_lease(const Lease& lease, Vni vni);

/// A marker: unknown members are ignored, a `v` above 1 too. EINVAL: not such an object.
Result<Marker> parse_marker(std::string_view json);
std::string format_marker(const Marker& marker);
/// The MAC that the marker of a lease with these names: IPv6's where there are two.
const std::optional<Mac>& marker_mac(const PerFamily<std::optional<Mac>>& vtep_mac);
/// The marker as far as it speaks of what the lease says now: nullopt when it names another MAC.
std::optional<Marker> marker_of(const std::optional<Marker>& marker, const Lease& lease);

/// An entry of the store that is no lease. It costs that one entry only, is shown to the user, and heals when
/// corrected.
struct BadLease {
    std::string key;
    std::string why; ///< names field and value
    bool operator==(const BadLease&) const = default;
};

/// Everything in the store at one moment.
struct LeaseSnapshot {
    std::vector<Lease> leases; ///< the node's own included
    std::vector<BadLease> bad;
};

} // namespace twill
