// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "agent/daemon/node.hpp"
#include "agent/nl/addr.hpp"
#include "agent/nl/link.hpp"
#include "agent/nl/route.hpp"

namespace twill {

namespace {

constexpr unsigned kEthernet = 1; // ARPHRD_ETHER

} // namespace

/// Chooses the wire again; true when anything of the choice changed.
Result<bool> Node::refresh_wire()
{
    TWILL_TRY_AS(view, read_iface_view(*socket_));
    PerFamily<bool> enabled;
    for (const auto family : kFamilies) enabled[family] = conf_->network[family].has_value();
    TWILL_TRY_AS(choice, choose_wire(settings_.iface, enabled, view));

    PerFamily<std::optional<Ip>> node_ip;
    for (const auto family : kFamilies) {
        // Behind NAT the published address is nobody's here: packets then carry the interface's.
        const auto& published = choice.public_ip[family];
        const bool is_local = published && std::any_of(view.addresses.begin(), view.addresses.end(),
                                                       [&](const auto& address) { return address.ip == *published; });
        node_ip[family] = is_local ? published : choice.address[family];
    }
    const bool same = choice.wire.index == wire_.wire.index && choice.wire.mtu == wire_.wire.mtu &&
                      choice.public_ip == wire_.public_ip && node_ip == node_ip_;
    if (same) return false;
    for (const auto& why : choice.passed_over) log::info("interface passed over", {{"why", why}});
    log::info("wire chosen", {{"interface", choice.wire.name},
                              {"mtu", choice.wire.mtu},
                              {"ipv4", node_ip.v4 ? node_ip.v4->to_string() : ""},
                              {"ipv6", node_ip.v6 ? node_ip.v6->to_string() : ""}});
    wire_ = std::move(choice);
    node_ip_ = node_ip;
    return true;
}

unsigned Node::underlay_mtu() const { return conf_->mtu.value_or(wire_.wire.mtu); }

Result<std::optional<PeerRoute>> Node::route_to(const Ip& node)
{
    TWILL_TRY_AS(found, nl::lookup(*socket_, node));
    if (!found || found->type != nl::kRouteUnicast || is_overlay(found->ifindex)) return std::optional<PeerRoute>{};
    const auto link = discovery_.links().find(found->ifindex);
    if (link == discovery_.links().end()) return std::optional<PeerRoute>{};
    PeerRoute route;
    route.wire = found->ifindex;
    route.gateway = found->gateway;
    route.mtu = found->mtu != 0 ? found->mtu : link->second.mtu;
    route.is_ethernet = link->second.type == kEthernet;
    route.wire_name = link->second.name;
    return std::optional(route);
}

PeerSettings Node::peer_settings() const
{
    PeerSettings settings;
    settings.own_key = own_->key;
    settings.own_pods = own_->pods;
    settings.own_ip = wire_.public_ip;
    settings.backend = conf_->backend;
    settings.direct_routing = conf_->direct_routing;
    settings.mtu = conf_->mtu;
    settings.network = conf_->networks();
    return settings;
}

bool Node::may_refresh_routes()
{
    constexpr std::size_t kFewPeers = 256;
    constexpr std::chrono::milliseconds kPause{1000};
    if (!stale_.routes) return false;
    const auto now = clock_.steady();
    if (underlay_.routes.size() > kFewPeers && now - routes_at_ < kPause) {
        reconcile_timer_.once(kPause, [this] { mark(&Stale::routes); });
        return false;
    }
    routes_at_ = now;
    return true;
}

Result<> Node::refresh_routes(bool all)
{
    if (!reconciler_ && !kernel_reconciler_) return Ok{};
    std::optional<Error> trouble;
    auto before = std::move(underlay_.routes);
    underlay_.routes.clear();
    for (const auto& node : nodes_to_resolve(leases_, peer_settings())) {
        const auto known = before.find(node);
        if (!all && known != before.end()) {
            underlay_.routes.insert(*known);
            continue;
        }
        if (auto route = route_to(node); route) {
            underlay_.routes.emplace(node, *std::move(route));
        } else {
            trouble = route.error();
            // What was known is better than nothing.
            if (known != before.end()) underlay_.routes.insert(*known);
        }
    }
    plan_ = plan_peers(leases_, underlay_, peer_settings());
    std::set<IfIndex> wires{wire_.wire.index};
    for (const auto& [pods, peer] : plan_.peers) wires.insert(peer.wire);
    if (wires != std::exchange(wires_, wires)) mark(&Stale::nat); // what may come in there is another question
    for (auto* one : {kernel_reconciler_.get(), reconciler_.get()})
        if (one != nullptr) one->set_peers(plan_.peers);
    if (trouble) return *trouble;
    return Ok{};
}

} // namespace twill
