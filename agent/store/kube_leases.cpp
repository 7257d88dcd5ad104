// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_leases.hpp"

namespace twill {

namespace {

std::string bad_key(const std::string& name) { return "node/" + name; }

} // namespace

std::vector<LeaseEvent> KubeLeases::put(const KubeNode& node)
{
    Entry entry;
    if (auto lease = node_to_lease(node, conf_); !lease)
        entry.why = lease.error().what;
    else if (*lease)
        entry.lease = **std::move(lease);
    else
        return remove(node.name);
    return replace(node.name, std::move(entry));
}

std::vector<LeaseEvent> KubeLeases::remove(const std::string& name) { return replace(name, std::nullopt); }

/// `name`, and the nodes whose pod CIDRs are the same.
void KubeLeases::collect(const std::string& name, std::set<std::string>& names) const
{
    names.insert(name);
    const auto node = nodes_.find(name);
    if (node == nodes_.end() || !node->second.lease) return;
    if (const auto holders = holders_.find(node->second.lease->key); holders != holders_.end())
        names.insert(holders->second.begin(), holders->second.end());
}

/// What the listener has to know of these nodes, by key.
std::map<std::string, KubeLeases::Told> KubeLeases::told_for(const std::set<std::string>& names) const
{
    std::map<std::string, Told> told;
    for (const auto& name : names) {
        const auto node = nodes_.find(name);
        if (node == nodes_.end()) continue;
        const auto& entry = node->second;
        if (!entry.lease) {
            told.emplace(bad_key(name), BadLease{bad_key(name), entry.why.value_or("")});
            continue;
        }
        const auto& first = *holders_.at(entry.lease->key).begin();
        if (first == name)
            told.emplace(entry.lease->key, *entry.lease);
        else
            told.emplace(bad_key(name),
                         BadLease{bad_key(name), "pod CIDR " + entry.lease->key + ": node " + first + " has it too"});
    }
    return told;
}

std::vector<LeaseEvent> KubeLeases::replace(const std::string& name, std::optional<Entry> entry)
{
    const auto known = nodes_.find(name);
    if (known == nodes_.end() && !entry) return {};
    if (known != nodes_.end() && entry && known->second.lease == entry->lease && known->second.why == entry->why)
        return {};

    std::set<std::string> touched;
    collect(name, touched);
    if (entry && entry->lease)
        if (const auto holders = holders_.find(entry->lease->key); holders != holders_.end())
            touched.insert(holders->second.begin(), holders->second.end());
    const auto before = told_for(touched);

    if (known != nodes_.end() && known->second.lease) {
        const auto holders = holders_.find(known->second.lease->key);
        holders->second.erase(name);
        if (holders->second.empty()) holders_.erase(holders);
    }
    if (!entry) {
        nodes_.erase(name);
    } else {
        if (entry->lease) holders_[entry->lease->key].insert(name);
        nodes_.insert_or_assign(name, *std::move(entry));
    }

    const auto after = told_for(touched);
    std::vector<LeaseEvent> events;
    // Ends first: an address that moves to another key must not be held twice.
    for (const auto& [key, told] : before)
        if (!after.contains(key)) events.emplace_back(LeaseGone{key});
    for (const auto& [key, told] : after) {
        if (const auto old = before.find(key); old != before.end() && old->second == told) continue;
        if (const auto* lease = std::get_if<Lease>(&told))
            events.emplace_back(LeasePut{*lease});
        else
            events.emplace_back(std::get<BadLease>(told));
    }
    return events;
}

LeaseSnapshot KubeLeases::snapshot() const
{
    LeaseSnapshot snapshot;
    for (const auto& [name, entry] : nodes_) {
        if (!entry.lease)
            snapshot.bad.push_back({bad_key(name), entry.why.value_or("")});
        else if (const auto& first = *holders_.at(entry.lease->key).begin(); first == name)
            snapshot.leases.push_back(*entry.lease);
        else
            snapshot.bad.push_back({bad_key(name), "pod CIDR " + entry.lease->key + ": node " + first + " has it too"});
    }
    return snapshot;
}

} // namespace twill
