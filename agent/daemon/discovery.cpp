// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/discovery.hpp"

#include <algorithm>
#include <utility>

#include "agent/nl/route.hpp"

namespace twill {

namespace {

/// bpf_redirect_peer works into another namespace only, and only over such a pair: anything else (a VM's tap, a veth
/// whose ends are both here) stays with the stack.
bool leads_to_pod(const nl::Link& link)
{
    return (link.kind == "veth" || link.kind == "netkit") && link.lower_netns >= 0;
}

} // namespace

bool Discovery::in_own_pods(const Ip& ip) const
{
    const auto& pods = own_pods_[ip.family()];
    return pods && pods->contains(ip);
}

void Discovery::set_scope(const PerFamily<std::optional<Cidr>>& own_pods, std::set<IfIndex> not_pods)
{
    own_pods_ = own_pods;
    not_pods_ = std::move(not_pods);
    is_scope_stale_ = are_pods_stale_ = true;
    settle();
}

void Discovery::settle()
{
    if (std::exchange(is_scope_stale_, false)) update_scope();
    if (std::exchange(are_pods_stale_, false)) refresh();
    for (const auto& route : std::exchange(new_routes_, {})) claim(route);
}

void Discovery::update_scope()
{
    local_ips_.clear();
    for (const auto& [ip, ifindex] : addresses_) local_ips_.insert(ip);
    table_.set_scope(EndpointScope{own_pods_, local_ips_});
}

void Discovery::load(KernelView view)
{
    links_.clear();
    addresses_.clear();
    host_routes_.clear();
    ports_.clear();
    for (auto& link : view.links) links_.emplace(link.index, std::move(link));
    for (const auto& address : view.addresses) addresses_.emplace(address.ip, address.ifindex);
    for (const auto& entry : view.fdb)
        if (!entry.is_local) ports_.insert_or_assign({entry.bridge, entry.mac}, entry.port);
    set_qdiscs(view.qdiscs);
    for (const auto& route : view.routes)
        if (is_host_route(route)) host_routes_.emplace(std::pair{route.dst.address(), route.ifindex}, route);
    new_routes_.clear();
    for (const auto& [key, route] : host_routes_) new_routes_.push_back(route);
    is_scope_stale_ = are_pods_stale_ = true;
    settle();
    neighbours_.clear();
    for (const auto& neighbour : view.neighbours) on_neighbour(neighbour, false);
}

bool Discovery::is_pod_bridge(IfIndex ifindex) const
{
    const auto link = links_.find(ifindex);
    if (link == links_.end() || link->second.kind != "bridge" || not_pods_.contains(ifindex)) return false;
    return std::any_of(addresses_.begin(), addresses_.end(),
                       [&](const auto& entry) { return entry.second == ifindex && in_own_pods(entry.first); });
}

bool Discovery::is_host_route(const nl::Route& route) const
{
    const unsigned host_bits = route.dst.family() == Family::v4 ? 32 : 128;
    return route.type == nl::kRouteUnicast && route.dst.bits() == host_bits && !route.gateway && route.ifindex &&
           in_own_pods(route.dst.address());
}

std::map<IfIndex, PodInterface> Discovery::find_pods() const
{
    std::map<IfIndex, PodInterface> pods;
    std::map<IfIndex, bool> bridges; // is_pod_bridge() is asked once for each
    const auto add = [&](const nl::Link& link, const Mac& host_mac) {
        pods[link.index] =
            PodInterface{link.index, link.name, host_mac, shaped_.contains(link.index), link.is_bridge_port};
    };
    for (const auto& [ifindex, link] : links_) {
        if (!link.master || !link.is_bridge_port || !leads_to_pod(link) || not_pods_.contains(ifindex)) continue;
        const auto known = bridges.find(link.master);
        const bool is_pods = known != bridges.end() ? known->second : is_pod_bridge(link.master);
        bridges[link.master] = is_pods;
        if (is_pods) add(link, links_.at(link.master).mac);
    }
    for (const auto& [key, route] : host_routes_) {
        const auto link = links_.find(route.ifindex);
        if (link == links_.end() || !leads_to_pod(link->second) || not_pods_.contains(route.ifindex)) continue;
        if (link->second.is_bridge_port) continue;
        add(link->second, link->second.mac);
    }
    return pods;
}

void Discovery::refresh()
{
    auto pods = find_pods();
    for (const auto& [ifindex, pod] : pods_)
        if (!pods.contains(ifindex)) table_.pod_interface_gone(ifindex);
    for (const auto& [ifindex, pod] : pods) {
        const auto known = pods_.find(ifindex);
        if (known == pods_.end() || !(known->second == pod)) table_.pod_interface_up(pod);
    }
    pods_ = std::move(pods);
}

void Discovery::on_link(const nl::Link& link, bool gone)
{
    are_pods_stale_ = true;
    if (gone) {
        // At once: the index may be given to another interface before the next settle().
        if (pods_.erase(link.index) != 0) table_.pod_interface_gone(link.index);
        links_.erase(link.index);
        const auto of_link = [&](const auto& entry) { return entry.first.second == link.index; };
        std::erase_if(host_routes_, of_link);
        std::erase_if(neighbours_, of_link);
        std::erase_if(ports_, [&](const auto& e) { return e.second == link.index || e.first.first == link.index; });
        std::erase_if(addresses_, [&](const auto& entry) { return entry.second == link.index; });
    } else {
        links_.insert_or_assign(link.index, link);
    }
}

void Discovery::on_address(const nl::Address& address, bool gone)
{
    const bool changed = gone ? addresses_.erase({address.ip, address.ifindex}) != 0
                              : addresses_.emplace(address.ip, address.ifindex).second;
    if (!changed) return;
    is_scope_stale_ = true;
    are_pods_stale_ = are_pods_stale_ || in_own_pods(address.ip);
}

void Discovery::on_route(const nl::Route& route, bool gone)
{
    if (!is_host_route(route)) return;
    const std::pair key{route.dst.address(), route.ifindex};
    are_pods_stale_ = true;
    if (gone) {
        host_routes_.erase(key);
    } else {
        host_routes_.insert_or_assign(key, route);
        new_routes_.push_back(route);
    }
}

void Discovery::claim(const nl::Route& route)
{
    if (!pods_.contains(route.ifindex)) return;
    table_.claim(route.dst.address(), Mac{}, route.ifindex, ClaimSource::route);
}

bool Discovery::on_neighbour(const nl::Neighbour& neighbour, bool gone)
{
    // The ageing of an entry ends no endpoint; what is not pods' is of no interest.
    if (!in_own_pods(neighbour.ip) || not_pods_.contains(neighbour.ifindex)) return false;
    const std::pair key{neighbour.ip, neighbour.ifindex};
    if (gone || !neighbour.is_usable()) {
        neighbours_.erase(key);
        return false;
    }
    const auto known = neighbours_.find(key);
    if (known != neighbours_.end() && known->second == neighbour.mac) return false;
    neighbours_.insert_or_assign(key, neighbour.mac);
    claim(neighbour);
    return true;
}

void Discovery::claim(const nl::Neighbour& neighbour)
{
    IfIndex port = neighbour.ifindex;
    if (const auto link = links_.find(port); link != links_.end() && link->second.kind == "bridge") {
        const auto behind = ports_.find({port, neighbour.mac});
        if (behind == ports_.end()) return; // the bridge will tell
        port = behind->second;
    }
    table_.claim(neighbour.ip, neighbour.mac, port, ClaimSource::neighbour);
}

bool Discovery::on_fdb(const nl::FdbEntry& entry, bool gone)
{
    if (entry.is_local) return false;
    const std::pair key{entry.bridge, entry.mac};
    if (gone) {
        ports_.erase(key);
        return false;
    }
    const auto known = ports_.find(key);
    if (known != ports_.end() && known->second == entry.port) return false;
    ports_.insert_or_assign(key, entry.port);
    bool is_claimed = false;
    for (const auto& [where, mac] : neighbours_) {
        if (mac != entry.mac || where.second != entry.bridge) continue;
        table_.claim(where.first, mac, entry.port, ClaimSource::neighbour);
        is_claimed = true;
    }
    return is_claimed;
}

void Discovery::set_qdiscs(const std::vector<nl::QdiscInfo>& qdiscs)
{
    shaped_.clear();
    for (const auto& qdisc : qdiscs)
        if (nl::is_shaped({qdisc}, qdisc.ifindex)) shaped_.insert(qdisc.ifindex);
    are_pods_stale_ = true;
}

} // namespace twill
