// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

/// What CNI plugins read of the node: flannel's subnet.env.
struct SubnetEnv {
    PerFamily<std::optional<Cidr>> network; ///< the whole overlay
    PerFamily<std::optional<Cidr>> subnet;  ///< the node's pod CIDR; in the file its first address plus 1 stands
    unsigned mtu = 0;                       ///< of pod interfaces, bytes
    bool ip_masq = false;
    bool operator==(const SubnetEnv&) const = default;

    std::string to_string() const;
    /// Lines that are not understood are left out, of a list of networks the first counts: only a hint is wanted of it.
    static SubnetEnv parse(std::string_view text);
};

/// Replaces the file atomically, mode 0644; its directory is created with mode 0755. Errors of the file system.
Result<> write_subnet_env(const std::string& path, const SubnetEnv& env);

/// nullopt: no such file.
Result<std::optional<SubnetEnv>> read_subnet_env(const std::string& path);

} // namespace twill
