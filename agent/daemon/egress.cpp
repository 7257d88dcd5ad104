// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/egress.hpp"

#include <algorithm>
#include <optional>

#include "agent/dataplane/overlay_device.hpp"
#include "agent/nl/route.hpp"

namespace twill {

namespace {

constexpr unsigned kEthernet = 1;    // ARPHRD_ETHER
constexpr unsigned kLoopback = 0x8U; // IFF_LOOPBACK
constexpr std::uint8_t kUniverse = 0;
constexpr auto kLinkLocal6 = [] { return *Cidr::parse("fe80::/10"); };
constexpr auto kGlobal6 = [] { return *Cidr::parse("2000::/3"); };
constexpr auto kUniqueLocal6 = [] { return *Cidr::parse("fc00::/7"); };

Cidr everything(Family family) { return *Cidr::make(*Ip::parse(family == Family::v4 ? "0.0.0.0" : "::"), 0); }

/// Ports of these are no way out of their own: the bridge or bond is. Not so a VRF's interfaces.
bool takes_ports(const nl::Link& master)
{
    return master.kind == "bridge" || master.kind == "bond" || master.kind == "team" || master.kind == "openvswitch";
}

class Finder {
public:
    Finder(const EgressView& view, const EgressScope& scope) : view_(view), scope_(scope) {}

    Egress find()
    {
        Egress egress;
        for (const auto& [ifindex, link] : view_.links) {
            if (scope_.overlay.contains(ifindex)) {
                egress.overlay.emplace(ifindex, interface(ifindex, false));
                continue;
            }
            if (!may_lead_out(link) || !leads_out(ifindex)) continue;
            if (link.type != kEthernet) {
                egress.without_ethernet.push_back(ifindex);
                continue;
            }
            auto& made = egress.interfaces.emplace(ifindex, interface(ifindex, true)).first->second;
            made.is_bridge = link.kind == "bridge";
            made.is_aside = scope_.wires && !scope_.wires->contains(ifindex);
        }
        return egress;
    }

    bool needs_routes() const
    {
        return std::any_of(view_.links.begin(), view_.links.end(), [&](const auto& entry) {
            if (!may_lead_out(entry.second) || scope_.overlay.contains(entry.first)) return false;
            const auto v4 = candidates(Family::v4, entry.first).size();
            return v4 > 1 || candidates(Family::v6, entry.first).size() > 1 || !leads_out(entry.first);
        });
    }

private:
    bool may_lead_out(const nl::Link& link) const
    {
        if ((link.flags & kLoopback) != 0 || scope_.inside.contains(link.index)) return false;
        if (link.alias == kOverlayAlias || link.kind == "dummy" || link.kind == "ifb") return false;
        const auto master = view_.links.find(link.master);
        return master == view_.links.end() || !takes_ports(master->second);
    }

    bool is_of_pods(const Cidr& cidr) const
    {
        const auto& network = scope_.network[cidr.family()];
        return network && network->contains(cidr);
    }

    bool leads_out(IfIndex ifindex) const
    {
        const auto has_address = [&](const nl::Address& address) {
            return address.ifindex == ifindex && is_usable(address) &&
                   !is_of_pods(*Cidr::make(address.ip, host_bits(address.ip)));
        };
        const auto has_route = [&](const nl::Route& route) {
            return route.ifindex == ifindex && route.type == nl::kRouteUnicast && !is_of_pods(route.dst) &&
                   !kLinkLocal6().contains(route.dst);
        };
        return std::any_of(view_.addresses.begin(), view_.addresses.end(), has_address) ||
               std::any_of(view_.routes.begin(), view_.routes.end(), has_route);
    }

    static unsigned host_bits(const Ip& ip) { return ip.is_v4() ? 32 : 128; }

    /// Of those the kernel takes one as a source.
    static bool is_usable(const nl::Address& address)
    {
        return address.scope == kUniverse && !address.is_secondary && !address.is_tentative &&
               !address.ip.is_unspecified() && !(address.ip.family() == Family::v6 && address.is_temporary);
    }

    std::vector<const nl::Address*> candidates(Family family, IfIndex ifindex) const
    {
        std::vector<const nl::Address*> found;
        for (const auto& address : view_.addresses)
            if (address.ifindex == ifindex && address.ip.family() == family && is_usable(address))
                found.push_back(&address);
        // Deprecated ones come last, and of two labels that of the internet (RFC 6724 section 5, rules 3 and 6).
        std::stable_sort(found.begin(), found.end(), [](const auto* a, const auto* b) { return rank(*a) < rank(*b); });
        return found;
    }

