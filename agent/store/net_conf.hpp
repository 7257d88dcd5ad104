// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

enum class Backend : std::uint8_t { vxlan, host_gw, alloc };
/// "vxlan", "host-gw", "alloc": the spelling of net-conf.json.
std::string_view to_string(Backend backend);

/// Who cuts the network into pod CIDRs. `given`: somebody else (Kubernetes), so flannel does not look at SubnetLen,
/// SubnetMin and SubnetMax beyond their types.
enum class Subnets : std::uint8_t { allocated, given };

/// One family of flannel's net-conf.json, defaults filled in.
struct NetworkConf {
    Cidr network;            ///< the whole overlay
    unsigned subnet_len = 0; ///< prefix length of one node's pod CIDR; 0: Subnets::given, the next two mean nothing
    Cidr subnet_min;         ///< first and last pod CIDR to hand out
    Cidr subnet_max;
    bool operator==(const NetworkConf&) const = default;
};

/// flannel's net-conf.json, parsed and validated. Go's decoding rules hold: keys in any case, unknown keys ignored, the
/// last duplicate wins, wrong types refused. Inside the object `Twill` unknown keys are refused by name.
struct NetConf {
    PerFamily<std::optional<NetworkConf>> network; ///< nullopt: family off; never both
    bool enable_nftables = false;
    Backend backend = Backend::vxlan;
    // Backend keys of type vxlan; defaults are flannel's.
    Vni vni{1};
    std::uint16_t port = 8472;   ///< UDP, host order; 0 in the file means 8472
    std::optional<unsigned> mtu; ///< of the underlay; nullopt: the wire's own
    bool gbp = false;
    bool learning = false;
    bool direct_routing = false;
    /// Keys of the object `Twill`, as text, spelled as twill's flags ("overlay" -> "veth"). Values are checked with the
    /// flags.
    std::map<std::string, std::string> twill;
    bool operator==(const NetConf&) const = default;

    /// The whole overlay, of the families that are on.
    PerFamily<std::optional<Cidr>> networks() const;

    /// Parses `text`. `origin` is the file or key that errors name. `twill_keys` are the keys allowed inside `Twill`.
    /// EINVAL: "<origin>: <Key> <value>: <what is allowed>", one line.
    static Result<NetConf> parse(std::string_view text, std::string_view origin,
                                 const std::vector<std::string_view>& twill_keys, Subnets subnets = Subnets::allocated);
};

} // namespace twill
