// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "agent/store/kube_node.hpp"
#include "agent/store/store.hpp"

namespace twill {

/// The leases that nodes tell, by node, and what the listener knows of them. Pure: nodes in, events out; a node that
/// changed in nothing that matters costs no event.
///
/// A lease's key is its pod CIDRs; a bad node's is "node/<name>", which no CIDR is. Where several nodes have one pod
/// CIDR, the first by name has the lease, as on every other node of the cluster; the others are bad.
class KubeLeases {
public:
    explicit KubeLeases(const NetConf& conf) : conf_(conf) {}

    /// A node as it is now.
    std::vector<LeaseEvent> put(const KubeNode& node);
    std::vector<LeaseEvent> remove(const std::string& name);
    /// All of it.
    LeaseSnapshot snapshot() const;
    std::size_t nodes() const { return nodes_.size(); }

private:
    using Told = std::variant<Lease, BadLease>;
    /// What one node tells.
    struct Entry {
        std::optional<Lease> lease;
        std::optional<std::string> why; ///< it is bad
    };

    std::vector<LeaseEvent> replace(const std::string& name, std::optional<Entry> entry);
    std::map<std::string, Told> told_for(const std::set<std::string>& names) const;
    void collect(const std::string& name, std::set<std::string>& names) const;

    NetConf conf_;
    std::map<std::string, Entry> nodes_;
    std::map<std::string, std::set<std::string>> holders_; ///< lease key -> names
};

} // namespace twill
