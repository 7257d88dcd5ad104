// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace twill {

/// What of netfilter, in the calling thread's network namespace, can decide about packets between pods of `networks`
/// (the cluster networks): "nft table inet filter chain forward: 3 rules", fit for a log line; nullopt: nothing is in
/// the way. Reads nftables (iptables-nft with it) and the filter and raw tables of legacy iptables; writes nothing.
/// Rules of kube-proxy, flannel, Docker and twill do not count, nor do rules that cannot match pod-to-pod packets or
/// that only accept, count or log. What is not understood counts.
/// `without`: as if there were no chain of that name.
/// EPERM without CAP_NET_ADMIN; other errors of netlink. A kernel without nftables or without iptables has no rules.
Result<std::optional<std::string>> find_forward_rules(const PerFamily<std::optional<Cidr>>& networks,
                                                      const std::string& without = {});

} // namespace twill