    static int rank(const nl::Address& address)
    {
        const bool is_global = address.ip.is_v4() || kGlobal6().contains(address.ip);
        return (address.is_deprecated ? 2 : 0) + (is_global ? 0 : 1);
    }

    /// inet_select_addr() of the kernel: the first one in whose network `to` is, else the first one.
    static Ip select(const std::vector<const nl::Address*>& from, const Ip& to)
    {
        for (const auto* address : from)
            if (Cidr::make(address->ip, address->bits)->contains(to)) return address->ip;
        return from.front()->ip;
    }

    using Choice = std::pair<Cidr, Ip>;

    /// What goes to which destinations, the widest first.
    std::vector<Choice> choices(Family family, IfIndex ifindex, const std::vector<const nl::Address*>& from) const
    {
        std::vector<Choice> all{{everything(family), from.front()->ip}};
        for (const auto& route : view_.routes) {
            if (route.ifindex != ifindex || route.dst.family() != family || route.type != nl::kRouteUnicast ||
                !route.gateway || route.gateway->family() != family || is_of_pods(route.dst))
                continue;
            // By the next hop, and over IPv6 by the destination.
            all.emplace_back(route.dst, select(from, family == Family::v4 ? *route.gateway : route.dst.address()));
        }
        for (const auto* address : from)
            all.emplace_back(*Cidr::make(address->ip, address->bits), select(from, address->ip));
        const auto unique_local = std::find_if(
            from.begin(), from.end(), [](const auto* address) { return kUniqueLocal6().contains(address->ip); });
        if (unique_local != from.end()) all.emplace_back(kUniqueLocal6(), (*unique_local)->ip);
        std::stable_sort(all.begin(), all.end(),
                         [](const auto& a, const auto& b) { return a.first.bits() < b.first.bits(); });
        return all;
    }

    static Ip resolve(const std::vector<Choice>& kept, const Ip& to)
    {
        const auto found =
            std::find_if(kept.rbegin(), kept.rend(), [&](const auto& choice) { return choice.first.contains(to); });
        return found->second;
    }

    void add(Family family, IfIndex ifindex, NatInterface& interface) const
    {
        const auto from = candidates(family, ifindex);
        if (from.empty()) return;
        std::vector<Choice> kept;
        bool has_default = family == Family::v6; // there the destination decides
        for (const auto& choice : choices(family, ifindex, from)) {
            const bool is_whole = choice.first.bits() == 0;
            if (is_whole && !kept.empty()) {
                if (!std::exchange(has_default, true)) kept.front() = choice; // the first default route
                continue;
            }
            if (kept.empty() || resolve(kept, choice.first.address()) != choice.second) kept.push_back(choice);
        }
        interface.address[family] = kept.front().second;
        interface.on_link.insert(interface.on_link.end(), kept.rbegin(), kept.rend() - 1);
    }

    NatInterface interface(IfIndex ifindex, bool may_borrow) const
    {
        NatInterface made;
        for (const auto family : kFamilies) {
            add(family, ifindex, made);
            if (!made.address[family] && may_borrow) made.address[family] = any_address(family);
        }
        std::stable_sort(made.on_link.begin(), made.on_link.end(),
                         [](const auto& a, const auto& b) { return a.first.bits() > b.first.bits(); });
        return made;
    }

    /// An interface without an address uses the first of another one, as with the kernel, but none of the pods'
    /// network.
    std::optional<Ip> any_address(Family family) const
    {
        for (const auto& [ifindex, link] : view_.links) {
            if (scope_.overlay.contains(ifindex)) continue;
            for (const auto* address : candidates(family, ifindex))
                if (!is_of_pods(*Cidr::make(address->ip, host_bits(address->ip)))) return address->ip;
        }
        return std::nullopt;
    }

    const EgressView& view_;
    const EgressScope& scope_;
};

} // namespace

bool needs_routes(const EgressView& view, const EgressScope& scope) { return Finder(view, scope).needs_routes(); }

Egress find_egress(const EgressView& view, const EgressScope& scope) { return Finder(view, scope).find(); }

} // namespace twill
