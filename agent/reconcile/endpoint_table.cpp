// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/endpoint_table.hpp"

#include <limits>

namespace twill {

void EndpointTable::set_scope(EndpointScope scope)
{
    scope_ = std::move(scope);
    std::vector<Ip> outside;
    for (const auto& [ip, binding] : bindings_)
        if (!in_scope(ip)) outside.push_back(ip);
    for (const auto& ip : outside) unbind(ip);
}

bool EndpointTable::in_scope(const Ip& ip) const
{
    const auto& pods = scope_.own_pods[ip.family()];
    if (!pods || !pods->contains(ip) || ip == pods->address()) return false;
    if (ip.is_v4() && pods->bits() < 31 && ip == pods->last()) return false; // broadcast
    return scope_.local_ips.count(ip) == 0;
}

const Owner* EndpointTable::owner_of(const Ip& ip) const
{
    const auto it = owners_.find(ip);
    return it == owners_.end() ? nullptr : &it->second;
}

void EndpointTable::pod_interface_up(const PodInterface& interface)
{
    interfaces_.insert_or_assign(interface.ifindex, interface);

    if (const auto held = by_port_.find(interface.ifindex); held != by_port_.end()) {
        const std::set<Ip> ips = held->second; // unbind() changes the set
        for (const auto& ip : ips)             // a new name may not be the owner's
            if (is_contradicted(ip, bindings_.at(ip))) unbind(ip);
    }
    if (auto early = early_.extract(interface.ifindex))
        for (const auto& [ip, kept] : early.mapped()) claim(ip, kept.mac, interface.ifindex, kept.source);
}

void EndpointTable::pod_interface_gone(IfIndex ifindex)
{
    if (const auto held = by_port_.find(ifindex); held != by_port_.end()) {
        const std::set<Ip> ips = held->second;
        for (const auto& ip : ips) unbind(ip);
    }
    interfaces_.erase(ifindex);
    early_.erase(ifindex);
    for (auto it = conflicts_.begin(); it != conflicts_.end();)
        it = it->first.second == ifindex ? conflicts_.erase(it) : std::next(it);
    for (auto it = released_.begin(); it != released_.end();)
        it = it->second.port == ifindex ? released_.erase(it) : std::next(it);
}

void EndpointTable::claim(const Ip& ip, const Mac& mac, IfIndex port, ClaimSource source)
{
    const bool is_plausible = mac.is_unicast() || (mac.is_zero() && source == ClaimSource::route);
    if (!is_plausible || !in_scope(ip)) return;

    const auto claimant = interfaces_.find(port);
    if (claimant == interfaces_.end()) return keep_early(ip, {mac, source}, port);

    const auto found = bindings_.find(ip);
    Binding* holder = found == bindings_.end() ? nullptr : &found->second;
    if (holder && holder->port == port) {
        if (!mac.is_zero()) holder->mac = mac;
        if (source == ClaimSource::route) holder->source = source;
        return;
    }
    if (is_released(ip, claimant->second)) return;
    if (!may_take(ip, holder, claimant->second, source)) {
        ++conflicts_[{ip, port}];
        ++addr_conflicts_;
        return;
    }
    if (!owner_of(ip) && is_full(port)) return;
    bind(ip, {mac, source}, port);
}

/// The rules of the class comment; `holder` is another interface that has the address, nullptr: nobody.
bool EndpointTable::may_take(const Ip& ip, const Binding* holder, const PodInterface& claimant,
                             ClaimSource source) const
{
    const Owner* owner = owner_of(ip);
    if (owner && !owner->host_interface.empty()) return claimant.name == owner->host_interface;
    if (source == ClaimSource::route) return !holder || holder->source != ClaimSource::route || !owner;
    if (owner) {
        const std::string container = container_on(claimant.ifindex);
        if (!container.empty() && container != owner->container_id) return false;
    }
    return !holder;
}

/// CNI DEL took the address from this interface: what it still sends is the end of the old pod.
bool EndpointTable::is_released(const Ip& ip, const PodInterface& claimant) const
{
    const auto it = released_.find(ip);
    if (it == released_.end() || it->second.port != claimant.ifindex) return false;
    const Owner* owner = owner_of(ip);
    return !owner || owner->host_interface.empty() || owner->host_interface != claimant.name;
}

bool EndpointTable::is_full(IfIndex port) const
{
    const auto held = by_port_.find(port);
    if (held == by_port_.end() || held->second.size() < kMaxUnownedPerInterface) return false;
    std::size_t unowned = 0;
    for (const auto& ip : held->second) unowned += owner_of(ip) ? 0 : 1;
    return unowned >= kMaxUnownedPerInterface;
}

/// The container that owns an address of this interface; empty: none known.
std::string EndpointTable::container_on(IfIndex port) const
{
    const auto held = by_port_.find(port);
    if (held == by_port_.end()) return {};
    for (const auto& ip : held->second) {
        const Owner* owner = owner_of(ip);
        if (owner && !owner->container_id.empty() && owner->container_id == bindings_.at(ip).container_id)
            return owner->container_id;
    }
    return {};
}

/// The owner says that the address belongs elsewhere.
bool EndpointTable::is_contradicted(const Ip& ip, const Binding& binding) const
{
    const Owner* owner = owner_of(ip);
    if (!owner) return false;
    if (!owner->host_interface.empty()) return interfaces_.at(binding.port).name != owner->host_interface;
    if (binding.source == ClaimSource::route || binding.container_id == owner->container_id) return false;
    const std::string container = container_on(binding.port);
    return !container.empty() && container != owner->container_id;
}

void EndpointTable::owner_put(const Ip& ip, const Owner& owner)
{
    Owner merged = owner;
    if (const Owner* known = owner_of(ip)) {
        // host-local makes the file, then fills it: an empty one says nothing new.
        if (merged.container_id.empty()) merged.container_id = known->container_id;
        const bool is_same = known->container_id.empty() || known->container_id == merged.container_id;
        if (is_same && merged.host_interface.empty()) merged.host_interface = known->host_interface;
        if (!is_same) owner_gone(ip);
    }
    if (const auto it = released_.find(ip);
        it != released_.end() && !merged.container_id.empty() && it->second.container_id == merged.container_id)
        released_.erase(it);
    owners_.insert_or_assign(ip, merged);

    const auto held = bindings_.find(ip);
    if (held == bindings_.end()) return;
    if (is_contradicted(ip, held->second))
        unbind(ip);
    else
        held->second.container_id = merged.container_id;
}

void EndpointTable::owner_gone(const Ip& ip)
{
    if (const auto held = bindings_.find(ip); held != bindings_.end()) {
        released_.insert_or_assign(ip, Release{held->second.port, held->second.container_id});
        unbind(ip);
    }
    owners_.erase(ip);
    forget_conflicts(ip);
}

void EndpointTable::restore(const Endpoints& from_maps, const std::vector<PodInterface>& live)
{
    for (const auto& interface : live) pod_interface_up(interface);
    for (const auto& [ip, endpoint] : from_maps) {
        const auto interface = interfaces_.find(endpoint.ifindex);
        if (interface == interfaces_.end() || !in_scope(ip) || !endpoint.mac.is_unicast()) continue;
        if (bindings_.count(ip) != 0 || !may_take(ip, nullptr, interface->second, ClaimSource::packet)) continue;
        bind(ip, {endpoint.mac, ClaimSource::packet}, endpoint.ifindex);
    }
}

void EndpointTable::bind(const Ip& ip, const Claim& accepted, IfIndex port)
{
    if (const auto held = bindings_.find(ip); held != bindings_.end()) by_port_[held->second.port].erase(ip);
    const Owner* owner = owner_of(ip);
    bindings_[ip] = {port, accepted.mac, accepted.source, owner ? owner->container_id : std::string()};
    by_port_[port].insert(ip);
    conflicts_.erase({ip, port});
}

void EndpointTable::unbind(const Ip& ip)
{
    const auto held = bindings_.find(ip);
    if (held == bindings_.end()) return;
    const auto port = by_port_.find(held->second.port);
    port->second.erase(ip);
    if (port->second.empty()) by_port_.erase(port);
    bindings_.erase(held);
    forget_conflicts(ip);
}

void EndpointTable::keep_early(const Ip& ip, const Claim& early, IfIndex port)
{
    if (early_.count(port) == 0 && early_.size() >= kMaxEarlyInterfaces) return;
    auto& claims = early_[port];
    if (claims.count(ip) == 0 && claims.size() >= kMaxEarlyPerInterface) return;
    Claim& kept = claims[ip];
    if (!early.mac.is_zero()) kept.mac = early.mac;
    if (kept.source != ClaimSource::route) kept.source = early.source;
}

void EndpointTable::forget_conflicts(const Ip& ip)
{
    const auto first = conflicts_.lower_bound({ip, IfIndex{std::numeric_limits<int>::min()}});
    const auto last = conflicts_.upper_bound({ip, IfIndex{std::numeric_limits<int>::max()}});
    conflicts_.erase(first, last);
}

Endpoints EndpointTable::desired() const
{
    Endpoints endpoints;
    for (const auto& [ip, binding] : bindings_) {
        const PodInterface& interface = interfaces_.at(binding.port);
        if (binding.mac.is_zero() || interface.host_mac.is_zero()) continue;
        endpoints.emplace_hint(endpoints.end(), ip,
                               Endpoint{ip, binding.port, binding.mac, interface.host_mac, interface.shaped});
    }
    return endpoints;
}

std::vector<Conflict> EndpointTable::conflicts() const
{
    std::vector<Conflict> list;
    for (const auto& [key, count] : conflicts_) {
        const auto& [ip, claimant] = key;
        Conflict conflict{ip, {}, claimant, count};
        const Owner* owner = owner_of(ip);
        if (const auto held = bindings_.find(ip); held != bindings_.end()) {
            conflict.owner = held->second.port;
        } else if (owner && !owner->host_interface.empty()) {
            for (const auto& [ifindex, interface] : interfaces_)
                if (interface.name == owner->host_interface) conflict.owner = ifindex;
        }
        list.push_back(conflict);
    }
    return list;
}

} // namespace twill
