// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "agent/nl/qdisc.hpp"
#include "agent/nl/types.hpp"
#include "agent/reconcile/endpoint_table.hpp"
#include "twill/ids.hpp"
#include "twill/ip.hpp"

namespace twill {

/// Everything that discovery reads of the kernel, at one moment.
struct KernelView {
    std::vector<nl::Link> links;
    std::vector<nl::Address> addresses;
    std::vector<nl::Route> routes;
    std::vector<nl::Neighbour> neighbours;
    std::vector<nl::FdbEntry> fdb;
    std::vector<nl::QdiscInfo> qdiscs;
};

/// Finds this node's pods among what netlink tells: which interfaces are pods' host sides, and which addresses live
/// behind them. Pods are made by others (flannel's CNI plugin with a bridge, ptp with host routes). Pure; feeds an
/// EndpointTable. Control thread.
class Discovery {
public:
    /// `table` must outlive it.
    explicit Discovery(EndpointTable& table) : table_(table) {}

    /// This node's pod CIDRs, and interfaces that are never pods' (wires, the overlay device).
    void set_scope(const PerFamily<std::optional<Cidr>>& own_pods, std::set<IfIndex> not_pods);

    /// Replaces everything known: at start, and after events were lost.
    void load(KernelView view);

    void on_link(const nl::Link& link, bool gone);
    void on_address(const nl::Address& address, bool gone);
    void on_route(const nl::Route& route, bool gone);
    /// The two that come often say whether they may have changed anything.
    bool on_neighbour(const nl::Neighbour& neighbour, bool gone);
    bool on_fdb(const nl::FdbEntry& entry, bool gone);
    /// All qdiscs as they are now.
    void set_qdiscs(const std::vector<nl::QdiscInfo>& qdiscs);
    /// Draws the conclusions from the events since the last call, once for all of them. Before it, pod_interfaces() and
    /// the table do not know of the last changes.
    void settle();

    /// Host sides of pods: they get tw_from_pod and tw_to_pod.
    const std::map<IfIndex, PodInterface>& pod_interfaces() const { return pods_; }
    const std::map<IfIndex, nl::Link>& links() const { return links_; }
    const std::set<Ip>& local_ips() const { return local_ips_; }

private:
    bool in_own_pods(const Ip& ip) const;
    bool is_pod_bridge(IfIndex ifindex) const;
    /// Recomputes pod interfaces and tells the table what changed.
    void refresh();
    void claim(const nl::Neighbour& neighbour);
    void claim(const nl::Route& route);
    bool is_host_route(const nl::Route& route) const;
    std::map<IfIndex, PodInterface> find_pods() const;
    void update_scope();

    EndpointTable& table_;
    PerFamily<std::optional<Cidr>> own_pods_;
    std::set<IfIndex> not_pods_;
    std::map<IfIndex, nl::Link> links_;
    std::set<std::pair<Ip, IfIndex>> addresses_;
    std::map<std::pair<Ip, IfIndex>, nl::Route> host_routes_;
    std::map<std::pair<Ip, IfIndex>, Mac> neighbours_; ///< usable ones inside the own pods
    std::map<std::pair<IfIndex, Mac>, IfIndex> ports_; ///< bridge and MAC -> port
    std::vector<nl::Route> new_routes_;                ///< not claimed yet
    std::set<IfIndex> shaped_;
    bool is_scope_stale_ = false;
    bool are_pods_stale_ = false;
    std::set<Ip> local_ips_;
    std::map<IfIndex, PodInterface> pods_;
};

} // namespace twill
