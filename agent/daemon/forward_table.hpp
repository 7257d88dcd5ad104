// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

/// A policy of this network namespace that drops what pods and others say to each other, as find_forward_rules() words
/// it. flannel's own chain FLANNEL-FWD does not count: it may go.
Result<std::optional<std::string>> find_forward_drop(Family family, const Cidr& network);

/// Is the chain that drops one of iptables?
bool is_of_iptables(const std::string& drop);
/// The commands that let pods' packets through where `drop` is the obstacle.
std::string forward_command(const std::string& drop, const Cidr& network);

/// Table "inet twill-forward": on the hook forward, two rules for each network, which accept what comes from it and
/// what goes to it. Replaces one that is there.
Result<> put_forward_table(const PerFamily<std::optional<Cidr>>& networks);
/// That there is none is fine.
Result<> del_forward_table();

} // namespace twill
