// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "agent/store/go_json.hpp"
#include "twill/ids.hpp"
#include "twill/ip.hpp"
#include "twill/mac.hpp"
#include "twill/result.hpp"

namespace twill {

/// What flannel stores under a lease's key: its attributes, without the pod CIDRs and the time.
struct LeaseValue {
    PerFamily<std::optional<Ip>> public_ip;
    std::string backend_type;
    PerFamily<std::optional<Mac>> vtep_mac; ///< vxlan only
    Vni vni;                                ///< vxlan only; readers ignore it, as flannel does
    bool operator==(const LeaseValue&) const = default;

    /// From the members of a JSON object; members of others are ignored. EINVAL names field and value.
    static Result<LeaseValue> from_json(const JsonValue& object);
    /// flannel's keys in flannel's order. A family without public IP is written as flannel does: "0.0.0.0" and null.
    nlohmann::ordered_json to_json() const;
};

} // namespace twill
