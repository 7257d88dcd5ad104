// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "agent/daemon/flannel_rules.hpp"
#include "agent/daemon/forward_table.hpp"
#include "agent/daemon/masq_ports.hpp"
#include "agent/daemon/node.hpp"
#include "agent/nl/addr.hpp"
#include "agent/nl/conntrack.hpp"
#include "agent/nl/route.hpp"
#include "maps/nat_view.hpp"

namespace twill {

namespace {

std::string name_of(const Discovery& discovery, IfIndex ifindex)
{
    const auto link = discovery.links().find(ifindex);
    return link == discovery.links().end() ? std::to_string(ifindex.value) : link->second.name;
}

std::string text(const std::optional<Ip>& ip) { return ip ? ip->to_string() : ""; }

} // namespace

tw_nat_rules Node::nat_rules() const
{
    if (!settings_.ip_masq) return TW_NAT_OFF;
    return conf_->enable_nftables ? TW_NAT_NFT : TW_NAT_IPTABLES;
}

std::string Node::no_masquerade() const
{
    if (!settings_.ip_masq || !conf_ || masquerades()) return "";
    const std::string why = conf_->backend == Backend::alloc ? "backend alloc has no programs"
                            : no_programs_                   ? no_programs_->what
                                                             : "the programs are not up yet";
    return "masquerade: not available" + std::string(is_flannels_ ? " but by rules that flannel left: " : ": ") + why;
}

Status::Masquerade Node::masquerade_status() const
{
    Status::Masquerade status;
    if (!settings_.ip_masq || !conf_) return status;
    status.on = masquerades();
    status.rules = nat_rules_name(static_cast<std::uint8_t>(nat_rules()));
    status.capacity = settings_.nat_max;
    if (status.on)
        for (const auto& [ifindex, out] : egress_.interfaces)
            status.interfaces.push_back(
                {name_of(discovery_, ifindex), ifindex.value, text(out.address.v4), text(out.address.v6)});
    return status;
}

/// Interfaces that lead out, their addresses, ports and exceptions: as they are now.
Result<> Node::refresh_nat()
{
    if (!masquerades()) return Ok{};
    const auto ports = choose_masq_ports(settings_.masq_ports, read_port_sysctls(), conf_->port);
    if (ports.ports.none())
        return Error{EINVAL, "masquerade: no port is left: -masq-ports names none but the VXLAN port"};
    if (ports.is_shared && !is_told_shared_)
        log::warn("net.ipv4.ip_local_port_range leaves no port for masquerade: it shares the host's, see -masq-ports");
    is_told_shared_ = ports.is_shared;
    std::set<Ip> local;
    TWILL_TRY(find_egress_interfaces(local));
    TWILL_TRY(nat_->set_ports(ports.ports));
    TWILL_TRY(nat_->set_except(settings_.non_masquerade));
    auto with_addresses = egress_.interfaces;
    with_addresses.insert(egress_.overlay.begin(), egress_.overlay.end());
    TWILL_TRY(nat_->set_interfaces(with_addresses));
    // As with the kernel, flows of an address that is gone end: also while no agent ran.
    const bool is_one_gone =
        !nat_addresses_ || !std::includes(local.begin(), local.end(), nat_addresses_->begin(), nat_addresses_->end());
    if (is_one_gone) {
        TWILL_TRY_AS(ended, nat_->keep_flows(local));
        if (ended != 0) log::info("masqueraded flows of an address that is gone have ended", {{"flows", ended}});
    }
    nat_addresses_ = std::move(local);
    return Ok{};
}

/// `local`: all addresses of this node.
Result<> Node::find_egress_interfaces(std::set<Ip>& local)
{
    EgressView view{discovery_.links(), {}, {}};
    TWILL_TRY_AS(addresses, nl::addresses(*socket_));
    for (const auto& address : addresses) local.insert(address.ip);
    view.addresses = std::move(addresses);
    EgressScope scope;
    scope.network = conf_->networks();
    for (const auto family : kFamilies)
        if (overlay_[family]) scope.overlay.insert(overlay_[family]);
    for (const auto& [ifindex, pod] : discovery_.pod_interfaces()) scope.inside.insert(ifindex);
    if (ready_) scope.wires = wires_;
    if (needs_routes(view, scope)) {
        for (const auto family : kFamilies) {
            TWILL_TRY_AS(routes, nl::routes(*socket_, family));
            view.routes.insert(view.routes.end(), routes.begin(), routes.end());
        }
    }
    auto found = find_egress(view, scope);
    tell_egress(found);
    egress_ = std::move(found);
    return Ok{};
}

void Node::tell_egress(const Egress& found)
{
    for (const auto& [ifindex, now] : found.interfaces) {
        const auto before = egress_.interfaces.find(ifindex);
        if (before != egress_.interfaces.end() && before->second == now) continue;
        log::info("masquerade: interface leads out", {{"interface", name_of(discovery_, ifindex)},
                                                      {"ipv4", text(now.address.v4)},
                                                      {"ipv6", text(now.address.v6)},
                                                      {"networks", now.on_link.size()}});
        if (now.on_link.size() > TW_NAT_NETS)
            log::warn("masquerade: too many networks on the interface, the widest get its first address",
                      {{"interface", name_of(discovery_, ifindex)}, {"most", TW_NAT_NETS}});
    }
    for (const auto& [ifindex, before] : egress_.interfaces)
        if (!found.interfaces.contains(ifindex))
            log::info("masquerade: interface leads out no more", {{"ifindex", ifindex.value}});
    for (const auto ifindex : found.without_ethernet)
        if (std::ranges::count(egress_.without_ethernet, ifindex) == 0)
            log::warn("masquerade: not by an interface that has no Ethernet header",
                      {{"interface", name_of(discovery_, ifindex)}});
}

void Node::retire_flannel_rules()
{
    if (!masquerades() || !is_swept_) return;
    flannel_rules_.clear();
    for (const auto family : kFamilies)
        if (auto done = retire_flannel_rules(family); !done)
            flannel_rules_.push_back("flannel's " + std::string(to_string(family)) +
                                     " rules stay: " + done.error().what);
}

Result<> Node::retire_flannel_rules(Family family)
{
    TWILL_TRY_AS(rules, FlannelRules::read(family));
    if (rules.is_empty()) return Ok{};
    const std::string first = rules.where().front();
    const auto networks = conf_->networks();
    PerFamily<std::optional<Cidr>> network;
    network[family] = networks[family];
    TWILL_TRY(rules.silence());
    if (!rules.is_backed()) {
        // The last rule that asks conntrack keeps it going, and with it the connections that the kernel translates.
        TWILL_TRY_AS(left, count_masqueraded(network));
        if (left != 0) {
            flannel_rules_.push_back("flannel's rules (" + first + ") stay, without effect, until " +
                                     std::to_string(left) + " connections that they translated have ended");
            return Ok{};
        }
    }
    std::optional<std::string> blocked;
    if (networks[family]) {
        TWILL_TRY_AS(drop, find_forward_drop(family, *networks[family]));
        blocked = std::move(drop);
    }
    TWILL_TRY(rules.remove(blocked ? FlannelRules::Part::masquerade : FlannelRules::Part::all));
    if (!blocked || first.find("FLANNEL-FWD") == std::string::npos)
        log::info("flannel's rules are removed", {{"first", first}});
    return Ok{};
}

void Node::refresh_forward()
{
    if (!is_swept_) return;
    const auto networks = conf_->networks();
    std::vector<std::string> advice;
    bool wants_table = false;
    for (const auto family : kFamilies) {
        if (!networks[family] || !settings_.iptables_forward_rules) continue;
        const auto drop = find_forward_drop(family, *networks[family]);
        if (!drop) return log::debug("netfilter rules cannot be read", {{"error", drop.error().what}});
        if (!*drop) continue;
        wants_table = wants_table || !is_of_iptables(**drop);
        // No table of ours can overrule what another one drops.
        advice.push_back(**drop + ": pods' packets that need the stack are lost; run: " +
                         forward_command(**drop, *networks[family]));
    }
    if (advice != forward_advice_)
        for (const auto& line : advice) log::warn(line);
    forward_advice_ = std::move(advice);
    if (auto done = put_right_forward_table(wants_table); !done) forward_advice_.push_back(done.error().what);
}

Result<> Node::put_right_forward_table(bool wanted)
{
    if (has_forward_table_ == wanted) return Ok{};
    TWILL_TRY(wanted ? put_forward_table(conf_->networks()) : del_forward_table());
    if (wanted) log::info("nftables table inet twill-forward is made", {{"why", forward_advice_.front()}});
    has_forward_table_ = wanted;
    return Ok{};
}

bool Node::refresh_tracking()
{
    if (!settings_.ip_masq || !features_.ct_lookup) return false;
    bool is_tracking = true;
    for (const auto family : kFamilies)
        if (conf_->network[family]) is_tracking = is_tracking && nl::tracks_connections(family);
    if (is_tracking == is_tracking_) return false;
    is_tracking_ = is_tracking;
    return true;
}

} // namespace twill
