// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/loop/loop.hpp"
#include "agent/store/allocator.hpp"
#include "agent/store/store.hpp"
#include "twill/clock.hpp"

namespace twill {

/// flannel's flags and environment that concern Kubernetes. Tests shorten the times.
struct KubeOptions {
    std::string api_url;         ///< -kube-api-url
    std::string kubeconfig_file; ///< -kubeconfig-file; both empty: the service account of the pod
    std::string annotation_prefix = "flannel.alpha.coreos.com";                ///< -kube-annotation-prefix
    std::string net_config_path = "/etc/kube-flannel/net-conf.json";           ///< -net-config-path
    bool set_node_network_unavailable = true;                                  ///< -set-node-network-unavailable
    std::string node_name;                                                     ///< NODE_NAME; empty: by the pod
    std::string pod_name;                                                      ///< POD_NAME
    std::string pod_namespace;                                                 ///< POD_NAMESPACE
    std::string service_host;                                                  ///< KUBERNETES_SERVICE_HOST
    std::string service_port;                                                  ///< KUBERNETES_SERVICE_PORT
    std::string account_dir = "/var/run/secrets/kubernetes.io/serviceaccount"; ///< token, ca.crt

    std::vector<std::string_view> twill_keys = {"overlay", "overlayName", "fastPath", "antiSpoof", "feature"};
    unsigned page_size = 500;                            ///< nodes a LIST asks for at once
    std::chrono::milliseconds answer_timeout{15000};     ///< silence that ends a LIST, GET or PATCH
    std::chrono::milliseconds watch_silence{150000};     ///< silence that ends a WATCH: 2.5 bookmarks
    std::chrono::milliseconds refused_backoff_max{1000}; ///< nobody answers
    std::chrono::milliseconds error_backoff_max{1500};   ///< it answers an error: one that starts says 403 for seconds
    std::chrono::milliseconds config_poll{2000};         ///< net-conf.json is read again so often
    RandomSource random;                                 ///< empty: seeded by the machine
};

/// Leases in Kubernetes nodes, as flannel's kube subnet manager keeps them: spec.podCIDRs and flannel's annotations.
///
/// EINVAL names the option: a prefix that flannel refuses, no way to the API server, a kubeconfig that cannot be used,
/// or neither NODE_NAME nor POD_NAME and POD_NAMESPACE. What may heal by itself (no answer, no token yet) is told by
/// on_health() instead.
///
/// Own lease: the node's podCIDRs, which Kubernetes hands out. LeaseRequest::node and `preferred` are not looked at:
/// the node's name comes from the options. publish() writes annotations through PATCH nodes/<name>/status, as flannel
/// does and its RBAC role allows, only what differs. find_own() is an error (retried by the caller) while the node has
/// no podCIDR.
/// Watch: LIST in pages, WATCH with bookmarks; a snapshot after each LIST. Two nodes with one podCIDR: the first by
/// name has it, the others are bad.
Result<std::unique_ptr<Store>> make_kube_store(KubeOptions options, Loop& loop, const Clock& clock);

} // namespace twill
