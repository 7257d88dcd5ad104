// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/store/kube_sieve.hpp"
#include "agent/store/net_conf.hpp"
#include "agent/store/store.hpp"
#include "twill/clock.hpp"
#include "twill/result.hpp"

namespace twill {

/// "flannel.alpha.coreos.com" -> "flannel.alpha.coreos.com/", "my.org/x" -> "my.org/x-". EINVAL where flannel refuses
/// the prefix.
Result<std::string> annotation_prefix(std::string_view text);

/// What twill takes from a Node object.
struct KubeNode {
    std::string name;
    std::string resource_version;
    std::string pod_cidr;                           ///< spec.podCIDR
    std::vector<std::string> pod_cidrs;             ///< spec.podCIDRs
    std::map<std::string, std::string> annotations; ///< those under the prefix, named without it
    bool is_network_announced = false;              ///< the condition that announce_patch() writes is there
    std::string network_since;                      ///< its lastTransitionTime, whatever it says
    std::string trouble;                            ///< what of the spec has another type than Kubernetes gives it
    bool operator==(const KubeNode&) const = default;

    /// An annotation's value, "" when it is not there.
    const std::string& annotation(const std::string& name) const;
};

/// Status of an API call that failed, or of a watch that ended (meta/v1 Status).
struct KubeStatus {
    int code = 0;
    std::string reason;
    std::string message;
};

/// One page of a LIST without its items, or one event of a WATCH.
struct KubeEnvelope {
    std::string type;                 ///< of an event: ADDED, MODIFIED, DELETED, BOOKMARK, ERROR
    std::string resource_version;     ///< of the list
    std::string next_page;            ///< of the list: `continue`, "" on the last page
    std::optional<KubeNode> node;     ///< of an event: the object
    std::optional<KubeStatus> status; ///< of an event of type ERROR
};

/// What of a NodeList, and of watch events, a JsonSieve has to let through. `prefix` as annotation_prefix() gives it.
std::vector<SieveRule> node_list_rules(const std::string& prefix);
std::vector<SieveRule> node_event_rules(const std::string& prefix);
std::vector<SieveRule> node_rules(const std::string& prefix);

/// Reduced or whole texts. EINVAL names member and value. Never throw.
Result<KubeNode> parse_node(std::string_view json, std::string_view prefix);
Result<KubeEnvelope> parse_list_end(std::string_view json);
Result<KubeEnvelope> parse_event(std::string_view json, std::string_view prefix);
/// A body that should hold a Status: what of it is fit for a log line.
KubeStatus parse_status(std::string_view json);
/// The spec.nodeName of a Pod. EINVAL: it has none yet.
Result<std::string> parse_pod_node(std::string_view json);

/// The pod CIDRs of a node in the families that are on. EINVAL: none, more than two, one that is no CIDR.
Result<PerFamily<std::optional<Cidr>>> node_pods(const KubeNode& node, const NetConf& conf);

/// The lease that a node's annotations tell. nullopt: flannel's mark is missing, the node takes no part. EINVAL names
/// annotation and value. A family that the configuration has off is not looked at. A node that has one family of two
/// takes part with it. Never expires.
Result<std::optional<Lease>> node_to_lease(const KubeNode& node, const NetConf& conf);

/// The MAC addresses in a node's annotations, however bad the rest: they are kept for the life of the node.
PerFamily<std::optional<Mac>> node_macs(const KubeNode& node);

/// node-public-ip and node-public-ipv6. EINVAL names annotation and value.
Result<PerFamily<std::optional<Ip>>> node_public_ip(const KubeNode& node);

/// The annotations that flannel would write for `request`, and the marker: named without the prefix. EINVAL names an
/// overwriting annotation that is no address.
Result<std::map<std::string, std::string>> wanted_annotations(const KubeNode& node, const LeaseRequest& request);

/// The strategic merge patch that makes `node` hold `wanted`, as flannel's library writes it; nullopt: it does already.
std::optional<std::string> annotation_patch(const KubeNode& node, const std::map<std::string, std::string>& wanted,
                                            std::string_view prefix);
/// The patch that sets the condition NetworkUnavailable to False, as flannel writes it.
std::string announce_patch(WallTime now);

} // namespace twill
