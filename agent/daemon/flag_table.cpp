// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "agent/daemon/flags.hpp"

namespace twill {

namespace {

using enum FlagKind;
using enum FlagOwner;

/// Names, defaults and order of flannel's rows are those of flanneld v0.28; the texts are ours.
constexpr std::array kFlags = {
    FlagSpec{"iface", list, flannel, "", "name|address",
             "interface between nodes, by name or by an address of it; repeatable, the first that serves is taken"},
    FlagSpec{"iface-regex", list, flannel, "", "regexp",
             "the same by regular expression, tried on addresses first, then on names; repeatable"},
    FlagSpec{"iface-can-reach", text, flannel, "", "address", "the interface that the route to this address uses"},
    FlagSpec{"public-ip", text, flannel, "", "address",
             "IPv4 address that other nodes send to; without -iface and the like it also chooses the interface"},
    FlagSpec{"public-ipv6", text, flannel, "", "address", "the same for IPv6"},
    FlagSpec{"subnet-file", text, flannel, "/run/flannel/subnet.env", "file",
             "where the node's pod CIDR, MTU and masquerading are written for CNI plugins"},
    FlagSpec{"net-config-path", text, flannel, "/etc/kube-flannel/net-conf.json", "file",
             "network configuration when Kubernetes holds the leases"},
    FlagSpec{"ip-masq", boolean, flannel, "false", "",
             "masquerade traffic that leaves the pod network, without a netfilter rule"},
    FlagSpec{"ip-masq-fully-random-disable", boolean, flannel, "false", "",
             "masquerade keeps a pod's port where it is free, instead of taking a random one"},
    FlagSpec{"subnet-lease-renew-margin", integer, flannel, "60", "minutes",
             "renew the lease this long before it ends, 1 to 1439"},
    FlagSpec{"etcd-endpoints", text, flannel, "http://127.0.0.1:4001,http://127.0.0.1:2379", "urls",
             "etcd servers, comma separated"},
    FlagSpec{"etcd-prefix", text, flannel, "/coreos.com/network", "key", "where the network lives in etcd"},
    FlagSpec{"etcd-keyfile", text, flannel, "", "file", "TLS key for etcd"},
    FlagSpec{"etcd-certfile", text, flannel, "", "file", "TLS certificate for etcd"},
    FlagSpec{"etcd-cafile", text, flannel, "", "file", "certificate authority of etcd"},
    FlagSpec{"etcd-username", text, flannel, "", "name", "user at etcd"},
    FlagSpec{"etcd-password", text, flannel, "", "password",
             "password at etcd; better given by FLANNELD_ETCD_PASSWORD"},
    FlagSpec{"kube-subnet-mgr", boolean, flannel, "false", "", "keep leases in Kubernetes nodes instead of etcd"},
    FlagSpec{"kube-api-url", text, flannel, "", "url", "Kubernetes API server; not needed inside a pod"},
    FlagSpec{"kube-annotation-prefix", text, flannel, "flannel.alpha.coreos.com", "prefix",
             "prefix of the node annotations"},
    FlagSpec{"kubeconfig-file", text, flannel, "", "file", "how to reach Kubernetes from outside a pod"},
    FlagSpec{"set-node-network-unavailable", boolean, flannel, "true", "",
             "clear the node condition NetworkUnavailable once the network works"},
    FlagSpec{"healthz-ip", text, flannel, "0.0.0.0", "address", "where the health server listens"},
    FlagSpec{"healthz-port", integer, flannel, "0", "port", "TCP port of the health server; 0 is off"},
    FlagSpec{"iptables-resync", integer, flannel, "5", "seconds", "accepted for flannel's sake: twill has no rules"},
    FlagSpec{"iptables-forward-rules", boolean, flannel, "true", "",
             "where the host drops forwarded packets of pods: say how to let them pass, with nftables add a table"},
    FlagSpec{"ip-blackhole-route", boolean, flannel, "false", "",
             "accepted for flannel's sake: pod addresses that no pod has are unreachable in any case"},
    FlagSpec{"v", integer, flannel, "0", "level", "log more: 4 and up writes debug lines"},
    FlagSpec{"vmodule", text, flannel, "", "pattern=N,...", "accepted for flannel's sake, without effect"},
    FlagSpec{"log_backtrace_at", text, flannel, "", "file:N", "accepted for flannel's sake, without effect"},
    FlagSpec{"version", boolean, flannel, "false", "", "print the version and exit"},

    FlagSpec{"store", text, twill, "", "url",
             "where leases live: file:///dir; without it in etcd, with -kube-subnet-mgr in Kubernetes"},
    FlagSpec{"node", text, twill, "", "name", "this node's name; default $NODE_NAME, else the host name"},
    FlagSpec{"bpf-root", text, twill, "/sys/fs/bpf/twill", "directory", "where maps and links are pinned, on a bpffs"},
    FlagSpec{"overlay", text, twill, "vxlan", "vxlan|veth", "kind of the overlay device"},
    FlagSpec{"overlay-name", text, twill, "twill0", "name", "name of the overlay device, at most 15 characters"},
    FlagSpec{"fast-path", text, twill, "auto", "auto|on|off|required",
             "forwarding between pods without the kernel's stack; required: stop where it cannot work"},
    FlagSpec{"anti-spoof", text, twill, "loose", "loose|strict|off",
             "how strictly VXLAN from addresses of no known node is refused"},
    FlagSpec{"masq-ports", text, twill, "", "first-last,...",
             "ports for masqueraded flows; default 1024-65535 without net.ipv4.ip_local_port_range, reserved ports and "
             "30000-32767"},
    FlagSpec{"nat-max", integer, twill, "100000", "flows",
             "room for masqueraded flows, 300 bytes of kernel memory each"},
    FlagSpec{"non-masquerade-cidrs", text, twill, "", "network,...", "destinations that are not masqueraded"},
    FlagSpec{"detach-timeout", integer, twill, "300", "seconds",
             "how long twillctl detach leaves masqueraded flows to end; 0: not at all"},
    FlagSpec{"feature", list, twill, "", "name=auto|on|off",
             "override the probe of a kernel feature: tcx, ct_lookup, encap_l2_eth, check_mtu; repeatable"},
    FlagSpec{"socket", text, twill, "/run/twill/twill.sock", "file", "unix socket of the local API"},
    FlagSpec{"cni-state-dir", text, twill, "/var/lib/cni", "directory",
             "where the CNI plugin host-local records which address belongs to which pod"},
    FlagSpec{"log-format", text, twill, "auto", "auto|text|json",
             "form of the log lines; auto is json inside Kubernetes and text elsewhere"},
    FlagSpec{"detach", boolean, twill, "false", "", "take the data plane of a stopped agent away and exit"},
    FlagSpec{"preflight", boolean, twill, "false", "",
             "tell as JSON what of this node would stop twilld from taking it over, change nothing and exit"},
};

} // namespace

std::span<const FlagSpec> flag_table() { return kFlags; }

std::span<const std::string_view> plain_variables()
{
    static constexpr std::array<std::string_view, 6> kVariables = {"POD_NAME",
                                                                   "POD_NAMESPACE",
                                                                   "KUBERNETES_SERVICE_HOST",
                                                                   "KUBERNETES_SERVICE_PORT",
                                                                   "EVENT_QUEUE_DEPTH",
                                                                   "CONT_WHEN_CACHE_NOT_READY"};
    return kVariables;
}

} // namespace twill
